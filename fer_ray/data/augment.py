"""Batched augmentation: one affine map per image, sampled together with the resize, on any device; and erasing.

Flip, rotation, crop, zoom, shift and shear are one 2x3 matrix per image; the sampling grid is that matrix applied to
the output's pixel centres by broadcasting (equal to `torch.nn.functional.affine_grid` up to rounding, and faster).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch.nn import functional

from fer_ray.config import AugmentationConfig
from fer_ray.errors import UserError, nearest

MAX_SHRINK = 2
"""Bilinear sampling reads 2x2 pixels, so it may halve the side at most; more is averaged away first."""

ERASED_AREA, ERASED_RATIO, ERASING_TRIES = (0.02, 0.33), (0.3, 3.3), 10
"""Of random erasing: area as a share of the image, height over width, and draws until a box fits; as in torchvision."""

TEN_CROP_SIDE = 0.9
"""Side of test-time crops, as a share of the image's; published FER2013 results take 44 of 48 pixels, .917."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges from which each image of a batch draws on its own.

    Attributes:
        flip_probability: of a horizontal flip, 0 to 1.
        rotation_degrees: uniform in +- this.
        min_crop: side of a square crop at a random place, uniform in [min_crop, 1] of the image's side.
        zoom: scale of each axis, uniform in 1 +- this.
        shift: along each axis, uniform in +- this share of the side.
        shear_degrees: uniform in +- this.
        erasing_probability: of a box being erased from the normalised image (see `draw_boxes`), 0 to 1.

    Pixels from outside the image repeat its border ("fill nearest").
    """

    flip_probability: float = 0.0
    rotation_degrees: float = 0.0
    min_crop: float = 1.0
    zoom: float = 0.0
    shift: float = 0.0
    shear_degrees: float = 0.0
    erasing_probability: float = 0.0

    @property
    def has_maps(self) -> bool:
        """Whether it draws maps, apart from erasing."""
        return replace(self, erasing_probability=0.0) != Augmentation()


PRESETS = {
    "none": Augmentation(),
    "flip": Augmentation(flip_probability=0.5),
    "standard": Augmentation(flip_probability=0.5, rotation_degrees=10, min_crop=0.85),
    # The five systems, as far as they state one. The thesis, the two-phase system and the ratio study state none.
    "thesis-effnet-b0": Augmentation(),
    "resnet18-fer4": Augmentation(flip_probability=0.5, rotation_degrees=10, min_crop=0.9),
    "affect-multitask": Augmentation(flip_probability=0.5, rotation_degrees=20, zoom=0.2, shift=0.2, shear_degrees=0.1),
    "efficientnetv2s-two-phase": Augmentation(),
    "ratio-study": Augmentation(),
}
"""Parameter sets by name. `affect-multitask` takes its source's "shear .1" as Keras does, in degrees."""


def resolve(config: AugmentationConfig) -> Augmentation:
    """The preset with the config's own values on top.

    Raises UserError on an unknown preset, and on fixed views with erasing, which are maps alone.
    """
    if config.preset not in PRESETS:
        raise UserError(f"augmentation.preset: got {config.preset!r}{nearest(config.preset, PRESETS)}")
    if config.views is not None and config.erasing_probability:
        raise UserError(
            f"augmentation.erasing_probability: got {config.erasing_probability:g}, expected 0 with "
            "augmentation.views, whose images are turned, shifted and scaled only; leave one of them out"
        )
    own = {field.name: getattr(config, field.name) for field in fields(Augmentation)}
    return replace(PRESETS[config.preset], **{name: value for name, value in own.items() if value is not None})


def draw_affine(augmentation: Augmentation, num_images: int, generator: torch.Generator) -> torch.Tensor:
    """Random maps from output to input coordinates, float32 [num_images, 2, 3], both in [-1, 1] with y down.

    The draws come from a CPU generator in a fixed order, so they do not depend on the device.
    """
    return _affine(augmentation, lambda low, high: torch.empty(num_images).uniform_(low, high, generator=generator))


def draw_view(augmentation: Augmentation, index: np.ndarray, view: int, seed: int) -> torch.Tensor:
    """Maps as those of `draw_affine`, float32 [B, 2, 3], that depend on nothing but (seed, index[i], view).

    So an image's view is the same in every batch, epoch and process. `index` is int64 [B].
    """
    keys = _hashed(_hashed(_hashed(np.full(len(index), seed, np.uint64)) + np.uint64(view)) + index.astype(np.uint64))

    def uniform(low: float, high: float) -> torch.Tensor:
        nonlocal keys
        keys = _hashed(keys)
        # The upper 24 bits, as many as a float32 in [0, 1) can have.
        unit = (keys >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return low + (high - low) * torch.from_numpy(unit)

    return _affine(augmentation, uniform)


def _hashed(keys: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014, Fast Splittable Pseudorandom Number Generators): uint64 to uint64, one to one."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def test_views(name: str) -> list[torch.Tensor | None]:
    """Maps, float32 [2, 3], through which an image is looked at in tests; None is the plain image.

    Args:
        name: none; flip, the image and its mirror image; ten_crop, squares of `TEN_CROP_SIDE` at the four corners and
            in the middle, and their mirror images (Krizhevsky et al. 2012).

    The answers to all views are averaged: probabilities, after the softmax, and valence and arousal.
    """
    if name == "none":
        return [None]
    if name == "flip":
        return [None, torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])]
    side, edge = TEN_CROP_SIDE, 1 - TEN_CROP_SIDE
    centres = [(-edge, -edge), (edge, -edge), (-edge, edge), (edge, edge), (0.0, 0.0)]
    return [torch.tensor([[mirror * side, 0.0, x], [0.0, side, y]]) for mirror in (1, -1) for x, y in centres]


def draw_boxes(augmentation: Augmentation, num_images: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes that random erasing takes, float32 [num_images, 4]: top, left, height, width in pixels; of size 0 for none.

    Zhong et al. 2020, arXiv:1708.04896, algorithm 1, with torchvision's ranges: `ERASED_AREA`, uniform, `ERASED_RATIO`,
    uniform in its logarithm, at a uniform place. A box that does not fit is drawn again, up to `ERASING_TRIES` times;
    then nothing is erased. The draws come from a CPU generator.
    """

    def uniform(low: float, high: float, rows: int = 1) -> torch.Tensor:
        return torch.empty(rows, num_images).uniform_(low, high, generator=generator)

    is_erased = uniform(0, 1) < augmentation.erasing_probability
    area = uniform(*ERASED_AREA, ERASING_TRIES) * size**2
    ratio = uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1]), ERASING_TRIES).exp()
    heights, widths = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (heights < size) & (widths < size)
    first = fits.int().argmax(dim=0, keepdim=True)
    is_erased &= fits.any(dim=0)
    height, width = heights.gather(0, first) * is_erased, widths.gather(0, first) * is_erased
    top, left = (uniform(0, 1) * (size - height + 1)).floor(), (uniform(0, 1) * (size - width + 1)).floor()
    return torch.cat([top, left, height, width]).T


def erase(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Sets `boxes`, float32 [B, 4] from `draw_boxes`, to 0 in images [B, C, S, S], in place; returns these."""
    top, left, height, width = boxes.to(images.device).T.view(4, -1, 1, 1, 1)
    place = torch.arange(images.shape[-1], device=images.device)
    y, x = place.view(-1, 1), place
    return images.masked_fill_(((y >= top) & (y < top + height)) & ((x >= left) & (x < left + width)), 0.0)


def _affine(augmentation: Augmentation, uniform: Callable[[float, float], torch.Tensor]) -> torch.Tensor:
    """Maps, float32 [B, 2, 3], from `uniform(low, high)`, which gives float32 [B] and something new each time."""
    flip = torch.where(uniform(0, 1) < augmentation.flip_probability, -1.0, 1.0)
    angle = torch.deg2rad(uniform(-1, 1) * augmentation.rotation_degrees)
    shear = torch.tan(torch.deg2rad(uniform(-1, 1) * augmentation.shear_degrees))
    crop = 1 - uniform(0, 1) * (1 - augmentation.min_crop)
    scale_x = crop * (1 + uniform(-1, 1) * augmentation.zoom)
    scale_y = crop * (1 + uniform(-1, 1) * augmentation.zoom)
    # A side of the image is 2 in these coordinates; the crop's centre may move by what it leaves free.
    shift_x = uniform(-1, 1) * (1 - crop) + 2 * augmentation.shift * uniform(-1, 1)
    shift_y = uniform(-1, 1) * (1 - crop) + 2 * augmentation.shift * uniform(-1, 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # rotation @ shear @ scale @ flip, applied to column vectors (x, y)
    rows = [
        cos * scale_x * flip,
        (cos * shear - sin) * scale_y,
        shift_x,
        sin * scale_x * flip,
        (sin * shear + cos) * scale_y,
        shift_y,
    ]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)


def sample(images: torch.Tensor, size: int, affine: torch.Tensor | None) -> torch.Tensor:
    """Augments and resizes a batch in one bilinear sampling.

    Args:
        images: float32 [B, C, H, W].
        size: side of the output in pixels.
        affine: float32 [B, 2, 3], maps from output to input coordinates, or None for the plain resize.

    Returns: float32 [B, C, size, size].
    """
    shrink = -(-images.shape[-1] // (MAX_SHRINK * size))
    if shrink > 1:
        images = functional.avg_pool2d(images, shrink)
    if affine is None:
        if images.shape[-2:] == (size, size):
            return images
        return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    centres = (torch.arange(size, device=images.device, dtype=images.dtype) * 2 + 1) / size - 1
    x, y = centres.view(1, 1, size), centres.view(1, size, 1)
    theta = affine.to(images.device).view(-1, 6, 1, 1)
    grid = torch.stack(
        (
            theta[:, 0] * x + theta[:, 1] * y + theta[:, 2],
            theta[:, 3] * x + theta[:, 4] * y + theta[:, 5],
        ),
        dim=-1,
    )
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
