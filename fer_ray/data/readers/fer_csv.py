"""The official CSV of FER2013: `emotion,pixels,Usage`, a face per row as 2,304 numbers; columns in any order.

Numbers are turned into pixels by arithmetic on whole blocks of bytes. A block that holds anything but plain digits,
spaces and the known words (quotes, damage) goes through a slow reader, which is exact and knows what is wrong where.
"""

import csv
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray.data.readers.images import Form, to_form
from fer_ray.data.readers.samples import SPLITS, Samples, split_index
from fer_ray.errors import UserError
from fer_ray.labels import FER2013

SIDE = 48
_NUM_PIXELS = SIDE * SIDE
_COLUMNS = ("emotion", "pixels", "usage")
_USAGES = {b"Training": "train", b"PublicTest": "public", b"PrivateTest": "private"}
_BLOCK_BYTES = 2**19  # a block and its intermediates stay in the processor's cache
_SPACE, _COMMA, _LINE_FEED, _RETURN, _ZERO = (np.uint8(ord(character)) for character in " ,\n\r0")

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pixels uint8 [rows, 2304], emotions int16 [rows], splits int8 [rows]."""


def has_header(start: bytes) -> bool:
    """Whether a file that starts with these bytes is such a CSV."""
    return {"emotion", "pixels"} <= set(_header(start))


def read(path: Path, form: Form) -> Samples:
    """Reads the CSV, whose faces are 48x48x1. Raises UserError naming file and row (the header is row 1)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        first_row = text.find(b"\n") + 1 or len(text)
        header = _header(text[:first_row])
        if missing := [name for name in _COLUMNS if name not in header]:
            raise UserError(f"{path}: no column {missing[0]}; the header has {', '.join(header)}")
        layout = _Layout(path, len(header), *(header.index(name) for name in _COLUMNS))

        parts = [_read_block(text, block, layout) for block in _blocks(text, first_row)]
    if not sum(len(part[0]) for part in parts):
        raise UserError(f"{path} has a header but no rows")
    pixels, emotions, splits = (np.concatenate(part) for part in zip(*parts, strict=True))
    faces, notes = to_form(pixels.reshape(-1, SIDE, SIDE, 1), form)
    return Samples(faces, emotions, FER2013, splits, notes=notes)


@dataclass(frozen=True)
class _Layout:
    """Number of columns and where the three that matter are."""

    path: Path
    num_columns: int
    emotion: int
    pixels: int
    usage: int


@dataclass(frozen=True)
class _Block:
    """Byte range of whole rows, and the number of the first of them; the header is row 1."""

    start: int
    stop: int
    row: int


def _header(start: bytes) -> list[str]:
    line = start.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    return [name.strip().strip('"').strip().casefold() for name in line.split(",")]


def _blocks(text: mmap.mmap, start: int) -> Iterator[_Block]:
    row = 2
    while start < len(text):
        stop = text.find(b"\n", start + _BLOCK_BYTES) + 1 or len(text)
        yield _Block(start, stop, row)
        row += int(np.count_nonzero(np.frombuffer(text, np.uint8, stop - start, start) == _LINE_FEED))
        start = stop


def _read_block(text: mmap.mmap, block: _Block, layout: _Layout) -> Rows:
    # One thread: two gain nothing here, as most of NumPy's calls on blocks this small hold the interpreter lock.
    data = text[block.start : block.stop]
    return _read_plain(data, layout) or _read_exactly(data, block.row, layout)


def _read_plain(block: bytes, layout: _Layout) -> Rows | None:
    """The rows of a block, or None if anything in it is not as the official file has it."""
    # Three line feeds before stand in for neighbours that are no digits; one after ends the last row.
    padding = b"" if block.endswith(b"\n") else b"\n"
    padded = np.frombuffer(b"\n\n\n" + block + padding, np.uint8)
    text = padded[3:]
    line_ends = np.flatnonzero(text == _LINE_FEED)
    starts = np.concatenate(([0], line_ends[:-1] + 1))
    has_return = text[line_ends - 1] == _RETURN
    stops = line_ends - has_return
    commas = np.flatnonzero(text == _COMMA)
    if len(commas) != len(starts) * (layout.num_columns - 1) or layout.num_columns != len(_COLUMNS):
        return None
    commas_of = commas.reshape(len(starts), -1)
    if (commas_of[:, 0] < starts).any() or (commas_of[:, -1] >= stops).any():
        return None
    lefts = np.column_stack([starts, commas_of + 1])
    rights = np.column_stack([commas_of, stops])
    splits = _read_usages(text, lefts[:, layout.usage], rights[:, layout.usage])
    where = lefts[:, layout.emotion]
    emotions = text[where] - _ZERO
    if splits is None or (rights[:, layout.emotion] - where != 1).any() or (emotions >= len(FER2013)).any():
        return None

    digits = padded - _ZERO
    is_digit = digits < 10
    num_others = np.count_nonzero(~is_digit[3:] & (text != _SPACE))
    usage_bytes = (rights - lefts)[:, layout.usage].sum()
    if num_others != usage_bytes + len(commas) + len(line_ends) + has_return.sum():
        return None
    digits *= is_digit
    is_last = is_digit[3:].copy()  # marks the last digit of each number
    is_last[:-1] &= ~is_digit[4:]
    is_last[where] = False
    low = digits[3:] + np.uint8(10) * digits[2:-1]
    hundreds = digits[1:-2] * (is_digit[2:-1] & is_last)
    has_four_digits = is_last & is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]
    if has_four_digits.any() or (hundreds > 2).any() or ((hundreds == 2) & (low > 55)).any():
        return None
    # Several times faster than values[is_last], which steps through the mask byte by byte.
    places = np.flatnonzero(is_last)
    if len(places) != len(starts) * _NUM_PIXELS:
        return None
    places_of = places.reshape(-1, _NUM_PIXELS)
    if (places_of[:, 0] < lefts[:, layout.pixels]).any() or (places_of[:, -1] >= rights[:, layout.pixels]).any():
        return None
    return (low + np.uint8(100) * hundreds).take(places_of), emotions.astype(np.int16), splits


def _read_usages(text: np.ndarray, lefts: np.ndarray, rights: np.ndarray) -> np.ndarray | None:
    """Splits of the rows whose usages lie at these bytes; None if one is not spelled as in the official file."""
    splits = np.full(len(lefts), -1, np.int8)
    for word, split in _USAGES.items():
        rows = np.flatnonzero(rights - lefts == len(word))
        letters = text[lefts[rows, None] + np.arange(len(word))]
        splits[rows[(letters == np.frombuffer(word, np.uint8)).all(axis=1)]] = SPLITS.index(split)
    return None if (splits < 0).any() else splits


def _read_exactly(block: bytes, first_row: int, layout: _Layout) -> Rows:
    """The same for any valid CSV; raises UserError for the first row that is not."""
    lines = block.decode("utf-8", "replace").split("\n")
    rows = [_read_row(line, row, layout) for row, line in enumerate(lines, first_row) if line.strip()]
    pixels, emotions, splits = zip(*rows, strict=True) if rows else ((), (), ())
    stacked = np.array(pixels, np.uint8).reshape(len(rows), _NUM_PIXELS)
    return stacked, np.array(emotions, np.int16), np.array(splits, np.int8)


def _read_row(line: str, row: int, layout: _Layout) -> tuple[np.ndarray, int, int]:
    where = f"{layout.path}, row {row}"
    try:
        fields = next(csv.reader([line.rstrip("\r")], skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{where}: not a row of a CSV file ({error})") from error
    if len(fields) != layout.num_columns:
        raise UserError(f"{where}: {len(fields)} columns, expected {layout.num_columns} as in the header")
    emotion = fields[layout.emotion].strip()
    if emotion not in map(str, range(len(FER2013))):
        raise UserError(f"{where}: emotion {emotion!r} is outside the set 0 to 6 ({', '.join(FER2013)})")
    usage = fields[layout.usage]
    split = split_index(usage)
    if split is None:
        raise UserError(f"{where}: unknown Usage {usage!r}; expected Training, PublicTest or PrivateTest")
    numbers = fields[layout.pixels].split()
    if len(numbers) != _NUM_PIXELS:
        raise UserError(f"{where}: {len(numbers):,} pixels, expected {_NUM_PIXELS:,} ({SIDE}x{SIDE})")
    for place, number in enumerate(numbers, 1):
        if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) <= 255):
            raise UserError(f"{where}: pixel {place:,} is {number[:40]!r}, expected a whole number from 0 to 255")
    return np.array([int(number) for number in numbers], np.uint8), int(emotion), split
