"""Muon: momentum whose direction is made orthogonal, for the filters of convolutions that a norm follows."""

from collections.abc import Iterable
from typing import Any

import torch

ITERATIONS = 3
"""Of Newton and Schulz. More bring the singular values nearer to 1, which does not train better."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for filters, SGD with Nesterov momentum for all other parameters, at one learning rate.

    A filter bank [out, in, k, k] is a matrix [out, in k k]. Its Nesterov momentum is replaced by the nearest
    semi-orthogonal matrix (K. Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"), and its own norm
    is held at sqrt(out), since a norm layer after it takes out every scale. Parameters with another shape, and filters
    of one input channel (stems of grey images, depthwise ones), take SGD; weight decay acts on these alone.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update from the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                is_filter = _is_filter(p)
                gradient = p.grad if is_filter else p.grad.add(p, alpha=group["weight_decay"])
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                direction = gradient.add(buffer, alpha=group["momentum"])
                if is_filter:
                    direction = orthogonalised(direction.reshape(len(p), -1)).reshape(p.shape)
                    p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(direction, alpha=-group["lr"])


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """float [m, n] with the same singular vectors and singular values near 1, by Newton-Schulz iterations.

    X <- aX + b(XX')X + c(XX')^2 X (Jordan 2024). The iteration runs on the smaller Gram matrix alone.
    """
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    gram = x @ x.T
    identity = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    product = identity
    for _ in range(ITERATIONS):
        factor = a * identity + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if is_tall else x


def _is_filter(p: torch.Tensor) -> bool:
    return p.ndim == 4 and p.shape[1] > 1
