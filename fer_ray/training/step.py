"""One optimizer step: forward, loss, backward, clip, update; in parts, twice or in half precision where asked."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.training import optim, sam
from fer_ray.training.ema import Ema
from fer_ray.training.losses import Loss
from fer_ray.training.runtime import Runtime


class Stepper:
    """Trains a network batch by batch as a config says; one for each phase, since its optimizer knows what is trained.

    Attributes:
        gradient_norm: of the last step before clipping, a scalar on the device; None where nothing is clipped.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        config: RunConfig,
        runtime: Runtime,
        *,
        carried: Mapping[torch.Tensor, Any] | None = None,
    ) -> None:
        """`carried` is the `optimizer_state` of the phase before, where its moments are kept."""
        self._network, self._loss, self._config, self._runtime = network, loss, config, runtime
        self._optimizer = optim.build(network, config.optimizer, carried)
        self._trained = [p for p in network.parameters() if p.requires_grad]
        self._scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "float16")
        decay = config.optimizer.ema_decay
        self._ema = Ema(network, decay) if decay is not None else None
        self._steps = 0
        self.gradient_norm: torch.Tensor | None = None

    def step(self, images: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One update from float [B, ...] images and [B, ...] targets.

        Returns the loss, a scalar, and the outputs, float32 [B, O], both of the weights before the update. With SAM
        they are those of its first pass, at the weights themselves.

        Raises UserError where a batch norm would see one image alone.
        """
        config = self._config.optimizer
        loss, outputs = self._backward(images, target, config.accumulation_steps)
        if config.sam_rho and self._steps % config.sam_every == 0:
            count = max(1, round(config.sam_fraction * len(images)))
            num_parts = math.ceil(config.accumulation_steps * count / len(images))  # no part larger than before
            with sam.perturbed(self._network, config.sam_rho, adaptive=config.sam_adaptive):
                self._backward(images[:count], target[:count], num_parts)
        self._scaler.unscale_(self._optimizer)
        if self._config.training.max_gradient_norm is not None:
            self.gradient_norm = nn.utils.clip_grad_norm_(self._trained, self._config.training.max_gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._ema:
            self._ema.update()
        self._steps += 1
        return loss, outputs

    def set_learning_rate(self, rate: float) -> None:
        """For the steps that follow."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Holds the network at the weights to be judged: their moving average if the config has one, else its own."""
        return self._ema.applied() if self._ema else nullcontext()

    def optimizer_state(self) -> Mapping[torch.Tensor, Any]:
        """The optimizer's moments by parameter, for a next phase that carries them."""
        return self._optimizer.state

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, beside the network's own state and torch's global generator."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "ema": self._ema.state_dict() if self._ema else None,
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same config and phase, with the same bits."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._ema:
            self._ema.load_state_dict(state["ema"])
        self._steps = state["steps"]

    def _backward(
        self, images: torch.Tensor, target: torch.Tensor, num_parts: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Leaves the gradients of the batch's loss in `.grad`; returns the loss and the outputs.

        The loss is the mean of the parts' by their size: that of the whole batch where it is a plain mean over images.
        Parts that a loss weights by class, or where valence is unknown, or CCC, are means of their own.
        """
        self._optimizer.zero_grad()
        loss, outputs = torch.zeros((), device=images.device), []
        num_parts = min(num_parts, len(images))
        for some, goal in zip(images.tensor_split(num_parts), target.tensor_split(num_parts), strict=True):
            if len(some) == 1:
                self._check_batch_norms()
            with self._runtime.autocast():
                out = self._network(some)
            out = out.float()
            part_loss = self._loss(out, goal) * (len(some) / len(images))
            self._scaler.scale(part_loss).backward()
            loss += part_loss.detach()
            outputs.append(out.detach())
        return loss, outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _check_batch_norms(self) -> None:
        if not any(isinstance(m, _BatchNorm) and m.training for m in self._network.modules()):
            return
        optimizer = self._config.optimizer
        raise UserError(
            "a batch norm cannot be trained on one image at a time, as here with "
            f"training.batch_size {self._config.training.batch_size}, "
            f"optimizer.accumulation_steps {optimizer.accumulation_steps} and "
            f"optimizer.sam_fraction {optimizer.sam_fraction:g}; take larger batches or fewer parts"
        )
