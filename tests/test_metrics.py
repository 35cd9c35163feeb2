"""Metrics against scikit-learn, called with the labels and zero_division that the definitions of the module imply."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from fer_ray import metrics
from fer_ray.labels import FER2013

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TOLERANCE = 1e-6
Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def random_split(n: int, num_classes: int, seed: int = 0, levels: int | None = None) -> Split:
    """Labels and softmax-like probabilities; with few `levels`, many of them tie."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, n)
    if levels is None:
        scores = generator.dirichlet(np.full(num_classes, 0.7), n)
    else:
        scores = generator.integers(1, levels + 1, (n, num_classes)).astype(float)
        scores /= scores.sum(axis=1, keepdims=True)
    return labels, scores.astype(np.float32)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Small splits in which classes are often absent, never predicted or alone, and probabilities often tie."""
    num_classes = draw(st.integers(2, 8))
    seed = draw(st.integers(0, 2**32 - 1))
    labels, scores = random_split(draw(st.integers(1, 40)), num_classes, seed, draw(st.sampled_from([None, 1, 2, 4])))
    present = draw(st.lists(st.integers(0, num_classes - 1), min_size=1, unique=True))
    return np.resize(present, len(labels))[labels.argsort(kind="stable")], scores


def one_hot(predicted: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[np.asarray(predicted)]


def sklearn_aurocs(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> list[float | None]:
    return [
        float(sklearn_metrics.roc_auc_score(labels == c, column)) if 0 < (labels == c).sum() < len(labels) else None
        for c, column in enumerate(scores.T)
    ]


def paper_calibration_error(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], bins: int) -> float:
    """Equation 3 of Guo et al. 2017, written as it stands there: sum over bins of |B|/n |acc(B) - conf(B)|."""
    confidence, right = scores.max(axis=1).astype(float), scores.argmax(axis=1) == labels
    error = 0.0
    for edge in range(1, bins + 1):
        inside = (confidence > (edge - 1) / bins) & (confidence <= edge / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def assert_equals_sklearn(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> None:
    num_classes = scores.shape[1]
    names = [f"c{c}" for c in range(num_classes)]
    predicted = scores.argmax(axis=1)
    present = np.unique(labels).tolist()
    with warnings.catch_warnings():
        # scikit-learn warns where one class only is left; the numbers asked of it are defined all the same.
        warnings.simplefilter("ignore")
        macro = sklearn_metrics.precision_recall_fscore_support(
            labels, predicted, labels=present, average="macro", zero_division=0
        )
        per_class = sklearn_metrics.precision_recall_fscore_support(
            labels, predicted, labels=range(num_classes), zero_division=np.nan
        )
        areas = sklearn_aurocs(labels, scores)
        defined = [area for area in areas if area is not None]
        expected: dict[str, float | None] = {
            "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
            "macro_precision": macro[0],
            "macro_recall": macro[1],
            "macro_f1": macro[2],
            "auroc": float(np.mean(defined)) if defined else None,
            "expected_calibration_error": paper_calibration_error(labels, scores, 15),
            "log_loss": sklearn_metrics.log_loss(labels, scores, labels=range(num_classes)),
        }
    for c, name in enumerate(names):
        for values, metric in zip(per_class, ("precision", "recall", "f1", "support"), strict=True):
            expected[f"{metric}_{name}"] = None if np.isnan(values[c]) else values[c]
        expected[f"auroc_{name}"] = areas[c]
    ours = metrics.classification_metrics(labels, scores, names)
    top = {key for key in ours if key.startswith("top")}
    assert ours.keys() - top == expected.keys()
    for key, value in expected.items():
        assert (ours[key] is None) == (value is None), key
        assert value is None or ours[key] == pytest.approx(value, abs=TOLERANCE), key
    np.testing.assert_array_equal(
        metrics.confusion_matrix(labels, predicted, num_classes),
        sklearn_metrics.confusion_matrix(labels, predicted, labels=range(num_classes)),
    )


@settings(max_examples=150, deadline=None)
@given(splits())
def test_every_metric_equals_scikit_learn_on_any_split(split: Split) -> None:
    assert_equals_sklearn(*split)


def test_every_metric_equals_scikit_learn_on_a_split_of_the_size_of_private_test() -> None:
    assert_equals_sklearn(*random_split(3589, 7))
    assert_equals_sklearn(*random_split(3589, 7, levels=5))


def test_top_k_equals_scikit_learn_where_nothing_ties() -> None:
    labels, scores = random_split(500, 7)
    for k in (2, 3):
        expected = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        assert metrics.classification_metrics(labels, scores, FER2013)[f"top{k}_accuracy"] == pytest.approx(expected)


def test_ties_go_to_the_lower_index_in_top_k_and_argmax_alike() -> None:
    uniform = np.full((4, 4), 0.25)
    values = metrics.classification_metrics([0, 1, 2, 3], uniform, "abcd")
    assert values["accuracy"] == 0.25
    assert values["top2_accuracy"] == 0.5
    assert values["top3_accuracy"] == 0.75


def test_top_k_is_left_out_where_every_answer_would_be_right() -> None:
    assert not {"top2_accuracy", "top3_accuracy"} & metrics.classification_metrics(*random_split(9, 2), "ab").keys()
    assert "top3_accuracy" not in metrics.classification_metrics(*random_split(9, 3), "abc")


def test_a_class_without_support_does_not_lower_macro_f1() -> None:
    # Seven names, six with support, always answering one of them: the mean over all names would be a seventh lower.
    labels, predicted = np.repeat(np.arange(6), 10), np.zeros(60, int)
    ours = metrics.macro_f1(metrics.confusion_matrix(labels, predicted, 7))
    over_all = sklearn_metrics.f1_score(labels, predicted, labels=range(7), average="macro", zero_division=0)
    assert ours == pytest.approx(2 / 7 / 6)
    assert ours == pytest.approx(over_all * 7 / 6)


def test_a_class_that_is_never_predicted_has_no_precision_but_lowers_the_macro_one() -> None:
    values = metrics.classification_metrics([0, 0, 1, 1], one_hot([0, 0, 0, 0], 2), ["happy", "sad"])
    assert values["precision_sad"] is None
    assert values["recall_sad"] == 0
    assert values["f1_sad"] == 0
    assert values["macro_precision"] == 0.25


def test_what_is_undefined_is_none() -> None:
    values = metrics.classification_metrics([1, 1], one_hot([1, 0], 3), ["fear", "happy", "sad"])
    undefined = {key for key, value in values.items() if value is None}
    assert undefined == {
        "auroc",
        "auroc_fear",
        "auroc_happy",
        "auroc_sad",
        "recall_fear",
        "recall_sad",
        "precision_sad",
        "f1_sad",
    }
    assert values["support_sad"] == 0


def test_no_images_give_none_and_zero_support() -> None:
    values = metrics.classification_metrics([], np.zeros((0, 7)), FER2013)
    assert {values.pop(f"support_{name}") for name in FER2013} == {0}
    assert set(values.values()) == {None}
    assert set(metrics.chance_levels([], 7).values()) == {None}


def test_auroc_counts_ties_as_half() -> None:
    # Positives .5 and .8 against negatives .5 and .2: three wins and one tie of four pairs.
    scores = np.array([0.5, 0.8, 0.5, 0.2])
    assert metrics.auroc([1, 1, 0, 0], np.stack([1 - scores, scores], axis=1)) == 3.5 / 4


def test_calibration_error_bins_are_closed_on_the_right() -> None:
    # Confidences .75 and .76 fall into (.5, .75] and (.75, 1]: |1 - .75| / 2 + |0 - .76| / 2.
    scores = [[0.75, 0.25], [0.76, 0.24]]
    assert metrics.expected_calibration_error([0, 1], scores, bins=4) == pytest.approx((0.25 + 0.76) / 2)


def test_a_confident_wrong_answer_has_a_finite_log_loss() -> None:
    assert metrics.log_loss([0], [[0.0, 1.0]]) == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_metrics_are_plain_python_numbers() -> None:
    values = metrics.classification_metrics(*random_split(50, 7), FER2013)
    assert {type(value) for value in values.values()} == {float, int}


def test_reordering_images_changes_no_metric() -> None:
    labels, scores = random_split(300, 7, levels=4)
    order = np.random.default_rng(1).permutation(300)
    shuffled = metrics.classification_metrics(labels[order], scores[order], FER2013)
    assert shuffled == pytest.approx(metrics.classification_metrics(labels, scores, FER2013), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(splits())
def test_chance_is_the_best_of_all_constant_predictions(split: Split) -> None:
    labels, scores = split
    num_classes = scores.shape[1]
    constants = [metrics.confusion_matrix(labels, np.full_like(labels, c), num_classes) for c in range(num_classes)]
    chance = metrics.chance_levels(labels, num_classes)
    for name, metric in (("accuracy", metrics.accuracy), ("macro_f1", metrics.macro_f1)):
        assert chance[name] == pytest.approx(max(metric(matrix) or 0 for matrix in constants))
    assert chance["balanced_accuracy"] == pytest.approx(1 / len(np.unique(labels)))
    assert chance["auroc"] == 0.5


@pytest.mark.skipif(not (DATA / "fer2013.parquet").exists(), reason="needs ../shared/data/fer2013.parquet")
def test_always_answering_happy_scores_a_quarter_of_private_test() -> None:
    table = pq.read_table(DATA / "fer2013.parquet", columns=["usage", "label"]).to_pandas()
    labels = table.loc[table["usage"].astype(str) == "PrivateTest", "label"].to_numpy().astype(int)
    chance = metrics.chance_levels(labels, 7)
    assert chance["accuracy"] == 879 / 3589
    assert chance["macro_f1"] == pytest.approx(2 * 879 / (3589 + 879) / 7)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 7], np.full((2, 7), 1 / 7), r"labels must be in 0\.\.6, got 7"),
        ([-1], np.full((1, 2), 0.5), r"labels must be in 0\.\.1, got -1"),
        ([0.5], np.full((1, 2), 0.5), "labels must be integers, got float64"),
        ([[0]], np.full((1, 2), 0.5), r"labels must have shape \[n\], got \[1, 1\]"),
        ([0], np.full((2, 2), 0.5), "equally long, got 1 and 2"),
        ([0, 1], np.full(2, 0.5), r"probabilities must have shape \[n, C\], got \[2\]"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1.0]], "finite.* in row 1"),
        ([0], [[np.inf, 0.0]], "finite.* in row 0"),
        ([0], [[3.2, -2.2]], "at least 0.* in row 0"),
        ([0], [[0.9, 0.9]], "sum to 1.* in row 0"),
    ],
)
def test_bad_input_is_refused_by_name(labels: list, probabilities: npt.ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.classification_metrics(labels, probabilities, "abcdefg"[: np.shape(probabilities)[-1]])


def test_class_names_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="class_names has 7 names, probabilities 4 columns"):
        metrics.classification_metrics(*random_split(5, 4), FER2013)
