"""Features of a frozen backbone: computed once, kept on disk, and shared by all trials that freeze the same one.

    features/<key>.f32 in the cache folder: a row per image of a data set, its features (float32) and their checksum

The key stands for all that features depend on: backbone, images, their form and view, and the machine. Rows are filled
as they are needed. A row is there if its checksum fits, so that an image that was not computed yet, one that a killed
process wrote in part, and a damaged one are the same case. No lock is needed, as every process that writes a row writes
the same bytes. Processes that fill one file at once take its rows in orders of their own, and so share the work.
"""

import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.data import augment
from fer_ray.data.augment import Augmentation
from fer_ray.data.batches import MAPPED_BYTES, Batches
from fer_ray.data.cache import cache_folder, release, writing
from fer_ray.models.network import Network
from fer_ray.training.runtime import Runtime, device_name, provenance

FEATURES_VERSION = 1
"""Raised when the same key would stand for other features than before."""

FILL_BATCH = 64
"""Images per pass of the backbone, always: features depend on the shape of their batch by some 1e-7, but neither on an
image's place in it nor on the other images, so that they are the same bits whoever computed them first."""

VIEWS_SEED = 0
"""Of the fixed augmented views: they belong to the image, not to the trial, so that trials of all seeds share them."""

View = torch.Tensor | int | None
"""How images are looked at: through a map, in one of the config's augmented views, or as they are."""

MAX_OPEN_VIEWS = 16
"""Views whose files are open at once; each takes two descriptors per data set."""

_CHECKED_ROWS = 1024


class FeatureBatches:
    """Batches of features in place of images: what `network.backbone`, in eval mode, makes of the output of `batches`.

    The backbone must not change while this object is used. Rows that are missing are computed when they are asked for;
    `fill` computes many of them ahead.
    """

    def __init__(self, network: Network, batches: Batches, config: RunConfig, runtime: Runtime) -> None:
        self._backbone, self._batches, self._runtime = network.backbone, batches, runtime
        self._num_features = network.num_features
        self._augmentation = augment.resolve(config.augmentation)
        self._starts = np.cumsum([0, *(len(dataset.images) for dataset in batches.datasets)])
        self._tables: dict[str, list[_Table]] = {}
        self._depends_on = {
            "version": FEATURES_VERSION,
            "backbone": _backbone_digest(network.backbone),
            "size": batches.size,
            "normalization": batches.normalization,
            "channels": batches.channels,
            "precision": runtime.precision,
            "layout": runtime.layout,
            "device": device_name(runtime.device),
            "threads": runtime.threads if runtime.device.type == "cpu" else None,
            "packages": {name: provenance()[f"version_{name}"] for name in ("torch", "torchvision", "timm")},
        }

    def __call__(
        self,
        index: np.ndarray,
        augmentation: Augmentation | None = None,
        generator: torch.Generator | None = None,
        *,
        view: View = None,
    ) -> torch.Tensor:
        """Features of the images at `index`, int64 [B]: float32 [B, num_features], on the runtime's device.

        As `Batches`, but that augmentation can only be a fixed view: a number from 0 for one of the config's augmented
        views, or a map of all images, float32 [2, 3], as in tests. None: the plain images.
        """
        assert augmentation is None or augmentation == Augmentation(), "random augmentation has no features to keep"
        tables = self._open(view)
        if not self._there(tables, index).all():
            self.fill(index, view=view)
        features = np.empty((len(index), self._num_features), np.float32)
        for number, places, rows in self._by_dataset(index):
            features[places] = tables[number].read(rows)
        return torch.from_numpy(features).to(self._runtime.device)

    def fill(
        self,
        index: np.ndarray,
        *,
        view: View = None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Computes the features of the images at `index` that are not there yet.

        `report` is called with how many of the missing ones are done, and how many there were.
        Raises UserError when the cache cannot be written.
        """
        tables = self._open(view)
        index = np.unique(index)
        missing = index[~self._there(tables, index)]
        # The order decides who computes what, never what comes out, so that it needs no seed.
        missing = np.random.default_rng().permutation(missing)
        done = 0
        for part in self._still_missing(tables, missing):
            features = self._compute(part, view)
            for number, places, rows in self._by_dataset(part):
                tables[number].write(rows, features[places])
            done += len(part)
            report(done, len(missing))
        if done < len(missing):
            report(len(missing), len(missing))  # others did the rest

    def _still_missing(self, tables: "list[_Table]", missing: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of what no other process has computed in the meantime."""
        pending = missing[:0]
        for start in range(0, len(missing), FILL_BATCH):
            part = missing[start : start + FILL_BATCH]
            pending = np.concatenate([pending, part[~self._there(tables, part)]])
            if len(pending) >= FILL_BATCH:
                yield pending[:FILL_BATCH]
                pending = pending[FILL_BATCH:]
        if len(pending):
            yield pending

    @torch.inference_mode()
    def _compute(self, index: np.ndarray, view: View) -> np.ndarray:
        """float32 [len(index), num_features], at most FILL_BATCH of them."""
        padded = np.pad(index, (0, FILL_BATCH - len(index)), mode="edge")
        maps = augment.draw_view(self._augmentation, padded, view, VIEWS_SEED) if isinstance(view, int) else view
        self._backbone.eval()
        with self._runtime.autocast():
            features = self._backbone(self._batches(padded, view=maps))
        return features[: len(index)].float().cpu().numpy()

    def _open(self, view: View) -> "list[_Table]":
        """The tables of a view, one for each data set."""
        assert not isinstance(view, torch.Tensor) or view.shape == (2, 3)
        name = view.tolist() if isinstance(view, torch.Tensor) else view
        if (known := self._tables.get(str(name))) is not None:
            return known
        opened = []
        for dataset, start in zip(self._batches.datasets, self._starts.tolist(), strict=False):
            drawn = [asdict(self._augmentation), VIEWS_SEED, start] if isinstance(view, int) else None
            data = [dataset.digest, *dataset.images.shape]
            depends_on = {**self._depends_on, "data": data, "view": name, "drawn": drawn}
            key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
            opened.append(_Table(cache_folder() / "features" / f"{key}.f32", len(dataset.images), self._num_features))
        if len(self._tables) == MAX_OPEN_VIEWS:
            del self._tables[next(iter(self._tables))]
        self._tables[str(name)] = opened
        return opened

    def _there(self, tables: "list[_Table]", index: np.ndarray) -> np.ndarray:
        there = np.empty(len(index), bool)
        for number, places, rows in self._by_dataset(index):
            there[places] = tables[number].there(rows)
        return there

    def _by_dataset(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The number of each data set that `index` is in, the places in `index`, and the rows of the data set there."""
        number = np.searchsorted(self._starts, index, side="right") - 1
        for i in np.unique(number):
            places = np.flatnonzero(number == i)
            yield int(i), places, index[places] - self._starts[i]


class _Table:
    """float32 [num_rows, num_features] in a file, each row with its checksum.

    The file is mapped for reading. It starts as a hole, which takes no room on the disk.
    """

    def __init__(self, path: Path, num_rows: int, num_features: int) -> None:
        self._row = np.dtype([("features", "<f4", num_features), ("checksum", "<u4")])
        self._known = np.zeros(num_rows, bool)
        num_bytes = num_rows * self._row.itemsize
        with writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written, not mapped: pages changed through a map are private memory until the system writes them.
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            if os.fstat(self._file.fileno()).st_size != num_bytes:
                os.truncate(self._file.fileno(), num_bytes)
        self._rows = np.memmap(self._file, self._row, "r", shape=num_rows)
        self._is_large = num_bytes > MAPPED_BYTES

    def there(self, rows: np.ndarray) -> np.ndarray:
        """Which of the rows, int64 [n], are there and sound: bool [n]."""
        unknown = rows[~self._known[rows]]
        for start in range(0, len(unknown), _CHECKED_ROWS):
            some = unknown[start : start + _CHECKED_ROWS]
            block = self._rows[some]
            self._known[some] = _checksums(block["features"]) == block["checksum"]
            self._give_back()
        return self._known[rows]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The features of rows that are there: float32 [n, num_features]."""
        features = self._rows["features"][rows]
        self._give_back()
        return features

    def write(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Writes features, float32 [n, num_features], with their checksums."""
        block = np.empty(len(rows), self._row)
        block["features"] = features
        block["checksum"] = _checksums(block["features"])
        with writing():
            for row, content in zip(rows.tolist(), block, strict=True):
                data, offset = content.tobytes(), row * self._row.itemsize
                while data:
                    written = os.pwrite(self._file.fileno(), data, offset)
                    data, offset = data[written:], offset + written
        self._known[rows] = True

    def _give_back(self) -> None:
        if self._is_large:
            release(self._rows)


def _checksums(features: np.ndarray) -> np.ndarray:
    """uint32 [n], of each row of float32 [n, num_features]; never 0, which is what a hole holds."""
    return np.array([zlib.crc32(row.tobytes()) or 1 for row in features], np.uint32)


def _backbone_digest(backbone: nn.Module) -> str:
    """SHA-256 over parameters, buffers, and the text of the modules: strides and activations have no weights."""
    digest = hashlib.sha256(repr(backbone).encode())
    for name, tensor in itertools.chain(backbone.named_parameters(), backbone.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
