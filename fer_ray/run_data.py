"""The images, labels and targets of one run, gathered from the data of an experiment."""

from typing import TYPE_CHECKING

import numpy as np

from fer_ray.config import RunConfig
from fer_ray.data.mixing import Mixture
from fer_ray.data.store import Dataset
from fer_ray.errors import UserError
from fer_ray.experiment import Experiment

if TYPE_CHECKING:
    import torch

    from fer_ray.training.loop import RunData


def normalization(config: RunConfig) -> str:
    """The input normalisation: as asked, or the one that suits the weights."""
    if config.data.normalization != "auto":
        return config.data.normalization
    if config.model.weights != "imagenet":
        return "image" if config.model.weights == "none" else "imagenet"
    from fer_ray.models import zoo

    return zoo.pretrained_normalization(config.model.name)


def image_size(config: RunConfig, real: Dataset) -> int:
    """Side of the network's input in pixels."""
    return real.images.shape[1] if config.data.image_size == "native" else config.data.image_size


def gather(
    config: RunConfig, experiment: Experiment, mixture: Mixture, num_nominal: int, device: "torch.device"
) -> "RunData":
    """Real, synthetic and other images one after the other, as far as the run needs them, and where its parts are."""
    from fer_ray.data.batches import Batches
    from fer_ray.training.loop import RunData

    parts = experiment.parts(config)
    tested = [test.dataset for test in parts.tests.values()]
    trained = [experiment.synthetic] if experiment.synthetic and len(mixture.synthetic) else []
    datasets = list({id(dataset): dataset for dataset in (experiment.real, *trained, *tested)}.values())
    sizes = [len(dataset.images) for dataset in datasets]
    start = {id(dataset): sum(sizes[:i]) for i, dataset in enumerate(datasets)}
    train = [mixture.real, *(mixture.synthetic + start[id(dataset)] for dataset in trained)]
    soft = None
    if experiment.real.targets is not None:
        soft = np.concatenate([_targets(dataset) for dataset in datasets])
    valence, arousal = (_affect(datasets, name) for name in ("valence", "arousal"))
    if config.task.name != "expression" and (valence is None or not np.isfinite(valence[mixture.real]).any()):
        raise UserError(
            f"task.name={config.task.name} needs faces with valence and arousal, and {experiment.real.name} has none; "
            "give such data, or --task expression"
        )
    return RunData(
        batches=Batches(
            datasets,
            size=image_size(config, experiment.real),
            normalization=normalization(config),
            channels=config.model.channels,
            device=device,
        ),
        labels=np.concatenate([dataset.labels for dataset in datasets]).astype(np.int64),
        train=np.concatenate(train),
        validation=parts.validation,
        tests={name: test.index + start[id(test.dataset)] for name, test in parts.tests.items()},
        num_nominal=num_nominal,
        soft=soft,
        valence=valence,
        arousal=arousal,
    )


def _affect(datasets: list[Dataset], name: str) -> np.ndarray | None:
    """float32 [n]: valence or arousal of several data sets, NaN where one has none; None if none of them has any."""
    values = [getattr(dataset, name) for dataset in datasets]
    if all(value is None for value in values):
        return None
    missing = [np.full(len(dataset.images), np.nan, np.float32) for dataset in datasets]
    return np.concatenate([found if value is None else value for value, found in zip(values, missing, strict=True)])


def _targets(dataset: Dataset) -> np.ndarray:
    """float32 [n, C]: a data set's own targets, or its labels as such; 0 for samples without a class."""
    if dataset.targets is not None:
        return dataset.targets
    one_hot = np.eye(len(dataset.classes) + 1, len(dataset.classes), dtype=np.float32)
    return one_hot[dataset.labels]
