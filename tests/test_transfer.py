"""Data that travel: equal on both sides, once per machine, and only what is missing."""

import multiprocessing
import os
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyFaces

from fer_ray.config import RunConfig
from fer_ray.data import transfer
from fer_ray.data.store import Dataset, open_dataset
from fer_ray.errors import UserError
from fer_ray.experiment import Experiment, open_experiment


def read(path: str, start: int, count: int) -> np.ndarray:
    """The way from machine to machine."""
    return np.fromfile(path, np.uint8, count, offset=start)


@pytest.fixture
def sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "sender"))
    return tmp_path / "sender"


@pytest.fixture
def config(tiny_faces: TinyFaces) -> RunConfig:
    values = {"data.source": str(tiny_faces.real), "data.synthetic": str(tiny_faces.synthetic)}
    return RunConfig.from_flat({**values, "data.num_train_images": 30, "data.synthetic_test_fraction": 0.2})


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def switch() -> Path:
        monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "receiver"))
        return tmp_path / "receiver"

    return switch


def log(cache: Path) -> list[str]:
    return [line.split()[1] for line in (cache / transfer.LOG).read_text().splitlines()]


def assert_same(a: Dataset, b: Dataset) -> None:
    for field in fields(Dataset):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right, field.name


def mapped_file(images: np.ndarray) -> Path:
    assert isinstance(images.base, np.memmap)
    return Path(images.base.filename)


def test_an_experiment_is_the_same_on_a_machine_that_has_none_of_its_files(sender, config, receiver) -> None:
    here = open_experiment(config)
    packed, folders = transfer.pack({"majority": here})
    assert len(packed) < here.real.images.nbytes / 2
    cache = receiver()
    for folder in folders:
        transfer.receive(folder, read)
    there: Experiment = transfer.unpack(packed)["majority"]
    for a, b in ((here.real, there.real), (here.synthetic, there.synthetic)):
        assert_same(a, b)
        assert mapped_file(b.images).is_relative_to(cache)
    assert there.signature(config) == here.signature(config)
    assert np.array_equal(there.parts(config).train, here.parts(config).train)
    # A run looks data sets up by identity.
    assert there.parts(config).tests["test"].dataset is there.real


def test_a_file_of_the_receiver_that_has_the_same_path_is_not_shadowed(sender, tiny_faces, tmp_path, receiver) -> None:
    source = tmp_path / "faces.parquet"
    source.write_bytes(tiny_faces.real.read_bytes())
    here = open_dataset(str(source))
    packed, folders = transfer.pack(here)
    receiver()
    source.write_bytes(tiny_faces.synthetic.read_bytes())
    for folder in folders:
        transfer.receive(folder, read)
    assert transfer.unpack(packed).digest == here.digest
    assert open_dataset(str(source)).digest != here.digest


def test_labels_that_the_experiment_changed_travel_with_it(sender, tiny_faces, receiver) -> None:
    here = open_dataset(str(tiny_faces.real)).select_classes(("sad", "happy"))
    packed, folders = transfer.pack(here)
    receiver()
    transfer.receive(folders[0], read)
    assert_same(here, transfer.unpack(packed))


def test_what_is_there_is_not_brought_again_and_what_is_damaged_is(sender, tiny_faces, receiver) -> None:
    folder = transfer.pack(open_dataset(str(tiny_faces.real)))[1][0]
    transfer.receive(folder, read)
    assert not (sender / transfer.LOG).exists()
    cache = receiver()
    for _ in range(2):
        transfer.receive(folder, read)
    assert log(cache) == [folder.name]
    (cache / folder.name / "images.npy").write_bytes(b"")
    transfer.receive(folder, read)
    assert log(cache) == [folder.name] * 2
    assert (cache / folder.name / "images.npy").read_bytes() == (sender / folder.name / "images.npy").read_bytes()


def slow_read(path: str, start: int, count: int) -> np.ndarray:
    time.sleep(0.1)
    return read(path, start, count)


def test_of_many_processes_one_brings_a_folder(sender, tiny_faces, receiver) -> None:
    folder = transfer.pack(open_dataset(str(tiny_faces.real)))[1][0]
    cache = receiver()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=transfer.receive, args=(folder, slow_read)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log(cache) == [folder.name]


def dies(path: str, start: int, count: int) -> np.ndarray:
    os._exit(1)


def test_a_receiver_that_is_killed_leaves_nothing_that_counts(sender, tiny_faces, receiver) -> None:
    folder = transfer.pack(open_dataset(str(tiny_faces.real)))[1][0]
    cache = receiver()
    process = multiprocessing.get_context("fork").Process(target=transfer.receive, args=(folder, dies))
    process.start()
    process.join()
    assert not folder.is_here()
    transfer.receive(folder, read)
    assert folder.is_here()
    assert [path.name for path in (cache / "entries").iterdir()] == [Path(folder.name).name]


def test_files_come_in_pieces(sender, tiny_faces, receiver, monkeypatch) -> None:
    folder = transfer.pack(open_dataset(str(tiny_faces.real)))[1][0]
    cache = receiver()
    sizes = []

    def noted(path: str, start: int, count: int) -> np.ndarray:
        sizes.append(count)
        return read(path, start, count)

    monkeypatch.setattr(transfer, "PIECE_BYTES", 10_000)
    transfer.receive(folder, noted)
    assert max(sizes) == 10_000
    for name in folder.files:
        assert (cache / folder.name / name).read_bytes() == (sender / folder.name / name).read_bytes()


def test_a_file_that_changed_since_it_was_announced_is_refused(sender, tmp_path, receiver) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"12345")
    folder = transfer.folder("weights/0123456789abcdef", path)
    cache = receiver()
    path.write_bytes(b"123")
    with pytest.raises(UserError, match=r"weights\.pt changed while it was sent"):
        transfer.receive(folder, read)
    assert not any((cache / "weights").iterdir())


def test_a_cache_that_cannot_be_written_is_said(sender, tiny_faces, tmp_path, monkeypatch) -> None:
    folder = transfer.pack(open_dataset(str(tiny_faces.real)))[1][0]
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write the data cache"):
        transfer.receive(folder, read)
