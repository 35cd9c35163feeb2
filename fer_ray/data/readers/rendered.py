"""Demo faces, rendered on the spot instead of read: the data set that needs no download."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from fer_ray import labels
from fer_ray.data import demo
from fer_ray.data.readers.samples import SPLITS, Samples

REAL_SPLITS = {"train": (2_100, 0), "validation": (280, 1), "test": (560, 2)}
"""Split -> number of faces and the renderer's seed; 300, 40 and 80 a class."""

SYNTHETIC_SPLITS = {"train": (2_100, 3)}


def stamp() -> str:
    """A hash of the renderer's sources and of this file: when they change, the faces are rendered again."""
    sources = (*sorted(Path(demo.__file__).parent.glob("demo*.py")), Path(__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def read(domain: Literal["real", "synthetic"]) -> Samples:
    """The demo faces of a domain, "real" or "synthetic": uint8 [n, 48, 48, 1] of FER2013's seven classes."""
    sets = REAL_SPLITS if domain == "real" else SYNTHETIC_SPLITS
    parts = [demo.render(count, domain=domain, seed=seed) for count, seed in sets.values()]
    return Samples(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]).astype(np.int16),
        classes=labels.FER2013,
        splits=np.repeat([SPLITS.index(name) for name in sets], [len(part.labels) for part in parts]).astype(np.int8),
        valence=np.concatenate([part.valence for part in parts]).astype(np.float32),
        arousal=np.concatenate([part.arousal for part in parts]).astype(np.float32),
    )
