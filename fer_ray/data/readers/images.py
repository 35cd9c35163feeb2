"""Image files to uint8 arrays: the one place that decodes, with limits against damaged and hostile files."""

import io
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from fer_ray import progress
from fer_ray.data.cache import ImageStack, blocks
from fer_ray.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
MAX_PIXELS = 64 * 2**20
"""Larger images are refused by their header, before any memory is asked for."""

MAX_LENGTH = 2**16 - 1
"""Of a side in pixels, as in JPEG: Pillow takes seconds for millions of rows of one pixel."""

MAX_FILE_BYTES = 256 * 2**20
"""Larger files, in a folder or declared in an archive, are refused before any of it is read."""

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
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)
_OBJECT_ADDRESS = re.compile(r"<_io\.BytesIO object at \w+>")

Size = tuple[int, int]
"""Height and width in pixels."""

MAX_SIDE = 512
"""Images of a data set whose native size is larger come in at this many pixels on their longer side: the largest input
of a network."""

ALIGNED_SIDE = 224
"""Side of aligned faces, unless their images are smaller."""


@dataclass(frozen=True)
class Form:
    """The form in which faces come in.

    Attributes:
        shape: (height, width, 1 or 3) that all are brought to; None is the native one, see `decode_all`.
        align: find the face and bring its eyes to fixed places (see `fer_ray.faces.align`).
    """

    shape: tuple[int, int, int] | None = None
    align: bool = False


def decode_all(
    count: int, read: Callable[[int], bytes], name_of: Callable[[int], str], form: Form
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes `count` images into one array, a memory map where it would be large.

    The native size is that of most images, and where less than half agree, a square of their median side. Channels are
    3 if any image is truly coloured, else 1: grey faces saved as RGB are grey. Images of another size are cut to the
    shape around their centre and resized, antialiased (Lanczos).

    Args:
        count: number of images, at least 1.
        read: the encoded bytes of image i. Called from several threads, and again where sizes are mixed.
        name_of: what to call image i in a message, e.g. its file name.
        form: what they are brought to.

    Returns:
        uint8 [count, H, W, C], and notes on what was changed.

    Raises:
        UserError: an image is broken, truncated, not an image, or too large; the message names it.
    """
    if not form.align:
        try:
            return _decode_alike(count, read, name_of, form), ()
        except _Mixed:
            pass  # now every header is read first
    headers = _in_threads("reading sizes", count, lambda i: _checked(_read_header, name_of, i, read(i)))
    sizes = Counter(header.size for header in headers)
    shape = form.shape or (*_native_size(sizes, form.align), max(header.channels for header in headers))
    stack = _Stack((count, *shape), is_native=form.shape is None)
    faceless = []

    def fill(i: int) -> None:
        pixels = _checked(_pixels, name_of, i, read(i), headers[i])
        if form.align:
            pixels, is_found = _aligned(pixels, shape)
            if not is_found:
                faceless.append(i)
        stack[i] = to_shape(pixels[None], shape)[0]

    if form.align:
        _in_threads("finding and aligning faces", count, fill, threads=num_cores())
    else:
        _in_threads("decoding and resizing", count, fill)
    notes = []
    others = [(size, n) for size, n in sizes.most_common() if size != shape[:2]]
    if others and not form.align:
        examples = ", ".join(f"{w}x{h}" for (h, w), _ in others[:3]) + ", ..." * (len(others) > 3)
        num_others = sum(n for _, n in others)
        notes.append(f"{num_others:,} of {count:,} images resized to {shape[1]}x{shape[0]} (they were {examples})")
    if form.align:
        notes.append(_align_note(count, len(faceless), shape, [name_of(i) for i in sorted(faceless)[:3]]))
    return stack.array(), tuple(notes)


def read_file(path: str, most: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file. Raises UserError when it cannot be read, or has more than `most`."""
    try:
        # A named pipe would be waited for without end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is no regular file; replace or remove it")
            if status.st_size > most:
                raise UserError(f"{path} has {status.st_size:,} bytes, expected at most {most:,}; replace or remove it")
            # Files that the system makes up as they are read have size 0 and may have no end.
            return file.read(status.st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def decode_one(data: bytes, name: str) -> np.ndarray:
    """One encoded image as uint8 [H, W, 1 or 3], upright. Raises UserError that calls it `name`."""

    def name_of(_: int) -> str:
        return name

    return _checked(_pixels, name_of, 0, data, _checked(_read_header, name_of, 0, data))


def to_form(images: np.ndarray, form: Form) -> tuple[np.ndarray, tuple[str, ...]]:
    """What `decode_all` does after decoding, for images uint8 [n, H, W, C] that are arrays already."""
    if not form.align:
        return (images if form.shape is None else to_shape(images, form.shape)), ()
    height, width, channels = images.shape[1:]
    shape = form.shape or (*_native_size(Counter([(height, width)]), True), channels)
    done = _in_threads(
        "finding and aligning faces", len(images), lambda i: _aligned(images[i], shape), threads=num_cores()
    )
    num_faceless = sum(not is_found for _, is_found in done)
    aligned = to_shape(np.stack([image for image, _ in done]), shape)
    return aligned, (_align_note(len(images), num_faceless, shape, []),)


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


class _Mixed(Exception):
    """Not all images are like the first, or not of the wanted shape."""


class _Stack:
    """An `ImageStack` that notices whether any image is truly coloured, and drops the channels if none is."""

    def __init__(self, shape: tuple[int, int, int, int], is_native: bool) -> None:
        self._images = ImageStack(shape)
        self._may_be_grey = is_native and shape[3] == 3

    def __setitem__(self, i: int, pixels: np.ndarray) -> None:
        self._images[i] = pixels
        if self._may_be_grey and _is_coloured(pixels):
            self._may_be_grey = False

    def array(self) -> np.ndarray:
        images = self._images.array()
        if not self._may_be_grey:
            return images
        grey = ImageStack((*images.shape[:3], 1))
        for part in blocks(images):
            for i in range(part.start, part.stop):
                grey[i] = images[i, ..., :1]
        return grey.array()


def _decode_alike(count: int, read: Callable[[int], bytes], name_of: Callable[[int], str], form: Form) -> np.ndarray:
    """Images that all have the first one's size and channels, in one pass. Raises _Mixed if they do not."""
    first = _checked(_read_header, name_of, 0, read(0))
    if max(first.size) > MAX_SIDE or form.shape not in (None, (*first.size, first.channels)):
        raise _Mixed
    stack = _Stack((count, *first.size, first.channels), is_native=form.shape is None)

    def fill(i: int) -> None:
        data = read(i)
        header = _checked(_read_header, name_of, i, data)
        if header != first:
            raise _Mixed
        stack[i] = _checked(_pixels, name_of, i, data, header)

    _in_threads("decoding", count, fill)
    return stack.array()


def _native_size(sizes: Counter[Size], is_aligned: bool) -> Size:
    (size, count), *_ = sizes.most_common(1)
    if 2 * count < sizes.total():
        side = int(np.median([min(size) for size in sizes.elements()]))
        size = (side, side)
    if is_aligned:
        side = min(*size, ALIGNED_SIDE)
        return side, side
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _aligned(pixels: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, bool]:
    from fer_ray.faces.align import align_image  # loads OpenCV, which few runs need

    return align_image(pixels, max(shape[:2]))


def _align_note(count: int, num_faceless: int, shape: tuple[int, int, int], examples: list[str]) -> str:
    found = f"faces aligned to {shape[1]}x{shape[0]} in {count - num_faceless:,} of {count:,} images"
    if not num_faceless:
        return found
    named = f", e.g. {', '.join(examples)}" if examples else ""
    return f"{found}; no face was found in {num_faceless:,}, which are used as they are{named}"


def _in_threads(what: str, count: int, work: Callable[[int], object], threads: int = _THREADS) -> list:
    """[work(0), ..., work(count - 1)]; the decoders let go of the interpreter lock. Raises the first error."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    results: list = []
    with ThreadPoolExecutor(threads) as pool:
        for done in pool.map(lambda chunk: [work(i) for i in chunk], chunks):
            results += done
            progress.tell(what, len(results), count)
    return results


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Header(NamedTuple):
    """What an image file declares: size as displayed, 1 or 3 channels, and whether the fast decoder is right for it."""

    size: Size
    channels: int
    is_plain_jpeg: bool


def _checked(decode: Callable, name_of: Callable[[int], str], i: int, data: bytes, *more):
    """decode(data, *more), with what goes wrong told as image i's fault; its name is not made before."""
    try:
        return decode(data, *more)
    except _BROKEN as error:
        reason = "it is empty" if not data else _OBJECT_ADDRESS.sub("", str(error)) or "memory ran out"
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
    if height * width > MAX_PIXELS or max(height, width) > MAX_LENGTH:
        raise ValueError(
            f"it declares {width}x{height} pixels, expected at most {MAX_PIXELS:,}, and {MAX_LENGTH:,} on a side"
        )
    return header


def _pixels(data: bytes, header: _Header) -> np.ndarray:
    """uint8 [H, W, 1 or 3]."""
    if header.is_plain_jpeg:
        return simplejpeg.decode_jpeg(data, "GRAY" if header.channels == 1 else "RGB")
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
        if image.mode in ("I", "F"):
            raise ValueError(f"its pixels are of type {image.mode!r}, expected 8 or 16 bits")
        mode = "L" if header.channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16")


def _is_coloured(image: np.ndarray) -> bool:
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 0] != image[..., 2]).any())


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [H, W, C] to [*size, C], antialiased; cut to the sides' ratio around the centre, not stretched."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS))
    return resized if resized.ndim == 3 else resized[..., None]
