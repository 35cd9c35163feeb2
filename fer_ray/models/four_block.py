"""The custom four-block CNN of the multi-task system."""

import torch
from torch import nn

WIDTHS = (32, 64, 128, 256)


class FourBlockCNN(nn.Module):
    """Convolutions of 32, 64, 128 and 256 kernels, each with batch norm and ReLU; the first three with max pooling.

    float [B, 3, S, S] -> features [B, 256], the mean over the last map. The source states neither the kernels' size
    nor their start: 3 x 3, and Kaiming's normal one (He et al. 2015, arXiv:1502.01852).
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = []
        channels = 3
        for width in WIDTHS:
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)))
            channels = width
        for block in blocks[:-1]:
            block.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of a batch of images."""
        features: torch.Tensor = self.blocks(images).mean((2, 3))
        return features
