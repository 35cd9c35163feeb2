"""Images too many for memory go through a file, and come out the same."""

from pathlib import Path

import numpy as np
import pytest
from faces import random_faces, write_folders

from fer_ray.data import cache, readers
from fer_ray.data.store import open_dataset


def folder(path: Path, faces: np.ndarray) -> Path:
    return write_folders(path, {f"{('happy', 'sad')[i % 2]}/{i}.png": face for i, face in enumerate(faces)})


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stack_in_a_file_holds_what_one_in_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    source = folder(tmp_path / "faces", random_faces(300, channels=channels))
    in_memory = readers.read(source).images
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(cache, "BLOCK_BYTES", 10_000)
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    in_file = readers.read(source).images
    assert isinstance(in_file, np.memmap)
    assert np.array_equal(in_file, in_memory)
    assert open_dataset(str(source)).digest
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("tmp")]


def test_grey_faces_saved_as_colour_become_one_channel_in_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = random_faces(20)
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    images = readers.read(folder(tmp_path / "faces", grey.repeat(3, axis=3))).images
    assert images.shape == grey.shape
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in grey)


def test_released_pages_come_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random_faces(10))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r").view(np.ndarray)
    before = mapped.sum()
    cache.release(mapped)
    cache.release(np.zeros(3))
    assert mapped.sum() == before


def test_blocks_cover_all_images_once() -> None:
    images = np.zeros((100, 64, 64, 3), np.uint8)
    covered = [i for part in cache.blocks(images) for i in range(part.start, part.stop)]
    assert covered == list(range(100))
    assert list(cache.blocks(images[:0])) == []
