"""Are two images the same picture? A hash that finds candidates, and a correlation of their details that decides.

pHash (E. Klinger and D. Starkweather, phash.org; in the form of J. Buchner's `imagehash`): the 8x8 lowest DCT-II
coefficients of a 32x32 grey thumbnail, one bit each: above their median or not. Light, contrast, JPEG and resampling
move few bits. Moving the picture by 2 px of 48 moves many, so that the hash is taken of several views of an image.

Aligned faces of different people look alike at 8x8, so the hash alone does not decide. `similarity` does: lighting and
noise are filtered away, and what is left (eyes, mouth, hair, background) is correlated at the best of 5x5 shifts.

Views, DCT and Gaussians act on rows and columns alone, so each is a matrix from the left and one from the right.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 32
"""Height and width of thumbnails in pixels."""

_LOW = 8  # coefficients each way
_MARGIN = 2  # pixels by which `similarity` shifts one thumbnail over the other, each way
_BLOCK = 4096  # thumbnails that are float at a time


@dataclass(frozen=True, eq=False)
class View:
    """A picture mirrored, moved or zoomed: `rows @ thumbnail @ columns.T`, both float32 [SIDE, SIDE]."""

    rows: np.ndarray
    columns: np.ndarray


def _sampling(factor: float, offset: float) -> np.ndarray:
    """float32 [SIDE, SIDE]: linear interpolation at `centre + factor * (i - centre) + offset`, the border repeated."""
    centre = (SIDE - 1) / 2
    at = np.clip(centre + factor * (np.arange(SIDE) - centre) + offset, 0, SIDE - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))).astype(np.float32)


def _views() -> tuple[View, ...]:
    same = _sampling(1, 0)
    shifts = [_sampling(1, offset) for offset in (-4 / 3, 4 / 3)]  # 2 px of 48
    zooms = [_sampling(factor, 0) for factor in (11 / 12, 12 / 11)]  # 2 px of 48 cut off on each side, and undone
    return (
        View(same, same),
        View(same, _sampling(-1, 0)),
        *(View(rows, columns) for rows in shifts for columns in shifts),
        *(View(zoom, zoom) for zoom in zooms),
    )


VIEWS = _views()
"""As it is (first), mirrored, moved by 2 px of 48 to each corner, and zoomed in and out by as much."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 [SIDE, SIDE] of uint8 [H, W, C], C 1 or 3 (RGB): grey, each pixel the mean of the area that it covers."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def phash(thumbnails: np.ndarray, view: View = VIEWS[0]) -> np.ndarray:
    """uint64 [n]: 64-bit pHashes of a view of uint8 [n, SIDE, SIDE]; in images alike few bits differ."""
    frequency = np.arange(_LOW)[:, None]
    cosines = np.cos(np.pi * frequency * (2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
    left, right = cosines @ view.rows, (cosines @ view.columns).T
    hashes = np.empty(len(thumbnails), np.uint64)
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK].astype(np.float32)
        low = (left @ block @ right).reshape(-1, _LOW * _LOW)
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + _BLOCK] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def similarity(first: np.ndarray, second: np.ndarray, view: View = VIEWS[0]) -> np.ndarray:
    """float32 [n] in [-1, 1]: how far uint8 [n, SIDE, SIDE] and a view of as many others show the same details.

    The normalised cross-correlation of differences of Gaussians (standard deviations .7 and 2 pixels), the greatest
    over shifts of up to 2 pixels. Light and contrast do not change it.
    """
    scores = np.empty(len(first), np.float32)
    inside = slice(_MARGIN, -_MARGIN)
    for start in range(0, len(first), _BLOCK):
        one = _details(first[start : start + _BLOCK], VIEWS[0])
        other = np.ascontiguousarray(_details(second[start : start + _BLOCK], view)[:, inside, inside])
        for i in range(len(one)):
            scores[start + i] = cv2.matchTemplate(one[i], other[i], cv2.TM_CCOEFF_NORMED).max()
    return np.clip(scores, -1, 1)


def _details(thumbnails: np.ndarray, view: View) -> np.ndarray:
    grey = thumbnails.astype(np.float32)
    fine, coarse = (cv2.GaussianBlur(np.eye(SIDE, dtype=np.float32), (1, 0), 0, None, s) for s in (0.7, 2.0))
    return (fine @ view.rows) @ grey @ (fine @ view.columns).T - (coarse @ view.rows) @ grey @ (coarse @ view.columns).T
