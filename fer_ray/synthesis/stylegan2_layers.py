"""The StyleGAN2 generator in plain PyTorch, float32, for inference; names of tensors are those of official snapshots.

After T. Karras et al., Analyzing and improving the image quality of StyleGAN (CVPR 2020), and T. Karras et al.,
Training generative adversarial networks with limited data (NeurIPS 2020). Learned weights are scaled when they are
used ("equalised learning rate"): by 1 / sqrt(fan in), in the mapping network by its learning rate multiplier too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ARCHITECTURES = ("orig", "skip", "resnet")
"""Which blocks make an image, and whether they have shortcuts; figure 7 of the first paper."""

Noise = Literal["const", "none"] | Sequence[torch.Generator]
"""Per-pixel noise: the snapshot's own, none, or drawn on the CPU from one random generator per image of the batch."""

_EPSILON = 1e-8
_LEAKY_SLOPE = 0.2
_LEAKY_GAIN = math.sqrt(2)  # keeps the variance
_TAPS = 4  # of the resampling filter, [1, 3, 3, 1] x [1, 3, 3, 1] / 64


@dataclass(frozen=True)
class Shape:
    """What fixes the shape of every tensor of a generator.

    Attributes:
        z_dim, c_dim, w_dim: lengths of the latent vector, the class vector (0: unconditional) and the style vector.
        img_resolution: side of the images in pixels, a power of two.
        img_channels: 1 or 3.
        embed_dim: length of the embedded class vector.
        mapping_dims: output lengths of the mapping network's layers; the last is `w_dim`.
        channels: feature maps of each resolution, from 4 x 4 on.
        architecture: one of ARCHITECTURES.
        mapping_multiplier: learning rate multiplier of the mapping network.
        conv_clamp: bound of the activations' absolute value, None for none.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    img_resolution: int
    img_channels: int
    embed_dim: int
    mapping_dims: tuple[int, ...]
    channels: tuple[int, ...]
    architecture: str
    mapping_multiplier: float
    conv_clamp: float | None

    @property
    def num_ws(self) -> int:
        """Style vectors of an image: one per convolution, and one for the last conversion to pixels."""
        return 2 * len(self.channels)


class Linear(nn.Module):
    """x W^T / sqrt(fan in) * multiplier + b * multiplier."""

    def __init__(self, num_inputs: int, num_outputs: int, multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.bias = nn.Parameter(torch.empty(num_outputs))
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]."""
        gain = self.multiplier / math.sqrt(self.weight.shape[1])
        return functional.linear(x, self.weight * gain, self.bias * self.multiplier)


class Mapping(nn.Module):
    """Latent and class vectors to style vectors."""

    w_avg: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_layers, self.num_ws = len(shape.mapping_dims), shape.num_ws
        num_inputs = shape.z_dim
        if shape.c_dim:
            self.embed = Linear(shape.c_dim, shape.embed_dim)
            num_inputs += shape.embed_dim
        for index, num_outputs in enumerate(shape.mapping_dims):
            self.add_module(f"fc{index}", Linear(num_inputs, num_outputs, shape.mapping_multiplier))
            num_inputs = num_outputs
        self.register_buffer("w_avg", torch.empty(shape.w_dim))

    def forward(self, z: Tensor, c: Tensor, psi: float, cutoff: int | None) -> Tensor:
        """[n, z_dim], [n, c_dim] -> [n, num_ws, w_dim], the first `cutoff` of them (None: all) drawn to the mean."""
        x = _normalised(z)
        if c.shape[1]:
            x = torch.cat([x, _normalised(self.embed(c))], dim=1)
        for index in range(self.num_layers):
            x = functional.leaky_relu(self.get_submodule(f"fc{index}")(x), _LEAKY_SLOPE) * _LEAKY_GAIN
        ws = x[:, None].repeat(1, self.num_ws, 1)
        if psi != 1:
            ws[:, :cutoff] = torch.lerp(self.w_avg, ws[:, :cutoff], psi)
        return ws


class StyledConv(nn.Module):
    """A 3 x 3 convolution modulated by a style, with noise, bias and activation; `up` doubles height and width."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, shape: Shape, num_inputs: int, num_outputs: int, resolution: int, up: bool) -> None:
        super().__init__()
        self.affine = Linear(shape.w_dim, num_inputs)
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(num_outputs))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise_const", torch.empty(resolution, resolution))
        self.register_buffer("resample_filter", torch.empty(_TAPS, _TAPS))
        self.up, self.clamp = up, shape.conv_clamp

    def forward(self, x: Tensor, w: Tensor, noise: Noise, gain: float = 1.0) -> Tensor:
        """[n, inputs, h, h], [n, w_dim] -> [n, outputs, H, H]."""
        x = modulated_conv(x, self.weight, self.affine(w), self.resample_filter if self.up else None)
        if noise == "const":
            x += self.noise_const * self.noise_strength
        elif not isinstance(noise, str):
            size = (1, *self.noise_const.shape)
            drawn = torch.stack([torch.randn(size, generator=generator) for generator in noise])
            x += drawn.to(x.device) * self.noise_strength
        x += self.bias[:, None, None]
        x = functional.leaky_relu(x, _LEAKY_SLOPE, inplace=True).mul_(_LEAKY_GAIN * gain)
        return _clamped(x, self.clamp, gain)


class ToImage(nn.Module):
    """Feature maps to pixels: a modulated 1 x 1 convolution that is not demodulated."""

    def __init__(self, shape: Shape, num_inputs: int) -> None:
        super().__init__()
        self.affine = Linear(shape.w_dim, num_inputs)
        self.weight = nn.Parameter(torch.empty(shape.img_channels, num_inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(shape.img_channels))
        self.clamp = shape.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[n, inputs, h, h], [n, w_dim] -> [n, img_channels, h, h]."""
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        x = functional.conv2d(x * styles[:, :, None, None], self.weight, self.bias)
        return _clamped(x, self.clamp)


class Shortcut(nn.Module):
    """A 1 x 1 convolution and doubling, beside the two convolutions of a block of the resnet architecture."""

    resample_filter: Tensor

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, 1, 1))
        self.register_buffer("resample_filter", torch.empty(_TAPS, _TAPS))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, h] -> [n, outputs, 2h, 2h]."""
        x = functional.conv2d(x, self.weight / math.sqrt(self.weight.shape[1]))
        return upsample(x, self.resample_filter)


class Block(nn.Module):
    """The layers of one resolution."""

    resample_filter: Tensor

    def __init__(self, shape: Shape, level: int) -> None:
        super().__init__()
        resolution = 4 << level
        num_outputs = shape.channels[level]
        if level == 0:
            self.const = nn.Parameter(torch.empty(num_outputs, resolution, resolution))
        else:
            num_inputs = shape.channels[level - 1]
            self.conv0 = StyledConv(shape, num_inputs, num_outputs, resolution, up=True)
            if shape.architecture == "resnet":
                self.skip = Shortcut(num_inputs, num_outputs)
        self.conv1 = StyledConv(shape, num_outputs, num_outputs, resolution, up=False)
        if shape.architecture == "skip" or level == len(shape.channels) - 1:
            self.torgb = ToImage(shape, num_outputs)
        self.register_buffer("resample_filter", torch.empty(_TAPS, _TAPS))

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Noise) -> tuple[Tensor, Tensor | None]:
        """Feature maps and image of half the size (None at first) and [n, 2 or 3, w_dim] -> those of this size."""
        styles = iter(ws.unbind(dim=1))
        if x is None:
            # Channels last is twice as fast on a CPU, and every later tensor takes it over from this one.
            x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, next(styles), noise)
        elif hasattr(self, "skip"):
            gain = math.sqrt(0.5)  # keeps the variance of the sum
            shortcut = self.skip(x) * gain
            x = self.conv0(x, next(styles), noise)
            x = shortcut + self.conv1(x, next(styles), noise, gain)
        else:
            x = self.conv1(self.conv0(x, next(styles), noise), next(styles), noise)
        if image is not None:
            image = upsample(image, self.resample_filter)
        if hasattr(self, "torgb"):
            pixels = self.torgb(x, next(styles))
            image = pixels if image is None else image + pixels
        return x, image


class Synthesis(nn.Module):
    """Style vectors to images, one block per resolution."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_blocks = len(shape.channels)
        for level in range(self.num_blocks):
            self.add_module(f"b{4 << level}", Block(shape, level))

    def forward(self, ws: Tensor, noise: Noise) -> Tensor:
        """[n, num_ws, w_dim] -> [n, img_channels, img_resolution, img_resolution], about -1 to 1."""
        x: Tensor | None = None
        image: Tensor | None = None
        for level in range(self.num_blocks):
            # A conversion to pixels has the style of the next block's first convolution.
            styles = ws[:, :2] if level == 0 else ws[:, 2 * level - 1 : 2 * level + 2]
            x, image = self.get_submodule(f"b{4 << level}")(x, image, styles, noise)
        assert image is not None  # the last block makes one
        return image


def modulated_conv(x: Tensor, weight: Tensor, styles: Tensor, resample_filter: Tensor | None) -> Tensor:
    """Convolution with weights w_ijk = s_i w_ijk per image, divided by their norm over i and k (eqs. 1 and 3).

    Scaling the inputs by s_i and the outputs by the reciprocal norm is the same as scaling the weights, and all images
    of a batch share one convolution.

    Args:
        x: [n, inputs, h, h].
        weight: [outputs, inputs, 3, 3].
        styles: [n, inputs].
        resample_filter: [4, 4] to double height and width, smoothed by the filter; None to keep them.
    """
    x = x * styles[:, :, None, None]
    if resample_filter is None:
        x = functional.conv2d(x, weight, padding=1)
    else:
        x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        smooth = _per_channel(resample_filter.flip(0, 1), x.shape[1])
        x = functional.conv2d(x, smooth, padding=1, groups=x.shape[1])
    norms = styles.square() @ weight.square().sum(dim=(2, 3)).T
    return x.mul_((norms + _EPSILON).rsqrt()[:, :, None, None])


def upsample(x: Tensor, resample_filter: Tensor) -> Tensor:
    """Doubles height and width of [n, channels, h, h]: zeros between the pixels, then the filter, times 4."""
    weight = _per_channel(resample_filter, x.shape[1])
    return functional.conv_transpose2d(x, weight, stride=2, padding=1, groups=x.shape[1])


def _per_channel(resample_filter: Tensor, num_channels: int) -> Tensor:
    # Times 4, because doubling puts three zeros beside every pixel.
    return (4 * resample_filter).repeat(num_channels, 1, 1, 1)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + _EPSILON).rsqrt()


def _clamped(x: Tensor, bound: float | None, gain: float = 1.0) -> Tensor:
    return x if bound is None else x.clamp_(-bound * gain, bound * gain)
