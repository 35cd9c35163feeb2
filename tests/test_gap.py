"""The measures of the domain gap agree with their papers, other libraries, and what is known in advance."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, jensenshannon
from sklearn.metrics.pairwise import polynomial_kernel

from fer_ray.diagnostics import gap


def normal(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, width))


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows whose sample mean and sample covariance are exactly these."""
    white = normal(count, len(mean), seed)
    white -= white.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(white.T)), white.T).T
    return mean + white @ np.linalg.cholesky(covariance).T


def test_the_frechet_distance_of_known_gaussians_is_that_of_the_formula() -> None:
    # Commuting covariances: |m|^2 + sum (sqrt(a) - sqrt(b))^2.
    first = with_moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 50, 0)
    second = with_moments(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]), 80, 1)
    assert gap.frechet_distance(first, second) == pytest.approx(9 + 1 + 0 + 4)


def test_the_frechet_distance_is_that_of_the_matrix_root() -> None:
    mixing = normal(6, 6, 2)
    first, second = normal(200, 6, 0) @ mixing, normal(150, 6, 1, 0.3)
    covariances = np.cov(first.T), np.cov(second.T)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert gap.frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_fewer_faces_than_features_is_finite_and_0_to_itself() -> None:
    first, second = normal(30, 200, 0).astype(np.float32), normal(40, 200, 1).astype(np.float32)
    assert gap.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert gap.frechet_distance(first, second) == pytest.approx(gap.frechet_distance(second, first))
    assert gap.frechet_distance(first, second) > 0


def test_the_kernel_distance_of_a_half_is_the_double_sum_of_its_paper() -> None:
    # Whole sets stand in for the halves; the double loop is equation 4 of Binkowski et al. 2018.
    first, second = normal(12, 4, 0), normal(9, 4, 1, 0.5)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 4 + 1) ** 3

    def within(rows: np.ndarray) -> float:
        n = len(rows)
        return sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = sum(kernel(x, y) for x in first for y in second) / (len(first) * len(second))
    expected = within(first) + within(second) - 2 * across
    kernels = [polynomial_kernel(a, b, degree=3) for a, b in ((first, first), (second, second), (first, second))]
    everything = [np.ones((1, 12)), np.ones((1, 9))]
    assert gap.squared_mmd(kernels, everything)[0] == pytest.approx(expected)


def test_the_mean_kernel_distance_is_unbiased_and_its_interval_is_as_wide_as_fresh_draws_spread() -> None:
    draws = [(normal(120, 5, 2 * i), normal(120, 5, 2 * i + 1, 0.6)) for i in range(60)]
    measured = np.array([gap.kernel_distance(first, second, 0) for first, second in draws])
    # E k(x, y) for independent normal x, y with means m and m': E (x.y/d + 1)^3, by its moments from a million draws.
    large = [normal(1_000_000, 5, seed, shift) for seed, shift in ((900, 0), (901, 0), (902, 0.6), (903, 0.6))]
    mean = [float(((np.sum(a * b, 1) / 5 + 1) ** 3).mean()) for a, b in ((large[0], large[1]), (large[2], large[3]))]
    cross = float(((np.sum(large[0] * large[2], 1) / 5 + 1) ** 3).mean())
    expected = mean[0] + mean[1] - 2 * cross
    standard_error = measured[:, 0].std() / np.sqrt(len(draws))
    assert measured[:, 0].mean() == pytest.approx(expected, abs=4 * standard_error)
    covered = (measured[:, 1] <= expected) & (expected <= measured[:, 2])
    assert covered.mean() >= 0.85
    widths = measured[:, 2] - measured[:, 1]
    assert np.median(widths) == pytest.approx(2 * 1.96 * measured[:, 0].std(), rel=0.35)


def test_neighbourhood_scores_are_those_of_the_papers_loop() -> None:
    real, other, k = normal(60, 3, 0), normal(60, 3, 1, 0.5, 1.3), 5

    def ball(rows: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(rows[i] - row) for row in rows)[k]

    real_balls = [ball(real, i) for i in range(len(real))]
    other_balls = [ball(other, j) for j in range(len(other))]
    inside = [[np.linalg.norm(x - y) <= radius for y in other] for x, radius in zip(real, real_balls, strict=True)]
    reached = [[np.linalg.norm(x - y) <= r for y, r in zip(other, other_balls, strict=True)] for x in real]
    scores = gap.neighbourhood_scores(real, other, k)
    assert scores["precision"] == np.mean([any(row[j] for row in inside) for j in range(len(other))])
    assert scores["recall"] == np.mean([any(row) for row in reached])
    assert scores["density"] == pytest.approx(sum(map(sum, inside)) / (k * len(other)))
    assert scores["coverage"] == np.mean([any(row) for row in inside])


def test_neighbourhood_scores_of_sets_far_apart_are_0_and_of_a_set_with_itself_1() -> None:
    real = normal(50, 4, 0)
    assert set(gap.neighbourhood_scores(real, real + 100).values()) == {0.0}
    same = gap.neighbourhood_scores(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)


def test_a_set_collapsed_to_one_mode_is_precise_but_reaches_and_covers_little() -> None:
    real = normal(300, 4, 0)
    collapsed = real[:1] * 0.1 + normal(300, 4, 1, scale=0.01)
    scores = gap.neighbourhood_scores(real, collapsed)
    assert scores["precision"] == 1
    assert scores["recall"] == 0
    assert scores["coverage"] < 0.2


def test_the_classifier_is_at_chance_for_equal_sets_and_right_for_sets_apart() -> None:
    _, _, equal = gap.held_out_scores(normal(300, 8, 0), normal(300, 8, 1), 0)
    _, _, apart = gap.held_out_scores(normal(300, 8, 0), normal(300, 8, 1, 4), 0)
    assert equal.mean() == pytest.approx(0.5, abs=0.06)
    assert apart.mean() == 1


def test_the_classifier_is_judged_on_faces_it_did_not_learn_from() -> None:
    # More features than faces: it tells all of its training faces apart, and none of the others.
    _, _, accuracies = gap.held_out_scores(normal(50, 400, 0), normal(50, 400, 1), 0)
    assert accuracies.mean() == pytest.approx(0.5, abs=0.15)


def test_the_jensen_shannon_distance_is_that_of_the_formula_and_of_scipy() -> None:
    first, second = np.random.default_rng(0).beta(2, 3, 500), np.random.default_rng(1).beta(3, 2, 400)
    p, q = (np.histogram(scores, np.linspace(0, 1, 11))[0] / len(scores) for scores in (first, second))
    m = (p + q) / 2
    divergence = sum(0.5 * np.sum(x[x > 0] * np.log2(x[x > 0] / m[x > 0])) for x in (p, q))
    assert gap.jensen_shannon_distance(first, second) == pytest.approx(np.sqrt(divergence))
    assert gap.jensen_shannon_distance(first, second) == pytest.approx(jensenshannon(p, q, base=2))


def test_the_jensen_shannon_distance_is_1_without_overlap_and_0_for_the_same() -> None:
    assert gap.jensen_shannon_distance(np.full(9, 0.05), np.full(9, 1.0)) == pytest.approx(1)
    assert gap.jensen_shannon_distance(np.full(9, 0.3), np.full(5, 0.3)) == 0


def test_few_faces_raise_the_jensen_shannon_distance_as_its_docstring_says() -> None:
    rng = np.random.default_rng(0)
    n = 200
    squares = [gap.jensen_shannon_distance(rng.random(n), rng.random(n)) ** 2 for _ in range(400)]
    assert np.mean(squares) == pytest.approx((gap.HISTOGRAM_BINS - 1) / (4 * n * np.log(2)), rel=0.1)


def test_the_same_seed_gives_the_same_figures_and_float32_hardly_others() -> None:
    real, other = normal(80, 10, 0), normal(80, 10, 1, 0.4)
    first, again = gap.measure(real, other, 3), gap.measure(real.copy(), other.copy(), 3)
    assert first == again
    single = gap.measure(real.astype(np.float32), other.astype(np.float32), 3)
    assert single.frechet == pytest.approx(first.frechet, rel=1e-5)
    assert single.kid == pytest.approx(first.kid, rel=1e-4)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    real, other = normal(60, 5, 0), normal(60, 5, 1)
    real[:, 2] = other[:, 2] = 7
    values = gap.measure(real, other, 0)
    assert all(np.isfinite(value) for value in vars(values).values())


def test_radii_leave_the_row_itself_out_even_among_copies() -> None:
    rows = np.repeat(normal(4, 2, 0), 3, axis=0)
    assert gap.radii(rows, 2) == pytest.approx(np.zeros(12), abs=1e-6)
    assert gap.radii(rows, 3) == pytest.approx(np.sort(cdist(rows, rows), axis=1)[:, 3])
