"""Data sets of this machine's cache for runs on other machines: sent by name, and their files where they are missing.

Content decides the name of what is in a cache. So a data set travels as the names of its files, and a machine asks for
the files only if it does not have them; paths and times of change of the sender mean nothing there.
"""

import io
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray.data import cache
from fer_ray.errors import UserError

PIECE_BYTES = 64 * 2**20
"""Files travel in pieces of this size: no machine holds more than a few of them in memory."""

LOG = "received.log"
"""In the cache folder: time and name of each folder that came from another machine."""

Read = Callable[[str, int, int], np.ndarray]
"""Path on the sender's machine, first byte, number of bytes -> uint8 [number]."""


@dataclass(frozen=True)
class Folder:
    """A folder as it belongs into every cache.

    Attributes:
        name: its place in a cache, e.g. "entries/0d3fb25e9e0c1a77-48x48x1".
        files: name -> where the file lies on the sender's machine, and its size in bytes.
    """

    name: str
    files: Mapping[str, tuple[str, int]]

    @property
    def path(self) -> Path:
        """Where it is, or will be, on this machine."""
        return cache.cache_folder() / self.name

    def is_here(self) -> bool:
        """Whether it is on this machine, and whole."""
        try:
            return all((self.path / name).stat().st_size == size for name, (_, size) in self.files.items())
        except OSError:
            return False


def folder(name: str, *paths: Path) -> Folder:
    """The folder of that name made of these files of this machine."""
    return Folder(name, {path.name: (str(path), path.stat().st_size) for path in paths})


def pack(value: Any) -> tuple[bytes, list[Folder]]:
    """`value` for `unpack` on another machine, and the entries of the cache that it needs there.

    Arrays that are mapped from the cache are packed as the names of their files, all else as it is.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), [folder(f"entries/{entry.name}", *sorted(entry.iterdir())) for entry in pickler.entries]


def unpack(packed: bytes) -> Any:
    """What `pack` was given, its arrays mapped from the cache of this machine."""
    return _Unpickler(io.BytesIO(packed)).load()


def receive(sent: Folder, read: Read) -> None:
    """Brings a folder into this machine's cache unless it is there; of many processes at once, one does.

    Raises UserError when it cannot be written, or a file is not what was announced.
    """
    if sent.is_here():
        return
    with cache.lock() as root:
        if sent.is_here():  # another process brought it meanwhile
            return
        with cache.writing(), cache.new_folder(sent.path) as staging:
            for name, (source, size) in sent.files.items():
                with (staging / name).open("wb") as file:
                    for start in range(0, size, PIECE_BYTES):
                        file.write(read(source, start, min(PIECE_BYTES, size - start)).data)
                if (staging / name).stat().st_size != size:
                    raise UserError(f"{source} changed while it was sent to another machine; start again")
        with cache.writing(), (root / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {sent.name}\n")


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self._entries = (cache.cache_folder() / "entries").resolve()
        self.entries: dict[Path, None] = {}

    def persistent_id(self, value: Any) -> str | None:
        mapped = value.base if type(value) is np.ndarray else None
        if not isinstance(mapped, np.memmap) or mapped.filename is None:
            return None
        path = Path(mapped.filename)
        is_whole = (value.shape, value.strides, value.dtype) == (mapped.shape, mapped.strides, mapped.dtype)
        if not is_whole or path.parent.parent != self._entries:
            return None
        self.entries[path.parent] = None
        return f"{path.parent.name}/{path.name}"


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> np.ndarray:
        return np.load(cache.cache_folder() / "entries" / name, mmap_mode="r").view(np.ndarray)
