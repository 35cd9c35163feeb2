"""MixUp and CutMix: images and targets of a batch are mixed in pairs."""

import torch
from torchvision.transforms import v2

from fer_ray.config import AugmentationConfig


class Mixer:
    """MixUp (Zhang et al. 2018, arXiv:1710.09412), CutMix (Yun et al. 2019, arXiv:1905.04899), or neither.

    With both, the toss of a coin decides for each batch. They are torchvision's: a batch has one draw from Beta(alpha,
    alpha), and each image meets the one before it, so batches have to be shuffled. All draws come from torch's global
    generator of the CPU.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        mixings = [(v2.MixUp, config.mixup_alpha), (v2.CutMix, config.cutmix_alpha)]
        self._mixings = [mixing(alpha=alpha) for mixing, alpha in mixings if alpha > 0]

    def __call__(self, images: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed images and targets; with neither they stay as they are.

        Args:
            images: float32 [B, C, S, S].
            target: float32 [B, O], distributions over classes, then valence and arousal, as far as there are any. A
                target that is NaN in one of two images is NaN in their mixture.
        """
        if not self._mixings:
            return images, target
        which = int(torch.randint(len(self._mixings), ())) if len(self._mixings) > 1 else 0
        mixed, mixed_target = self._mixings[which](images, target)
        return mixed.contiguous(memory_format=torch.channels_last), mixed_target
