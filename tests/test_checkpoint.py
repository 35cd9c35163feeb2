import errno
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fer_ray.errors import UserError
from fer_ray.training import checkpoint


def state_at(step: int) -> dict[str, Any]:
    """A state that tells its step in every part."""
    return {"signature": "run", "step": step, "weights": torch.full((50, 40), float(step)), "order": np.arange(step)}


def saved(folder: Path, *steps: int) -> list[Path]:
    return [checkpoint.save(folder, step, state_at(step)) for step in steps]


def step_of(state: dict[str, Any] | None) -> int | None:
    """The step of a state, checked to be whole."""
    if state is None:
        return None
    step = state["step"]
    assert torch.equal(state["weights"], torch.full((50, 40), float(step)))
    np.testing.assert_array_equal(state["order"], np.arange(step))
    return step


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype and one.stride() == other.stride()
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    generator = np.random.default_rng(3)
    generator.random(5)
    state = {
        "signature": "run",
        "network": dict(network.state_dict()),
        "optimizer": optimizer.state_dict(),
        "kernel": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "order": {"rng": generator.bit_generator.state, "pending": np.arange(9)[::-2], "empty": np.empty((0, 3))},
        "old_rng": np.random.RandomState(1).get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "epochs": [{"epoch": 1, "validation_loss": 0.1 + 0.2, "peak": None, "name": "ä", "phase": (1, True)}],
        "scores": [float("-inf"), 0.5],
        "flat": np.array(2.5, np.float32),
    }
    checkpoint.save(tmp_path, 5, state)
    assert equal(checkpoint.load_newest(tmp_path, "run"), state)


def test_numpy_numbers_come_back_as_numbers(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"signature": "run", "best": np.float64(0.5), np.int64(3): np.bool_(True)})
    assert equal(checkpoint.load_newest(tmp_path, "run"), {"signature": "run", "best": 0.5, 3: True})


@pytest.mark.parametrize("value", [{1, 2}, Path("x"), np.array(["a"]), torch.device("cpu"), print])
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(tmp_path: Path, value: Any) -> None:
    saved(tmp_path, 1)
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 2, {"signature": "run", "value": [value]})
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 1


def test_the_newest_by_step_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    paths = saved(tmp_path / "new" / "folder", 9, 10, 100)
    assert sorted(paths[0].parent.iterdir()) == sorted(paths[1:])
    assert step_of(checkpoint.load_newest(paths[0].parent, "run")) == 100


def test_a_run_that_starts_anew_replaces_the_checkpoints_that_it_did_not_take(tmp_path: Path) -> None:
    other = {**state_at(50), "signature": "other"}
    checkpoint.save(tmp_path, 50, other)
    [first] = saved(tmp_path, 10)
    assert list(tmp_path.iterdir()) == [first]
    again = checkpoint.save(tmp_path, 10, {**state_at(10), "seconds": 2.0})
    assert list(tmp_path.iterdir()) == [again]


def test_no_folder_and_an_empty_one_hold_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "missing", "run") is None
    assert checkpoint.load_newest(tmp_path, "run") is None


def test_a_checkpoint_of_another_run_is_passed_over_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    [path] = saved(tmp_path, 3)
    assert checkpoint.load_newest(tmp_path, "another", notes.append) is None
    assert notes == [f"{path} is of another run (signature run, not another) and is passed over"]
    assert path.exists()


def test_damage_at_any_place_is_noticed_and_the_one_before_is_used(tmp_path: Path) -> None:
    before, path = saved(tmp_path, 1, 2)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(sound), 200, replace=False):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        notes: list[str] = []
        assert step_of(checkpoint.load_newest(tmp_path, "run", notes.append)) == 1
        assert len(notes) == 1
        assert str(path) in notes[0]
        assert "damaged" in notes[0]
    assert list(tmp_path.iterdir()) == [before]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999, 1.01])
def test_a_file_of_another_length_is_noticed(tmp_path: Path, share: float) -> None:
    _, path = saved(tmp_path, 1, 2)
    sound = path.read_bytes()
    path.write_bytes((sound * 2)[: int(share * len(sound))])
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 1


def test_a_damaged_checkpoint_does_not_push_out_a_sound_one(tmp_path: Path) -> None:
    _, damaged = saved(tmp_path, 1, 2)
    damaged.write_bytes(b"")
    checkpoint.load_newest(tmp_path, "run")
    [third] = saved(tmp_path, 3)
    third.write_bytes(b"")
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 1


def test_files_of_others_are_neither_read_nor_deleted(tmp_path: Path) -> None:
    names = ["notes.txt", "checkpoint-9.pt", "checkpoint-9-best.pt", "model.pt"]
    for name in names:
        (tmp_path / name).write_text("mine")
    saved(tmp_path, 1, 2, 3)
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 3
    checkpoint.discard(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["HARM"],)


def test_a_file_that_fits_its_name_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    folder = tmp_path / "checkpoints"
    saved(folder, 1)
    content = pickle.dumps({"signature": "run", "harm": Harmful()}, protocol=2)
    (folder / f"checkpoint-2-{hashlib.sha256(content).hexdigest()}.pt").write_bytes(content)
    notes: list[str] = []
    assert step_of(checkpoint.load_newest(folder, "run", notes.append)) == 1
    assert len(notes) == 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("limit", [0, 1, 700, 5_000])
def test_a_full_disk_is_a_message_and_leaves_the_old_checkpoints(tmp_path: Path, limit: int) -> None:
    saved(tmp_path, 1, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match=f"cannot write a checkpoint to {tmp_path}: File too large; make room"):
            saved(tmp_path, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(tmp_path.iterdir())) == 2
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 2


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write a checkpoint to"):
        saved(tmp_path / "file" / "checkpoints", 1)


def test_a_file_that_cannot_be_read_is_passed_over_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, newer = saved(tmp_path, 1, 2)
    plain_open = Path.open

    def failing(path: Path, *arguments: Any) -> Any:
        if path == newer:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain_open(path, *arguments)

    monkeypatch.setattr(Path, "open", failing)
    notes: list[str] = []
    assert step_of(checkpoint.load_newest(tmp_path, "run", notes.append)) == 1
    assert notes == [f"{newer} cannot be read (Input/output error) and is passed over"]
    assert newer.exists()


KILLED_WRITERS = """
import os, signal, sys
from pathlib import Path
from test_checkpoint import checkpoint, saved

def kill(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

plain_write, num_writes = checkpoint._HashingWriter.write, 0

def write(writer, data):
    global num_writes
    num_writes += 1
    if num_writes == 12:
        writer._file.flush()
        kill()
    return plain_write(writer, data)

for folder in map(Path, sys.argv[1:]):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        continue
    saved(folder, 1, 2)
    place, name, end = {
        "write": (checkpoint._HashingWriter, "write", write),
        "fsync": (os, "fsync", kill),
        "rename": (os, "replace", kill),
        "delete": (Path, "unlink", kill),
    }[folder.name]
    setattr(place, name, end)
    saved(folder, 3)
    os._exit(0)
"""


def test_a_kill_at_any_stage_of_writing_leaves_a_sound_checkpoint(tmp_path: Path) -> None:
    newest = {"write": 2, "fsync": 2, "rename": 2, "delete": 3}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    folders = [tmp_path / stage for stage in newest]
    subprocess.run([sys.executable, "-c", KILLED_WRITERS, *folders], env=environment, check=True)
    for folder in folders:
        notes: list[str] = []
        assert step_of(checkpoint.load_newest(folder, "run", notes.append)) == newest[folder.name]
        assert notes == []
        saved(folder, 4)
        kept = {path.name.rpartition("-")[0] for path in folder.iterdir()}
        assert kept == {f"checkpoint-{newest[folder.name]}", "checkpoint-4"}


def test_a_reader_beside_a_writer_always_finds_a_whole_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    writer = threading.Thread(target=saved, args=(tmp_path, *range(2, 150)))
    writer.start()
    found = []
    while writer.is_alive():
        notes: list[str] = []
        found.append(step_of(checkpoint.load_newest(tmp_path, "run", notes.append)))
        assert notes == []
    writer.join()
    assert None not in found
    assert found == sorted(found)
    assert step_of(checkpoint.load_newest(tmp_path, "run")) == 149


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, 1, 2)
    (folder / ".checkpoint.partial").write_bytes(b"cut short")
    checkpoint.discard(folder)
    assert not folder.exists()
    checkpoint.discard(folder)
