"""The cache folder: where it is, its lock, and pixels too many for memory on their way into it."""

import mmap
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from fer_ray.errors import UserError

IN_MEMORY_BYTES = 256 * 2**20
"""Image stacks up to this size are decoded in memory, larger ones into a temporary file of the cache."""

BLOCK_BYTES = 16 * 2**20


def cache_folder() -> Path:
    """`$FER_RAY_CACHE`, else `fer_ray` in the XDG cache folder."""
    if chosen := os.environ.get("FER_RAY_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer_ray"


@contextmanager
def lock() -> Iterator[Path]:
    """Makes the cache folder and holds its lock, which all processes that write to it share; gives the folder.

    Raises UserError when it cannot be written.
    """
    folder = cache_folder()
    held = FileLock(folder / "lock")
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield folder
    finally:
        held.release()


@contextmanager
def writing() -> Iterator[None]:
    """Tells an OSError inside as the cache's: UserError with the folder and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the data cache at {cache_folder()}: {error.strerror or error}; "
            "make room there, or set FER_RAY_CACHE to a folder with space that you may write to"
        ) from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to be filled, which takes the name `folder` at the end, its files on the disk by then.

    The lock of the cache must be held, so that an unfinished one found there is that of a process which was killed.
    OSError passes through, and nothing half-written stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in (*folder.parent.glob(".*"), folder):
        shutil.rmtree(unfinished, ignore_errors=True)
    staging = folder.with_name(f".{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir()
        yield staging
        # Pages not yet on the disk would count as private memory of the process that maps them.
        for file in staging.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        os.rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class ImageStack:
    """uint8 [n, H, W, C], filled image by image, from several threads: in memory, or in a file if it is large."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        self._image_bytes = shape[1] * shape[2] * shape[3]
        self._memory: np.ndarray | None = None
        if shape[0] * self._image_bytes <= IN_MEMORY_BYTES:
            self._memory = np.empty(shape, np.uint8)
            return
        with writing():
            cache_folder().mkdir(parents=True, exist_ok=True)
            # Without a name: the system frees it when the last map of it goes, however the process ends.
            self._file = tempfile.TemporaryFile(dir=cache_folder())  # noqa: SIM115
            self._file.truncate(shape[0] * self._image_bytes)

    def __setitem__(self, i: int, pixels: np.ndarray) -> None:
        if self._memory is not None:
            self._memory[i] = pixels
            return
        # Written, not mapped: pages changed through a map are private memory until the system writes them.
        data, offset = np.ascontiguousarray(pixels).data.cast("B"), i * self._image_bytes
        with writing():
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written

    def array(self) -> np.ndarray:
        """The images; read-only and mapped if they lie in a file."""
        if self._memory is not None:
            return self._memory
        self._file.flush()
        return np.memmap(self._file, np.uint8, "r", shape=self.shape)


def blocks(images: np.ndarray) -> Iterator[slice]:
    """Slices of about 16 MB over images [n, ...]; a memory map gives its pages back after each."""
    step = max(1, BLOCK_BYTES // max(1, images[0].nbytes)) if len(images) else 1
    for start in range(0, len(images), step):
        yield slice(start, min(start + step, len(images)))
        release(images)


def release(images: np.ndarray) -> None:
    """Gives back the pages of a memory-mapped array; what is read again comes from the file. Else nothing."""
    base: object = images
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
