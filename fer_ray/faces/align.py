"""Brings a face to a fixed place: one similarity transform, the same for data sets, sheets and prediction."""

import cv2
import numpy as np

from fer_ray.faces.detect import Face, detect

TEMPLATE = np.array([[0.314, 0.405], [0.686, 0.405], [0.5, 0.602], [0.356, 0.75], [0.644, 0.75]])
"""Where `detect.LANDMARKS` go, as shares of the side: their median over FER2013, made symmetric. Faces aligned to it
are framed like those of FER2013, from the brows to the chin, so that the framing does not tell the two apart."""


def align(image: np.ndarray, face: Face, size: int) -> np.ndarray:
    """The face, upright and in the place of TEMPLATE, uint8 [size, size, C], from a uint8 [H, W, C] image, C 1 or 3.

    Antialiased where the face is shrunk; the image's edge is repeated where the crop reaches outside.
    """
    return _warp(image, similarity(face.landmarks, TEMPLATE * size), size)


def align_image(image: np.ndarray, size: int) -> tuple[np.ndarray, bool]:
    """The largest face of a uint8 [H, W, 1 or 3] image, aligned; without a face, the central square, resized.

    Returns uint8 [size, size, C], and whether a face was found.
    """
    faces = detect(image)
    if faces:
        return align(image, faces[0], size), True
    height, width = image.shape[:2]
    scale = size / min(height, width)
    shift_x, shift_y = (size - scale * width) / 2, (size - scale * height) / 2
    return _warp(image, np.array([[scale, 0, shift_x], [0, scale, shift_y]]), size), False


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift, float64 [2, 3], that bring points [n, 2] closest to targets [n, 2].

    Least squares, without reflection (Umeyama 1991). In the plane, with points as complex numbers, that is the linear
    regression of targets on points.
    """
    z, w = (xy[:, 0] + 1j * xy[:, 1] for xy in (np.asarray(points, np.float64), np.asarray(targets, np.float64)))
    centered = z - z.mean()
    turn = np.vdot(centered, w - w.mean()) / np.vdot(centered, centered).real
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The square [size, size, C] that `matrix`, from pixels of the image to its own, cuts out."""
    channels = image.shape[2]
    scale = float(np.hypot(*matrix[:, 0]))
    # First shrunk as a whole by averages, then sampled more densely than needed and averaged: no pixel is skipped.
    if (factor := int(1 / scale)) > 1:
        height, width = image.shape[:2]
        small = max(1, round(width / factor)), max(1, round(height / factor))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([width / small[0], height / small[1], 1])
    samples = 2 if scale < 1 else 1
    matrix = samples * matrix
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the centre of the first pixel
    side = samples * size
    warped = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA).reshape(size, size, channels)
