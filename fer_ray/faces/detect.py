"""Where the faces of an image are: CenterFace (Xu et al. 2019, arXiv:1911.03599) under OpenCV, offline, on the CPU.

The network, `centerface.onnx`, lies beside this file once `python -m fer_ray.faces` has put it there; where it comes
from and its licence are in `centerface.LICENSE`.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fer_ray.errors import UserError

MODEL = Path(__file__).with_name("centerface.onnx")
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
"""Rows of `Face.landmarks`; left is the left of the image."""

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3
"""Of two boxes whose intersection over union is larger, the one with the higher score stays."""

MIN_SIDE, MAX_SIDE = 192, 320
"""The longer side is brought into this range, in pixels, before the network sees the image: it misses faces much larger
than that or places them less well, and faces too small to be found at 320 are of no use for their expression."""

_MULTIPLE = 32  # the network halves its input five times
_STRIDE = 4  # input pixels per cell of its output maps
_OUTPUTS = ("537", "538", "539", "540")  # heat map, log size, offset, landmarks
_thread = threading.local()


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image; pixel i covers [i, i + 1), so that coordinates scale with the image.

    Attributes:
        box: x0, y0, x1, y1 in pixels. May reach outside the image where the face does.
        score: the network's confidence, in [MIN_SCORE, 1].
        landmarks: float32 [5, 2], x and y in pixels, in the order of LANDMARKS.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def width(self) -> float:
        """Of the box, in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Of the box, in pixels."""
        return self.box[3] - self.box[1]


def detect(image: np.ndarray) -> list[Face]:
    """The faces of a uint8 [H, W, 1 or 3] image (grey or RGB), the one with the largest box first.

    The same image gives the same faces, whatever the number of threads. Each thread loads a network of its own, on
    its first call. Raises UserError when the weights were not fetched.
    """
    height, width = image.shape[:2]
    scale = np.clip(max(height, width), MIN_SIDE, MAX_SIDE) / max(height, width)
    # Rounding to multiples stretches the image a little; padding would cost faces that fill the image.
    size = [_MULTIPLE * max(1, round(side * scale / _MULTIPLE)) for side in (width, height)]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=interpolation)
    blob = cv2.dnn.blobFromImage(cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB) if resized.ndim == 2 else resized)
    network = _network()
    network.setInput(blob)
    heat, log_size, offset, points = (output[0] for output in network.forward(_OUTPUTS))

    rows, columns = np.nonzero(heat[0] >= MIN_SCORE)
    if not len(rows):
        return []
    # Output maps hold y before x. Boxes are not cut at the edges: landmarks are relative to the whole box.
    to_pixels = np.array([width / size[0], height / size[1]])
    centers = (np.stack([columns, rows], 1) + offset[::-1, rows, columns].T + 0.5) * _STRIDE * to_pixels
    sizes = np.exp(log_size[::-1, rows, columns].T) * _STRIDE * to_pixels
    corners = centers - sizes / 2
    landmarks = points[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1] * sizes[:, None] + corners[:, None]
    scores = heat[0, rows, columns]
    kept = cv2.dnn.NMSBoxes(np.hstack([corners, sizes]).tolist(), scores.tolist(), MIN_SCORE, MAX_OVERLAP)
    faces = [
        Face((*corners[i].tolist(), *(corners[i] + sizes[i]).tolist()), float(scores[i]), landmarks[i].astype("f4"))
        for i in np.asarray(kept).ravel()
    ]
    return sorted(faces, key=lambda face: face.width * face.height, reverse=True)


def _network() -> cv2.dnn.Net:
    if not hasattr(_thread, "network"):
        if not MODEL.is_file():
            raise UserError(
                "the weights of the face detector are not here yet; fetch them once: python -m fer_ray.faces"
            )
        _thread.network = cv2.dnn.readNetFromONNX(str(MODEL))
    return _thread.network
