"""A small backbone, data sets of random images for it, and a cache of its features."""

import numpy as np
import torch
from faces import random_faces
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.data.batches import Batches
from fer_ray.data.store import Dataset
from fer_ray.models.network import Network
from fer_ray.training.feature_cache import FeatureBatches
from fer_ray.training.runtime import Runtime

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, threads=1, precision="float32")
CONFIG = RunConfig()
MIRROR = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
NUM_FEATURES = 24


class Backbone(nn.Sequential):
    """Small, with all that behaves otherwise when it is trained; it counts the images that it sees."""

    def __init__(self, stride: int = 2, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=stride),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, NUM_FEATURES, 3, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.num_seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.num_seen += len(images)
        features: torch.Tensor = super().forward(images)
        return features


def network(stride: int = 2, seed: int = 0) -> Network:
    backbone = Backbone(stride, seed)
    return Network(backbone, nn.Linear(NUM_FEATURES, 3), NUM_FEATURES)


def dataset(count: int = 200, seed: int = 0) -> Dataset:
    return Dataset(
        name="random",
        images=random_faces(count, seed, size=24),
        ids=np.arange(count).astype("S"),
        labels=(np.arange(count) % 3).astype(np.int16),
        splits=np.zeros(count, np.int8),
        classes=("happy", "sad", "neutral"),
        valence=None,
        arousal=None,
        digest=f"{seed:016x}",
    )


def batches(*datasets: Dataset, size: int = 24, normalization: str = "half", channels: int = 3) -> Batches:
    return Batches(datasets or (dataset(),), size=size, normalization=normalization, channels=channels, device=CPU)


def features(
    net: Network | None = None,
    images: Batches | None = None,
    config: RunConfig = CONFIG,
    runtime: Runtime = RUNTIME,
) -> FeatureBatches:
    return FeatureBatches(net or network(), images or batches(), config, runtime)


@torch.inference_mode()
def recomputed(net: Network, images: torch.Tensor) -> np.ndarray:
    net.backbone.eval()
    return net.backbone(images).numpy()
