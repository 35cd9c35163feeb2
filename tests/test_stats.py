"""Intervals, paired differences and their corrections, against scikit-learn, scipy and published examples."""

import numpy as np
import pandas as pd
import pytest
from fake_results import write_sweep
from rich.console import Console
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from fer_ray import results
from fer_ray.analysis import stats
from fer_ray.analysis.load import Predictions, read_study
from fer_ray.analysis.report import write_report
from fer_ray.errors import UserError


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    study = read_study(write_sweep(tmp_path_factory.mktemp("one"), models=("ResNet18", "ConvNeXt-Tiny")))
    return study, stats.bootstrap(study)


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    root = write_sweep(
        tmp_path_factory.mktemp("three"),
        models=("ResNet18", "ResNet50", "ConvNeXt-Tiny"),
        fractions=(0.0, 0.5, 1.0),
        seeds=(0, 1, 2),
        failed=[("ResNet18", 0.5, 1), *[("ResNet50", 0.5, seed) for seed in range(3)]],
    )
    study = read_study(root)
    return study, stats.bootstrap(study)


def test_point_values_equal_the_metrics_that_training_wrote(one_seed):
    study, replicates = one_seed
    for metric in replicates.values:
        np.testing.assert_allclose(replicates.values[metric][:, 0], study.trials[f"test_{metric}"], atol=1e-12)


def test_resampled_scores_equal_scikit_learn_with_sample_weights(one_seed):
    study, replicates = one_seed
    answer = study.predictions[3]
    weights = stats.image_weights(len(answer.labels), answer.test_set)
    predicted = answer.probabilities.argmax(axis=1)
    for column in (1, 17, 300):
        given = {"sample_weight": weights[:, column], "average": "macro", "zero_division": 0}
        scores = answer.probabilities.astype(float)
        expected = {
            "macro_f1": f1_score(answer.labels, predicted, **given),
            "macro_recall": recall_score(answer.labels, predicted, **given),
            "accuracy": np.average(predicted == answer.labels, weights=weights[:, column]),
            "auroc": np.mean(
                [roc_auc_score(answer.labels == c, scores[:, c], sample_weight=weights[:, column]) for c in range(7)]
            ),
        }
        for metric, value in expected.items():
            assert replicates.values[metric][3, column] == pytest.approx(value, abs=1e-6), metric


def lin(true, predicted):
    """Lin (1989), as it is printed."""
    covariance = np.mean((true - true.mean()) * (predicted - predicted.mean()))
    return 2 * covariance / (true.var() + predicted.var() + (true.mean() - predicted.mean()) ** 2)


def test_weighted_concordance_is_that_of_the_images_as_often_as_they_were_drawn():
    rng = np.random.default_rng(0)
    true = rng.uniform(-1, 1, 300)
    predicted = 0.6 * true + rng.normal(0.1, 0.2, 300)
    weights = stats.image_weights(301, 5)
    found = stats.weighted_ccc(np.append(true, np.nan), np.append(predicted, 9.0), weights)
    for column in (0, 1, 500):
        times = weights[:300, column].astype(int)
        assert found[column] == pytest.approx(lin(np.repeat(true, times), np.repeat(predicted, times)))
    np.testing.assert_allclose(stats.weighted_ccc(true, np.full(300, 0.2), weights[:300]), 0, atol=1e-12)
    assert np.isnan(stats.weighted_ccc(np.full(300, 0.2), np.full(300, 0.2), weights[:300])).all()


def test_weighted_auroc_counts_ties_half_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    scores = np.round(rng.dirichlet(np.ones(3), 400), 1).astype(np.float32)
    weights = rng.integers(0, 4, (400, 5)).astype(np.float32)
    found = stats.weighted_auroc(labels, scores, weights)
    for column in range(5):
        areas = [roc_auc_score(labels == c, scores[:, c], sample_weight=weights[:, column]) for c in range(3)]
        assert found[column] == pytest.approx(np.mean(areas), abs=1e-6)


def test_a_class_without_test_images_is_left_out_of_macro_means():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.3, 0.6, 0.1], [0.3, 0.5, 0.2]], np.float32)
    answer = Predictions(0, labels, scores, ("a", "b", "c"))
    found = stats._score(answer, np.ones((4, 1), np.float32))
    assert found["macro_f1"][0] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_recall"][0] == pytest.approx(0.75)
    assert found["auroc"][0] == pytest.approx(np.mean([roc_auc_score(labels == c, scores[:, c]) for c in (0, 1)]))


def test_interval_of_one_seed_agrees_with_scipy_bootstrap_and_the_binomial(one_seed):
    study, replicates = one_seed
    summary = stats.summarize(study, replicates, "accuracy")
    first = summary.iloc[0]
    answer = study.predictions[study.members()["ResNet18", 0.0][0]]
    right = (answer.probabilities.argmax(axis=1) == answer.labels).astype(float)
    expected = scipy_stats.bootstrap((right,), np.mean, method="percentile", n_resamples=2000, rng=0)
    assert first["low"] == pytest.approx(expected.confidence_interval.low, abs=0.006)
    assert first["high"] == pytest.approx(expected.confidence_interval.high, abs=0.006)
    assert first["high"] - first["low"] == pytest.approx(2 * 1.96 * right.std() / len(right) ** 0.5, rel=0.12)


def test_drawing_n_minus_1_seeds_gives_the_unbiased_variance_of_their_mean():
    seeds = np.array([0.40, 0.43, 0.49])
    values = np.repeat(seeds[:, None], 1 + stats.RESAMPLES, axis=1)
    resampled = stats._mean(values, "seeds")
    assert resampled[0] == pytest.approx(seeds.mean())
    assert resampled[1:].std() == pytest.approx(seeds.std(ddof=1) / 3**0.5, rel=0.05)


def test_seeds_widen_the_interval_from_three_on_and_not_before(three_seeds):
    study, replicates = three_seeds
    summary = stats.summarize(study, replicates, "accuracy").set_index(["model.name", "data.real_fraction"])
    assert summary.loc[("ResNet18", 0.0), "num_seeds"] == 3
    two = summary.loc[("ResNet18", 0.5)]
    members = study.members()["ResNet18", 0.5]
    images_only = np.quantile(replicates.values["accuracy"][members, 1:].mean(axis=0), [0.025, 0.975])
    assert (two["num_seeds"], two["num_failed"]) == (2, 1)
    np.testing.assert_allclose([two["low"], two["high"]], images_only)


def test_a_cell_whose_trials_all_failed_is_missing_and_counted(three_seeds):
    study, replicates = three_seeds
    summary = stats.summarize(study, replicates, "macro_f1").set_index(["model.name", "data.real_fraction"])
    lost = summary.loc[("ResNet50", 0.5)]
    assert np.isnan(lost["mean"])
    assert (lost["num_seeds"], lost["num_failed"], lost["reaches_chance"]) == (0, 3, False)
    assert summary.loc[("ConvNeXt-Tiny", 1.0), "num_failed"] == 0


def test_a_cell_reaches_chance_when_its_lower_end_does(one_seed):
    study, replicates = one_seed
    summary = stats.summarize(study, replicates, "accuracy")
    labels = study.predictions[0].labels
    assert summary["chance"].unique() == pytest.approx([np.bincount(labels).max() / len(labels)])
    assert (summary["reaches_chance"] == (summary["low"] <= summary["chance"])).all()
    assert summary["reaches_chance"].any()
    assert not summary["reaches_chance"].all()


def test_differences_are_paired_by_image(one_seed):
    """Against the exact standard error of paired proportions: the variance of the per-image difference."""
    study, replicates = one_seed
    frame = stats.differences(study, replicates, "accuracy", "data.real_fraction", 1.0)
    row = frame[(frame["model.name"] == "ResNet18") & (frame["data.real_fraction"] == 0.0)].iloc[0]
    members = study.members()
    right = [
        (study.predictions[n].probabilities.argmax(axis=1) == study.predictions[n].labels).astype(float)
        for n in (members["ResNet18", 0.0][0], members["ResNet18", 1.0][0])
    ]
    each = right[0] - right[1]
    assert row["difference"] == pytest.approx(each.mean())
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * each.std() / len(each) ** 0.5, rel=0.12)
    z = each.mean() / (each.std() / len(each) ** 0.5)
    assert np.log10(row["p"]) == pytest.approx(np.log10(2 * scipy_stats.norm.sf(abs(z))), rel=0.2)


def test_differences_use_only_seeds_that_both_cells_have(three_seeds):
    study, replicates = three_seeds
    frame = stats.differences(study, replicates, "accuracy", "data.real_fraction", 1.0)
    cells = list(zip(frame["model.name"], frame["data.real_fraction"], strict=True))
    assert ("ResNet50", 0.5) not in cells
    row = frame.iloc[cells.index(("ResNet18", 0.5))]
    accuracy = study.trials.set_index(["data.real_fraction", "model.name", "training.seed"])["test_accuracy"]
    expected = np.mean([accuracy[0.5, "ResNet18", s] - accuracy[1.0, "ResNet18", s] for s in (0, 2)])
    assert row["difference"] == pytest.approx(expected)


def test_effect_is_the_mean_over_models_and_its_interval_holds_their_spread(three_seeds):
    study, replicates = three_seeds
    found = stats.effect(study, replicates, "macro_f1", "data.real_fraction", 1.0, 0.0)
    frame = stats.differences(study, replicates, "macro_f1", "data.real_fraction", 0.0)
    each = frame[frame["data.real_fraction"] == 1.0]["difference"]
    assert found.num_pairs == 3
    assert found.mean == pytest.approx(each.mean())
    assert found.low < found.mean < found.high
    assert found.high - found.low > 2 * each.std() / 3**0.5


def test_an_effect_without_a_pair_is_none(three_seeds):
    study, replicates = three_seeds
    assert stats.effect(study, replicates, "macro_f1", "data.real_fraction", 1.0, 0.7) is None


def test_holm_gives_the_textbook_values():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert len(stats.holm([])) == 0


def test_the_same_files_give_the_same_numbers(one_seed):
    study, replicates = one_seed
    again = stats.bootstrap(read_study(study.sweep.root))
    for metric in replicates.values:
        np.testing.assert_array_equal(again.values[metric], replicates.values[metric])


def test_intervals_cover_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(5)
    covered = 0
    for test_set in range(100):
        right = rng.random(400) < 0.4
        scores = np.stack([right, ~right], axis=1).astype(np.float32)
        answer = Predictions(test_set, np.zeros(400, np.int64), scores, ("a", "b"))
        values = stats._score(answer, stats.image_weights(400, test_set))["accuracy"]
        _, low, high = stats._interval(values)
        covered += low <= 0.4 <= high
    assert 88 <= covered <= 100


def test_a_study_of_valence_and_arousal_has_their_concordance_too(tmp_path):
    root = write_sweep(tmp_path / "affect", models=("ResNet18", "ResNet50"), fractions=(1.0,), seeds=(0, 1, 2))
    rng = np.random.default_rng(1)
    golden: dict[str, list[float]] = {"valence_ccc": [], "arousal_ccc": []}
    for path in sorted((root / "trials").glob("*/predictions.parquet")):
        frame, row = pd.read_parquet(path), results.read_json(path.with_name("row.json"))
        for name in ("valence", "arousal"):
            frame[name] = rng.uniform(-1, 1, len(frame))
            frame[f"predicted_{name}"] = frame[name] * 0.5 + rng.normal(0, 0.1, len(frame))
            tested = frame[frame["split"] == "test"]
            row[f"test_{name}_ccc"] = lin(tested[name].to_numpy(), tested[f"predicted_{name}"].to_numpy())
            if row["model.name"] == "ResNet50":
                golden[f"{name}_ccc"].append(row[f"test_{name}_ccc"])
        frame.to_parquet(path)
        results.write_json(path.with_name("row.json"), row)
    write_report(root, metric="valence_ccc", console=Console(quiet=True))
    for metric, values in golden.items():
        table = pd.read_csv(root / "tables" / f"{metric}.csv").set_index("model.name")
        assert table.loc["ResNet50", "mean"] == pytest.approx(np.mean(values))
        assert table.loc["ResNet50", "low"] < np.mean(values) < table.loc["ResNet50", "high"]
        assert table.loc["ResNet50", "chance"] == 0
    assert "Valence CCC" in (root / "dashboard.html").read_text()
    plain = write_sweep(tmp_path / "plain", models=("ResNet18",), fractions=(1.0,))
    with pytest.raises(UserError, match="valence_ccc: not a metric of these tables"):
        write_report(plain, metric="valence_ccc", console=Console(quiet=True))
    assert not (plain / "tables" / "valence_ccc.csv").exists()
