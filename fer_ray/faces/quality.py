"""Whether a cell holds one usable face: its size and place, sharpness, exposure and contrast, each with a limit."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fer_ray.faces.detect import Face

PATCH = 64
"""Sharpness, exposure and contrast are taken on the face's box in grey, brought to PATCH x PATCH pixels."""

DARK, BRIGHT = 16, 239
"""Grey levels up to DARK count as dark, from BRIGHT on as bright."""

REASONS = (
    "no face",
    "several faces",
    "face too small",
    "face off centre",
    "face cut off",
    "blurred",
    "too dark",
    "too bright",
    "low contrast",
)
"""Why a cell is rejected, in the order in which it is checked."""


@dataclass(frozen=True)
class Limits:
    """What a cell must reach. Shares are in [0, 1], grey levels in [0, 255]. See `Measures` for what is measured."""

    min_face: float = 0.4
    max_offset: float = 0.23
    min_inside: float = 0.85
    min_sharpness: float = 40.0
    min_brightness: float = 30.0
    max_brightness: float = 225.0
    max_dark: float = 0.5
    max_bright: float = 0.5
    min_contrast: float = 10.0
    rival: float = 0.5
    """Another face with a box of this share of the main one's longer side, or more, makes the cell ambiguous."""


@dataclass(frozen=True)
class Measures:
    """Measured values of a face in its cell.

    Attributes:
        face: longer side of the box, as a share of the cell's shorter side.
        offset: distance of the box's centre from the cell's, the larger of across and down, as a share of the side.
        inside: share of the box's area inside the cell.
        sharpness: variance of the Laplacian, in squared grey levels (Pech-Pacheco et al. 2000).
        brightness: mean grey level.
        dark, bright: shares of pixels at or below DARK, at or above BRIGHT.
        contrast: standard deviation of the grey levels (RMS contrast, Peli 1990).
    """

    face: float
    offset: float
    inside: float
    sharpness: float
    brightness: float
    dark: float
    bright: float
    contrast: float


@dataclass(frozen=True)
class Judgement:
    """`reason` is None for a usable face, else one of REASONS; without any face, `face` and `measures` are None."""

    reason: str | None
    face: Face | None = None
    measures: Measures | None = None


def judge(cell: np.ndarray, faces: Sequence[Face], limits: Limits) -> Judgement:
    """Judges a uint8 [H, W, 1 or 3] cell by the largest of its faces, as `detect` returns them.

    Smaller faces beside it, of bystanders or of the neighbouring cell, do no harm below `limits.rival`.
    """
    if not faces:
        return Judgement("no face")
    main, *others = faces
    measures = measure(cell, main)
    failed = (
        any(_longer_side(other) >= limits.rival * _longer_side(main) for other in others),
        measures.face < limits.min_face,
        measures.offset > limits.max_offset,
        measures.inside < limits.min_inside,
        measures.sharpness < limits.min_sharpness,
        measures.brightness < limits.min_brightness or measures.dark > limits.max_dark,
        measures.brightness > limits.max_brightness or measures.bright > limits.max_bright,
        measures.contrast < limits.min_contrast,
    )
    reason = next((reason for reason, fails in zip(REASONS[1:], failed, strict=True) if fails), None)
    return Judgement(reason, main, measures)


def measure(cell: np.ndarray, face: Face) -> Measures:
    """Measures a face in its uint8 [H, W, 1 or 3] cell."""
    height, width = cell.shape[:2]
    x0, y0, x1, y1 = face.box
    inside_x = max(0.0, min(x1, width) - max(x0, 0.0))
    inside_y = max(0.0, min(y1, height) - max(y0, 0.0))
    grey = _patch(cell, face).astype(np.float64)
    return Measures(
        face=_longer_side(face) / min(height, width),
        offset=max(abs((x0 + x1) / 2 / width - 0.5), abs((y0 + y1) / 2 / height - 0.5)),
        inside=inside_x * inside_y / (face.width * face.height),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        brightness=float(grey.mean()),
        dark=float((grey <= DARK).mean()),
        bright=float((grey >= BRIGHT).mean()),
        contrast=float(grey.std()),
    )


def _longer_side(face: Face) -> float:
    return max(face.width, face.height)


def _patch(cell: np.ndarray, face: Face) -> np.ndarray:
    """The part of the face's box inside the cell, uint8 [PATCH, PATCH], grey."""
    height, width = cell.shape[:2]
    x0, x1 = (int(np.clip(round(x), 0, width)) for x in face.box[::2])
    y0, y1 = (int(np.clip(round(y), 0, height)) for y in face.box[1::2])
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    box = cell[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    grey = cv2.cvtColor(box, cv2.COLOR_RGB2GRAY) if cell.shape[2] == 3 else box
    shrinks = min(box.shape[:2]) > PATCH
    return cv2.resize(grey, (PATCH, PATCH), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
