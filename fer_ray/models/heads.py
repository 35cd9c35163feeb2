"""Heads: what comes after the features. Each is a chain of stages, and the last layer of each starts at zero.

A last layer at zero makes the first loss log C, whatever the backbone, and valence and arousal start at 0. It still
has a gradient. The layers before it keep torch's initialisation.
"""

from dataclasses import dataclass

import torch
from torch import nn

from fer_ray.config import ModelConfig
from fer_ray.errors import UserError


@dataclass(frozen=True)
class Stage:
    """A hidden layer of a head: dropout, then a linear layer of `width`, ReLU, and batch norm if `norm`."""

    dropout: float
    width: int
    norm: bool


@dataclass(frozen=True)
class Head:
    """Hidden stages, and the dropout before the last layer."""

    stages: tuple[Stage, ...]
    dropout: float


HEADS = {
    "efficientnetv2s-two-phase": Head((Stage(0.3, 512, True), Stage(0.3, 256, True)), 0.15),
    "affect-resnet50": Head((Stage(0.0, 512, True), Stage(0.5, 256, False)), 0.3),
    "affect-efficientnetb0": Head((Stage(0.0, 512, True),), 0.5),
    "affect-cnn": Head((Stage(0.0, 512, False), Stage(0.5, 256, False)), 0.3),
}
"""The heads of the systems as their sources write them down; `linear` is the other one, with the config's dropout."""


class AffectTanh(nn.Module):
    """Outputs [B, C + 2] whose last two columns, valence and arousal, go through tanh."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Class logits as they are, valence and arousal in [-1, 1]."""
        return torch.cat([outputs[:, :-2], outputs[:, -2:].tanh()], dim=1)


def build(config: ModelConfig, num_features: int, num_classes: int, num_affect: int) -> nn.Sequential:
    """The head `config.head` from features [B, num_features] to [B, num_classes + num_affect].

    `num_affect` is 0 or 2. The three outputs of a multi-task network (classes, valence, arousal) are the columns of
    one linear layer, which is the same as three layers side by side. Raises UserError when `model.dropout` is set
    beside a head that has dropout of its own.
    """
    if config.head == "linear":
        head = Head((), config.dropout)
    else:
        head = HEADS[config.head]
        if config.dropout:
            raise UserError(
                f"model.dropout: got {config.dropout:g} with model.head={config.head}, which has dropout of its own; "
                "leave it at 0, or take model.head=linear"
            )
    parts: list[nn.Module] = []
    for stage in head.stages:
        layers = [nn.Dropout(stage.dropout), nn.Linear(num_features, stage.width), nn.ReLU()]
        parts.append(nn.Sequential(*layers, *([nn.BatchNorm1d(stage.width)] if stage.norm else [])))
        num_features = stage.width
    # No random draw for values that are zeroed: the generator is left as the backbone left it.
    last: nn.Linear = nn.utils.skip_init(
        nn.Linear, num_features, num_classes + num_affect, device=torch.get_default_device()
    )
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    final = [nn.Dropout(head.dropout), last, *([AffectTanh()] if num_affect else [])]
    # The linear head is this last stage alone. Stages are nested, so that the dropout of a frozen one can be told.
    return nn.Sequential(*parts, nn.Sequential(*final)) if parts else nn.Sequential(*final)
