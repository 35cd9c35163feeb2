"""The order in which training images are seen."""

from typing import Any, Literal

import numpy as np
import torch


class Order:
    """Batches without end, from one shuffled pass over the training images after another.

    natural: a pass has every image once. balanced: a pass has ceil(n / K) images of each of the K classes that are
    there, drawn without replacement; a class with fewer gives all of them again and again until it has enough. So all
    classes come equally often, exactly so in a pass, and no image twice before its class is through.

    Full batches run over the ends of passes, so that every run takes equal steps of equal size.
    """

    def __init__(
        self,
        index: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        sampling: Literal["natural", "balanced"],
        seed: int,
    ) -> None:
        """`index`, int64 [n], are the training images; `labels`, int64, has the class of image i at i."""
        self._index = index
        self._batch_size = batch_size
        self._classes = (
            [index[labels[index] == c] for c in np.unique(labels[index])] if sampling == "balanced" else None
        )
        self._rng = np.random.default_rng(seed)
        self._pending = np.empty(0, np.int64)

    def next(self) -> np.ndarray:
        """The images of the next step, int64 [batch_size]."""
        while len(self._pending) < self._batch_size:
            self._pending = np.concatenate([self._pending, self._pass()])
        batch, self._pending = np.split(self._pending, [self._batch_size])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the order stands: numbers, strings and a tensor, which `torch.load(weights_only=True)` reads."""
        return {"generator": self._rng.bit_generator.state, "pending": torch.tensor(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken, from an order over the same images."""
        self._rng.bit_generator.state = state["generator"]
        self._pending = state["pending"].numpy()

    def _pass(self) -> np.ndarray:
        if self._classes is None:
            return self._rng.permutation(self._index)
        share = -(-len(self._index) // len(self._classes))
        drawn = []
        for images in self._classes:
            rounds = -(-share // len(images))
            drawn.append(np.concatenate([self._rng.permutation(images) for _ in range(rounds)])[:share])
        return self._rng.permutation(np.concatenate(drawn))
