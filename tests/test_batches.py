import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import random_faces
from torchvision.transforms.functional import normalize

from fer_ray.data.augment import Augmentation
from fer_ray.data.batches import Batches
from fer_ray.data.store import Dataset

CPU = torch.device("cpu")


def dataset(images: np.ndarray) -> Dataset:
    count = len(images)
    return Dataset(
        name="random",
        images=images,
        ids=np.arange(count).astype("S"),
        labels=np.zeros(count, np.int16),
        splits=np.zeros(count, np.int8),
        classes=("happy", "sad"),
        valence=None,
        arousal=None,
        digest="0" * 16,
    )


def batches(images: np.ndarray, synthetic: np.ndarray | None = None, *, size: int = 48, normalization: str = "unit"):
    other = None if synthetic is None else dataset(synthetic)
    return Batches(dataset(images), other, size=size, normalization=normalization, device=CPU)


def test_synthetic_faces_follow_the_real_ones_in_one_index() -> None:
    real, synthetic = random_faces(5, seed=1), random_faces(4, seed=2)
    index = np.array([8, 0, 5, 4, 0])
    taken = batches(real, synthetic)(index)[:, 0] * 255
    golden = np.concatenate([real, synthetic])[index][..., 0]
    np.testing.assert_allclose(taken.numpy(), golden, atol=1e-3)


def test_grey_becomes_three_equal_channels_and_colour_stays() -> None:
    grey = batches(random_faces(2), normalization="half")(np.arange(2))
    assert grey.shape == (2, 3, 48, 48)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    colour = random_faces(2, channels=3)
    np.testing.assert_allclose(
        batches(colour)(np.arange(2)).numpy(), colour.transpose(0, 3, 1, 2) / np.float32(255), atol=1e-6
    )


def test_image_normalisation_gives_every_image_mean_0_and_deviation_1() -> None:
    images = random_faces(3)
    images[1] //= 3  # dark, of little contrast
    images[2] = images[2] // 3 + 150  # bright, of little contrast
    out = batches(images, normalization="image")(np.arange(3)).double()
    np.testing.assert_allclose(out.mean(dim=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(dim=(1, 2, 3), correction=0), 1, atol=0.02)


def test_an_empty_image_stays_finite() -> None:
    out = batches(np.full((1, 48, 48, 1), 77, np.uint8), normalization="image")(np.array([0]))
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("half", [0.5] * 3, [0.5] * 3),
        ("unit", [0.0] * 3, [1.0] * 3),
    ],
)
def test_fixed_normalisations_are_those_of_torchvision(name: str, mean: list[float], std: list[float]) -> None:
    images = random_faces(3, channels=3)
    golden = normalize(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, mean, std)
    torch.testing.assert_close(batches(images, normalization=name)(np.arange(3)), golden, atol=1e-5, rtol=0)


def test_batches_are_float32_channels_last_of_the_asked_size() -> None:
    out = batches(random_faces(4), size=32)(np.arange(4))
    assert out.shape == (4, 3, 32, 32)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_draws_per_image_from_the_generator_alone() -> None:
    same_face = np.repeat(random_faces(1), 8, axis=0)
    draw = batches(same_face)
    augmentation = Augmentation(rotation_degrees=20, shift=0.1)
    index = np.arange(8)
    first = draw(index, augmentation, torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    assert torch.equal(first, draw(index, augmentation, torch.Generator().manual_seed(1)))
    assert len({image.numpy().tobytes() for image in first}) == 8
    assert not torch.equal(first, draw(index, augmentation, torch.Generator().manual_seed(2)))


def test_the_memory_map_is_neither_copied_nor_read_whole(tmp_path: Path) -> None:
    shape = (20_000, 48, 48, 1)
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        draw = batches(images, images)
        draw(np.array([0, 25_000]))
        draw(np.array([19_999]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 10
