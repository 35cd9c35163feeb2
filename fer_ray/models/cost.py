"""What a network costs: parameters, and multiply-adds of a forward pass."""

import torch
from torch import nn


def num_parameters(module: nn.Module) -> int:
    """Trainable and frozen parameters; statistics of norms are none."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def gmac(module: nn.Module, image_size: int, channels: int = 3) -> float:
    """Billions of multiply-adds of one image [channels, image_size, image_size] through convolutions and linear layers.

    Norms, activations, pooling and products of two activations (attention) are left out, as tables in papers do. The
    module may be on any device, the meta device too.
    """
    macs = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            macs += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    modes = [layer.training for layer in module.modules()]
    try:
        device = next(module.parameters()).device
        module.eval()(torch.zeros(1, channels, image_size, image_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in zip(module.modules(), modes, strict=True):
            layer.training = mode
    return macs / 1e9
