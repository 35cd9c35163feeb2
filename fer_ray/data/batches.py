"""From indices to network input: gather, augment, resize and normalise a batch where the training runs."""

from collections.abc import Sequence

import numpy as np
import torch

from fer_ray.data.augment import Augmentation, draw_affine, draw_boxes, erase, sample
from fer_ray.data.cache import blocks, release
from fer_ray.data.store import Dataset

NORMALIZATIONS = {
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation per channel, of pixels in [0, 1]. One channel takes the average over the three."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey image (ITU-R BT.601)."""

MAPPED_BYTES = 256 * 2**20
"""Memory maps larger than this in all give their pages back after each batch."""

PIECE_BYTES = 8 * 2**20
"""Pixels of a batch that are resized at once."""

FLAT_VARIANCE = 16.0
"""Added to the variance of an image's pixels (0 to 255), so that an empty one does not blow up its noise."""


class Batches:
    """The images of several data sets, one after the other, addressed by one index.

    On the CPU they stay in the memory-mapped cache, shared by all processes of a machine. On a GPU with room for them
    they are uploaded once as uint8, and gathered there.
    """

    def __init__(
        self, datasets: Sequence[Dataset], *, size: int, normalization: str, device: torch.device, channels: int = 3
    ) -> None:
        self.datasets, self.size, self.normalization, self.channels = tuple(datasets), size, normalization, channels
        self.device = device
        self._arrays = [dataset.images for dataset in datasets]
        self._starts = np.cumsum([0, *(len(images) for images in self._arrays)])
        self._is_large = sum(images.nbytes for images in self._arrays) > MAPPED_BYTES
        self._tensor = _uploaded(self._arrays, device)
        self._per_image = normalization == "image"
        mean, std = NORMALIZATIONS["unit" if self._per_image else normalization]
        if channels == 1:
            mean, std = (sum(mean) / 3,) * 3, (sum(std) / 3,) * 3
        scale, shift = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        self._scale = torch.tensor(scale[:channels], device=device).view(1, channels, 1, 1)
        self._shift = torch.tensor(shift[:channels], device=device).view(1, channels, 1, 1)

    def __call__(
        self,
        index: np.ndarray,
        augmentation: Augmentation | None = None,
        generator: torch.Generator | None = None,
        *,
        view: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Network input for `index`, int64 [B]: float32 [B, channels, size, size], normalised, channels last.

        With `augmentation`, every image draws its own map and erased box from `generator` (a CPU generator); what is
        erased is 0 after the normalisation. `view` gives the maps instead, float32 [B, 2, 3], or [2, 3] for all images.
        """
        affine = None if view is None else view.expand(len(index), 2, 3)
        boxes = None
        if augmentation is not None and augmentation != Augmentation():
            assert generator is not None
            assert view is None
            if augmentation.has_maps:
                affine = draw_affine(augmentation, len(index), generator)
            if augmentation.erasing_probability:
                boxes = draw_boxes(augmentation, len(index), self.size, generator)
        # Large images, four times as large as floats, are brought to the network's size a few at a time.
        step = max(1, PIECE_BYTES // self._arrays[0][0].nbytes)
        pieces = [slice(start, start + step) for start in range(0, len(index), step)]
        images = torch.cat(
            [
                sample(self._pixels(index[piece]), self.size, None if affine is None else affine[piece])
                for piece in pieces
            ]
        )
        if self._per_image:
            # Light and contrast vary more between faces than expressions do; from scratch a network sees them first.
            variance, mean = torch.var_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
            images = 255 * (images - mean) / (variance + FLAT_VARIANCE).sqrt()
        # Grey becomes three equal channels here, where the normalisation broadcasts.
        images = torch.addcmul(self._shift, images, self._scale).contiguous(memory_format=torch.channels_last)
        return images if boxes is None else erase(images, boxes)

    def _pixels(self, index: np.ndarray) -> torch.Tensor:
        """float32 [B, 1 or 3, H, W], 0 to 255; grey has one channel, and so has all where the network takes one."""
        images = self._gather(index).float()
        if self.channels < images.shape[-1]:
            red, green, blue = images.unbind(-1)
            images = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[..., None]
        return images.permute(0, 3, 1, 2)

    def _gather(self, index: np.ndarray) -> torch.Tensor:
        if self._tensor is not None:
            return self._tensor[torch.from_numpy(index).to(self.device)]
        batch = np.empty((len(index), *self._arrays[0].shape[1:]), np.uint8)
        number = np.searchsorted(self._starts, index, side="right") - 1
        for i, images in enumerate(self._arrays):
            if (chosen := number == i).all():
                batch = images[index - self._starts[i]]
            elif chosen.any():
                batch[chosen] = images[index[chosen] - self._starts[i]]
        if self._is_large:
            # Else a process comes to map a data set larger than memory as a whole; the system maps 2 MB around a read.
            for images in self._arrays:
                release(images)
        return torch.from_numpy(batch).to(self.device)


def _uploaded(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor | None:
    """All images on a GPU that has twice the room for them, block by block; None elsewhere."""
    num_bytes = sum(images.nbytes for images in arrays)
    if device.type == "cpu" or 2 * num_bytes > torch.cuda.mem_get_info(device)[0]:
        return None
    whole = torch.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype=torch.uint8, device=device)
    start = 0
    for images in arrays:
        for part in blocks(images):
            block = torch.tensor(images[part])
            whole[start : start + len(block)] = block.to(device)
            start += len(block)
    return whole
