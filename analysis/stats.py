"""Means, confidence intervals and paired differences of cells, by one bootstrap that all of them share.

Every resample draws test images with replacement (Efron 1979), the same ones for all trials of a test set, so that a
difference of two cells is paired. From three seeds on it draws seeds too, and from three models on the mean over
models draws models: of n, n - 1 are drawn, which makes the bootstrap's variance of their mean unbiased (Rao and Wu
1988); drawing n would understate it by (n - 1) / n, a third at three seeds.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from fer_ray import metrics, results
from fer_ray.analysis.load import REPLICATE, Cell, Predictions, Study

METRICS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_recall": "Macro recall",
    "auroc": "AUROC",
    "valence_ccc": "Valence CCC",
    "arousal_ccc": "Arousal CCC",
}
"""Those of valence and arousal where all trials of a study learned them."""
CHANCE_KEYS = {"macro_recall": "balanced_accuracy"}
RESAMPLES = 1000
AUROC_RESAMPLES = 300
"""Fewer, because each sorts by score; enough for the 2.5 % and 97.5 % points of an interval."""
LEVEL = 0.95
MIN_RESAMPLED = 3
"""Fewer seeds or models than this are averaged as they are: two values say too little of their spread."""
RANDOM_SEED = 20130613
NO_SPREAD = 1e-9
"""Of values in [-1, 1]; below it a variance is what rounding left."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Replicates:
    """Each metric of each finished trial, on the test split and on its resamples.

    Attributes:
        values: metric -> float64[num_trials, 1 + resamples]; column 0 is the test split as it is, undefined is NaN.
        chance: metric -> float64[num_trials], what knowing only the class frequencies scores.
    """

    values: dict[str, Floats]
    chance: dict[str, Floats]


@dataclass(frozen=True)
class Effect:
    """Mean difference of a metric between two values of an axis, over the cells of all other axes.

    Attributes:
        mean, low, high: the difference and its 95 % interval.
        p_value: two-sided, from the bootstrap's standard error and the normal distribution.
        num_pairs: how many pairs of cells it averages.
    """

    mean: float
    low: float
    high: float
    p_value: float
    num_pairs: int


def bootstrap(study: Study) -> Replicates:
    """Scores every finished trial on its test split and on resamples of it."""
    weights: dict[int, Floats] = {}
    chance: dict[int, dict[str, float | None]] = {}
    scores = []
    for answer in study.predictions:
        if answer.test_set not in weights:
            weights[answer.test_set] = image_weights(len(answer.labels), answer.test_set)
            chance[answer.test_set] = metrics.chance_levels(answer.labels, len(answer.classes))
        scores.append(_score(answer, weights[answer.test_set]))
    known = [metric for metric in METRICS if all(metric in score for score in scores)]
    return Replicates(
        {metric: np.stack([score[metric] for score in scores]) for metric in known},
        {
            # Knowing no face, one answers the same to all, whose concordance is 0.
            metric: np.array([chance[a.test_set].get(CHANCE_KEYS.get(metric, metric), 0) for a in study.predictions])
            for metric in known
        },
    )


def image_weights(num_images: int, test_set: int) -> Floats:
    """float32[num_images, 1 + RESAMPLES]: how often each image is drawn; column 0 is all ones."""
    rng = np.random.default_rng([RANDOM_SEED, test_set])
    drawn = rng.integers(num_images, size=(RESAMPLES, num_images)) + np.arange(RESAMPLES)[:, None] * num_images
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * num_images).reshape(RESAMPLES, num_images)
    return np.concatenate([np.ones((num_images, 1)), counts.T], axis=1).astype(np.float32)


def summarize(study: Study, replicates: Replicates, metric: str) -> pd.DataFrame:
    """A row per cell of the axes, in their order.

    Columns: the axes, `mean`, `low`, `high` (95 % interval), `chance`, `reaches_chance` (the interval's lower end is
    not above chance), `num_seeds`, `num_failed`, `num_stopped`. A cell without a finished trial has NaN and
    num_seeds 0.
    """
    members, failed, stopped = study.members(), *map(study.members_with, (results.FAILED, results.STOPPED))
    records = []
    for cell in study.all_cells():
        trials = members.get(cell, [])
        record = {"mean": np.nan, "low": np.nan, "high": np.nan, "chance": np.nan, "reaches_chance": False}
        if trials:
            mean, low, high = _interval(_mean(replicates.values[metric][trials], "seeds"))
            chance = replicates.chance[metric][trials].mean()
            record = {"mean": mean, "low": low, "high": high, "chance": chance, "reaches_chance": bool(low <= chance)}
        counts = {"num_failed": len(failed.get(cell, [])), "num_stopped": len(stopped.get(cell, []))}
        records.append({**dict(zip(study.axes, cell, strict=True)), **record, "num_seeds": len(trials), **counts})
    return pd.DataFrame(records)


def effect(study: Study, replicates: Replicates, metric: str, axis: str, high: Any, low: Any) -> Effect | None:
    """Mean over the cells of all other axes of the metric at `axis` = `high` less that at `low`.

    Cells are paired by seed and by test image; from three pairs on the pairs are resampled too. None without a pair.
    """
    paired = _paired(study, replicates, metric, axis, high, low)
    if not paired:
        return None
    difference = _mean(np.stack(list(paired.values())), "cells")
    return Effect(*_interval(difference), _p_value(difference), len(paired))


def differences(study: Study, replicates: Replicates, metric: str, axis: str, baseline: Any) -> pd.DataFrame:
    """Every other value of `axis` against `baseline`, for each cell of the other axes, paired.

    Columns: the other axes, `axis` (the value compared), `difference`, `low`, `high` (95 % interval), `p`
    (two-sided, from the bootstrap's standard error and the normal distribution) and `p_holm`, corrected over all
    rows of the table (Holm 1979). Pairs without a common seed are left out.
    """
    others = [key for key in study.axes if key != axis]
    records: list[dict[str, Any]] = []
    for value in study.axes[axis]:
        if value == baseline:
            continue
        for cell, paired in _paired(study, replicates, metric, axis, value, baseline).items():
            mean, low, high = _interval(paired)
            record = {"difference": mean, "low": low, "high": high, "p": _p_value(paired)}
            records.append({**dict(zip(others, cell, strict=True)), axis: value, **record})
    columns = [*others, axis, "difference", "low", "high", "p"]
    frame = pd.DataFrame(records, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's step-down correction (1979) of p-values float[m], in the same order, at most 1."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def _score(answer: Predictions, weights: Floats) -> dict[str, Floats]:
    num_classes = len(answer.classes)
    true = np.eye(num_classes, dtype=np.float32)[answer.labels]
    guess = np.eye(num_classes, dtype=np.float32)[answer.probabilities.argmax(axis=1)]
    # Counts stay below 2**24, so float32 holds them exactly, and BLAS is quick.
    counts = weights.T @ np.concatenate([true * guess, true, guess], axis=1)
    hits, support, predicted = np.split(counts.astype(float), 3, axis=1)
    seen = support > 0
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=seen)
    f1 = np.divide(2 * hits, support + predicted, out=np.zeros_like(hits), where=seen)
    num_seen = seen.sum(axis=1)
    return {
        "accuracy": hits.sum(axis=1) / len(answer.labels),
        "macro_f1": f1.sum(axis=1) / num_seen,
        "macro_recall": recall.sum(axis=1) / num_seen,
        "auroc": weighted_auroc(answer.labels, answer.probabilities, weights[:, : 1 + AUROC_RESAMPLES]),
        **{f"{name}_ccc": weighted_ccc(values[0], values[1], weights) for name, values in answer.affect.items()},
    }


def weighted_auroc(labels: npt.NDArray[np.int64], probabilities: Floats, weights: Floats) -> Floats:
    """One-vs-rest AUROC for each column of image weights, float64[R], macro over the classes where it is defined.

    The Mann-Whitney statistic with image i counted weights[i] times: for each positive, the weight of the negatives
    below it plus half that of the ties. labels int64[n], probabilities [n, C], weights float32[n, R].
    """
    areas = np.full((probabilities.shape[1], weights.shape[1]), np.nan)
    for c, score in enumerate(probabilities.T):
        positive = np.flatnonzero(labels == c)
        negative = np.flatnonzero(labels != c)
        negative = negative[np.argsort(score[negative], kind="stable")]
        if not len(positive) or not len(negative):
            continue
        below = np.zeros((len(negative) + 1, weights.shape[1]), np.float32)
        np.cumsum(weights[negative], axis=0, out=below[1:])
        first, last = (np.searchsorted(score[negative], score[positive], side) for side in ("left", "right"))
        won = np.einsum("ir,ir->r", weights[positive], below[first] + below[last], dtype=np.float64) / 2
        pairs = weights[positive].sum(axis=0, dtype=float) * below[-1]
        np.divide(won, pairs, out=areas[c], where=pairs > 0)
    defined = ~np.isnan(areas)
    count = defined.sum(axis=0)
    return np.divide(np.nansum(areas, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


def weighted_ccc(true: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Concordance correlation (Lin 1989) for each column of image weights, float64[R]; images of unknown `true` (NaN)
    do not count, and without a spread in either it is NaN. true, predicted float64[n], weights float32[n, R].
    """
    is_known = np.isfinite(true)
    true, predicted, weights = true[is_known], predicted[is_known], weights[is_known].astype(float)
    total = weights.sum(axis=0)
    means = np.stack([true, predicted]) @ weights / total
    squares = np.stack([true**2, predicted**2, true * predicted]) @ weights / total
    covariance = squares[2] - means[0] * means[1]
    spread = squares[0] + squares[1] - 2 * means[0] * means[1]
    return np.divide(2 * covariance, spread, out=np.full(len(spread), np.nan), where=spread > NO_SPREAD)


def _mean(values: Floats, level: str) -> Floats:
    """Mean over the first axis of [n, 1 + resamples]; from MIN_RESAMPLED on, each resample draws n - 1 of the n."""
    num, width = values.shape
    if num < MIN_RESAMPLED:
        return values.mean(axis=0)
    # Seeds are drawn alike for every cell with as many of them, which keeps cells paired; models are drawn apart.
    rng = np.random.default_rng([RANDOM_SEED, {"seeds": 1, "cells": 2}[level], num])
    drawn = rng.multinomial(num - 1, np.full(num, 1 / num), size=RESAMPLES)[: width - 1].T / (num - 1)
    return (values * np.concatenate([np.full((num, 1), 1 / num), drawn], axis=1)).sum(axis=0)


def _paired(study: Study, replicates: Replicates, metric: str, axis: str, high: Any, low: Any) -> dict[Cell, Floats]:
    """Cell of the other axes -> differences float64[1 + resamples], over the seeds that both sides have."""
    values, members, place = replicates.values[metric], study.members(), list(study.axes).index(axis)
    pairs = {}
    for cell in product(*(levels for key, levels in study.axes.items() if key != axis)):
        first, second = (
            {
                study.trials.at[number, REPLICATE]: number
                for number in members.get((*cell[:place], level, *cell[place:]), [])
            }
            for level in (high, low)
        )
        shared = [seed for seed in first if seed in second]
        if shared:
            less = values[[first[seed] for seed in shared]] - values[[second[seed] for seed in shared]]
            pairs[cell] = _mean(less, "seeds")
    return pairs


def _interval(values: Floats) -> tuple[float, float, float]:
    low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values[0]), float(low), float(high)


def _p_value(values: Floats) -> float:
    spread = float(np.nanstd(values[1:], ddof=1))
    if spread == 0:
        return 1.0 if values[0] == 0 else 0.0
    return float(2 * ndtr(-abs(values[0]) / spread))
