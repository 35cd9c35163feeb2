import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode, RandomErasing
from torchvision.transforms.functional import affine, rotate, ten_crop

from fer_ray.config import AugmentationConfig
from fer_ray.data import augment
from fer_ray.data.augment import PRESETS, Augmentation, draw_affine, draw_boxes, draw_view, erase, resolve, sample
from fer_ray.errors import UserError

EVERYTHING = Augmentation(
    flip_probability=0.5, rotation_degrees=30, min_crop=0.7, zoom=0.2, shift=0.2, shear_degrees=15
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int, channels: int = 1) -> torch.Tensor:
    return 255 * torch.rand(count, channels, size, size, generator=generator(99))


def ramps(count: int, size: int) -> torch.Tensor:
    """Channel 0 says at which x, in [-1, 1], a pixel's centre is; channel 1 at which y."""
    centres = (torch.arange(size) * 2 + 1) / size - 1
    x = centres.expand(size, size)
    return torch.stack([x, x.T]).expand(count, 2, size, size).contiguous()


def middle(images: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """Away from the borders, where libraries fill differently."""
    edge = round(images.shape[-1] * (1 - share) / 2)
    return images[..., edge:-edge, edge:-edge]


@pytest.mark.parametrize("size", [24, 48, 64])
def test_sampling_is_that_of_torch(size: int) -> None:
    images = noise(16, 48, channels=3)
    theta = draw_affine(EVERYTHING, 16, generator())
    grid = functional.affine_grid(theta, [16, 3, size, size], align_corners=False)
    golden = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(sample(images, size, theta), golden, atol=2e-2, rtol=0)


def test_a_certain_flip_is_the_mirror_image() -> None:
    images = noise(8, 32)
    theta = draw_affine(Augmentation(flip_probability=1), 8, generator())
    torch.testing.assert_close(sample(images, 32, theta), images.flip(-1), atol=1e-3, rtol=0)


def test_about_the_asked_share_of_images_is_flipped() -> None:
    theta = draw_affine(Augmentation(flip_probability=0.3), 5000, generator())
    assert (theta[:, 0, 0] == -1).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_rotation_is_that_of_torchvision_by_an_angle_within_bounds() -> None:
    images = noise(6, 49)
    theta = draw_affine(Augmentation(rotation_degrees=25), 6, generator())
    turned = sample(images, 49, theta)
    angles = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0])).tolist()
    assert max(map(abs, angles)) <= 25
    for image, mine, angle in zip(images, turned, angles, strict=True):
        golden = rotate(image, angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(middle(mine), middle(golden), atol=0.5, rtol=0)


def test_shear_is_that_of_torchvision() -> None:
    images = noise(6, 49)
    theta = draw_affine(Augmentation(shear_degrees=12), 6, generator())
    angles = torch.rad2deg(torch.atan(theta[:, 0, 1])).tolist()
    assert 0 < max(map(abs, angles)) <= 12
    for image, mine, angle in zip(images, sample(images, 49, theta), angles, strict=True):
        golden = affine(image, 0, [0, 0], 1, [angle, 0], InterpolationMode.BILINEAR)
        torch.testing.assert_close(middle(mine), middle(golden), atol=0.5, rtol=0)


def test_a_map_onto_a_quarter_reads_exactly_its_pixels() -> None:
    images = noise(1, 32)
    upper_left = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]])
    torch.testing.assert_close(sample(images, 16, upper_left), images[..., :16, :16], atol=1e-3, rtol=0)


def test_crops_are_squares_inside_the_image_that_reach_every_border() -> None:
    theta = draw_affine(Augmentation(min_crop=0.6), 4000, generator())
    side, x, y = theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 2]
    assert torch.equal(side, theta[:, 1, 1])
    assert side.min().item() == pytest.approx(0.6, abs=0.01)
    assert side.max().item() == pytest.approx(1, abs=0.01)
    for centre in (x, y):
        assert (centre.abs() + side).max() <= 1 + 1e-6
        assert centre.min().item() == pytest.approx(-0.4, abs=0.05)
        assert centre.max().item() == pytest.approx(0.4, abs=0.05)
    assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1].item()) < 0.1


def test_zoom_scales_both_ways_and_each_axis_on_its_own() -> None:
    theta = draw_affine(Augmentation(zoom=0.2), 4000, generator())
    for scale in (theta[:, 0, 0], theta[:, 1, 1]):
        assert scale.min().item() == pytest.approx(0.8, abs=0.01)
        assert scale.max().item() == pytest.approx(1.2, abs=0.01)
    assert not torch.allclose(theta[:, 0, 0], theta[:, 1, 1])


def test_a_shift_is_a_share_of_the_side_in_every_direction() -> None:
    count, size = 2000, 32
    moved = sample(ramps(count, size), size, draw_affine(Augmentation(shift=0.25), count, generator()))
    for channel in (0, 1):
        # A side is 2 in these coordinates; the middle pixel sees no border.
        offset = (moved[:, channel, size // 2, size // 2] - 1 / size) / 2
        assert offset.min().item() == pytest.approx(-0.25, abs=0.01)
        assert offset.max().item() == pytest.approx(0.25, abs=0.01)


def test_what_lies_outside_repeats_the_border() -> None:
    images = noise(1, 32)
    right_by_half = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    moved = sample(images, 32, right_by_half)
    torch.testing.assert_close(moved[..., :16], images[..., 16:], atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[..., 16:], images[..., 31:].expand(-1, -1, -1, 16), atol=1e-3, rtol=0)


def test_each_image_of_a_batch_draws_its_own() -> None:
    theta = draw_affine(EVERYTHING, 64, generator())
    assert len(torch.unique(theta.reshape(64, 6), dim=0)) == 64


def test_the_same_generator_draws_the_same_and_goes_on() -> None:
    first, again = generator(3), generator(3)
    a, b = draw_affine(EVERYTHING, 8, first), draw_affine(EVERYTHING, 8, again)
    assert torch.equal(a, b)
    assert not torch.equal(a, draw_affine(EVERYTHING, 8, first))


def test_no_augmentation_leaves_every_pixel() -> None:
    images = noise(2, 48)
    assert torch.equal(sample(images, 48, None), images)
    torch.testing.assert_close(
        sample(images, 48, draw_affine(PRESETS["none"], 2, generator())), images, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("with_map", [False, True])
def test_a_shrink_by_more_than_two_averages_first(with_map: bool) -> None:
    images = noise(2, 128)
    identity = torch.eye(2, 3).expand(2, 2, 3) if with_map else None
    torch.testing.assert_close(sample(images, 64, identity), functional.avg_pool2d(images, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(sample(images, 32, identity), functional.avg_pool2d(images, 4), atol=1e-3, rtol=0)
    # Bilinear sampling alone would hit every third pixel of this chequerboard, and show another one.
    chequers = ((torch.arange(96) + torch.arange(96).view(-1, 1)) % 2 * 255.0).expand(2, 1, 96, 96)
    torch.testing.assert_close(sample(chequers, 32, identity), torch.full((2, 1, 32, 32), 127.5), atol=1e-2, rtol=0)


def test_a_plain_resize_is_that_of_torch() -> None:
    images = noise(2, 48)
    golden = functional.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample(images, 64, None), golden)


@pytest.mark.parametrize(
    ("preset", "stated"),
    [
        ("thesis-effnet-b0", {}),
        ("resnet18-fer4", {"flip_probability": 0.5, "rotation_degrees": 10, "min_crop": 0.9}),
        (
            "affect-multitask",
            {"flip_probability": 0.5, "rotation_degrees": 20, "shift": 0.2, "zoom": 0.2, "shear_degrees": 0.1},
        ),
        ("efficientnetv2s-two-phase", {}),
        ("ratio-study", {}),
    ],
)
def test_presets_of_the_five_systems_hold_what_their_sources_state(preset: str, stated: dict[str, float]) -> None:
    assert resolve(AugmentationConfig(preset=preset)) == Augmentation(**stated)


def test_own_values_go_on_top_of_the_preset_and_zero_switches_off() -> None:
    config = AugmentationConfig(preset="resnet18-fer4", flip_probability=0.0, zoom=0.1)
    assert resolve(config) == Augmentation(rotation_degrees=10, min_crop=0.9, zoom=0.1)


def test_a_typo_in_the_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"augmentation\.preset: got 'standart'; did you mean 'standard'"):
        resolve(AugmentationConfig(preset="standart"))


def test_rotation_and_shear_of_rectangular_angles_stay_finite() -> None:
    theta = draw_affine(Augmentation(rotation_degrees=180, shear_degrees=89), 1000, generator())
    assert torch.isfinite(theta).all()
    assert math.isclose(abs(theta[:, 0, 0]).max().item(), 1, abs_tol=1e-3)


def test_a_view_depends_on_seed_image_and_number_alone() -> None:
    index = np.array([7, 3, 100_000, 7])
    views = draw_view(EVERYTHING, index, 2, seed=5)
    assert views.shape == (4, 2, 3)
    assert torch.equal(views[0], views[3])
    for i, image in enumerate(index):
        assert torch.equal(draw_view(EVERYTHING, np.array([image]), 2, seed=5)[0], views[i])
    different = [views[0], views[1], draw_view(EVERYTHING, index, 1, 5)[0], draw_view(EVERYTHING, index, 2, 6)[0]]
    assert len({view.numpy().tobytes() for view in different}) == 4


def test_views_are_spread_as_fresh_draws_are() -> None:
    fresh = draw_affine(EVERYTHING, 20_000, generator())
    views = torch.cat([draw_view(EVERYTHING, np.arange(2000), view, seed=0) for view in range(10)])
    torch.testing.assert_close(views.mean(0), fresh.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(views.std(0), fresh.std(0), atol=0.02, rtol=0)
    # Neither images nor views in a row are alike.
    angles = torch.atan2(views[:, 1, 1], views[:, 0, 1]).view(10, 2000)
    assert abs(torch.corrcoef(torch.stack([angles[:, 1:].flatten(), angles[:, :-1].flatten()]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([angles[1:].flatten(), angles[:-1].flatten()]))[0, 1]) < 0.03


def test_views_do_not_change_from_release_to_release() -> None:
    # SplitMix64 from seed 1234567, the first outputs of its authors' code.
    keys = np.array([1234567], np.uint64) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert augment._hashed(keys).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_one_test_view_is_the_plain_image() -> None:
    assert augment.test_views("none") == [None]


def test_flip_looks_at_the_image_and_its_mirror_image() -> None:
    images = noise(2, 32)
    plain, mirror = augment.test_views("flip")
    assert plain is None
    assert mirror is not None
    torch.testing.assert_close(sample(images, 32, mirror.expand(2, 2, 3)), images.flip(-1), atol=1e-3, rtol=0)


def test_ten_crop_is_that_of_torchvision() -> None:
    images = noise(1, 40)
    views = augment.test_views("ten_crop")
    mine = [sample(images, 36, view.expand(1, 2, 3))[0] for view in views if view is not None]
    assert len(mine) == 10
    golden = ten_crop(images[0], [36, 36])
    for crop in golden:
        assert min((crop - own).abs().max().item() for own in mine) < 1e-2
    for own in mine:
        assert min((crop - own).abs().max().item() for crop in golden) < 1e-2


def test_about_the_asked_share_of_images_is_erased() -> None:
    boxes = draw_boxes(Augmentation(erasing_probability=0.3), 5000, 48, generator())
    assert (boxes[:, 2] > 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_erased_boxes_are_spread_as_those_of_torchvision() -> None:
    size, count = 48, 4000
    boxes = draw_boxes(Augmentation(erasing_probability=1), count, size, generator())
    torch.manual_seed(0)
    image = torch.zeros(1, size, size)
    golden = torch.tensor(
        [RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(count)]
    ).float()
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        torch.testing.assert_close(boxes.quantile(quantile, 0), golden.quantile(quantile, 0), atol=1.01, rtol=0)
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= size
    assert boxes.min() >= 0


def test_what_is_erased_is_zero_and_nothing_else_changes() -> None:
    boxes = draw_boxes(Augmentation(erasing_probability=0.5), 32, 24, generator())
    images = noise(32, 24, channels=3) + 1
    erased = erase(images.clone(), boxes)
    for before, after, (top, left, height, width) in zip(images, erased, boxes.int().tolist(), strict=True):
        golden = before.clone()
        golden[:, top : top + height, left : left + width] = 0
        assert torch.equal(after, golden)


def test_erasing_comes_from_the_config_and_does_not_go_with_fixed_views() -> None:
    augmentation = resolve(AugmentationConfig(preset="none", erasing_probability=0.25))
    assert augmentation == Augmentation(erasing_probability=0.25)
    assert not augmentation.has_maps
    with pytest.raises(UserError, match=r"erasing_probability: got 0\.25, expected 0 with augmentation\.views"):
        resolve(AugmentationConfig(erasing_probability=0.25, views=4))
