"""Penultimate features of a network: of a finished trial, or of one trained briefly on the real training split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fer_ray.config import RunConfig, RuntimeConfig
from fer_ray.data.batches import Batches
from fer_ray.data.splits import Splits
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError
from fer_ray.models import zoo
from fer_ray.models.network import Network as TrainedNetwork
from fer_ray.trained import Record, open_trial
from fer_ray.training import loop, tasks
from fer_ray.training import runtime as machine
from fer_ray.training.runtime import Runtime

FRESH = RunConfig.from_flat({"model.name": "ResNet18", "training.batch_size": 64})
"""How a fresh network is trained; epochs and seed are the user's."""

EPOCH_IMAGES = 4_000
"""Nominal images of a fresh network's epoch: under a minute on two cores at 48 px. All training images take turns."""

CHOICE_IMAGES = 1_000
"""Validation images that choose a fresh network's epoch, at most."""


@dataclass(frozen=True)
class Network:
    """A network that gives features.

    Attributes:
        model: on the runtime's device.
        image_size: side of its input in pixels.
        normalization, channels: of its input, as `Batches` takes them.
        facts: name -> value, how it came about, for people and for the record.
    """

    model: nn.Module
    image_size: int
    normalization: str
    channels: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Features:
    """Features of some images of a data set: float32 [n, d] for the int64 indices [n], ascending."""

    index: np.ndarray
    values: np.ndarray

    def of(self, index: np.ndarray) -> np.ndarray:
        """float32 [len(index), d] of images that are among them, in the order of `index`."""
        return self.values[np.searchsorted(self.index, index)]


def load(record: Record, runtime: Runtime) -> Network:
    """The network of a trial with its chosen weights, ready to give features. Raises UserError as `open_trial`."""
    trained = open_trial(record)
    row = record.row
    facts = {
        "network": f"{record.config.model.name}, trial {row['id']}",
        "trained on": f"{row.get('num_train_real')} real and {row.get('num_train_synthetic')} synthetic faces "
        f"({row.get('data_name')}, digest {row.get('data_digest')})",
        "validation macro F1": row.get("validation_macro_f1"),
    }
    channels = record.config.model.channels
    return Network(runtime.place(trained.network), trained.image_size, trained.normalization, channels, facts)


def train(
    real: Dataset,
    splits: Splits,
    *,
    epochs: int,
    seed: int,
    runtime: Runtime,
    report: Callable[[dict[str, Any]], None],
) -> Network:
    """A network trained from scratch on the real training split, at native size; test images take no part.

    `report` is called with each epoch's row, as by `loop.fit`. Raises UserError when training fails.
    """
    config = FRESH.replace({"training.epochs": epochs, "training.seed": seed})
    chosen_on = np.sort(np.random.default_rng(seed).permutation(splits.validation)[:CHOICE_IMAGES])
    size = real.images.shape[1]
    data = loop.RunData(
        batches=Batches([real], size=size, normalization="image", device=runtime.device),
        labels=real.labels.astype(np.int64),
        train=splits.train,
        validation=chosen_on,
        tests={},
        num_nominal=min(len(splits.train), EPOCH_IMAGES),
    )
    counts = np.bincount(real.labels[splits.train], minlength=len(real.classes))
    task = tasks.build(config, real.classes, counts)
    built: list[TrainedNetwork] = []

    def build() -> TrainedNetwork:
        built.append(zoo.build(config.model, task.num_classes, image_size=size))
        return built[0]

    try:
        outcome = loop.fit(config, build, task, data, runtime, report)
    except loop.TrainingFailed as failure:
        raise UserError(f"{real.name}: no network could be trained for features ({failure}); give --network") from None
    facts = {
        "network": f"{config.model.name}, trained for this page",
        "trained on": f"{outcome.images_seen:,} faces drawn from {len(splits.train):,} real training ones "
        f"({real.name}), {epochs} epochs",
        "validation macro F1": outcome.epochs[outcome.chosen_epoch - 1]["validation_macro_f1"],
    }
    return Network(built[0], size, "image", config.model.channels, facts)


@torch.inference_mode()
def extract(
    network: Network, dataset: Dataset, index: np.ndarray, runtime: Runtime, advance: Callable[[int], None]
) -> Features:
    """What the classifier of the network is given for the images at `index`, int64 [n] ascending.

    `advance` is called with the number of images done. Raises UserError when a feature is not finite.
    """
    classifier = [module for module in network.model.modules() if isinstance(module, nn.Linear)][-1]
    parts: list[torch.Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0].float().cpu()))
    size, normalization = network.image_size, network.normalization
    batches = Batches(
        [dataset], size=size, normalization=normalization, channels=network.channels, device=runtime.device
    )
    network.model.eval()
    try:
        for start in range(0, len(index), loop.EVALUATION_BATCH):
            chunk = index[start : start + loop.EVALUATION_BATCH]
            network.model(batches(chunk))
            advance(len(chunk))
    finally:
        hook.remove()
    values = torch.cat(parts).numpy()
    if not np.isfinite(values).all():
        raise UserError(f"{network.facts['network']}: its features are not finite; choose another with --network")
    return Features(index, values)


def resolve(device: str, threads: int | Literal["auto"]) -> Runtime:
    """Where features are computed, in float32. Raises UserError when the device cannot be used."""
    return machine.resolve(RuntimeConfig(device=device, threads=threads, precision="float32"))
