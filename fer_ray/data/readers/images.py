"""Image files to uint8 arrays: the one place that decodes, with limits against damaged and hostile files."""

import io
import re
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from fer_ray.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
MAX_PIXELS = 64 * 2**20
"""Larger images are refused by their header, before any memory is asked for."""

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_THREADS = 2
_CHUNK = 256

# Whatever Pillow's and libjpeg's parsers raise on bytes that are no image or a damaged one.
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
_OBJECT_ADDRESS = re.compile(r"<_io\.BytesIO object at \w+>")

Size = tuple[int, int]
"""Height and width in pixels."""


def decode_all(
    count: int, read: Callable[[int], bytes], name_of: Callable[[int], str], size: Size | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes `count` images into one array.

    Args:
        count: number of images, at least 1.
        read: the encoded bytes of image i. Called from several threads, and again where sizes are mixed.
        name_of: what to call image i in a message, e.g. its file name.
        size: height and width that every image is brought to; None is the most frequent one.

    Returns:
        uint8 [count, H, W, C] and notes. Images of another size are resized, antialiased (Lanczos). C is 3 if any
        image is truly coloured, else 1: grey faces saved as RGB are grey.

    Raises:
        UserError: an image is broken, truncated, not an image, or too large; the message names it.
    """
    try:
        images = _decode_alike(count, read, name_of, size)
        return _without_equal_channels(images), ()
    except _Mixed:
        pass  # now every header is read first
    headers = _in_threads(count, lambda i: _checked(_read_header, name_of, i, read(i)))
    sizes = Counter(header.size for header in headers)
    height, width = size or sizes.most_common(1)[0][0]
    channels = max(header.channels for header in headers)
    images = np.empty((count, height, width, channels), np.uint8)

    def fill(i: int) -> None:
        pixels = _checked(_pixels, name_of, i, read(i), headers[i])
        images[i] = pixels if pixels.shape[:2] == (height, width) else _resized(pixels, (height, width))

    _in_threads(count, fill)
    images = _without_equal_channels(images)
    others = [(size_found, n) for size_found, n in sizes.most_common() if size_found != (height, width)]
    if not others:
        return images, ()
    examples = ", ".join(f"{w}x{h}" for (h, w), _ in others[:3]) + ", ..." * (len(others) > 3)
    num_others = sum(n for _, n in others)
    return images, (f"{num_others:,} of {count:,} images resized to {width}x{height} (they were {examples})",)


class _Mixed(Exception):
    """Not all images are like the first, or not of the wanted size."""


def _decode_alike(
    count: int, read: Callable[[int], bytes], name_of: Callable[[int], str], size: Size | None
) -> np.ndarray:
    """Images that all have the first one's size and channels, in one pass. Raises _Mixed if they do not."""
    first = _checked(_read_header, name_of, 0, read(0))
    if size not in (None, first.size):
        raise _Mixed
    images = np.empty((count, *first.size, first.channels), np.uint8)

    def fill(i: int) -> None:
        data = read(i)
        header = _checked(_read_header, name_of, i, data)
        if header != first:
            raise _Mixed
        images[i] = _checked(_pixels, name_of, i, data, header)

    _in_threads(count, fill)
    return images


def _without_equal_channels(images: np.ndarray) -> np.ndarray:
    """Grey faces saved as RGB become one channel."""
    if images.shape[3] == 3 and not any(_is_coloured(image) for image in images):
        return np.ascontiguousarray(images[..., :1])
    return images


def to_shape(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Brings uint8 [n, H, W, C] to `shape` (H, W, C): Lanczos, luma of ITU-R 601 for grey, grey repeated for RGB."""
    if images.shape[3] == 3 and shape[2] == 1:
        grey = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
        images = np.stack(grey)[..., None]
    if images.shape[1:3] != shape[:2]:
        images = np.stack([_resized(image, shape[:2]) for image in images])
    if images.shape[3] == 1 and shape[2] == 3:
        images = np.repeat(images, 3, axis=3)
    return images


def _in_threads(count: int, work: Callable[[int], object]) -> list:
    """[work(0), ..., work(count - 1)]; the decoders let go of the interpreter lock. Raises the first error."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        done = list(pool.map(lambda chunk: [work(i) for i in chunk], chunks))
    return [result for chunk in done for result in chunk]


class _Header(NamedTuple):
    """What an image file declares: size as displayed, 1 or 3 channels, and whether the fast decoder is right for it."""

    size: Size
    channels: int
    is_plain_jpeg: bool


def _checked(decode: Callable, name_of: Callable[[int], str], i: int, data: bytes, *more):
    """decode(data, *more), with what goes wrong told as image i's fault."""
    try:
        return decode(data, *more)
    except _BROKEN as error:
        reason = "it is empty" if not data else _OBJECT_ADDRESS.sub("", str(error))
        raise UserError(f"{name_of(i)}: not a usable image ({reason}); replace or remove it") from error


def _read_header(data: bytes) -> _Header:
    # An EXIF block may hold an orientation, which only Pillow applies.
    if data[:3] == b"\xff\xd8\xff" and data.find(b"Exif\0\0", 0, 2**16) < 0:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        header = _Header((height, width), 1 if space == "Gray" else 3, space in ("Gray", "YCbCr", "RGB"))
    else:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # 5 to 8 swap the sides
                width, height = height, width
            header = _Header((height, width), 1 if _is_grey(image.mode) else 3, False)
    if height * width > MAX_PIXELS:
        raise ValueError(f"it declares {width}x{height} pixels, more than {MAX_PIXELS:,}")
    return header


def _pixels(data: bytes, header: _Header) -> np.ndarray:
    """uint8 [H, W, 1 or 3]."""
    if header.is_plain_jpeg:
        return simplejpeg.decode_jpeg(data, "GRAY" if header.channels == 1 else "RGB")
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return (np.asarray(upright) >> 8).astype(np.uint8)[..., None]
        if upright.mode in ("I", "F"):
            raise ValueError(f"its pixels are of type {upright.mode!r}, expected 8 or 16 bits")
        pixels = np.asarray(upright.convert("L" if header.channels == 1 else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16")


def _is_coloured(image: np.ndarray) -> bool:
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 0] != image[..., 2]).any())


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [H, W, C] to [*size, C], antialiased."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    return resized if resized.ndim == 3 else resized[..., None]
