"""Every metric, in numpy, from labels and probabilities: one definition for training, evaluation and analysis.

Rules that hold throughout: the predicted class is the most probable one and ties go to the lower index; macro means
run over the classes with support (at least one label); what is undefined is None, never 0 or NaN.

Labels are int[n] in 0..C-1, probabilities float[n, C] with rows that sum to 1; valence and arousal are float[n, 2],
NaN where a label is unknown. Anything else raises ValueError, which names what is wrong. Empty input (n = 0) is valid
and gives None.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

ECE_BINS = 15
"""Bins of the expected calibration error in Guo et al. 2017."""


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> Counts:
    """Counts, int64[C, C]: rows are true classes, columns predicted ones. Both inputs are int[n] in 0..C-1."""
    true = _checked_classes("labels", labels, num_classes)
    guess = _checked_classes("predicted", predicted, num_classes)
    if len(true) != len(guess):
        raise ValueError(f"labels and predicted must be equally long, got {len(true)} and {len(guess)}")
    return np.bincount(true * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(matrix: Counts) -> float | None:
    """Share of right predictions, 0 to 1, from a confusion matrix."""
    return _ratio(np.trace(matrix), matrix.sum())


def balanced_accuracy(matrix: Counts) -> float | None:
    """Mean recall over the classes with support, 0 to 1, from a confusion matrix."""
    recall, _, support = _recall_precision_support(matrix)
    return _mean(recall[support > 0])


def macro_precision(matrix: Counts) -> float | None:
    """Mean precision over the classes with support, 0 to 1, from a confusion matrix.

    A class with support that is never predicted counts as 0 here (scikit-learn's `zero_division=0`), because leaving
    it out would reward a model for giving up on a class. Its own precision is undefined.
    """
    _, precision, support = _recall_precision_support(matrix)
    return _mean(np.nan_to_num(precision[support > 0]))


def macro_f1(matrix: Counts) -> float | None:
    """Mean F1 = 2TP / (2TP + FP + FN) over the classes with support, 0 to 1, from a confusion matrix."""
    return _mean(_f1(matrix)[matrix.sum(axis=1) > 0])


def auroc_per_class(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> list[float | None]:
    """Area under the ROC curve of each class against the rest, 0 to 1; None without positives or without negatives.

    It is the Mann-Whitney statistic: the share of pairs of a positive and a negative in which the positive is the
    more probable one, ties counting half (Hanley and McNeil 1982).
    """
    true, scores = _checked(labels, probabilities)
    return [_auroc(column[true == c], column[true != c]) for c, column in enumerate(scores.T)]


def auroc(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Mean of the one-vs-rest areas over the classes where they are defined, 0 to 1."""
    return _mean([area for area in auroc_per_class(labels, probabilities) if area is not None])


def top_k_accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike, k: int) -> float | None:
    """Share of images whose true class is among the k most probable ones, 0 to 1; ties go to the lower index."""
    true, scores = _checked(labels, probabilities)
    own = np.take_along_axis(scores, true[:, None], axis=1)
    before = np.arange(scores.shape[1]) < true[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return _mean(rank < k)


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = ECE_BINS
) -> float | None:
    """Gap between confidence (largest probability) and accuracy, 0 to 1, averaged over equally wide bins (lo, hi].

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3: bins weigh by their number of images.
    """
    true, scores = _checked(labels, probabilities)
    confidence = scores.max(axis=1).astype(np.float64)
    gap = (scores.argmax(axis=1) == true) - confidence
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    return _ratio(np.abs(np.bincount(index, weights=gap, minlength=bins)).sum(), len(true))


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Mean negative log likelihood of the true class, in nats.

    Probabilities are floored at the epsilon of float32, in which predictions are stored, so that it stays finite.
    """
    true, scores = _checked(labels, probabilities)
    own = np.take_along_axis(scores, true[:, None], axis=1).astype(np.float64)
    return _mean(-np.log(np.clip(own, np.finfo(np.float32).eps, 1)))


def classification_metrics(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str]
) -> dict[str, float | int | None]:
    """Every metric of one split by name; `class_names` are the C names in the order of the columns.

    Keys: accuracy, balanced_accuracy, macro_precision, macro_recall (equal to balanced_accuracy by definition),
    macro_f1, auroc, top2_accuracy and top3_accuracy (where C is larger than k), expected_calibration_error, log_loss;
    per class precision_<name>, recall_<name>, f1_<name>, auroc_<name> and support_<name> (a count).

    A class's precision is None if it is never predicted, its recall if it has no support, its F1 if neither.
    """
    true, scores = _checked(labels, probabilities)
    num_classes = scores.shape[1]
    if len(class_names) != num_classes:
        raise ValueError(f"class_names has {len(class_names)} names, probabilities {num_classes} columns")
    matrix = confusion_matrix(true, scores.argmax(axis=1), num_classes)
    areas = auroc_per_class(true, scores)
    metrics: dict[str, float | int | None] = {
        "accuracy": accuracy(matrix),
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_precision": macro_precision(matrix),
        "macro_recall": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "auroc": _mean([area for area in areas if area is not None]),
        **{f"top{k}_accuracy": top_k_accuracy(true, scores, k) for k in (2, 3) if num_classes > k},
        "expected_calibration_error": expected_calibration_error(true, scores),
        "log_loss": log_loss(true, scores),
    }
    recall, precision, support = _recall_precision_support(matrix)
    for c, (name, f1) in enumerate(zip(class_names, _f1(matrix), strict=True)):
        metrics[f"precision_{name}"] = _defined(precision[c])
        metrics[f"recall_{name}"] = _defined(recall[c])
        metrics[f"f1_{name}"] = _defined(f1)
        metrics[f"auroc_{name}"] = areas[c]
        metrics[f"support_{name}"] = int(support[c])
    return metrics


def chance_levels(labels: npt.ArrayLike, num_classes: int) -> dict[str, float | None]:
    """What knowing nothing but the labels' frequencies scores: accuracy, balanced_accuracy, macro_f1, auroc.

    The best constant prediction for accuracy and macro F1, 1/C over the classes with support for balanced accuracy,
    .5 for AUROC. All None without labels.
    """
    true = _checked_classes("labels", labels, num_classes)
    if not len(true):
        return dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "auroc"))
    counts = np.bincount(true)
    # The most frequent class is the best constant for both: its F1, 2n/(N + n), grows with its count n.
    constant = confusion_matrix(true, np.full_like(true, counts.argmax()), num_classes)
    return {
        "accuracy": accuracy(constant),
        "balanced_accuracy": balanced_accuracy(constant),
        "macro_f1": macro_f1(constant),
        "auroc": 0.5,
    }


def affect_metrics(true: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float | None]:
    """Agreement of predicted valence and arousal with the true ones, over the images whose label is known.

    Args:
        true: float[n, 2], valence and arousal; NaN where unknown, each on its own.
        predicted: float[n, 2], finite.

    Keys: valence_<name> and arousal_<name>, and <name> alone for the mean of the two (of the one that is defined), with

    - mse, rmse, mae: mean squared error, its root, mean absolute error;
    - pearson: the correlation, -1 to 1; None where either side is constant;
    - ccc: concordance, 2 cov / (var + var + (mean - mean)^2) with variances over n, -1 to 1 (Lin 1989); 0 where one
      side is constant, None where both are the same constant;
    - sign_agreement: share of images with sign(true) = sign(predicted), where 0 has a sign of its own (SAGR, Nicolaou
      et al. 2011; Mollahosseini et al. 2017, arXiv:1708.03985).
    """
    labels, guesses = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    for what, values in (("true", labels), ("predicted", guesses)):
        if values.ndim != 2 or values.shape[1] != 2:
            raise ValueError(f"{what} must have shape [n, 2], got {list(values.shape)}")
    if len(labels) != len(guesses):
        raise ValueError(f"true and predicted must be equally long, got {len(labels)} and {len(guesses)}")
    if not np.isfinite(guesses).all():
        raise ValueError("predicted must be finite")
    known = ~np.isnan(labels)
    valence, arousal = (_agreement(labels[known[:, i], i], guesses[known[:, i], i]) for i in range(2))
    both = {name: [v for v in (value, arousal[name]) if v is not None] for name, value in valence.items()}
    return {
        **{f"valence_{name}": value for name, value in valence.items()},
        **{f"arousal_{name}": value for name, value in arousal.items()},
        **{name: _mean(values) for name, values in both.items()},
    }


def _agreement(true: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> dict[str, float | None]:
    mse = _mean((predicted - true) ** 2)
    # Distances from the first value, so that a constant has a variance of exactly 0.
    x, y = (values - values[:1] for values in (true, predicted))
    moments = np.cov(x, y, ddof=0) if len(true) else np.zeros((2, 2))
    offset = float(true.mean() - predicted.mean()) if len(true) else 0.0
    return {
        "mse": mse,
        "rmse": None if mse is None else mse**0.5,
        "mae": _mean(np.abs(predicted - true)),
        "pearson": _ratio(moments[0, 1], np.sqrt(moments[0, 0] * moments[1, 1])),
        "ccc": _ratio(2 * moments[0, 1], moments[0, 0] + moments[1, 1] + offset**2),
        "sign_agreement": _mean(np.sign(true) == np.sign(predicted)),
    }


def _checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray]:
    scores = np.asarray(probabilities)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise ValueError(f"probabilities must have shape [n, C], got {list(scores.shape)}")
    true = _checked_classes("labels", labels, scores.shape[1])
    if len(true) != len(scores):
        raise ValueError(f"labels and probabilities must be equally long, got {len(true)} and {len(scores)}")
    # A value that is not finite makes its row's sum not finite, so this finds it as well.
    valid = (np.abs(scores.sum(axis=1) - 1) < 1e-3) & (scores >= 0).all(axis=1)
    if not valid.all():
        row = int(valid.argmin())
        raise ValueError(f"probabilities must be finite, at least 0 and sum to 1, got {scores[row]} in row {row}")
    return true, scores


def _checked_classes(what: str, values: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    classes = np.asarray(values)
    if classes.ndim != 1:
        raise ValueError(f"{what} must have shape [n], got {list(classes.shape)}")
    if len(classes) and not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {classes.dtype}")
    outside = (classes < 0) | (classes >= num_classes)
    if outside.any():
        raise ValueError(f"{what} must be in 0..{num_classes - 1}, got {classes[outside][0]}")
    return classes.astype(np.int64)


def _recall_precision_support(matrix: Counts) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    hits, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return _divide(hits, support), _divide(hits, predicted), support


def _f1(matrix: Counts) -> npt.NDArray[np.float64]:
    return _divide(2 * np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def _divide(numerator: Counts, denominator: Counts) -> npt.NDArray[np.float64]:
    """Quotients, NaN where the denominator is 0; NaN stays inside this module."""
    undefined = np.full(len(denominator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _auroc(positives: npt.NDArray, negatives: npt.NDArray) -> float | None:
    ordered = np.sort(negatives)
    # Negatives strictly below a positive, plus those below or equal: twice its wins, with ties as half wins.
    below = np.searchsorted(ordered, positives, side="left").sum()
    up_to = np.searchsorted(ordered, positives, side="right").sum()
    return _ratio(below + up_to, 2 * len(positives) * len(negatives))


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def _mean(values: npt.ArrayLike) -> float | None:
    array = np.asarray(values)
    return float(array.mean()) if array.size else None


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
