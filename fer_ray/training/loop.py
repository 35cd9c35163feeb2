"""The one training loop, for every architecture, task and recipe.

A run is a list of phases, a phase a number of epochs. After each epoch the network is judged on validation; the best
epoch's weights are kept, and with them the test parts are read once. A run that was stopped goes on from its newest
checkpoint as if it had not been.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fer_ray import metrics
from fer_ray.config import RunConfig
from fer_ray.data import augment
from fer_ray.data.batches import Batches
from fer_ray.data.mixed_samples import Mixer
from fer_ray.models import freezing
from fer_ray.models.network import Network
from fer_ray.phases import Phase, epochs_of, parse_phases
from fer_ray.training import checkpoint
from fer_ray.training.feature_cache import VIEWS_SEED, FeatureBatches
from fer_ray.training.runtime import PeakMemory, Runtime, seed_everything
from fer_ray.training.sampling import Order
from fer_ray.training.schedules import Schedule
from fer_ray.training.step import Stepper
from fer_ray.training.tasks import Answers, Task

EVALUATION_BATCH = 256
FINITE_CHECK_STEPS = 50

SETTLED_STEP = 10
"""From this step on the usual momentum of a batch norm, .1, is what counts."""


class TrainingFailed(Exception):
    """A run cannot go on; the message says at which step and the likely cause."""


@dataclass(frozen=True)
class RunData:
    """What one run trains and is judged on.

    Attributes:
        batches: the images.
        labels: int64 [n], class of every image that `batches` addresses, -1 where it has none.
        train, validation: int64 indices into them.
        tests: name -> int64 indices, of each part that the run is tested on.
        num_nominal: N, the images that make an epoch.
        soft: float32 [n, C], distributions to train towards instead of the labels; or None.
        valence, arousal: float32 [n], NaN where unknown; or None.
    """

    batches: Batches
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    tests: Mapping[str, np.ndarray]
    num_nominal: int
    soft: np.ndarray | None = None
    valence: np.ndarray | None = None
    arousal: np.ndarray | None = None

    def affect(self, index: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Valence and arousal of the images at `index`."""
        if self.valence is None or self.arousal is None:
            return None, None
        return self.valence[index], self.arousal[index]


@dataclass
class Outcome:
    """What a run found.

    Attributes:
        epochs: a row per epoch.
        chosen_epoch: the best by validation, from 1; 0 before there is one.
        validation, tests: answers of the chosen epoch; `test_reads` counts how often the test parts were read.
        weights: of the chosen epoch, and of the best one of each phase.
        train_seconds, images_seen: cost.
        is_stopped: ended from outside before its last epoch; the test parts were not read.
        notes: what happened on the way and should be said.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    chosen_epoch: int = 0
    validation: Answers | None = None
    tests: dict[str, Answers] = field(default_factory=dict)
    test_reads: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    phase_weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    train_seconds: float = 0.0
    images_seen: int = 0
    is_stopped: bool = False
    notes: list[str] = field(default_factory=list)


def fit(
    config: RunConfig,
    build_network: Callable[[], Network],
    task: Task,
    data: RunData,
    runtime: Runtime,
    report: Callable[[dict[str, Any]], bool | None],
    *,
    checkpoints: Path | None = None,
    signature: str = "",
    on_checkpoint: Callable[[Path], None] = lambda path: None,
) -> Outcome:
    """Trains a network and reads the test parts once, with the weights of the epoch that validation chose.

    Args:
        report: called with each epoch's row, True ends the run there; on resumption with those of before as well,
            which have `is_restored`.
        checkpoints: folder for checkpoints, from which a stopped run goes on; None: no checkpoints.
        signature: names the run; a checkpoint of another one is not taken.
        on_checkpoint: called with every checkpoint that was written, before the epoch is reported.

    Raises TrainingFailed when the loss is not finite.
    """
    seed_everything(config.training.seed)
    run = _Run(config, build_network(), task, data, runtime)
    notes: list[str] = run.outcome.notes
    if checkpoints is not None and (state := checkpoint.load_newest(checkpoints, signature, notes.append)) is not None:
        run.load_state_dict(state)
        run.outcome.is_stopped = any(report({**row, "is_restored": True}) for row in run.outcome.epochs)
    saved = time.monotonic()
    while not run.is_done and not run.outcome.is_stopped:
        row = run.epoch()
        is_due = time.monotonic() - saved >= config.runtime.checkpoint_seconds
        if checkpoints is not None and is_due:
            on_checkpoint(checkpoint.save(checkpoints, run.step, {"signature": signature, **run.state_dict()}))
            saved = time.monotonic()
        run.outcome.is_stopped = bool(report(row))
    return run.outcome if run.outcome.is_stopped else run.finish()


class _Run:
    """The state of a run between two epochs."""

    def __init__(self, config: RunConfig, network: Network, task: Task, data: RunData, runtime: Runtime) -> None:
        self.config, self.task, self.data, self.runtime = config, task, data, runtime
        self.network = runtime.place(network)
        self.memory = PeakMemory(runtime.device)
        self.augmentation = augment.resolve(config.augmentation)
        self.views = augment.test_views(config.augmentation.test_time)
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.mixer = Mixer(config.augmentation)
        self.targets = task.targets(data.labels, data.soft, data.valence, data.arousal).to(runtime.device)
        self.batch_size = min(config.training.batch_size, data.num_nominal)
        self.steps_per_epoch = max(1, round(data.num_nominal / self.batch_size))
        self.order = Order(data.train, data.labels, self.batch_size, config.data.sampling, config.training.seed)
        self.phases = parse_phases(config.training.phases)
        self.phase_epochs = epochs_of(self.phases, config.training.epochs)
        is_fresh = config.model.weights == "none"
        self.norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if is_fresh else []
        self.momenta = [norm.momentum or 0.0 for norm in self.norms]
        self.is_compiled = False
        self.module: nn.Module = self.network
        self.batches: Batches | FeatureBatches = data.batches
        self.outcome = Outcome()
        self.best = -np.inf
        self.step = 0
        self.phase = 0
        self.epoch_in_phase = 0
        self.phase_best, self.phase_best_epoch = -np.inf, 0
        self._start_phase()

    @property
    def is_done(self) -> bool:
        return self.phase == len(self.phases)

    def epoch(self) -> dict[str, Any]:
        """Trains one epoch, judges it, and returns its row."""
        started = time.perf_counter()
        data, task, runtime = self.data, self.task, self.runtime
        freezing.train_mode(self.network)
        losses = torch.zeros(self.steps_per_epoch, device=runtime.device)
        predicted, expected = [], []
        number = len(self.outcome.epochs) + 1
        for i in range(self.steps_per_epoch):
            learning_rate = self.schedule.learning_rate(self.step - self.phase_start)
            self.stepper.set_learning_rate(learning_rate)
            self._settle_norms()
            index = self.order.next()
            place = torch.from_numpy(index).to(runtime.device)
            images, target = self.mixer(self.images(index), self.targets[place])
            losses[i], outputs = self.stepper.step(images, target)
            if task.num_classes:
                predicted.append(outputs[:, : task.num_classes].argmax(1))
                expected.append(place)
            self.step += 1
            # Reading a GPU's loss waits for it, so it is looked at every few steps; the step named is exact.
            if (i + 1) % FINITE_CHECK_STEPS == 0 or i + 1 == self.steps_per_epoch:
                _check_finite(losses[: i + 1], number, self.step - i, self.config)
        seconds = time.perf_counter() - started
        self.outcome.train_seconds += seconds
        self.outcome.images_seen += self.steps_per_epoch * self.batch_size

        with self.stepper.evaluation_weights():
            answers = self.answer(data.validation)
            summary = task.summary(data.labels[data.validation], *data.affect(data.validation), answers)
            if not all(np.isfinite(value) for value in summary.values()):
                # The last update of an epoch has no loss after it; nor do running statistics that left float32.
                raise TrainingFailed(
                    f"validation output is not finite after step {self.step} (epoch {number}): {_too_fast(self.config)}"
                )
            score = task.score(summary)
            self._keep_if_best(number, score, answers)
        row = {
            "epoch": number,
            "phase": self.phase + 1,
            "images_seen": self.outcome.images_seen,
            "learning_rate": learning_rate,
            "train_loss": losses.mean().item(),
            **_train_scores(predicted, expected, data.labels, task.num_classes),
            **{f"validation_{name}": value for name, value in summary.items()},
            "seconds": seconds,
            "images_per_second": self.steps_per_epoch * self.batch_size / seconds,
            "peak_memory_mb": self.memory.megabytes(),
        }
        self.outcome.epochs.append(row)
        self._advance(score)
        return row

    def _settle_norms(self) -> None:
        """From scratch the running statistics start as the mean of all batches so far; their arbitrary start (mean 0,
        variance 1) would otherwise outweigh the data for the first hundred steps.
        """
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            norm.momentum = max(momentum, 1 / (self.step + 1))
        # Each change of a momentum would compile the network again.
        if self.runtime.compiled and not self.is_compiled and self.step >= SETTLED_STEP:
            self.network.compile()
            self.is_compiled = True

    def images(self, index: np.ndarray) -> torch.Tensor:
        """A training batch: every image in a view of its own, or in the one that is the epoch's turn."""
        num_views = self.config.augmentation.views
        if num_views is None:
            return self.batches(index, self.augmentation, self.generator)
        turn = len(self.outcome.epochs) % num_views
        if isinstance(self.batches, FeatureBatches):
            return self.batches(index, view=turn)
        return self.batches(index, view=augment.draw_view(self.augmentation, index, turn, VIEWS_SEED))

    def answer(self, index: np.ndarray) -> Answers:
        """What the network says to the images at `index`, averaged over the test-time views."""
        return predict(self.module, self.batches, index, self.task, self.runtime, self.views)

    def finish(self) -> Outcome:
        """Reads the test parts with the chosen weights."""
        self.network.load_state_dict(self.outcome.weights)
        self.module, self.batches = self.network, self.data.batches
        for name, index in self.data.tests.items():
            self.outcome.tests[name] = self.answer(index)
        self.outcome.test_reads += 1
        return self.outcome

    def _start_phase(self, carried: Mapping[torch.Tensor, Any] | None = None) -> None:
        """Sets up what a phase trains, and on which input: images, or cached features where only the head learns."""
        phase = self.phases[self.phase]
        freezing.set_trainable(self.network, phase.trainable)
        steps = self.phase_epochs[self.phase] * self.steps_per_epoch
        self.phase_start = self.step
        self.schedule = Schedule(self.config.optimizer, steps, self.steps_per_epoch, phase.factor)
        is_cached = _is_cached(phase, self.config, self.augmentation)
        self.batches = self._features() if is_cached else self.data.batches
        self.module = self.network.head if is_cached else self.network
        self.stepper = Stepper(self.module, self.task.loss, self.config, self.runtime, carried=carried)

    def _features(self) -> FeatureBatches:
        """The features of a backbone that does not change, as many views of them as are looked at."""
        features = FeatureBatches(self.network, self.data.batches, self.config, self.runtime)
        num_views = self.config.augmentation.views
        for number in [None] if num_views is None else range(num_views):
            features.fill(self.data.train, view=number)
        for view in self.views:
            features.fill(self.data.validation, view=view)
        return features

    def _advance(self, score: float) -> None:
        """Moves on to the next epoch, or to the next phase."""
        self.schedule.after_epoch(score)
        self.epoch_in_phase += 1
        patience = self.config.training.patience
        is_stuck = patience is not None and self.epoch_in_phase - self.phase_best_epoch >= patience
        if self.epoch_in_phase < self.phase_epochs[self.phase] and not is_stuck:
            return
        self.phase += 1
        self.epoch_in_phase, self.phase_best, self.phase_best_epoch = 0, -np.inf, 0
        if not self.is_done:
            self._start_phase(carried=self.stepper.optimizer_state() if self.phases[self.phase].carries else None)

    def _keep_if_best(self, number: int, score: float, answers: Answers) -> None:
        """Keeps weights and answers; called while the weights are those that were judged."""
        weights = None
        if score > self.best:
            weights = _copy(self.network)
            self.best = score
            self.outcome.chosen_epoch, self.outcome.validation = number, answers
            self.outcome.weights = weights
        if score > self.phase_best:
            self.phase_best, self.phase_best_epoch = score, self.epoch_in_phase + 1
            kept = self.outcome.phase_weights[: self.phase]
            self.outcome.phase_weights = [*kept, weights if weights is not None else _copy(self.network)]

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, between two epochs."""
        outcome = self.outcome
        return {
            "network": self.network.state_dict(),
            "stepper": self.stepper.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.runtime.device) if self.runtime.device.type == "cuda" else None,
            "place": [self.step, self.phase, self.epoch_in_phase, self.phase_start, self.phase_best_epoch],
            "scores": [self.best, self.phase_best],
            "epochs": outcome.epochs,
            "chosen_epoch": outcome.chosen_epoch,
            "answers": outcome.validation.as_dict() if outcome.validation else None,
            "weights": outcome.weights,
            "phase_weights": outcome.phase_weights,
            "cost": [outcome.train_seconds, outcome.images_seen],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.step, self.phase, self.epoch_in_phase, phase_start, self.phase_best_epoch = state["place"]
        self.network.load_state_dict(state["network"])
        if not self.is_done:  # else only the test parts are left to read
            self._start_phase()
            self.phase_start = phase_start
            self.stepper.load_state_dict(state["stepper"])
            self.schedule.load_state_dict(state["schedule"])
        self.order.load_state_dict(state["order"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.runtime.device)
        self.best, self.phase_best = state["scores"]
        outcome = self.outcome
        outcome.epochs = list(state["epochs"])
        outcome.chosen_epoch = state["chosen_epoch"]
        outcome.validation = Answers.from_dict(state["answers"]) if state["answers"] else None
        outcome.weights, outcome.phase_weights = state["weights"], list(state["phase_weights"])
        outcome.train_seconds, outcome.images_seen = state["cost"]
        outcome.notes.append(f"went on after epoch {len(outcome.epochs)}, from a checkpoint")


@torch.inference_mode()
def predict(
    module: nn.Module,
    batches: "Batches | FeatureBatches",
    index: np.ndarray,
    task: Task,
    runtime: Runtime,
    views: list[torch.Tensor | None],
) -> Answers:
    """Answers to the images at `index`, in its order; several views of an image are averaged."""
    module.eval()
    parts = []
    for view in views:
        outputs = []
        for start in range(0, len(index), EVALUATION_BATCH):
            with runtime.autocast():
                output = module(batches(index[start : start + EVALUATION_BATCH], view=view))
            outputs.append(output.float().cpu())
        parts.append(task.split(torch.cat(outputs).numpy() if outputs else np.zeros((0, task.num_outputs), np.float32)))
    return Answers.mean(parts)


def _is_cached(phase: Phase, config: RunConfig, augmentation: augment.Augmentation) -> bool:
    """Whether the backbone gives the same features each epoch, so that they are computed once."""
    settings = config.augmentation
    is_mixed = settings.mixup_alpha or settings.cutmix_alpha or settings.erasing_probability
    is_fixed = augmentation == augment.Augmentation() or settings.views is not None
    return phase.trainable == "head" and is_fixed and not is_mixed


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _train_scores(
    predicted: list[torch.Tensor], places: list[torch.Tensor], labels: np.ndarray, num_classes: int
) -> dict[str, float | None]:
    if not predicted:
        return {"train_accuracy": None, "train_macro_f1": None}
    matrix = metrics.confusion_matrix(
        labels[torch.cat(places).cpu().numpy()], torch.cat(predicted).cpu().numpy(), num_classes
    )
    return {"train_accuracy": metrics.accuracy(matrix), "train_macro_f1": metrics.macro_f1(matrix)}


def _check_finite(losses: torch.Tensor, epoch: int, first_step: int, config: RunConfig) -> None:
    """Raises TrainingFailed naming the first step, counted from 1 over the run, whose loss is not finite."""
    bad = ~torch.isfinite(losses)
    if not bad.any():
        return
    step = first_step + int(bad.nonzero()[0])
    first = "the very first loss: the initial weights or the input are at fault"
    raise TrainingFailed(
        f"loss is not finite at step {step} (epoch {epoch}): {first if step == 1 else _too_fast(config)}"
    )


def _too_fast(config: RunConfig) -> str:
    remedy = "" if config.training.max_gradient_norm else ", or clip gradients with --set training.max_gradient_norm=1"
    return f"most likely the learning rate (peak {config.optimizer.learning_rate:g}) is too high; lower it{remedy}"
