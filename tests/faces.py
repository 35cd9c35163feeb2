"""Small data sets on disk for the tests of the data path."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_ray.faces.detect import MODEL
from fer_ray.labels import FER2013

needs_detector = pytest.mark.skipif(
    not MODEL.is_file(), reason="the face detector's weights were not fetched: python -m fer_ray.faces"
)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def random_faces(count: int, seed: int = 0, size: int = 48, channels: int = 1) -> np.ndarray:
    """uint8 [count, size, size, channels]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def encode(image: np.ndarray, file_format: str = "PNG", **options) -> bytes:
    """An image file of uint8 [H, W, 1 or 3]."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, file_format, **options)
    return file.getvalue()


def write_folders(root: Path, files: Mapping[str, np.ndarray | bytes]) -> Path:
    """Files by relative path; arrays are encoded by suffix."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if path.suffix == ".jpg" else "PNG"
        path.write_bytes(content if isinstance(content, bytes) else encode(content, kind))
    return root


def csv_row(emotion: object, pixels: np.ndarray, usage: str) -> str:
    return f"{emotion},{' '.join(map(str, pixels.ravel()))},{usage}"


def write_csv(path: Path, rows: list[str], header: str = "emotion,pixels,Usage", end: str = "\n") -> Path:
    path.write_bytes((end.join([header, *rows]) + end).encode())
    return path


def fer2013_rows(images: np.ndarray) -> list[str]:
    usages = ("Training", "PublicTest", "PrivateTest")
    return [csv_row(i % len(FER2013), image, usages[i % 3]) for i, image in enumerate(images)]
