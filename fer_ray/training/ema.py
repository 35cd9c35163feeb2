"""A moving average of the weights over the steps, which is then what is judged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Ema:
    """The exponential moving average of a network's parameters and buffers.

    After n updates it is sum_i decay^(n-i) w_i / sum_i decay^(n-i), with w_i the weights after step i. This is Adam's
    bias correction (Kingma & Ba 2015, arXiv:1412.6980, section 3): the initial weights have no share in it, so a run
    that is short beside 1 / (1 - decay) steps is judged on the mean of its steps and not on where it began.

    Running statistics of batch norms are averaged like weights, as timm's ModelEma and torch's AveragedModel with
    `use_buffers` do; whole numbers (counters) are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._live = network.state_dict()  # the network's own memory
        self._average = {name: tensor.clone() for name, tensor in self._live.items()}
        self._averaged = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._copied = [name for name in self._live if name not in set(self._averaged)]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's present weights in."""
        self._updates += 1
        share = (1 - self._decay) / (1 - self._decay**self._updates)
        average, live = self._average, self._live
        torch._foreach_lerp_([average[n] for n in self._averaged], [live[n] for n in self._averaged], share)
        for name in self._copied:
            average[name].copy_(live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averaged weights into the network, and its own back at the end, bit for bit."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        _copy(self._average, self._live)
        try:
            yield
        finally:
            _copy(own, self._live)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"average": self._average, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same network."""
        _copy(state["average"], self._average)
        self._updates = state["updates"]


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], destination: dict[str, torch.Tensor]) -> None:
    for name, tensor in destination.items():
        tensor.copy_(source[name])
