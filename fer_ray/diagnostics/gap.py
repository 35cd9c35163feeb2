"""How far two sets of faces are apart in the features of a network, in numbers that the literature uses.

All functions take features as float [n, d] and [m, d] and work in float64. Scales of Frechet and kernel distances are
those of the features: they compare sets in one network, never across networks. Which of the two sets comes first
matters for precision, recall, density and coverage alone: the first is the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 5
FOLDS = 5
SUBSETS = 100
HISTOGRAM_BINS = 10

MIN_FACES = 25
"""Sets with fewer faces are not measured: five folds of them would test on less than five."""


@dataclass(frozen=True)
class Gap:
    """What `measure` finds between a set of real faces and another set, `num_faces` of each.

    Attributes:
        frechet: Frechet distance, 0 and above, biased upwards by few faces; see `frechet_distance`.
        kid, kid_low, kid_high: kernel distance and its 95 % interval, about 0 for equal distributions; see
            `kernel_distance`.
        jensen_shannon: distance in [0, 1], 0 for equal distributions; see `jensen_shannon_distance`.
        precision, recall: shares in [0, 1] of the other set that look real, of the real set that the other reaches.
        density, coverage: the same with less weight on outliers; density may exceed 1, coverage is in [0, 1].
        accuracy, accuracy_std: of a real-or-other classifier on faces it did not learn from; .5 is chance.
    """

    num_faces: int
    frechet: float
    kid: float
    kid_low: float
    kid_high: float
    jensen_shannon: float
    precision: float
    recall: float
    density: float
    coverage: float
    accuracy: float
    accuracy_std: float


def measure(real: np.ndarray, other: np.ndarray, seed: int) -> Gap:
    """All measures between real and other features, float [n, d] each; `seed` draws subsets and folds."""
    assert len(real) == len(other) >= MIN_FACES
    kid, kid_low, kid_high = kernel_distance(real, other, seed)
    neighbours = neighbourhood_scores(real, other)
    scores_real, scores_other, accuracies = held_out_scores(real, other, seed)
    return Gap(
        num_faces=len(real),
        frechet=frechet_distance(real, other),
        kid=kid,
        kid_low=kid_low,
        kid_high=kid_high,
        jensen_shannon=jensen_shannon_distance(scores_real, scores_other),
        **neighbours,
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies, ddof=1)),
    )


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), between the Gaussians of both sets; FID (Heusel et al. 2017).

    With C = R^T R, tr (C1 C2)^(1/2) is the sum of singular values of R1 R2^T. No root of a product that is singular
    for fewer faces than features is taken, and nothing becomes complex. The estimate is biased upwards by about 1/n
    (Binkowski et al. 2018, section 4), so only figures of equal n compare.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    roots = [
        np.linalg.qr(features - features.mean(0), mode="r") / np.sqrt(len(features) - 1) for features in (first, second)
    ]
    between_means = np.square(first.mean(0) - second.mean(0)).sum()
    variances = sum(np.square(root).sum() for root in roots)
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(0.0, float(between_means + variances - 2 * shared))


def kernel_distance(first: np.ndarray, second: np.ndarray, seed: int) -> tuple[float, float, float]:
    """KID (Binkowski et al. 2018): unbiased MMD^2 with the kernel (x.y / d + 1)^3. Mean, and its 95 % interval.

    The mean is over SUBSETS random halves of both sets; the interval is their percentiles 2.5 and 97.5. Halves drawn
    without replacement spread as a mean over the whole set does (McCarthy 1969), and wider where the sets are equal.
    Unlike the Frechet distance it has no bias, and may be below 0.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    kernels = [polynomial_kernel(a, b, degree=3) for a, b in ((first, first), (second, second), (first, second))]
    rng = np.random.default_rng(seed)
    estimates = squared_mmd(kernels, [_halves(len(features), rng) for features in (first, second)])
    low, high = np.percentile(estimates, [2.5, 97.5])
    return float(estimates.mean()), float(low), float(high)


def _halves(count: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [SUBSETS, count]: 1 where a member is in the random half."""
    ranks = rng.permuted(np.tile(np.arange(count), (SUBSETS, 1)), axis=1)
    return (ranks < (count + 1) // 2).astype(np.float64)


def squared_mmd(kernels: Sequence[np.ndarray], members: Sequence[np.ndarray]) -> np.ndarray:
    """Unbiased squared MMD (Gretton et al. 2012, equation 3) of many subsets at once, from the kernels of all rows.

    Args:
        kernels: float64 [n, n] and [m, m] within the sets, [n, m] across them.
        members: float64 [s, n] and [s, m], 1 where a row belongs to subset s, else 0.

    Returns:
        float64 [s].
    """
    *within, across = kernels
    sizes = [chosen.sum(1) for chosen in members]
    estimates = -2 * ((members[0] @ across) * members[1]).sum(1) / (sizes[0] * sizes[1])
    for kernel, chosen, size in zip(within, members, sizes, strict=True):
        # A row is no pair with itself.
        pairs = ((chosen @ kernel) * chosen).sum(1) - chosen @ kernel.diagonal()
        estimates += pairs / (size * (size - 1))
    return estimates


def neighbourhood_scores(real: np.ndarray, other: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by k nearest ones.

    A face's ball reaches to its k-th nearest neighbour in its own set, edge included.

        precision: share of other faces in the ball of any real one
        recall:    share of real faces in the ball of any other one
        density:   real balls around an other face, on average, over k
        coverage:  share of real faces with any other face in their ball
    """
    real, other = np.asarray(real, np.float64), np.asarray(other, np.float64)
    between = euclidean_distances(real, other)
    in_real_ball = between <= radii(real, k)[:, None]
    in_other_ball = between <= radii(other, k)[None, :]
    return {
        "precision": float(in_real_ball.any(0).mean()),
        "recall": float(in_other_ball.any(1).mean()),
        "density": float(in_real_ball.sum(0).mean() / k),
        "coverage": float(in_real_ball.any(1).mean()),
    }


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """float64 [n]: distance from each row to the k-th nearest other row."""
    # A row is its own nearest, at place 0.
    return np.partition(euclidean_distances(features), k, axis=1)[:, k]


def held_out_scores(real: np.ndarray, other: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A real-or-other classifier, judged on faces it did not learn from (a classifier two-sample test).

    Logistic regression on standardised features, stratified FOLDS-fold cross-validation (Lopez-Paz and Oquab 2017,
    arXiv:1610.06545).

    Returns:
        The probability of "other" for each real and for each other face, float64 [n] and [m], and the balanced
        accuracy of each fold, float64 [FOLDS]; .5 is chance.
    """
    features = np.concatenate([real, other]).astype(np.float64)
    is_other = np.repeat([0, 1], [len(real), len(other)])
    scores, accuracies = np.empty(len(features)), np.empty(FOLDS)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (train, test) in enumerate(folds.split(features, is_other)):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        classifier.fit(features[train], is_other[train])
        scores[test] = classifier.predict_proba(features[test])[:, 1]
        accuracies[fold] = balanced_accuracy_score(is_other[test], scores[test] > 0.5)
    return scores[: len(real)], scores[len(real) :], accuracies


def jensen_shannon_distance(scores_real: np.ndarray, scores_other: np.ndarray) -> float:
    """Root of the Jensen-Shannon divergence, base 2, of two histograms of scores in [0, 1]; itself in [0, 1].

    HISTOGRAM_BINS bins of equal width (Endres and Schindelin 2003 for the distance). On the scores of
    `held_out_scores`, one number per face, it is at most the distance of the features themselves (data processing
    inequality). Few faces raise it: n of each from one distribution give about sqrt((bins - 1) / (4 n ln 2)).
    """
    counts = [np.histogram(scores, HISTOGRAM_BINS, (0, 1))[0] for scores in (scores_real, scores_other)]
    return float(jensenshannon(counts[0], counts[1], base=2))
