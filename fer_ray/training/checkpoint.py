"""Checkpoints of a run, from which a stopped one goes on: `checkpoint-<step>-<SHA-256 of the file>.pt`.

The bytes are hashed on their way to a temporary file, which gets its name when all of them are on the disk. A
checkpoint that was cut short or damaged later does not fit its name; it is noticed, and the one before is used.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from fer_ray.errors import UserError

NUM_KEPT = 2

_NAME = re.compile(r"checkpoint-\d+-[0-9a-f]{64}\.pt")
_PARTIAL = ".checkpoint.partial"
_ARRAY = "numpy array"  # a dict with this one key stands for an array, which torch would unpickle with numpy's code


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, keeps it and the newest one before it, and deletes the others; returns its path.

    A folder belongs to one run. It is made where it is missing.

    Args:
        step: optimizer steps taken so far, >= 0.
        state: nested dicts, lists and tuples of tensors, numpy arrays, numbers, strings and None. "signature" says
            which run it belongs to.

    Raises:
        UserError: the folder cannot be written, or its disk is full. The checkpoints that were there still are.
        TypeError: the state holds something that could not be loaded again.
    """
    assert "signature" in state
    plain = _without_numpy(state)
    partial = folder / _PARTIAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                digest = _write(plain, file)
            path = folder / f"checkpoint-{step}-{digest}.pt"
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _sync(folder)
        # What is ahead of this run was refused when it began, or left by a run that it repeats.
        earlier = [old for old in _newest_first(folder) if _step(old) < step]
        for old in set(_newest_first(folder)) - {path, *earlier[: NUM_KEPT - 1]}:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write a checkpoint to {folder}: {error.strerror or error}; make room there, or choose a folder "
            "that you may write to"
        ) from error
    return path


def load_newest(folder: Path, signature: str, say: Callable[[str], None] = lambda note: None) -> dict[str, Any] | None:
    """The state of the newest sound checkpoint of this run, its tensors on the CPU; None where there is none.

    `say` is told of every checkpoint that is passed over. Damaged ones are deleted, so that they do not count among
    those that `save` keeps.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            with path.open("rb") as file:
                is_sound = hashlib.file_digest(file, "sha256").hexdigest() == path.stem.rpartition("-")[2]
                state = _load(file) if is_sound else None
        except OSError as error:
            if _newest_first(folder) != found:  # the run that writes here has made a newer one
                return load_newest(folder, signature, say)
            say(f"{path} cannot be read ({error.strerror or error}) and is passed over")
            continue
        if state is None:
            say(f"{path} is damaged, its bytes are not those of a checkpoint that was written, and is passed over")
            with suppress(OSError):
                path.unlink()
        elif state["signature"] != signature:
            say(f"{path} is of another run (signature {state['signature']}, not {signature}) and is passed over")
        else:
            return state
    return None


def discard(folder: Path) -> None:
    """Deletes the checkpoints of a run, and the folder if nothing else is in it. Raises UserError if it cannot."""
    try:
        for path in [folder / _PARTIAL, *_newest_first(folder)]:
            path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise UserError(f"cannot delete the checkpoints in {folder}: {error.strerror or error}") from error


class _HashingWriter:
    """What torch writes to. A failed write is kept for later, as torch would hide it behind an error of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self.failure: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        if self.failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failure = error
        return len(data)

    def flush(self) -> None:
        """For torch, which asks for it."""


def _write(plain: Any, file: BinaryIO) -> str:
    """Writes to the disk itself; returns the SHA-256 of what was meant, whatever has become of it on its way."""
    writer = _HashingWriter(file)
    torch.save(plain, writer)  # type: ignore[arg-type]
    if writer.failure is not None:
        raise writer.failure
    file.flush()
    os.fsync(file.fileno())
    return writer.sha256.hexdigest()


def _load(file: BinaryIO) -> dict[str, Any] | None:
    file.seek(0)
    try:
        state = _with_numpy(torch.load(file, map_location="cpu", weights_only=True))
    except OSError:
        raise
    except Exception:  # whatever torch makes of a file that fits its name but is not ours
        return None
    return state if isinstance(state, dict) and "signature" in state else None


def _without_numpy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_without_numpy(key): _without_numpy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_numpy(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_without_numpy(item) for item in value)
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}: {value!r}")


def _with_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].numpy()
        return {key: _with_numpy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numpy(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_with_numpy(item) for item in value)
    return value


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: (_step(path), path.name), reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _sync(folder: Path) -> None:
    """Puts the names in a folder on the disk, so that a power cut does not take back a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
