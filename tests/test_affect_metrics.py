"""Metrics of valence and arousal against scikit-learn, SciPy and Lin's formula."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from fer_ray.metrics import affect_metrics

NAMES = ("mse", "rmse", "mae", "pearson", "ccc", "sign_agreement")


def faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    return true, np.tanh(0.6 * true + 0.1 + 0.3 * rng.standard_normal((count, 2))).astype(np.float32)


def golden(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    true, predicted = true.astype(float), predicted.astype(float)
    scale = true.std() / predicted.std()
    shift = (true.mean() - predicted.mean()) / np.sqrt(true.std() * predicted.std())
    pearson = stats.pearsonr(true, predicted).statistic
    return {
        "mse": sklearn_metrics.mean_squared_error(true, predicted),
        "rmse": sklearn_metrics.root_mean_squared_error(true, predicted),
        "mae": sklearn_metrics.mean_absolute_error(true, predicted),
        "pearson": pearson,
        "ccc": pearson * 2 / (scale + 1 / scale + shift**2),  # Lin 1989: precision times accuracy
        "sign_agreement": sklearn_metrics.accuracy_score(np.sign(true), np.sign(predicted)),
    }


def test_every_figure_is_that_of_another_library() -> None:
    true, predicted = faces(200)
    mine = affect_metrics(true, predicted)
    for i, kind in enumerate(("valence", "arousal")):
        for name, value in golden(true[:, i], predicted[:, i]).items():
            assert mine[f"{kind}_{name}"] == pytest.approx(value, rel=1e-9)
    for name in NAMES:
        assert mine[name] == pytest.approx((mine[f"valence_{name}"] + mine[f"arousal_{name}"]) / 2)
    assert mine.keys() == {*NAMES, *(f"{kind}_{name}" for kind in ("valence", "arousal") for name in NAMES)}


def test_concordance_by_hand() -> None:
    # Means 2 and 3, variances 2/3 over n, covariance 2/3: 2 (2/3) / (2/3 + 2/3 + 1) = 4/7.
    true, predicted = np.array([[1.0, 0.0], [2.0, 0.5], [3.0, 1.0]]), np.array([[2.0, 0.0], [3.0, 0.5], [4.0, 1.0]])
    mine = affect_metrics(true, predicted)
    assert mine["valence_ccc"] == pytest.approx(4 / 7)
    assert mine["valence_pearson"] == pytest.approx(1)
    assert mine["arousal_ccc"] == pytest.approx(1)


def test_unknown_labels_are_left_out_each_on_its_own() -> None:
    true, predicted = faces(60)
    true[:20, 0], true[50:, 1] = np.nan, np.nan
    mine = affect_metrics(true, predicted)
    for name, value in golden(true[20:, 0], predicted[20:, 0]).items():
        assert mine[f"valence_{name}"] == pytest.approx(value, rel=1e-9)
    for name, value in golden(true[:50, 1], predicted[:50, 1]).items():
        assert mine[f"arousal_{name}"] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("true", [np.empty((0, 2)), np.full((3, 2), np.nan)])
def test_nothing_known_is_none_throughout(true: np.ndarray) -> None:
    assert set(affect_metrics(true, np.zeros((len(true), 2))).values()) == {None}


def test_the_mean_is_over_what_is_defined() -> None:
    true, predicted = faces(30)
    true[:, 1] = np.nan
    mine = affect_metrics(true, predicted)
    assert mine["arousal_ccc"] is None
    assert mine["ccc"] == mine["valence_ccc"]


@pytest.mark.parametrize("constant", [0.1, 1 / 3, -0.7])
def test_constants_have_no_correlation_and_no_concordance(constant: float) -> None:
    true, predicted = faces(31)
    predicted[:, 0], true[:, 1], predicted[:, 1] = constant, constant, constant
    mine = affect_metrics(true, predicted)
    assert mine["valence_pearson"] is None
    assert mine["valence_ccc"] == pytest.approx(0, abs=1e-12)
    assert mine["arousal_pearson"] is None
    assert mine["arousal_ccc"] is None
    assert mine["arousal_mae"] == 0


def test_a_single_face_has_errors_but_no_correlation() -> None:
    mine = affect_metrics([[0.5, -0.5]], [[0.25, 0.5]])
    assert (mine["valence_mae"], mine["valence_rmse"], mine["valence_sign_agreement"]) == (0.25, 0.25, 1)
    assert (mine["arousal_mse"], mine["arousal_sign_agreement"], mine["arousal_pearson"]) == (1, 0, None)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.zeros((3, 3)), np.zeros((3, 2)), r"true must have shape \[n, 2\], got \[3, 3\]"),
        (np.zeros((3, 2)), np.zeros(3), r"predicted must have shape"),
        (np.zeros((3, 2)), np.zeros((4, 2)), "equally long, got 3 and 4"),
        (np.zeros((1, 2)), np.array([[0, np.nan]]), "predicted must be finite"),
    ],
)
def test_bad_input_is_refused(true: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        affect_metrics(true, predicted)
