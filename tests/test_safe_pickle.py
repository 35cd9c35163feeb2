"""Snapshots are read as plain data: nothing they carry runs, and what is damaged or made to do harm is refused."""

import collections
import io
import os
import pickle
import random
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faces import SHARED_DATA

from fer_ray.errors import UserError
from fer_ray.synthesis import safe_pickle

SNAPSHOTS = SHARED_DATA / "stylegan2"
needs_snapshots = pytest.mark.skipif(not SNAPSHOTS.is_dir(), reason="needs ../shared/data/stylegan2")


class Call:
    """Pickled as a call of `function`, whatever that is."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced


def read(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(data)
    return safe_pickle.read(path)


def refused(tmp_path: Path, data: bytes) -> str:
    started = time.process_time()
    with pytest.raises(UserError) as error:
        read(tmp_path, data)
    assert time.process_time() - started < 10
    assert "snapshot.pkl" in str(error.value)
    return str(error.value)


def test_tensors_come_out_as_torch_would_load_them(tmp_path: Path) -> None:
    made = {
        "float": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "view": torch.arange(24).reshape(4, 6)[1:, ::2],
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 7),
    }
    for protocol in (2, 3, 4, 5):
        found = read(tmp_path, pickle.dumps({**made, "learned": torch.nn.Parameter(made["float"])}, protocol))
        for name, tensor in {**made, "learned": made["float"]}.items():
            np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)


def test_plain_values_come_out_as_pickle_would_load_them(tmp_path: Path) -> None:
    made = {
        "numbers": [0, -1, 255, 65_536, -(2**31), 2**40, 1.5, float("inf")],
        "text": ("", "é", "x" * 300),
        "raw": [b"\xff\x00", bytes(range(256)) * 2],
        "truth": (True, False, None),
        "nested": {"a": {}, "b": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]},
        "ordered": collections.OrderedDict(b=1, a=2),
        "numpy": [np.float64(0.25), np.int32(7), np.bool_(True)],
    }
    for protocol in (2, 3, 4, 5):
        assert read(tmp_path, pickle.dumps(made, protocol)) == made


@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch pwned"),
        Call(eval, "open('pwned', 'w')"),
        Call(getattr, [], "append"),
        Call(subprocess.Popen, ["touch", "pwned"]),
        Call(torch.load, "pwned"),
        Call(np.frombuffer, b"12345678"),
        Call(bytearray, 10**9),
    ],
    ids=lambda call: call.reduced[0].__name__,
)
def test_functions_outside_the_list_are_named_and_not_called(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        message = refused(tmp_path, pickle.dumps({"G_ema": call}, protocol))
        assert "nothing in it was run" in message
        assert call.reduced[0].__name__ in message
    assert not Path("pwned").exists()


def inner(data: bytes) -> bytes:
    """A pickle whose one tensor is `data`, as torch.storage nests it."""
    return b"\x80\x04ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(data)) + data + b"\x85R."


def test_a_program_inside_a_tensor_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payload = Call(os.system, "touch pwned")
    archive, legacy = io.BytesIO(), io.BytesIO()
    torch.save(payload, archive)
    torch.save(payload, legacy, _use_new_zipfile_serialization=False)
    assert "format that no snapshot uses" in refused(tmp_path, inner(archive.getvalue()))
    assert "posix.system" in refused(tmp_path, inner(legacy.getvalue())) or os.name != "posix"
    assert not Path("pwned").exists()


def test_a_tensor_that_declares_more_than_it_has_is_refused(tmp_path: Path) -> None:
    pickled = pickle.dumps(torch.arange(4, dtype=torch.float32), 4)
    assert read(tmp_path, pickled).tolist() == [0, 1, 2, 3]
    count = struct.pack("<q", 4)
    assert pickled.count(count) == 1
    assert "declared" in refused(tmp_path, pickled.replace(count, struct.pack("<q", 2**40)))
    sizes = b"K\x04\x85\x94K\x01\x85"
    assert pickled.count(sizes) == 1
    assert "larger than its values" in refused(tmp_path, pickled.replace(sizes, b"K\x05\x85\x94K\x01\x85"))
    assert "larger than its values" in refused(tmp_path, pickled.replace(sizes, b"K\x04\x85\x94K\x02\x85"))


HOSTILE = {
    "nothing": b"",
    "text": b"this is no pickle",
    "huge memo index": b"\x80\x04]r\xff\xff\xff\xff.",
    "huge text": b"\x80\x04X\xff\xff\xff\x7fabc.",
    "huge bytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "huge bytearray": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fabc.",
    "huge frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].",
    "huge integer": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "deep": b"\x80\x04)" + b"\x85" * 200_000 + b".",
    "deep key": b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.",
    "many opcodes": b"\x80\x04" + b"]" * 600_000 + b".",
    "own list": b"\x80\x04]\x94h\x00a.",
    "own key": b"\x80\x04}\x94h\x00Ns.",
    "equal hashes": b"\x80\x04}("
    + b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(9_000))
    + b"u.",
    "mark in a tuple": b"\x80\x04(\x85.",
    "empty stack": b"\x80\x04R.",
    "unpaired": b"\x80\x04}(NNNu.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02NQ.",
    "instance": b"(ios\nsystem\n.",
    "build": b"\x80\x04}}b.",
    "encoded again": b"\x80\x02X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00c_codecs\nencode\nq\x01"
    + b"0h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 2_000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused_or_harmless(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(data)
    started = time.process_time()
    try:
        safe_pickle.read(path)
    except UserError as error:
        message = str(error)
    else:
        message = "snapshot.pkl"
    assert "snapshot.pkl" in message
    assert message.isprintable()
    assert time.process_time() - started < 10


def test_a_network_of_the_tensorflow_version_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    message = refused(tmp_path, b"\x80\x03(cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}b.")
    assert "legacy.py" in message


def test_names_from_a_file_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    message = refused(tmp_path, b"\x80\x04\x8c\x06\x1b[31m\n\x8c\x03[b]\x93.")
    assert message.isprintable()


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pkl"):
        with pytest.raises(UserError, match=path.name):
            safe_pickle.read(path)


@needs_snapshots
@pytest.mark.parametrize("name", ["os_system", "builtins_eval", "nested_storage_bytes", "embedded_source"])
def test_malicious_snapshots_run_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = SNAPSHOTS / "malicious" / f"{name}.pkl"
    if name == "embedded_source":
        assert safe_pickle.read(path)["G_ema"].class_name == "Generator"
    else:
        with pytest.raises(UserError, match=path.name):
            safe_pickle.read(path)
    assert list(tmp_path.iterdir()) == []


@needs_snapshots
def test_mutated_snapshots_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = (SNAPSHOTS / "malicious" / "embedded_source.pkl").read_bytes()
    path = tmp_path / "snapshot.pkl"
    rng = random.Random(0)
    messages = []
    for _ in range(150):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.choice([0, 1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            safe_pickle.read(path)
        except UserError as error:
            messages.append(str(error))
    assert messages
    assert all("snapshot.pkl" in message for message in messages)
    assert list(tmp_path.iterdir()) == [path]
