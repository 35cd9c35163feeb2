"""The race over seeds, on numbers computed by hand and by SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from fer_ray.tuning import race
from fer_ray.tuning.race import judge, pooled_deviation

SEEDS = (0, 1, 2, 3, 4)


def scores(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_the_pooled_deviation_is_the_one_of_the_textbook() -> None:
    # Sums of squares about each mean: .0002, .0002 + 0, 0; degrees of freedom 1 + 2 + 0.
    spread, freedom = pooled_deviation([scores(0.50, 0.52), scores(0.40, 0.41, 0.42), scores(0.9)])
    assert freedom == 3
    assert spread == pytest.approx(math.sqrt((0.0002 + 0.0002) / 3))
    assert pooled_deviation([scores(0.5), scores(0.6)]) == (0.0, 0)


def test_the_margin_is_the_one_sided_interval_of_student() -> None:
    """SciPy's two-sample t with the pooled variance of two proposals is the golden side."""
    leader, proposal = np.array([0.60, 0.62, 0.64]), np.array([0.58, 0.59, 0.63])
    statistic = stats.ttest_ind(leader, proposal)
    p = statistic.pvalue / 2
    for shift in (0.0, 0.01, 0.02, 0.03, 0.05):
        p = stats.ttest_ind(leader + shift, proposal, alternative="greater").pvalue
        verdict = judge(scores(*proposal), [scores(*(leader + shift))], SEEDS, is_higher_better=True)
        assert verdict.goes_on == (p > 1 - race.LEVEL), shift


def test_one_that_is_clearly_worse_is_out_after_two_seeds_and_says_by_how_much() -> None:
    leader, others = scores(0.60, 0.61, 0.60, 0.61, 0.60), [scores(0.5, 0.51), scores(0.55)]
    verdict = judge(scores(0.40, 0.41), [leader, *others], SEEDS, is_higher_better=True)
    assert not verdict.goes_on
    assert verdict.reason is not None
    assert verdict.reason.startswith("out of the race after 2 of 5 seeds: 0.2000 behind the leader, more than 0.0")
    assert "90%" in verdict.reason
    assert "6 degrees of freedom" in verdict.reason


def test_one_that_is_close_stays_until_its_seeds_are_used_up() -> None:
    leader = scores(0.60, 0.64, 0.58, 0.62, 0.61)
    assert judge(scores(0.59, 0.63), [leader], SEEDS, is_higher_better=True).goes_on
    last = judge(scores(0.59, 0.63, 0.58, 0.61, 0.60), [leader], SEEDS, is_higher_better=True)
    assert (last.goes_on, last.reason) == (False, "scored over all 5 seeds")


def test_the_best_itself_stays() -> None:
    assert judge(scores(0.9, 0.91), [scores(0.5, 0.51), scores(0.4)], SEEDS, is_higher_better=True).goes_on


def test_lower_is_better_where_that_is_so() -> None:
    leader = scores(1.0, 1.01, 1.0)
    assert not judge(scores(2.0, 2.01), [leader], SEEDS, is_higher_better=False).goes_on
    assert judge(scores(2.0, 2.01), [leader], SEEDS, is_higher_better=True).goes_on


def test_the_leader_must_have_as_many_seeds() -> None:
    """A single lucky seed puts nobody out of the race."""
    lucky = scores(0.9)
    assert judge(scores(0.50, 0.51), [lucky], SEEDS, is_higher_better=True).goes_on
    assert not judge(scores(0.50, 0.51), [scores(0.9, 0.9)], SEEDS, is_higher_better=True).goes_on


def test_without_any_spread_to_go_by_it_goes_on() -> None:
    assert judge(scores(0.1), [scores(0.9)], SEEDS, is_higher_better=True).goes_on


def test_one_seed_is_no_race() -> None:
    verdict = judge(scores(0.1), [scores(0.9)], (0,), is_higher_better=True)
    assert (verdict.goes_on, verdict.reason) == (False, None)
