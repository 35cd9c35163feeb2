"""What every architecture becomes: a backbone that gives features, and a head that gives the outputs."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from fer_ray.models.weights import LoadReport


class Network(nn.Module):
    """A backbone and a head.

    Attributes:
        backbone: float [B, channels, S, S] -> pooled features [B, num_features].
        head: features -> [B, C + num_affect]: C class logits, then valence and arousal through tanh where they are
            learned.
        num_features: what the backbone gives and the head takes.
        load_report: what was loaded from a weights file; None where there was none.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, num_features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_features = num_features
        self.load_report: LoadReport | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs of a batch of images."""
        outputs: torch.Tensor = self.head(self.backbone(images))
        return outputs
