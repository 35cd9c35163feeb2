"""ResNet-9 for small grey or colour faces: few, dense convolutions, which a CPU is fast at."""

from itertools import pairwise

import torch
from torch import nn

WIDTHS = (32, 64, 128, 256)


class ResNet9(nn.Module):
    """A 3x3 stem of stride 2, then three times a convolution, a max pool and a residual block; pooled features.

    After the network of D. Page ("How to train your ResNet", 2018), narrower, its stem strided for 48-pixel faces:
    24x24x32, 12x12x64, 6x6x128, 3x3x256. Residual blocks start as the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, WIDTHS[0], stride=2)]
        for before, after in pairwise(WIDTHS):
            layers += [_convolution(before, after), nn.MaxPool2d(2), _Residual(after)]
        self.body = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float [B, 3, S, S] with S at least 16 to features [B, 256]."""
        features: torch.Tensor = self.body(images)
        return features.mean((2, 3))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.second(self.first(x))))


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
