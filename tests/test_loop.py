"""The training loop on networks whose behaviour is known in advance, and on a small real one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.data.batches import Batches
from fer_ray.data.store import Dataset
from fer_ray.models.network import Network
from fer_ray.training import checkpoint, loop, tasks
from fer_ray.training.runtime import Runtime
from fer_ray.training.sampling import Order

CPU = Runtime(torch.device("cpu"), 1, "float32")
NUM_CLASSES = 3
TRAIN, VALIDATION, TEST = np.arange(0, 60), np.arange(60, 90), np.arange(90, 120)
LABELS = np.arange(120) % NUM_CLASSES


def data(num_nominal: int = 32, train: np.ndarray = TRAIN) -> loop.RunData:
    """120 images; every pixel of image i is i, so that a network can know which one it sees."""
    images = np.broadcast_to(np.arange(120, dtype=np.uint8).reshape(-1, 1, 1, 1), (120, 24, 24, 1))
    dataset = Dataset("numbered", images, LABELS, LABELS, LABELS, ("a", "b", "c"), None, None, "")
    batches = Batches([dataset], size=32, normalization="unit", device=CPU.device)
    return loop.RunData(batches, LABELS, train, VALIDATION, {"test": TEST}, num_nominal)


def config(**values: object) -> RunConfig:
    defaults = {"training.epochs": 2, "training.batch_size": 8, "augmentation.preset": "none"}
    return RunConfig.from_flat({**defaults, **{key.replace("__", "."): value for key, value in values.items()}})


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(900, NUM_CLASSES))


def fit(
    config: RunConfig,
    build: Callable[[], nn.Module],
    run_data: loop.RunData | None = None,
    report: Callable[[dict], None] = lambda row: None,
    **options: Any,
) -> loop.Outcome:
    """`build` gives the backbone; unless it is a Network, its features are the outputs."""

    def network() -> Network:
        built = build()
        return built if isinstance(built, Network) else Network(built, nn.Identity(), NUM_CLASSES)

    task = tasks.build(config, ("a", "b", "c"), np.full(NUM_CLASSES, 20))
    return loop.fit(config, network, task, run_data or data(), CPU, report, **options)


class Scripted(nn.Module):
    """Answers like a script: in epoch e it is right on `right[e - 1]`, and sure to the degree `logits[e - 1]`.

    The epoch lives in a buffer, so it goes and comes back with the weights.
    """

    def __init__(self, right: Sequence[set[int]], logits: Sequence[float]) -> None:
        super().__init__()
        self.right, self.logits = right, logits
        self.unused = nn.Linear(1, NUM_CLASSES)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.was_training = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.epoch += int(self.training and not self.was_training)
        self.was_training = self.training
        number = (images[:, 0, 0, 0] * 255).round().long()
        if self.training:
            return self.unused(images[:, 0, 0, :1])
        epoch = int(self.epoch) - 1
        is_right = torch.tensor([int(i) in self.right[epoch] for i in number])
        answers = (torch.from_numpy(LABELS)[number] + ~is_right) % NUM_CLASSES
        return self.logits[epoch] * nn.functional.one_hot(answers, NUM_CLASSES).float()


class Failing(nn.Module):
    """A linear network whose k-th training step is not a number."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, NUM_CLASSES)
        self.step, self.steps_done = step, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps_done += self.training
        out = self.layer(images.mean(dim=(2, 3)))
        return out * torch.nan if self.training and self.steps_done == self.step else out


EPOCHS_RIGHT = [set(range(60, 70)) | {90}, set(range(60, 85)), set(range(60, 85)), set(range(60, 80)) | set(TEST)]
SURE = [1.0, 8.0, 8.0, 0.5]
"""Accuracy is best in epochs 2 and 3. Epoch 4 errs more, but is so unsure that its loss is least; all test is right."""


@pytest.mark.parametrize(("metric", "chosen"), [("macro_f1", 2), ("accuracy", 2), ("loss", 4)])
def test_the_epoch_is_the_best_of_validation_and_ties_go_to_the_first(metric: str, chosen: int) -> None:
    outcome = fit(
        config(training__epochs=4, training__selection_metric=metric), lambda: Scripted(EPOCHS_RIGHT, SURE), data()
    )
    values = [row[f"validation_{metric}"] for row in outcome.epochs]
    assert values[1] == values[2]
    assert 1 + int(np.argmin(values) if metric == "loss" else np.argmax(values)) == chosen
    assert outcome.chosen_epoch == chosen
    assert [row["validation_accuracy"] for row in outcome.epochs] == pytest.approx([10 / 30, 25 / 30, 25 / 30, 20 / 30])


@pytest.mark.parametrize(("metric", "chosen", "test_accuracy"), [("accuracy", 2, 0), ("loss", 4, 1)])
def test_the_test_split_is_read_once_and_from_the_chosen_epoch(
    metric: str, chosen: int, test_accuracy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[np.ndarray] = []
    predict = loop.predict
    monkeypatch.setattr(loop, "predict", lambda m, b, index, *more: read.append(index) or predict(m, b, index, *more))
    outcome = fit(
        config(training__epochs=4, training__selection_metric=metric), lambda: Scripted(EPOCHS_RIGHT, SURE), data()
    )
    assert [np.array_equal(index, TEST) for index in read] == [False] * 4 + [True]
    assert all(np.array_equal(index, VALIDATION) for index in read[:-1])
    assert outcome.test_reads == 1
    assert (outcome.tests["test"].probabilities.argmax(1) == LABELS[TEST]).mean() == test_accuracy
    assert int(outcome.weights["backbone.epoch"]) == chosen
    right = (outcome.validation.probabilities.argmax(1) == LABELS[VALIDATION]).mean()
    assert right == outcome.epochs[chosen - 1]["validation_accuracy"]


def test_validation_loss_is_the_cross_entropy() -> None:
    outcome = fit(config(training__epochs=1), lambda: Scripted([set(VALIDATION)], [2.0]))
    golden = -np.log(np.exp(2) / (np.exp(2) + NUM_CLASSES - 1))
    assert outcome.epochs[0]["validation_loss"] == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize(("patience", "epochs_run"), [(1, 3), (2, 4), (None, 6)])
def test_patience_counts_epochs_without_a_better_value(patience: int | None, epochs_run: int) -> None:
    right = [set(range(60, 65)), set(range(60, 80)), *([set(range(60, 80))] * 4)]
    outcome = fit(config(training__epochs=6, training__patience=patience), lambda: Scripted(right, [1.0] * 6))
    assert len(outcome.epochs) == epochs_run
    assert outcome.chosen_epoch == 2


def numbers(outcome: loop.Outcome) -> list[tuple]:
    cost = ("seconds", "images_per_second", "peak_memory_mb")
    return [tuple(value for name, value in row.items() if name not in cost) for row in outcome.epochs]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    def outcome(seed: int) -> loop.Outcome:
        torch.manual_seed(99)  # what ran before must not matter
        torch.rand(seed + 1)
        return fit(config(training__seed=seed, augmentation__preset="standard"), small_network)

    first, again, other = outcome(0), outcome(0), outcome(1)
    assert numbers(first) == numbers(again)
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert np.array_equal(first.tests["test"].probabilities, again.tests["test"].probabilities)
    assert numbers(first) != numbers(other)
    assert not all(torch.equal(first.weights[name], other.weights[name]) for name in first.weights)


@pytest.mark.parametrize("num_images", [3, 20, 60])
def test_cells_of_one_budget_take_equal_steps_however_many_images_they_have(
    num_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    following = Order.next

    def counted(order: Order) -> np.ndarray:
        index = following(order)
        sizes.append(len(index))
        return index

    monkeypatch.setattr(Order, "next", counted)
    outcome = fit(config(), small_network, data(num_nominal=60, train=TRAIN[:num_images]))
    assert sizes == [8] * 16  # 2 epochs of round(60 / 8) steps
    assert outcome.images_seen == 128


def test_a_batch_larger_than_the_training_set_becomes_the_whole_set() -> None:
    outcome = fit(config(training__batch_size=512), small_network, data(num_nominal=10, train=TRAIN[:10]))
    assert [row["images_seen"] for row in outcome.epochs] == [10, 20]


@pytest.mark.parametrize(("step", "epoch"), [(2, 1), (60, 1), (130, 2)])
def test_a_loss_that_is_not_finite_names_its_step_and_the_likely_cause(step: int, epoch: int) -> None:
    # Losses are looked at every 50 steps; an epoch has 75.
    failing = config(training__epochs=3, optimizer__learning_rate=0.5, training__max_gradient_norm=None)
    message = rf"not finite at step {step} \(epoch {epoch}\): most likely the learning rate \(peak 0\.5\) .*max_grad"
    with pytest.raises(loop.TrainingFailed, match=message):
        fit(failing, lambda: Failing(step), data(num_nominal=600))


def test_a_first_loss_that_is_not_finite_blames_the_input() -> None:
    with pytest.raises(loop.TrainingFailed, match=r"not finite at step 1 \(epoch 1\): the very first loss: .*input"):
        fit(config(), lambda: Failing(1))


def test_a_learning_rate_that_is_far_too_high_is_a_failed_training() -> None:
    def deep() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(3072, 16), *[nn.Linear(16, 16) for _ in range(6)], nn.Linear(16, 3)
        )

    reckless = config(optimizer__name="sgd", optimizer__learning_rate=10.0, training__max_gradient_norm=None)
    with pytest.raises(loop.TrainingFailed, match=r"peak 10\) is too high"):
        fit(reckless, deep, data(num_nominal=60))


def test_weights_that_the_last_step_of_an_epoch_destroyed_are_a_failed_training() -> None:
    class Destroyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, NUM_CLASSES)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = self.layer(images.mean(dim=(2, 3)))
            return out if self.training else out / 0

    message = r"validation output is not finite after step 4 \(epoch 1\): most likely the learning rate"
    with pytest.raises(loop.TrainingFailed, match=message):
        fit(config(), Destroyed)


def test_rows_are_reported_as_epochs_end() -> None:
    rows: list[dict] = []
    outcome = fit(config(training__epochs=3), small_network, report=rows.append)
    assert rows == outcome.epochs
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["train_loss"] > 0 and row["seconds"] > 0 for row in rows)


def test_weight_decay_spares_biases_and_norms() -> None:
    from fer_ray.training import optim

    model = small_network()
    model(torch.zeros(2, 3, 32, 32))
    decayed, spared = optim.build(model, config(optimizer__weight_decay=0.3).optimizer).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}


class Stopped(Exception):
    """The run ends here, as if the machine had gone down."""


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "sam, ema and sgd": {"optimizer__name": "sgd", "optimizer__sam_rho": 0.05, "optimizer__ema_decay": 0.9},
    "accumulation and plateau": {"optimizer__accumulation_steps": 2, "optimizer__schedule": "plateau"},
    "mixing and erasing": {"augmentation__mixup_alpha": 0.4, "augmentation__erasing_probability": 0.5},
    "balanced": {"data__sampling": "balanced", "optimizer__schedule": "step", "optimizer__step_epochs": 1},
    "phases": {"training__phases": "head 1, last-2 1, all 2 x0.1 carry", "augmentation__preset": "none"},
}


def two_parts() -> Network:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
    return Network(backbone, nn.Sequential(nn.Linear(900, NUM_CLASSES)), 900)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("stop_at", [1, 3, 5, 11, 14])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(
    name: str, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    recipe = config(
        **{
            "training__epochs": 4,
            "augmentation__preset": "standard",
            "runtime__checkpoint_seconds": 0,
            **RECIPES[name],
        }
    )
    whole = fit(recipe, two_parts)
    steps = 0
    following = Order.next

    def stopping(order: Order) -> np.ndarray:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stopped
        return following(order)

    folder = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(Order, "next", stopping)
        with pytest.raises(Stopped):
            fit(recipe, two_parts, checkpoints=folder, signature="s")
    rows: list[dict] = []
    resumed = fit(recipe, two_parts, report=rows.append, checkpoints=folder, signature="s")
    assert numbers(resumed) == numbers(whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert (resumed.chosen_epoch, resumed.images_seen) == (whole.chosen_epoch, whole.images_seen)
    for mine, other in (
        (resumed.weights, whole.weights),
        *zip(resumed.phase_weights, whole.phase_weights, strict=True),
    ):
        assert all(torch.equal(mine[key], other[key]) for key in other)
    assert np.array_equal(resumed.tests["test"].probabilities, whole.tests["test"].probabilities)


def test_a_run_that_ends_while_it_is_tested_trains_no_epoch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = config(training__epochs=3, runtime__checkpoint_seconds=0, training__phases="head 1, all 2")
    whole = fit(recipe, two_parts)

    def gone(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "finish", gone)
        with pytest.raises(Stopped):
            fit(recipe, two_parts, checkpoints=tmp_path, signature="s")
    rows: list[dict] = []
    resumed = fit(recipe, two_parts, report=rows.append, checkpoints=tmp_path, signature="s")
    assert [(row["epoch"], row["is_restored"]) for row in rows] == [(1, True), (2, True), (3, True)]
    assert numbers(resumed) == numbers(whole)
    assert np.array_equal(resumed.tests["test"].probabilities, whole.tests["test"].probabilities)
    assert resumed.test_reads == 1


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    recipe = config(training__epochs=4, runtime__checkpoint_seconds=0)
    whole = fit(recipe, small_network, checkpoints=folder, signature="s")
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = fit(recipe, small_network, checkpoints=folder, signature="s")
    assert numbers(resumed) == numbers(whole)
    assert any("damaged" in note for note in resumed.notes)
    assert any("went on after epoch 3" in note for note in resumed.notes)
    assert checkpoint.load_newest(folder, "another run") is None


def test_phases_train_what_they_say_and_keep_their_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    outcome = fit(config(training__epochs=4, training__phases="head 2, all 2 x0.1"), two_parts)
    assert [row["phase"] for row in outcome.epochs] == [1, 1, 2, 2]
    assert len(outcome.phase_weights) == 2
    torch.manual_seed(0)
    untrained = two_parts().state_dict()
    first, second = outcome.phase_weights
    assert torch.equal(first["backbone.0.weight"], untrained["backbone.0.weight"])
    assert torch.equal(first["backbone.1.running_mean"], untrained["backbone.1.running_mean"])
    assert not torch.equal(first["head.0.weight"], untrained["head.0.weight"])
    assert not torch.equal(second["backbone.0.weight"], untrained["backbone.0.weight"])


def test_patience_ends_a_phase_and_not_the_run() -> None:
    right = [set(range(60, 80))] * 6
    recipe = config(training__epochs=6, training__patience=1, training__phases="all 3, all 3")
    outcome = fit(recipe, lambda: Scripted(right, [1.0] * 6))
    assert [row["phase"] for row in outcome.epochs] == [1, 1, 2, 2]
