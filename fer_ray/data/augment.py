"""Batched augmentation: one affine map per image, sampled together with the resize, on any device.

Flip, rotation, crop, zoom, shift and shear are one 2x3 matrix per image; the sampling grid is that matrix applied to
the output's pixel centres by broadcasting (equal to `torch.nn.functional.affine_grid` up to rounding, and faster).
"""

from dataclasses import dataclass, fields, replace

import torch
from torch.nn import functional

from fer_ray.config import AugmentationConfig
from fer_ray.errors import UserError, nearest

MAX_SHRINK = 2
"""Bilinear sampling reads 2x2 pixels, so it may halve the side at most; more is averaged away first."""


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

    Pixels from outside the image repeat its border ("fill nearest").
    """

    flip_probability: float = 0.0
    rotation_degrees: float = 0.0
    min_crop: float = 1.0
    zoom: float = 0.0
    shift: float = 0.0
    shear_degrees: float = 0.0


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
    """The preset with the config's own values on top. Raises UserError on an unknown preset."""
    if config.preset not in PRESETS:
        raise UserError(f"augmentation.preset: got {config.preset!r}{nearest(config.preset, PRESETS)}")
    own = {field.name: getattr(config, field.name) for field in fields(Augmentation)}
    return replace(PRESETS[config.preset], **{name: value for name, value in own.items() if value is not None})


def draw_affine(augmentation: Augmentation, num_images: int, generator: torch.Generator) -> torch.Tensor:
    """Random maps from output to input coordinates, float32 [num_images, 2, 3], both in [-1, 1] with y down.

    The draws come from a CPU generator in a fixed order, so they do not depend on the device.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(num_images).uniform_(low, high, generator=generator)

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
    return torch.stack(rows, dim=1).reshape(num_images, 2, 3)


def sample(images: torch.Tensor, size: int, affine: torch.Tensor | None) -> torch.Tensor:
    """Augments and resizes a batch in one bilinear sampling.

    Args:
        images: float32 [B, C, H, W].
        size: side of the output in pixels.
        affine: float32 [B, 2, 3] from `draw_affine`, or None for the plain resize.

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
