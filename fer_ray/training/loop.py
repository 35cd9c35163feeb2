"""The one training loop, for every architecture: train, validate each epoch, keep the best, read the test once."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fer_ray import metrics
from fer_ray.config import RunConfig, TrainingConfig
from fer_ray.data import augment
from fer_ray.data.batches import Batches
from fer_ray.training import optim, schedules
from fer_ray.training.runtime import PeakMemory, Runtime, seed_everything

EVALUATION_BATCH = 256
FINITE_CHECK_STEPS = 50


class TrainingFailed(Exception):
    """A run cannot go on; the message says at which step and the likely cause."""


@dataclass(frozen=True)
class RunData:
    """What one run trains and is judged on.

    Attributes:
        batches: the images.
        labels: int64 [n], class of every image that `batches` addresses.
        train, validation, test: int64 indices into both.
        num_nominal: N, the images that make an epoch.
        num_classes: C.
    """

    batches: Batches
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    num_nominal: int
    num_classes: int


@dataclass
class Outcome:
    """What a run found: a row per epoch, the chosen epoch, its weights and probabilities (float32 [n, C]), and cost."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    chosen_epoch: int = 0
    validation_probabilities: np.ndarray | None = None
    test_probabilities: np.ndarray | None = None
    test_reads: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    images_seen: int = 0


def fit(
    config: RunConfig,
    build_model: Callable[[], nn.Module],
    data: RunData,
    runtime: Runtime,
    report: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Trains a model and evaluates the epoch that validation chose on the test split, once.

    `report` is called with each epoch's row. Raises TrainingFailed when the loss is not finite.
    """
    seed = config.training.seed
    seed_everything(seed)
    memory = PeakMemory(runtime.device)
    model = build_model().to(memory_format=torch.channels_last).to(runtime.device)
    optimizer = optim.build(model, config.optimizer)
    augmentation = augment.resolve(config.augmentation)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] if config.model.weights == "none" else []
    momenta = [norm.momentum or 0.0 for norm in norms]
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(config.training.batch_size, data.num_nominal)
    steps_per_epoch = max(1, round(data.num_nominal / batch_size))
    total_steps = steps_per_epoch * config.training.epochs
    order = _endless_order(data.train, batch_size, np.random.default_rng(seed))
    labels = torch.from_numpy(data.labels).to(runtime.device)
    outcome = Outcome()
    best = -np.inf

    step = 0
    for epoch in range(1, config.training.epochs + 1):
        started = time.perf_counter()
        model.train()
        losses = torch.zeros(steps_per_epoch, device=runtime.device)
        predicted = torch.zeros(steps_per_epoch, batch_size, dtype=torch.int64, device=runtime.device)
        expected = torch.zeros_like(predicted)
        for i in range(steps_per_epoch):
            learning_rate = schedules.learning_rate_at(step, total_steps, config.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            for norm, momentum in zip(norms, momenta, strict=True):
                # From scratch the running statistics start as the mean of all batches so far; their arbitrary start
                # (mean 0, variance 1) would otherwise outweigh the data for the first hundred steps.
                norm.momentum = max(momentum, 1 / (step + 1))
            index = next(order)
            images = data.batches(index, augmentation, generator)
            target = labels[torch.from_numpy(index).to(runtime.device)]
            loss, logits = train_step(model, optimizer, images, target, config.training, runtime)
            losses[i], predicted[i], expected[i] = loss, logits.argmax(1), target
            step += 1
            # Reading a GPU's loss waits for it, so it is looked at every few steps; the step named is exact.
            if (i + 1) % FINITE_CHECK_STEPS == 0 or i + 1 == steps_per_epoch:
                _check_finite(losses[: i + 1], epoch, steps_per_epoch, config)
        seconds = time.perf_counter() - started
        outcome.train_seconds += seconds
        outcome.images_seen += steps_per_epoch * batch_size

        train_matrix = metrics.confusion_matrix(
            expected.flatten().cpu().numpy(), predicted.flatten().cpu().numpy(), data.num_classes
        )
        probabilities = predict(model, data.batches, data.validation, runtime)
        if not np.isfinite(probabilities).all():
            # The last update of an epoch has no loss after it; nor do running statistics that left float32.
            raise TrainingFailed(
                f"validation output is not finite after step {step} (epoch {epoch}): {_too_fast(config)}"
            )
        validation = _summary(data.labels[data.validation], probabilities)
        row = {
            "epoch": epoch,
            "images_seen": outcome.images_seen,
            "learning_rate": learning_rate,
            "train_loss": losses.mean().item(),
            "train_accuracy": metrics.accuracy(train_matrix),
            "train_macro_f1": metrics.macro_f1(train_matrix),
            **{f"validation_{name}": value for name, value in validation.items()},
            "seconds": seconds,
            "images_per_second": steps_per_epoch * batch_size / seconds,
            "peak_memory_mb": memory.megabytes(),
        }
        outcome.epochs.append(row)
        score = (
            -validation["loss"]
            if config.training.selection_metric == "loss"
            else (validation[config.training.selection_metric])
        )
        if score > best:
            best = score
            outcome.chosen_epoch = epoch
            outcome.validation_probabilities = probabilities
            outcome.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        report(row)
        patience = config.training.patience
        if patience is not None and epoch - outcome.chosen_epoch >= patience:
            break

    model.load_state_dict(outcome.weights)
    outcome.test_probabilities = predict(model, data.batches, data.test, runtime)
    outcome.test_reads += 1
    return outcome


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    target: torch.Tensor,
    config: TrainingConfig,
    runtime: Runtime,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, loss, backward, clip, update. Returns the loss and the logits [B, C] of the weights before it."""
    with runtime.autocast():
        logits = model(images)
    loss = functional.cross_entropy(logits.float(), target, label_smoothing=config.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    if config.max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    return loss.detach(), logits.detach()


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, index: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Class probabilities of the images at `index`, in its order: float32 [len(index), C]."""
    model.eval()
    parts = []
    for start in range(0, len(index), EVALUATION_BATCH):
        with runtime.autocast():
            logits = model(batches(index[start : start + EVALUATION_BATCH]))
        parts.append(logits.float().softmax(1).cpu())
    return torch.cat(parts).numpy()


def _endless_order(index: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Full batches from one shuffled pass after another, so that every cell takes equal steps of equal size."""
    pending = np.empty(0, np.int64)
    while True:
        while len(pending) < batch_size:
            pending = np.concatenate([pending, rng.permutation(index)])
        yield pending[:batch_size]
        pending = pending[batch_size:]


def _check_finite(losses: torch.Tensor, epoch: int, steps_per_epoch: int, config: RunConfig) -> None:
    """Raises TrainingFailed naming the first step, counted from 1 over the run, whose loss is not finite."""
    bad = ~torch.isfinite(losses)
    if not bad.any():
        return
    step = (epoch - 1) * steps_per_epoch + int(bad.nonzero()[0]) + 1
    first = "the very first loss: the initial weights or the input are at fault"
    raise TrainingFailed(
        f"loss is not finite at step {step} (epoch {epoch}): {first if step == 1 else _too_fast(config)}"
    )


def _too_fast(config: RunConfig) -> str:
    remedy = "" if config.training.max_gradient_norm else ", or clip gradients with --set training.max_gradient_norm=1"
    return f"most likely the learning rate (peak {config.optimizer.learning_rate:g}) is too high; lower it{remedy}"


def _summary(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    matrix = metrics.confusion_matrix(labels, probabilities.argmax(1), probabilities.shape[1])
    loss, accuracy, f1 = metrics.log_loss(labels, probabilities), metrics.accuracy(matrix), metrics.macro_f1(matrix)
    assert loss is not None
    assert accuracy is not None
    assert f1 is not None
    return {"loss": loss, "accuracy": accuracy, "macro_f1": f1}
