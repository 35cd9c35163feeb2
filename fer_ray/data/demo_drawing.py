"""Draws faces from numbers: soft-edged shapes laid over each other, features placed by FACS action units.

Lengths are half image sides, x to the right and y down from the centre of the head; `side` is the distance from the
axis of the face, so that what is symmetric is drawn once. Pixels come from additions, multiplications, divisions and
square roots only, which IEEE 754 rounds alike everywhere, so that machines agree on them.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Numbers = dict[str, Array]


def draw(p: Numbers, size: int, rng: np.random.Generator) -> Array:
    """Grey images in [0, 1], float32 [n, size * size], row by row; `rng` makes the noise.

    `p` holds the traits of every image by name, float32 [n, 1]: identity, circumstances, and the intensity of each
    action unit, `au1` to `au43`. Pixels lie in one axis because numpy broadcasts [n, 1] over it fastest.
    """
    row, column = np.divmod(np.arange(size * size, dtype=np.float32), size)
    x, y = (2 * column + 1) / size - 1 - p["shift_x"], (2 * row + 1) / size - 1 - p["shift_y"]
    head_x = (p["cos"] * x + p["sin"] * y) / p["zoom"]
    head_y = (p["cos"] * y - p["sin"] * x) / p["zoom"]
    pen = _Pen(p["background"] + p["background_slope"] * (x + y), 0.5 * size * p["zoom"])
    _head(pen, p, head_x, head_y)
    turned = head_x - p["yaw"]
    face_x, face_y = turned + 1.5 * p["yaw"] * turned * turned, head_y - p["pitch"]
    side = np.abs(face_x)
    _skin_folds(pen, p, side, face_y)
    _nose(pen, p, side, face_y)
    _mouth(pen, p, face_x, face_y)
    _eyes(pen, p, side, np.sign(face_x), face_y)
    _brows(pen, p, side, face_y)
    pen.canvas *= np.clip(1 + p["light_x"] * head_x + p["light_y"] * head_y, 0.3, 1.6)
    _occlusion(pen, p, side, face_x, face_y)
    return _photograph(pen.canvas, p, size, rng)


class _Pen:
    """A canvas [n, size * size] and the strokes on it; edges are one pixel soft."""

    def __init__(self, canvas: Array, pixels: Array) -> None:
        self.canvas, self.pixels = canvas, pixels  # per unit of length

    def inside(self, distance: Array) -> Array:
        """Coverage of pixels at a signed distance from an edge, positive inside."""
        coverage = distance * self.pixels + 0.5
        return coverage.clip(0, 1, out=coverage)

    def ellipse(self, x: Array, y: Array, width: Array | float, height: Array | float) -> Array:
        """Coverage of an ellipse around the origin with these half axes."""
        radius = (x * (1 / width)) ** 2 + (y * (1 / height)) ** 2
        return self.inside((1 - radius) * (0.5 * np.minimum(width, height)))

    def fill(self, coverage: Array, tone: Array | float) -> None:
        self.canvas += coverage * (tone - self.canvas)

    def shade(self, coverage: Array, factor: Array | float) -> None:
        """Multiplies by `factor` where covered: folds, shadows and lips keep the skin's own tone."""
        self.canvas *= 1 + coverage * (factor - 1)


def _bump(x: Array, y: Array, width: Array | float, height: Array | float) -> Array:
    """A soft blob, 1 in its middle and 0 from the ellipse of these half axes on."""
    return np.maximum(1 - (x * (1 / width)) ** 2 - (y * (1 / height)) ** 2, 0) ** 2


def _head(pen: _Pen, p: Numbers, x: Array, y: Array) -> None:
    width, height = p["head_width"], p["head_height"]
    drop = 0.1 * p["au26"]
    jaw = np.where(y > 0, height + drop, height)
    hair = pen.ellipse(x, y + 0.06, width + p["volume"], height + p["volume"])
    locks = pen.inside(width + p["volume"] - np.abs(x)) * pen.inside(y + 0.2)
    pen.fill(np.maximum(hair * (1 - p["bald"]), locks * p["long_hair"]), p["hair"])
    pen.fill(pen.inside(0.62 * width - np.abs(x)) * pen.inside(y - 0.5), 0.75 * p["skin"])
    taper = width * (1 - 0.18 * np.clip(y, 0, 1) ** 2)
    pen.fill(pen.ellipse(x, y, taper, jaw), p["skin"])
    rim = (x * (1 / width)) ** 2 + (y * (1 / height)) ** 2
    pen.shade(np.clip(rim, 0, 1) ** 2, 0.78)
    fringe = pen.inside(p["hairline"] + p["parting"] * x + p["temples"] * x * x - y) * hair
    pen.fill(fringe * (1 - p["bald"]), p["hair"])
    pen.shade(_bump(x, y - p["mouth_y"] - 0.05, 0.62, 0.55) * p["beard"], 0.45)


def _skin_folds(pen: _Pen, p: Numbers, side: Array, y: Array) -> None:
    pen.shade(_bump(side - 0.4, y - 0.17 + 0.05 * p["au6"], 0.22, 0.14) * (p["cheek"] + p["au6"]) * 0.5, 1.35)
    pull = np.maximum(np.maximum(p["au12"], p["au10"]), 0.7 * p["au9"])
    t = np.clip((y - 0.12) / 0.36, 0, 1)
    fold = p["nose_width"] + 0.04 + (0.12 + 0.12 * p["au12"]) * t
    reach = pen.inside(y - 0.12) * pen.inside(0.48 - y)
    pen.shade(pen.inside(0.03 - np.abs(side - fold)) * reach * (0.2 * p["age"] + 0.8 * pull), 0.45)
    brow_y = p["eye_y"] - p["brow_gap"]
    furrow = pen.inside(0.03 - np.abs(side - 0.065)) * pen.inside(0.13 - np.abs(y - brow_y - 0.02))
    pen.shade(furrow * p["au4"], 0.35)
    two_lines = np.abs(np.abs(y - brow_y + 0.23 + 0.06 * p["au1"] - 0.15 * side * side) - 0.06)
    pen.shade(pen.inside(0.024 - two_lines) * pen.inside(0.42 - side) * (p["au1"] * (0.2 + 0.8 * p["au2"])), 0.45)
    three_lines = np.abs(np.abs(np.abs(y + 0.02 + 0.5 * side) - 0.04) - 0.04)
    pen.shade(pen.inside(0.025 - three_lines) * pen.inside(0.15 - side) * p["au9"], 0.35)
    pen.shade(_bump(side, y - p["mouth_y"] - 0.26, 0.16, 0.06) * p["au17"], 0.6)


def _nose(pen: _Pen, p: Numbers, side: Array, y: Array) -> None:
    base = p["nose_y"] - 0.06 * p["au9"]
    width = p["nose_width"] * (1 + 0.2 * p["au9"])
    pen.shade(_bump(side, y - 0.02, 0.07, 0.26), 1.18)
    pen.shade(_bump(side - 0.8 * width, y - base + 0.02, 0.05, 0.3), 0.82)
    pen.shade(_bump(side, y - base - 0.03, 1.3 * width, 0.06), 0.7)
    pen.shade(pen.ellipse(side - 0.55 * width, y - base, 0.4 * width, 0.25 * width), 0.35)


def _mouth(pen: _Pen, p: Numbers, x: Array, y: Array) -> None:
    spread = 1 + 0.35 * p["au12"] + 0.45 * p["au20"] - 0.22 * p["au23"] - 0.25 * p["au26"] - 0.1 * p["au15"]
    width = p["mouth_width"] * spread
    t = np.clip(np.abs(x) / width, 0, 1)
    bow = 1 - t * t
    corner = 0.32 * p["au15"] - 0.36 * p["au12"] + 0.06 * p["au20"]
    middle = p["mouth_y"] + 0.1 * p["au12"] - 0.1 * p["au15"] - 0.05 * p["au17"] + p["tilt"] * x
    line = y - middle - corner * t * t
    part = p["au25"] * (0.05 + 0.06 * p["au20"] + 0.07 * p["au12"])
    square = bow * (2 - bow)
    top = -part * bow - 0.13 * p["au10"] * square * np.minimum(1, 0.4 + p["au25"])
    bottom = (part + 0.36 * p["au26"] * np.minimum(1, p["au25"] + 0.1)) * bow + 0.12 * p["au16"] * square
    full = p["lip"] * (1 - 0.65 * p["au23"])
    upper, lower = top - full * bow, bottom + 1.3 * full * bow
    ends = pen.inside(width - np.abs(x))
    pen.shade(pen.inside(line - upper) * pen.inside(lower - line) * ends, 0.58)
    hole = pen.inside(line - top) * pen.inside(bottom - line) * ends
    gap = bottom - top
    pen.fill(hole, 0.08)
    upper_teeth = pen.inside(top + 0.12 - line) * np.minimum(1, 1.6 * (p["au12"] + p["au10"]) + 0.9 * p["au20"])
    lower_teeth = pen.inside(line - bottom + 0.08) * np.minimum(1, 1.5 * p["au16"] + 0.8 * p["au20"])
    pen.fill(hole * np.maximum(upper_teeth, lower_teeth), 1.0)
    closed = np.clip(1 - gap / 0.06, 0, 1)
    pen.fill(pen.inside(0.04 - np.abs(line - 0.5 * (top + bottom))) * ends * closed, 0.12)
    pen.shade(_bump(x, y - middle - lower - 0.06, 0.7 * width, 0.06), 0.75)


def _eyes(pen: _Pen, p: Numbers, side: Array, sign: Array, y: Array) -> None:
    x = side - p["eye_x"]
    t = np.clip(x / p["eye_width"], -1, 1)
    bow = 1 - t * t
    squint = 0.35 * p["au7"] + 0.3 * p["au6"] + 0.3 * p["au9"]
    upper = p["eye_height"] * np.maximum(1 + 1.15 * p["au5"] - 0.6 * squint - 1.3 * p["au43"], -0.2)
    lower = p["eye_height"] * np.maximum(0.75 + 0.3 * p["au5"] - 0.9 * squint, 0.1)
    height = y - p["eye_y"] + 0.06 * t * (p["au1"] - p["au4"]) * 0.3
    ends = pen.inside(p["eye_width"] - np.abs(x))
    pen.shade(_bump(x, height, 0.3, 0.2), 0.85)
    opening = pen.inside(height + upper * bow) * pen.inside(lower * bow - height) * ends
    pen.fill(opening, 1.0)
    gazed = x - sign * p["gaze"]
    pen.fill(opening * pen.ellipse(gazed, height, p["iris"], p["iris"]), 0.1)
    lid = pen.inside(0.022 - np.abs(height + upper * bow)) * ends
    pen.fill(lid, 0.08)
    pen.shade(pen.inside(0.012 - np.abs(height - lower * bow)) * ends, 0.5)
    pen.shade(pen.inside(0.014 - np.abs(height - (lower + 0.08) * bow)) * ends * (0.3 * p["age"] + 0.6 * p["au6"]), 0.6)


def _brows(pen: _Pen, p: Numbers, side: Array, y: Array) -> None:
    start = p["eye_x"] - 0.55 * p["brow_length"] - 0.05 * p["au4"]
    s = np.clip((side - start) / p["brow_length"], 0, 1)
    inner = -0.24 * p["au1"] + 0.24 * p["au4"] * (1 - 0.7 * p["au1"]) + 0.08 * p["au9"]
    outer = -0.2 * p["au2"] + 0.02 * p["au4"] + 0.06 * p["au1"] * (1 - p["au2"])
    arch = (p["brow_arch"] + 0.05 * p["au2"]) * 4 * s * (1 - s)
    line = p["eye_y"] - p["brow_gap"] + inner * (1 - s) + outer * s - arch
    thickness = p["brow_thickness"] * (1.1 - 0.5 * s)
    ends = pen.inside(side - start) * pen.inside(start + p["brow_length"] - side)
    pen.fill(pen.inside(thickness - np.abs(y - line)) * ends, 0.18 * p["skin"])


def _occlusion(pen: _Pen, p: Numbers, side: Array, x: Array, y: Array) -> None:
    lens_x, lens_y = side - p["eye_x"], y - p["eye_y"] - 0.02
    frame = np.abs((lens_x / 0.27) ** 2 + (lens_y / 0.2) ** 2 - 1) * 0.11
    bridge = pen.inside(0.02 - np.abs(lens_y + 0.05)) * pen.inside(0.08 - side)
    pen.fill(np.maximum(pen.inside(0.018 - frame), bridge) * p["glasses"], 0.1)
    hand_x, hand_y = x * p["hand_side"] - 0.62, y - 0.75
    across = 6 * hand_x + 3 * hand_y
    fingers = 0.75 + np.abs(across - np.floor(across) - 0.5)
    pen.fill(pen.ellipse(hand_x + 0.5 * hand_y, hand_y, 0.3, 0.42) * p["hand"], np.minimum(1, fingers) * p["skin"])
    pen.fill(pen.inside(0.1 - np.abs(x - p["bar_x"])) * p["bar"], p["bar_tone"])


def _photograph(canvas: Array, p: Numbers, size: int, rng: np.random.Generator) -> Array:
    soft = np.pad(canvas.reshape(-1, size, size), ((0, 0), (1, 1), (1, 1)), mode="edge")
    soft = 0.25 * soft[:, :-2] + 0.5 * soft[:, 1:-1] + 0.25 * soft[:, 2:]
    soft = 0.25 * soft[:, :, :-2] + 0.5 * soft[:, :, 1:-1] + 0.25 * soft[:, :, 2:]
    canvas += p["blur"] * (soft.reshape(canvas.shape) - canvas)
    canvas += p["noise"] * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(0.5 + p["contrast"] * (canvas - 0.5) + p["brightness"], 0, 1)
