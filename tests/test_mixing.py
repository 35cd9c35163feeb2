from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_ray.data.mixing import class_counts, draw, max_train_images
from fer_ray.data.readers import SPLITS
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError

SHARES = (0.0, 0.1, 0.3, 0.5, 1.0)


def dataset(counts, domain="r", split="train"):
    names = tuple(f"class{i}" for i in range(len(counts)))
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int16)
    rng = np.random.default_rng(len(domain) + sum(counts))
    labels = rng.permutation(labels)
    ids = np.array([f"{domain}{i:015x}-{split}-{names[label]}-0" for i, label in enumerate(labels)], "S")
    splits = np.full(len(labels), SPLITS.index(split), np.int8)
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return Dataset(f"faces {domain}", images, ids, labels, splits, names, None, None, "0")


def mix(real, synthetic, num, share, mixing="replace", seed=0):
    train = real.in_split("train")
    pool = np.zeros(0, np.int64) if synthetic is None else synthetic.in_split("train")
    return draw(real, train, synthetic, pool, num_train_images=num, real_fraction=share, mixing=mixing, seed=seed)


def webster(counts, seats):
    """Apportionment by Webster's method as textbooks state it: each seat to the largest counts / (2 seats + 1)."""
    given_seats = [0] * len(counts)
    for _ in range(seats):
        quotients = [Fraction(int(count), 2 * taken + 1) for count, taken in zip(counts, given_seats, strict=True)]
        given_seats[quotients.index(max(quotients))] += 1
    return given_seats


REAL = dataset((400, 40, 900, 160))
SYNTHETIC = dataset((300, 300, 300, 300), "s")
counts_of = st.lists(st.integers(1, 40), min_size=2, max_size=7)
two_counts = st.integers(2, 7).flatmap(
    lambda num: st.tuples(*[st.lists(st.integers(1, 40), min_size=num, max_size=num)] * 2)
)
"""Of as many classes."""
seeds = st.integers(0, 2**32 - 1)
share_of = st.integers(0, 20).map(lambda twentieths: twentieths / 20)


@settings(max_examples=60, deadline=None)
@given(two_counts, share_of, seeds)
def test_totals_are_exact_and_nothing_is_drawn_twice(counts, share, seed):
    real_counts, synthetic_counts = counts
    real, synthetic = dataset(real_counts), dataset(synthetic_counts, "s")
    try:
        num = max_train_images(np.array(real_counts), np.array(synthetic_counts), [share], "replace")
    except UserError:
        assume(False)
    mixture = mix(real, synthetic, num, share, seed=seed)
    assert len(mixture.real) == int(np.floor(share * num + 0.5))
    assert len(mixture.real) + len(mixture.synthetic) == num
    for part in (mixture.real, mixture.synthetic):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@settings(max_examples=60, deadline=None)
@given(counts_of, st.data(), seeds)
def test_classes_have_the_shares_of_the_real_split_whatever_the_mixture(real_counts, data, seed):
    real, synthetic = dataset(real_counts), dataset([sum(real_counts)] * len(real_counts), "s")
    num = data.draw(st.integers(1, sum(real_counts)))
    share = data.draw(share_of)
    mixture = mix(real, synthetic, num, share, seed=seed)
    per_class = class_counts(real, mixture.real) + class_counts(synthetic, mixture.synthetic)
    assert per_class.tolist() == webster(real_counts, num)
    assert class_counts(real, mixture.real).tolist() == webster(real_counts, len(mixture.real))


@settings(max_examples=30, deadline=None)
@given(counts_of, st.data(), seeds)
def test_shares_are_nested(real_counts, data, seed):
    real, synthetic = dataset(real_counts), dataset([sum(real_counts)] * len(real_counts), "s")
    num = data.draw(st.integers(1, sum(real_counts)))
    draws = [mix(real, synthetic, num, share, seed=seed) for share in SHARES]
    for smaller, larger in pairwise(draws):
        assert set(smaller.real) <= set(larger.real)
        assert set(smaller.synthetic) >= set(larger.synthetic)


def test_curves_share_their_real_faces():
    """At one real count, `replace`, `add` and `real_only` train on the same real faces."""
    replaced = mix(REAL, SYNTHETIC, 200, 0.5)
    assert np.array_equal(replaced.real, mix(REAL, SYNTHETIC, 200, 0.5, "real_only").real)
    assert np.array_equal(replaced.real, mix(REAL, SYNTHETIC, 100, 0.5, "add").real)


def test_add_keeps_all_real_faces_and_reaches_the_share():
    mixture = mix(REAL, SYNTHETIC, 100, 0.25, "add")
    assert (len(mixture.real), len(mixture.synthetic)) == (100, 300)
    assert class_counts(SYNTHETIC, mixture.synthetic).tolist() == webster((400, 40, 900, 160), 300)


def test_real_only_takes_no_synthetic_face():
    mixture = mix(REAL, None, 1000, 0.3, "real_only")
    assert (len(mixture.real), len(mixture.synthetic)) == (300, 0)


def test_all_real_faces_are_used_at_share_one():
    mixture = mix(REAL, None, 1500, 1.0)
    assert np.array_equal(mixture.real, np.arange(1500))


def test_seed_decides_and_repeats_the_draw():
    first, again, other = (mix(REAL, SYNTHETIC, 200, 0.5, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.real, again.real)
    assert np.array_equal(first.synthetic, again.synthetic)
    assert not np.array_equal(first.real, other.real)
    assert not np.array_equal(first.synthetic, other.synthetic)


def test_draw_depends_on_ids_and_not_on_positions():
    backwards = Dataset(
        REAL.name,
        REAL.images,
        REAL.ids[::-1],
        REAL.labels[::-1],
        REAL.splits,
        REAL.classes,
        None,
        None,
        "0",
    )
    first, second = mix(REAL, None, 200, 1.0), mix(backwards, None, 200, 1.0)
    assert set(REAL.ids[first.real]) == set(backwards.ids[second.real])


def test_ignored_classes_are_not_drawn():
    chosen = ("class0", "class2")
    real, synthetic = REAL.select_classes(chosen), SYNTHETIC.select_classes(chosen)
    mixture = mix(real, synthetic, 200, 0.5)
    assert set(real.labels[mixture.real]) == set(synthetic.labels[mixture.synthetic]) == {0, 1}


def test_only_the_training_split_of_synthetic_data_is_drawn():
    held_out = dataset((300, 300, 300, 300), "s", split="test")
    with pytest.raises(UserError, match="but there are 0"):
        mix(REAL, held_out, 100, 0.5)


@settings(max_examples=40, deadline=None)
@given(two_counts, st.sampled_from(["replace", "add", "real_only"]))
def test_largest_number_fills_every_cell_and_one_more_does_not(counts, mixing):
    real_counts, synthetic_counts = counts
    real, synthetic = dataset(real_counts), dataset(synthetic_counts, "s")
    shares = [share for share in SHARES if share > 0 or mixing == "replace"]
    try:
        num = max_train_images(np.array(real_counts), np.array(synthetic_counts), shares, mixing)
    except UserError:
        assume(False)
    for share in shares:
        if round(share * num) or mixing != "real_only":
            mix(real, synthetic, num, share, mixing)
    with pytest.raises(UserError, match="lower num_train_images"):
        _ = [mix(real, synthetic, num + 1, share, mixing) for share in shares]


def test_largest_number_is_bound_by_the_rarest_faces():
    assert max_train_images(np.array([300, 300]), np.array([300, 300]), SHARES, "replace") == 600
    assert max_train_images(np.array([300, 300]), np.array([90, 300]), SHARES, "replace") == 180
    # At 362, half is 91 + 90 real faces, which leaves 90 + 91 of the 181 + 181 to the synthetic ones.
    assert max_train_images(np.array([300, 300]), np.array([90, 300]), [0.5, 1], "replace") == 362
    assert max_train_images(np.array([300, 300]), None, [1.0], "replace") == 600


def test_asking_for_too_many_names_class_and_numbers():
    with pytest.raises(UserError, match=r"need 600 synthetic faces of 'class2', but there are 300"):
        mix(REAL, SYNTHETIC, 1000, 0.0)
    with pytest.raises(UserError, match=r"need 401 real faces of 'class0', but there are 400"):
        mix(REAL, None, 1502, 1.0)


@pytest.mark.parametrize("mixing", ["add", "real_only"])
def test_empty_cell_is_refused(mixing):
    with pytest.raises(UserError, match="empty cell"):
        mix(REAL, SYNTHETIC, 100, 0.0, mixing)
    with pytest.raises(UserError, match="empty cell"):
        max_train_images(np.array([5, 5]), np.array([5, 5]), SHARES, mixing)


def test_shares_below_one_without_synthetic_faces_are_refused():
    with pytest.raises(UserError, match="needs synthetic faces"):
        max_train_images(np.array([5, 5]), None, [0.5, 1.0], "replace")
