"""Sharpness-aware minimisation (SAM) and its adaptive form, around any optimizer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

ADAPTIVE_ETA = 0.01
"""Kwon et al.'s eta: keeps a weight of 0 from never being moved."""

EPSILON = 1e-12
"""Added to the length of the gradient, which may be 0."""


@contextmanager
def perturbed(network: nn.Module, rho: float, *, adaptive: bool) -> Iterator[None]:
    """Holds the weights at w + e, the worst point within `rho` to first order; then puts w back, bit for bit.

    With g the gradients that the first pass left in `.grad`: e = rho g / |g| (Foret et al. 2021, arXiv:2010.01412,
    equation 2). Adaptive: e = rho T²g / |Tg| with T = |w| + .01 for weights and 1 for biases (Kwon et al. 2021,
    arXiv:2102.11600, and their code). Neither depends on the scale of g, so that a scaled loss needs no unscaling
    here; gradients that overflowed make e, and with it the second pass, not finite.

    Meanwhile batch norms use the statistics of their batch but leave the running ones alone: those belong to w.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad and p.grad is not None}
    weights = [p.detach() for p in trained.values()]
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    saved = [p.clone() for p in weights]
    torch._foreach_add_(weights, _ascent(trained, rho, adaptive))
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        torch._foreach_copy_(weights, saved)
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def _ascent(trained: Mapping[str, nn.Parameter], rho: float, adaptive: bool) -> tuple[torch.Tensor, ...]:
    """e, for each parameter."""
    gradients = [p.grad for p in trained.values() if p.grad is not None]
    if not adaptive:
        return torch._foreach_mul(gradients, rho / (nn.utils.get_total_norm(gradients) + EPSILON))
    scales = [p.abs() + ADAPTIVE_ETA if name.endswith("weight") else torch.ones_like(p) for name, p in trained.items()]
    scaled = torch._foreach_mul(gradients, scales)
    return torch._foreach_mul(torch._foreach_mul(scaled, scales), rho / (nn.utils.get_total_norm(scaled) + EPSILON))
