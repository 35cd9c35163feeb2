"""Batches of faces kept on disk while a long synthesis runs, so that it can go on after an interruption."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray.errors import UserError

_DIGEST_BYTES = 32
_SETTINGS = "settings.json"


class Parts:
    """A folder of uint8 arrays, each in a file of its own behind a SHA-256, all made with the same settings.

    Attributes:
        folder: where they are.
        discarded: how many parts were thrown away because they were made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Opens the folder, or makes it. Raises UserError when it cannot be written."""
        self.folder = folder
        self.discarded = 0
        record = json.dumps(settings, sort_keys=True, indent=1).encode()
        try:
            folder.mkdir(exist_ok=True)
            if not (folder / _SETTINGS).exists() or (folder / _SETTINGS).read_bytes() != record:
                self.discarded = len(list(folder.glob("*.part")))
                self._empty()
                self._write(_SETTINGS, record)
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The part as uint8 of that shape, read-only; None if it is missing or damaged."""
        try:
            data = (self.folder / f"{name}.part").read_bytes()
        except OSError:
            return None
        pixels = memoryview(data)[_DIGEST_BYTES:]
        if len(pixels) != np.prod(shape) or hashlib.sha256(pixels).digest() != data[:_DIGEST_BYTES]:
            return None
        return np.frombuffer(pixels, np.uint8).reshape(shape)

    def put(self, name: str, faces: np.ndarray) -> None:
        """Writes a part, whole or not at all. Raises UserError when it cannot."""
        pixels = faces.tobytes()
        try:
            self._write(f"{name}.part", hashlib.sha256(pixels).digest() + pixels)
        except OSError as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Removes the parts and their folder; files of others in it stay, and with them the folder."""
        try:
            self._empty()
            self.folder.rmdir()
        except OSError as error:
            raise UserError(f"the faces are written, but {self.folder} cannot be removed: {error.strerror}") from error

    def _empty(self) -> None:
        for path in (*self.folder.glob("*.part"), *self.folder.glob("*.partial"), self.folder / _SETTINGS):
            path.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        partial = self.folder / f"{name}.partial"
        partial.write_bytes(data)
        os.replace(partial, self.folder / name)

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self.folder}: {error.strerror}; make room or choose another --out")
