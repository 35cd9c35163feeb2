import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import random_faces
from PIL import Image
from torchvision.transforms.functional import normalize

from fer_ray.data import augment
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


def batches(
    images: np.ndarray,
    synthetic: np.ndarray | None = None,
    *,
    size: int = 48,
    normalization: str = "unit",
    channels: int = 3,
) -> Batches:
    others = [] if synthetic is None else [dataset(synthetic)]
    return Batches([dataset(images), *others], size=size, normalization=normalization, device=CPU, channels=channels)


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


def test_one_channel_of_colour_is_its_luma_and_grey_stays() -> None:
    colour = random_faces(3, channels=3)
    golden = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])
    out = batches(colour, channels=1)(np.arange(3)) * 255
    assert out.shape == (3, 1, 48, 48)
    np.testing.assert_allclose(out[:, 0].numpy(), golden, atol=0.51)  # Pillow rounds
    grey = random_faces(3)
    np.testing.assert_allclose(batches(grey, channels=1)(np.arange(3))[:, 0] * 255, grey[..., 0], atol=1e-3)


@pytest.mark.parametrize("normalization", ["image", "unit", "half"])
def test_grey_is_the_same_in_one_channel_as_in_each_of_three(normalization: str) -> None:
    grey = random_faces(3)
    one, three = (batches(grey, normalization=normalization, channels=c)(np.arange(3)) for c in (1, 3))
    assert torch.equal(one.expand(3, 3, 48, 48), three)


def test_one_channel_takes_the_average_of_imagenets_channels() -> None:
    grey = random_faces(2)
    out = batches(grey, normalization="imagenet", channels=1)(np.arange(2))
    golden = (grey[..., 0] / 255 - 0.449) / 0.226
    np.testing.assert_allclose(out[:, 0].numpy(), golden, atol=1e-5)


def test_images_are_seen_through_given_maps() -> None:
    draw = batches(random_faces(6))
    index = np.arange(6)
    augmentation = Augmentation(rotation_degrees=20, shift=0.1)
    maps = augment.draw_affine(augmentation, 6, torch.Generator().manual_seed(1))
    assert torch.equal(draw(index, view=maps), draw(index, augmentation, torch.Generator().manual_seed(1)))
    assert torch.equal(draw(index[2:4], view=maps[2:4]), draw(index, view=maps)[2:4])
    mirror = augment.test_views("flip")[1]
    torch.testing.assert_close(draw(index, view=mirror), draw(index).flip(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalization", ["image", "imagenet"])
def test_erasing_sets_boxes_to_zero_after_the_normalisation_and_moves_nothing(normalization: str) -> None:
    draw = batches(random_faces(16), normalization=normalization)
    index = np.arange(16)
    plain = draw(index)
    erased = draw(index, Augmentation(erasing_probability=1), torch.Generator().manual_seed(0))
    is_erased = erased == 0
    assert torch.equal(erased, plain.where(~is_erased, 0))
    shares = is_erased.float().mean(dim=(1, 2, 3))
    assert shares.min() > 0.01
    assert shares.max() < 0.4
    assert erased.is_contiguous(memory_format=torch.channels_last)


def test_erasing_does_not_change_the_maps_that_are_drawn() -> None:
    draw = batches(random_faces(8))
    maps = Augmentation(rotation_degrees=20)
    plain = draw(np.arange(8), maps, torch.Generator().manual_seed(1))
    both = draw(
        np.arange(8), Augmentation(rotation_degrees=20, erasing_probability=0.5), torch.Generator().manual_seed(1)
    )
    assert torch.equal(both, plain.where(both != 0, 0))
    assert not torch.equal(both, plain)
