"""Over how many seeds a proposal is scored: a race, in which it stays as long as it may be the best.

After each seed the proposal is compared with the leader, the proposal with the best mean among those with at least as
many seeds. It is out when the upper end of the one-sided 90 % interval of its mean difference, over the seeds that both
have, is below zero. The interval is Student's, with the variance within proposals pooled over all of them, since two or
three seeds of one say too little: a t-race in the sense of Maron and Moore (1994) and Birattari et al. (2002). The
pooling assumes that seeds scatter alike everywhere, and that two proposals scatter independently, which is on the safe
side where equal seeds move them together. It is a race to spend trials well, no test: the interval of the winner over
fresh seeds is what to report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.9

Scores = Mapping[int, float]
"""Seed -> the objective of a finished run."""


@dataclass(frozen=True)
class Verdict:
    """Whether a proposal stays in the race, and a sentence that says why not."""

    goes_on: bool
    reason: str | None = None


def judge(scores: Scores, others: Sequence[Scores], seeds: Sequence[int], *, is_higher_better: bool) -> Verdict:
    """Decides whether a proposal with these scores gets another of `seeds`.

    Args:
        scores: of the proposal, at least one.
        others: of all other proposals that have any.
    """
    if len(scores) >= len(seeds):
        return Verdict(False, f"scored over all {len(seeds)} seeds" if len(seeds) > 1 else None)
    sign = 1 if is_higher_better else -1
    rivals = [other for other in others if len(other) >= len(scores) and scores.keys() & other.keys()]
    spread, freedom = pooled_deviation([scores, *others])
    if not rivals or not freedom:
        return Verdict(True)
    leader = max(rivals, key=lambda other: sign * float(np.mean(list(other.values()))))
    common = sorted(scores.keys() & leader.keys())
    lead = sign * float(np.mean([leader[seed] - scores[seed] for seed in common]))
    margin = float(stdtrit(freedom, LEVEL)) * spread * math.sqrt(2 / len(common))
    if lead <= margin:
        return Verdict(True)
    return Verdict(
        False,
        f"out of the race after {len(scores)} of {len(seeds)} seeds: {lead:.4f} behind the leader, more than "
        f"{margin:.4f} (one-sided {LEVEL:.0%}, {freedom} degrees of freedom)",
    )


def pooled_deviation(all_scores: Sequence[Scores]) -> tuple[float, int]:
    """Standard deviation over seeds within proposals, and its degrees of freedom; 0 of both where none has two."""
    squares, freedom = 0.0, 0
    for scores in all_scores:
        values = np.array(list(scores.values()), float)
        if len(values) > 1:
            squares += float(((values - values.mean()) ** 2).sum())
            freedom += len(values) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)
