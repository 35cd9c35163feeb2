"""From indices to network input: gather, augment, resize and normalise a batch where the training runs."""

import numpy as np
import torch

from fer_ray.data.augment import Augmentation, draw_affine, sample
from fer_ray.data.store import Dataset

NORMALIZATIONS = {
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation per channel, of pixels in [0, 1]."""

FLAT_VARIANCE = 16.0
"""Added to the variance of an image's pixels (0 to 255), so that an empty one does not blow up its noise."""


class Batches:
    """The images of a run, real first and synthetic after them, addressed by one index.

    On the CPU they stay in the memory-mapped cache, shared by all processes of a machine. On a GPU they are uploaded
    once as uint8, and gathered there.
    """

    def __init__(
        self, real: Dataset, synthetic: Dataset | None, *, size: int, normalization: str, device: torch.device
    ) -> None:
        self.size = size
        self.device = device
        self.offset = len(real.images)
        parts = [real.images] if synthetic is None else [real.images, synthetic.images]
        self._arrays = parts
        self._tensor: torch.Tensor | None = None
        if device.type != "cpu":
            self._tensor = torch.cat([torch.tensor(part) for part in parts]).to(device)
        self._per_image = normalization == "image"
        mean, std = NORMALIZATIONS["unit" if self._per_image else normalization]
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)

    def __call__(
        self, index: np.ndarray, augmentation: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Network input for `index`, int64 [B]: float32 [B, 3, size, size], normalised, channels last.

        With `augmentation`, every image draws its own map from `generator` (a CPU generator).
        """
        images = self._gather(index).permute(0, 3, 1, 2).float()
        affine = None
        if augmentation is not None and augmentation != Augmentation():
            assert generator is not None
            affine = draw_affine(augmentation, len(index), generator)
        images = sample(images, self.size, affine)
        if self._per_image:
            # Light and contrast vary more between faces than expressions do; from scratch a network sees them first.
            variance, mean = torch.var_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
            images = 255 * (images - mean) / (variance + FLAT_VARIANCE).sqrt()
        # Grey becomes three equal channels here, where the normalisation broadcasts.
        return torch.addcmul(self._shift, images, self._scale).contiguous(memory_format=torch.channels_last)

    def _gather(self, index: np.ndarray) -> torch.Tensor:
        if self._tensor is not None:
            return self._tensor[torch.from_numpy(index).to(self.device)]
        first, *rest = self._arrays
        if not rest:
            return torch.from_numpy(first[index])
        from_rest = index >= self.offset
        batch = np.empty((len(index), *first.shape[1:]), np.uint8)
        batch[~from_rest] = first[index[~from_rest]]
        batch[from_rest] = rest[0][index[from_rest] - self.offset]
        return torch.from_numpy(batch)
