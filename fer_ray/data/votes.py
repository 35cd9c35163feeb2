"""FER+: from the votes of ten annotators to training targets (Barsoum et al. 2016, arXiv:1608.01041).

The paper leaves open how ties, unknown faces and rows with too few votes are treated. Here they are treated as in the
authors' code, microsoft/FERPlus, `src/ferplus.py`, of which the tests hold outputs.
"""

from typing import Literal

import numpy as np

VoteMode = Literal["majority", "probability", "multi_target"]

NUM_OTHERS = 2
"""The last columns of votes: unknown, and no face."""

MAJORITY = 0.5
PROBABILITY_MASS, PROBABILITY_CLASSES = 0.75, 3
MULTI_TARGET_SHARE = 0.3


def targets(votes: np.ndarray, mode: VoteMode) -> np.ndarray:
    """Training targets of a vote mode.

    A class with a single vote counts as one with none. Of the votes that are left,

    - majority: the class with more than half of them;
    - probability: the classes with most of them, those of equal votes together, until they hold 75 %; at most three;
    - multi_target: each class with 30 % of them or more.

    A row is dropped if its classes do not hold more than half of the votes, or if unknown or no face has most of them.

    Args:
        votes: uint8 [n, C + 2], annotators for each class, for unknown and for no face.
        mode: as above. The authors draw a class per epoch from the distribution in "probability" and train on the
            distribution itself in "crossentropy"; both have the same expected gradient, and the same targets here.

    Returns:
        float32 [n, C]: rows sum to 1, shares of votes; all 0 where the row is dropped.
    """
    counts = np.where(votes > 1, votes, 0).astype(np.int64)
    total = counts.sum(axis=1)
    chosen = {"majority": _majority, "probability": _probability, "multi_target": _multi_target}[mode](counts, total)
    classes = chosen[:, :-NUM_OTHERS]
    is_kept = (chosen.sum(axis=1) > MAJORITY * total) & (chosen.argmax(axis=1) < classes.shape[1])
    sums = np.where(is_kept, classes.sum(axis=1), 1)[:, None]
    return np.where(is_kept[:, None], classes / sums, 0).astype(np.float32)


def top(votes: np.ndarray) -> np.ndarray:
    """int64 [n], the column of `votes` with most annotators, single ones aside; the first one on a tie."""
    return np.where(votes > 1, votes, 0).argmax(axis=1)


def _majority(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.where(counts > MAJORITY * total[:, None], counts, 0)


def _multi_target(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.where(counts >= MULTI_TARGET_SHARE * total[:, None], counts, 0)


def _probability(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    left, chosen = counts.copy(), np.zeros_like(counts)
    num_classes = counts.shape[1] - NUM_OTHERS
    is_open = np.ones(len(counts), bool)
    for _ in range(PROBABILITY_CLASSES):
        is_open &= (chosen.sum(axis=1) < PROBABILITY_MASS * total) & ((chosen > 0).sum(axis=1) < PROBABILITY_CLASSES)
        level = (left == left.max(axis=1, keepdims=True)) & is_open[:, None]
        # Unknown and no face end the row; they are chosen only where nothing comes before them, which drops it.
        is_last = level[:, num_classes:].any(axis=1)
        level[:, num_classes:] &= ~(chosen.any(axis=1) | level[:, :num_classes].any(axis=1))[:, None]
        chosen += np.where(level, left, 0)
        left[level] = 0
        is_open &= ~is_last
    # More than three where the last ones have equal votes.
    chosen[(chosen > 0).sum(axis=1) > PROBABILITY_CLASSES] = 0
    return chosen
