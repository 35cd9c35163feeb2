"""Reads the pickle of an official StyleGAN2-ADA snapshot as plain data; nothing that the file carries is run.

`pickle` and `torch.load` are not used: `pickle_machine` follows the opcodes, and each global of a short list is a
function of this module that checks its arguments and returns plain data. Whatever else a file asks for is refused.

The format of the carried tensors is that of `torch.save(storage, _use_new_zipfile_serialization=False)`: five pickles
(a magic number, a version, facts of the machine, the storage as a persistent id, a list of keys), then the number of
values as int64, then the values.
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray.errors import UserError
from fer_ray.synthesis.pickle_machine import Global, Machine, RefusedError, of_type, shown

MAX_BYTES = 2 * 2**30
"""Of a file; the official generators of 1024 x 1024 pixels have 0.4 GB."""


_MAGIC, _VERSION = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", 1001
_SCALARS = {"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}


@dataclass(frozen=True)
class PersistentObject:
    """What `torch_utils.persistence` wrote for an object: the name of its class and its `__dict__`.

    The Python source that comes with it is dropped.
    """

    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True)
class _Unread:
    """A value that no generator needs and that is passed over."""


_UNREAD = _Unread()


def read(path: Path) -> Any:
    """The content of a snapshot.

    Dicts stay dicts, with text as keys. Sets become lists. Tensors and parameters become read-only numpy arrays, which
    share the file's bytes. Modules become `PersistentObject`.

    Raises UserError, naming the file, when it is missing, too large, damaged, or asks for anything outside the list.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path} is not a file; expected a StyleGAN2-ADA snapshot (.pkl)")
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_BYTES:,} for a StyleGAN2-ADA snapshot")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes that pickletools finds in odd names
            return Machine(len(data), _build).run(io.BytesIO(data), _GLOBALS)
    except RefusedError as error:
        raise UserError(f"{path} was not read, and nothing in it was run: {error}") from error
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise UserError(
            f"{path} is not a complete StyleGAN2-ADA snapshot ({shown(str(error) or type(error).__name__)}); "
            "expected the .pkl that the official PyTorch implementation writes: damaged, or another kind of file?"
        ) from error


def _build(target: Any, state: Any) -> None:
    # The state of a numpy dtype: (version, byte order, ...). The fields after these are for structured types.
    if target is _UNREAD:
        return
    order = of_type(tuple, state)[1]
    if not isinstance(target, np.dtype) or order not in ("<", "|", "="):
        raise ValueError(f"state {shown(order)} for {type(target).__name__}")


def _persistent_object(_: Machine, meta: dict[str, Any]) -> PersistentObject:
    if meta["type"] != "class":
        raise ValueError(f"persistent object of type {shown(meta['type'])}")
    return PersistentObject(of_type(str, meta["class_name"]), of_type(dict, meta["state"]))


def _dict(_: Machine) -> dict[str, Any]:
    return {}


def _list(_: Machine, items: Any) -> list[Any]:
    return of_type(list, items)


def _encode(machine: Machine, text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as text in Latin-1."""
    if encoding != "latin1":
        raise ValueError(f"encoding {shown(encoding)}")
    machine.charge(len(of_type(str, text)))
    return text.encode("latin-1")


def _parameter(_: Machine, data: Any, requires_grad: Any, hooks: Any) -> np.ndarray:
    return of_type(np.ndarray, data)


def _tensor(
    _: Machine, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> np.ndarray:
    values = of_type(np.ndarray, storage)
    steps, counts = of_type(tuple, stride), of_type(tuple, size)
    numbers = (offset, *counts, *steps)
    if len(counts) != len(steps) or len(counts) > 8 or values.ndim != 1:
        raise ValueError("sizes and strides that do not fit")
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise ValueError("a tensor with impossible sizes or strides")
    num_elements = math.prod(counts)
    end = offset + 1 + sum((count - 1) * step for count, step in zip(counts, steps, strict=True))
    if num_elements == 0:
        return np.empty(counts, values.dtype)
    if num_elements > len(values) or end > len(values):
        raise ValueError("a tensor that is larger than its values")
    byte_steps = [step * values.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(values[offset:], counts, byte_steps, writeable=False)


def _storage(machine: Machine, data: bytes) -> np.ndarray:
    """The values of a storage, one dimension, sharing memory with `data`."""
    if not of_type(bytes, data).startswith(_MAGIC):
        raise RefusedError("it carries a tensor in a format that no snapshot uses, which could hold a program")
    file = io.BytesIO(data)
    file.seek(len(_MAGIC))
    if machine.run(file, {}) != _VERSION:
        raise ValueError("a tensor in an unknown format")
    facts = of_type(dict, machine.run(file, {}))
    if facts.get("little_endian") is not True:
        raise ValueError("a tensor of a big-endian machine")
    kind, storage_type, key, _, count, *view = of_type(tuple, machine.run(file, _STORAGE_TYPES, persistent=True))
    keys = machine.run(file, {})
    machine.charge(file.tell())
    if kind != "storage" or keys != [of_type(str, key)] or any(item is not None for item in view):
        raise ValueError("a tensor in an unknown format")
    dtype = np.dtype(of_type(Global, storage_type).call())
    start = file.tell() + 8
    declared = int.from_bytes(data[start - 8 : start], "little")
    if declared != count or declared * dtype.itemsize != len(data) - start:
        raise ValueError(f"{shown(count)} values of a tensor declared, {len(data) - start:,} bytes there")
    return np.frombuffer(data, dtype, offset=start)


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def _dtype(_: Machine, code: Any, align: Any = False, copy: Any = True) -> np.dtype:
    if code not in _SCALARS:
        raise ValueError(f"numpy type {shown(code)}")
    return np.dtype(code)


def _scalar(_: Machine, dtype: Any, data: Any) -> Any:
    kind = of_type(np.dtype, dtype)
    if len(of_type(bytes, data)) != kind.itemsize:
        raise ValueError("a number of another size than its type")
    return np.frombuffer(data, kind)[0].item()


_GLOBALS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": _dict,
    "dnnlib.util.EasyDict": _dict,
    "builtins.set": _list,
    "__builtin__.set": _list,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.ndarray": _constant(_UNREAD),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _GLOBALS[f"{_module}.scalar"] = _scalar
    _GLOBALS[f"{_module}._reconstruct"] = _constant(_UNREAD)
_STORAGE_TYPES: dict[str, Callable[..., Any]] = {
    "torch.DoubleStorage": _constant("<f8"),
    "torch.FloatStorage": _constant("<f4"),
    "torch.HalfStorage": _constant("<f2"),
    "torch.LongStorage": _constant("<i8"),
    "torch.IntStorage": _constant("<i4"),
    "torch.ShortStorage": _constant("<i2"),
    "torch.CharStorage": _constant("|i1"),
    "torch.ByteStorage": _constant("|u1"),
    "torch.BoolStorage": _constant("|b1"),
}
