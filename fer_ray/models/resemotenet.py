"""ResEmoteNet: convolutions, squeeze and excitation, then three wide residual blocks."""

import torch
from torch import nn
from torch.nn import functional

REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Channels weighted by what all channels hold on average (Hu et al. 2018, arXiv:1709.01507), without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // REDUCTION, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // REDUCTION, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W], weighted."""
        weighted: torch.Tensor = maps * self.fc(maps.mean((2, 3)))[:, :, None, None]
        return weighted


class ResidualBlock(nn.Module):
    """Two convolutions beside a 1 x 1 shortcut; halves the side of the maps."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride=2), nn.BatchNorm2d(width))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, channels, H, W] -> [B, width, H/2, W/2], rounded up."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class ResEmoteNet(nn.Module):
    """float [B, 3, S, S] -> features [B, 256] (Roy et al. 2024, arXiv:2409.10545).

    Layers, their names and dropout are those of the authors' code up to its last layer, so that their checkpoints fit.
    That last layer, in a linear head, has a dropout of .5 before it there: `model.dropout`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.conv3, self.bn3 = nn.Conv2d(128, 256, 3, padding=1), nn.BatchNorm2d(256)
        self.se = SqueezeExcitation(256)
        self.res_block1 = ResidualBlock(256, 512)
        self.res_block2 = ResidualBlock(512, 1024)
        self.res_block3 = ResidualBlock(1024, 2048)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, 512)
        self.fc3 = nn.Linear(512, 256)
        self.dropout1 = nn.Dropout(0.2)
        self.dropout2 = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of a batch of images."""
        maps = self.dropout1(functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 2))
        maps = self.dropout1(functional.max_pool2d(functional.relu(self.bn2(self.conv2(maps))), 2))
        maps = self.se(functional.max_pool2d(functional.relu(self.bn3(self.conv3(maps))), 2))
        features = self.res_block3(self.res_block2(self.res_block1(maps))).mean((2, 3))
        features = self.dropout2(functional.relu(self.fc1(features)))
        features = self.dropout2(functional.relu(self.fc2(features)))
        return functional.relu(self.fc3(features))
