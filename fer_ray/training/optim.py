"""Optimizers with the parameter groups that the field uses."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, optim

from fer_ray.config import OptimizerConfig
from fer_ray.training.muon import Muon


def build(
    network: nn.Module, config: OptimizerConfig, carried: Mapping[torch.Tensor, Any] | None = None
) -> optim.Optimizer:
    """A fused optimizer over the parameters that require a gradient.

    `carried`, the `state` of another of its kind, gives it the moments of the parameters that both have.

    Weight decay acts on matrices and kernels, not on biases and norms. It is decoupled in AdamW (Loshchilov & Hutter
    2019, arXiv:1711.05101) and part of the gradient in Adam and SGD, whose momentum is Nesterov's. Muon: see there.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: optim.Optimizer
    if config.name == "muon":
        optimizer = Muon(groups, config.learning_rate, config.momentum)
    elif config.name == "sgd":
        momentum = config.momentum
        optimizer = optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=momentum > 0, fused=True)
        # The first step gives the same from zeros. torch leaves buffers uninitialised where float16 skips that step,
        # and cannot mix parameters with and without one, as carrying a phase's state to the next would.
        for p in trained if momentum else []:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    else:
        kind = optim.AdamW if config.name == "adamw" else optim.Adam
        optimizer = kind(groups, lr=config.learning_rate, fused=True)
    for p in trained:
        if carried is not None and p in carried:
            optimizer.state[p] = carried[p]
    return optimizer
