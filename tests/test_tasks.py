"""What the tasks hand to the loss, and how they judge."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.training import losses, tasks

CLASSES = ("angry", "happy", "sad")
COUNTS = np.array([10, 30, 20])
LABELS = np.array([0, 2, 1, 1, 0, 2])
VALENCE = np.array([-0.5, -0.7, 0.8, np.nan, -0.2, -0.4], np.float32)
AROUSAL = np.array([0.6, -0.3, 0.4, 0.5, np.nan, -0.1], np.float32)


def task(**values: object) -> tasks.Task:
    return tasks.build(
        RunConfig.from_flat({key.replace("__", "."): value for key, value in values.items()}), CLASSES, COUNTS
    )


def outputs(num_columns: int, count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, num_columns, generator=torch.Generator().manual_seed(seed)).tanh()


def test_plain_expressions_are_learned_as_ever_to_the_bit() -> None:
    expression = task()
    target = expression.targets(LABELS.astype(np.int16), None, VALENCE, AROUSAL)
    assert target.dtype == torch.int64
    logits = outputs(3).requires_grad_()
    golden_logits = outputs(3).requires_grad_()
    loss = expression.loss(logits, target)
    golden = functional.cross_entropy(golden_logits, torch.from_numpy(LABELS), label_smoothing=0.1)
    loss.backward()
    golden.backward()
    assert torch.equal(loss, golden)
    assert torch.equal(logits.grad, golden_logits.grad)
    answers = expression.split(logits.detach().numpy())
    assert answers.affect is None
    assert np.array_equal(answers.probabilities, logits.detach().softmax(1).numpy())


@pytest.mark.parametrize(
    ("name", "num_classes", "num_affect"), [("expression", 3, 0), ("affect", 0, 2), ("multitask", 3, 2)]
)
def test_a_task_says_how_many_outputs_it_needs(name: str, num_classes: int, num_affect: int) -> None:
    one = task(task__name=name)
    assert (one.num_classes, one.num_affect, one.num_outputs) == (num_classes, num_affect, num_classes + num_affect)


def test_targets_are_classes_then_valence_then_arousal_with_nan_where_unknown() -> None:
    labels = np.array([1, -1])
    target = task(task__name="multitask").targets(labels, None, VALENCE[2:4], AROUSAL[2:4])
    assert target.dtype == torch.float32
    np.testing.assert_array_equal(target, np.array([[0, 1, 0, 0.8, 0.4], [0, 0, 0, np.nan, 0.5]], np.float32))
    soft = np.array([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(task().targets(labels, soft), soft)
    np.testing.assert_array_equal(
        task(task__name="multitask").targets(labels, soft, VALENCE[2:4], AROUSAL[2:4])[:, :3], soft
    )
    np.testing.assert_array_equal(
        task(task__name="affect").targets(labels, None, VALENCE[2:4], AROUSAL[2:4]),
        np.array([[0.8, 0.4], [np.nan, 0.5]], np.float32),
    )


@pytest.mark.parametrize("key", ["augmentation__mixup_alpha", "augmentation__cutmix_alpha"])
def test_mixed_images_need_distributions(key: str) -> None:
    target = task(**{key: 0.4}).targets(LABELS)
    assert torch.equal(target, functional.one_hot(torch.from_numpy(LABELS), 3).float())


def test_data_without_valence_and_arousal_are_refused_where_they_are_learned() -> None:
    with pytest.raises(UserError, match=r"task\.name: learns valence, .*AffectNet-style.*task\.name=expression"):
        task(task__name="multitask").targets(LABELS)
    with pytest.raises(UserError, match="learns arousal"):
        task(task__name="affect").targets(LABELS, None, VALENCE, np.full(6, np.nan, np.float32))


def test_the_loss_of_multitask_is_the_weighted_sum_of_three() -> None:
    multitask = task(task__name="multitask")
    target, out = multitask.targets(LABELS, None, VALENCE, AROUSAL), outputs(5)
    error = (out[:, 3:].numpy() - np.stack([VALENCE, AROUSAL], 1)) ** 2
    classes = functional.cross_entropy(out[:, :3], torch.from_numpy(LABELS), label_smoothing=0.1).item()
    golden = classes + 0.5 * np.nanmean(error[:, 0]) + 0.5 * np.nanmean(error[:, 1])
    assert multitask.loss(out, target).item() == pytest.approx(golden, rel=1e-6)
    other = task(
        task__name="multitask", task__expression_weight=2, task__valence_weight=0, task__arousal_weight=3
    ).loss(out, target)
    assert other.item() == pytest.approx(2 * classes + 3 * np.nanmean(error[:, 1]), rel=1e-6)


def test_the_loss_of_affect_is_the_mean_of_two() -> None:
    affect = task(task__name="affect", task__affect_loss="ccc", task__valence_weight=7)
    target, out = affect.targets(LABELS, None, VALENCE, AROUSAL), outputs(2)
    both = [losses.concordance(out[:, i], target[:, i]).item() for i in range(2)]
    assert affect.loss(out, target).item() == pytest.approx(np.mean(both), rel=1e-6)


def test_a_batch_without_a_known_valence_or_arousal_still_learns_its_classes() -> None:
    multitask = task(task__name="multitask", task__affect_loss="mse_ccc")
    target = multitask.targets(LABELS, None, VALENCE, AROUSAL)[:2]
    target[:, 3:] = torch.nan
    out = outputs(5, 2).requires_grad_()
    multitask.loss(out, target).backward()
    assert (out.grad[:, :3] != 0).all()
    assert torch.equal(out.grad[:, 3:], torch.zeros(2, 2))


def test_inverse_weights_let_every_class_weigh_the_same_in_a_training_set() -> None:
    weighted = task(task__class_weights="inverse", training__label_smoothing=0.0)
    labels = np.repeat(np.arange(3), COUNTS)
    out = outputs(3, len(labels))
    each = functional.cross_entropy(out, torch.from_numpy(labels), reduction="none").numpy()
    golden = np.mean([each[labels == c].mean() for c in range(3)])
    assert weighted.loss(out, weighted.targets(labels)).item() == pytest.approx(golden, rel=1e-5)


def test_a_class_without_training_images_weighs_nothing() -> None:
    weighted = tasks.build(RunConfig.from_flat({"task.class_weights": "inverse"}), CLASSES, np.array([10, 0, 30]))
    value = weighted.loss(outputs(3, 2), torch.tensor([0, 2]))
    assert math.isfinite(value.item())


def test_validation_figures_are_those_of_scikit_learn() -> None:
    multitask = task(task__name="multitask")
    answers = multitask.split(outputs(5).numpy())
    summary = multitask.summary(LABELS, VALENCE, AROUSAL, answers)
    assert answers.probabilities is not None
    assert answers.affect is not None
    predicted = answers.probabilities.argmax(1)
    assert summary["accuracy"] == sklearn_metrics.accuracy_score(LABELS, predicted)
    assert summary["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(LABELS, predicted, average="macro"))
    true = np.stack([VALENCE, AROUSAL], 1)
    known = ~np.isnan(true)
    absolute = [np.abs(true - answers.affect)[known[:, i], i].mean() for i in range(2)]
    squared = [((true - answers.affect) ** 2)[known[:, i], i].mean() for i in range(2)]
    assert summary["mae"] == pytest.approx(np.mean(absolute), rel=1e-6)
    log_loss = -np.log(answers.probabilities[np.arange(6), LABELS].astype(float)).mean()
    assert summary["loss"] == pytest.approx(log_loss + np.mean(squared), rel=1e-5)
    assert task().summary(LABELS, None, None, task().split(outputs(3).numpy())).keys() == {
        "loss",
        "accuracy",
        "macro_f1",
    }
    affect = task(task__name="affect")
    assert affect.summary(LABELS, VALENCE, AROUSAL, affect.split(outputs(2).numpy())).keys() == {"loss", "ccc", "mae"}


def test_answers_that_are_not_finite_have_a_loss_that_is_not() -> None:
    multitask = task(task__name="multitask")
    for column in (0, 4):
        out = outputs(5).numpy()
        out[2, column] = np.nan
        summary = multitask.summary(LABELS, VALENCE, AROUSAL, multitask.split(out))
        assert summary.keys() == {"loss"}
        assert math.isnan(summary["loss"])


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [("macro_f1", 0.4, 0.5), ("accuracy", 0.4, 0.5), ("ccc", -0.1, 0.2), ("loss", 1.5, 1.4), ("mae", 0.3, 0.2)],
)
def test_a_higher_score_is_better_and_an_undefined_one_is_the_lowest(metric: str, worse: float, better: float) -> None:
    multitask = task(task__name="multitask", training__selection_metric=metric)
    assert -math.inf < multitask.score({}) < multitask.score({metric: worse}) < multitask.score({metric: better})


def test_affect_is_chosen_by_concordance_where_the_metric_is_left_open() -> None:
    assert task(task__name="affect").score({"loss": 9.0, "ccc": 0.25, "mae": 9.0}) == 0.25


def test_answers_average_probabilities_and_not_logits() -> None:
    multitask = task(task__name="multitask")
    first, second = (multitask.split(outputs(5, seed=seed).numpy()) for seed in (1, 2))
    both = tasks.Answers.mean([first, second])
    np.testing.assert_allclose(both.probabilities, (first.probabilities + second.probabilities) / 2, rtol=1e-6)
    np.testing.assert_allclose(both.affect, (first.affect + second.affect) / 2, atol=1e-7)
    alone = tasks.Answers.mean([first])
    assert np.array_equal(alone.probabilities, first.probabilities)
    assert tasks.Answers.mean([task().split(outputs(3).numpy())]).affect is None


def test_answers_come_back_from_a_checkpoint() -> None:
    answers = task().split(outputs(3).numpy())
    again = tasks.Answers.from_dict(answers.as_dict())
    assert np.array_equal(again.probabilities, answers.probabilities)
    assert again.affect is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training__selection_metric": "ccc"}, r"selection_metric: 'ccc' .*expected macro_f1, accuracy or loss"),
        ({"training__selection_metric": "mae"}, r"selection_metric: 'mae'"),
        ({"training__selection_metric": "accuracy", "task__name": "affect"}, r"'accuracy' .*expected ccc, mae or loss"),
        ({"data__votes": "multi_target", "task__classification_loss": "focal"}, r"multi_target .*loss=focal"),
        ({"data__votes": "multi_target", "task__class_weights": "inverse"}, r"multi_target .*class_weights=inverse"),
        ({"data__votes": "multi_target", "augmentation__mixup_alpha": 0.2}, r"multi_target .*mixup_alpha"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(**values)
