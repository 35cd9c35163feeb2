"""Sheets of many generated faces in a grid: cut, labelled, judged, and aligned to faces of one size."""

import json
import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fer_ray.data.readers.images import SUFFIXES, decode_one, read_file
from fer_ray.errors import UserError, nearest, printable
from fer_ray.faces.align import align
from fer_ray.faces.detect import detect
from fer_ray.faces.quality import Judgement, Limits, judge
from fer_ray.labels import ALIASES, CANONICAL_ORDER, canonical, in_order

LabelFrom = Literal["folder", "name", "json"]

Yield = tuple[str, int, int]
"""Name of a sheet or class, its cells, and how many of them were kept."""

NO_LABEL = "no label"
"""Why a cell is rejected whose label is null in the JSON: no face is expected there."""

MIN_CELL = 32
"""Cells of fewer pixels a side are refused: whatever is in them, it is no face of use."""

MAX_LABEL_BYTES = 16 * 2**20
"""Larger JSON files are refused before they are read."""

_MISPLACED = {"no face", "several faces", "face too small", "face off centre", "face cut off"}
_MIN_WORD = 3  # the aliases of two letters are codes of data sets, and ordinary words in file names
_WORDS = {word: canonical(word) for word in (*CANONICAL_ORDER, *ALIASES) if len(word) >= _MIN_WORD}


@dataclass(frozen=True)
class Grid:
    """How a sheet is divided: `rows` x `cols` cells, of which `margin` pixels are cut off on each side."""

    rows: int = 6
    cols: int = 6
    margin: int = 0

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


@dataclass(frozen=True)
class Cell:
    """A cell of a sheet.

    Attributes:
        row, col: its place, from 0.
        label: canonical class name, or None where no face is expected.
        picture: uint8 [h, w, 1 or 3], as cut.
        judgement: what was found in it; `judgement.reason` is None if the face is kept.
        face: the kept face, uint8 [size, size, 3], else None.
    """

    row: int
    col: int
    label: str | None
    picture: np.ndarray
    judgement: Judgement
    face: np.ndarray | None


@dataclass(frozen=True)
class Sheet:
    """A sheet: its file, its path below the folder for people, and the label of each cell, row by row."""

    path: Path
    name: str
    labels: tuple[str | None, ...]


def find(folder: Path, label_from: LabelFrom, grid: Grid) -> list[Sheet]:
    """The sheets in a folder and the folders below it, by path, with their labels; hidden ones are left out.

    Labels come from the sheet's folder (`folder`), from the one class that its file name holds (`name`:
    `happy_003.png`, `sheet-anger-12.jpg`), or from a JSON file beside it with its stem (`json`): `{"label": "happy"}`
    for all cells, or `{"cells": [{"label": "happy"}, {"label": null}, ...]}`, a label per cell, row by row.

    Raises UserError naming the file when there is no sheet, or a label is missing, ambiguous or not understood.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected a folder of sheets")
    folder = folder.resolve()
    paths = sorted(_images_below(folder))
    if not paths:
        raise UserError(f"{folder} holds no images; expected sheets: {', '.join(sorted(SUFFIXES))}")
    sheets = []
    for path in paths:
        labels: tuple[str | None, ...]
        if label_from == "json":
            labels = _labels_from_json(path, grid)
        else:
            of_sheet = _label_from_folder(path, folder) if label_from == "folder" else _label_from_name(path)
            labels = (of_sheet,) * (grid.rows * grid.cols)
        for label in labels:
            if label is not None:
                _check_label(path, label)
        sheets.append(Sheet(path, printable(path.relative_to(folder).as_posix()), labels))
    return sheets


def read_all(
    sheets: Sequence[Sheet], grid: Grid, limits: Limits, size: int, num_threads: int
) -> Iterator[tuple[Sheet, list[Cell]]]:
    """Each sheet with its cells, in order, as `read` returns them; at most `num_threads` sheets are read ahead.

    Raises UserError as `read`.
    """
    ahead: deque[tuple[Sheet, Future[list[Cell]]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for sheet in sheets:
            ahead.append((sheet, pool.submit(read, sheet, grid, limits, size)))
            if len(ahead) > num_threads:
                first, cells = ahead.popleft()
                yield first, cells.result()
        for first, cells in ahead:
            yield first, cells.result()


def read(sheet: Sheet, grid: Grid, limits: Limits, size: int) -> list[Cell]:
    """Decodes a sheet, cuts it, judges its cells, and aligns what is kept to `size` pixels a side.

    Raises UserError naming the file when it is damaged, or too small for the grid.
    """
    image = decode_one(read_file(str(sheet.path)), str(sheet.path))
    try:
        pictures = cut(image, grid)
    except ValueError as error:
        raise UserError(f"{sheet.path}: {error}; see --rows, --cols and --margin") from error
    cells = []
    for i, (label, picture) in enumerate(zip(sheet.labels, pictures, strict=True)):
        judgement = Judgement(NO_LABEL) if label is None else judge(picture, detect(picture), limits)
        face = None
        if judgement.reason is None and judgement.face is not None:
            face = align(picture, judgement.face, size)
            face = cv2.cvtColor(face, cv2.COLOR_GRAY2RGB) if face.shape[2] == 1 else face
        cells.append(Cell(*divmod(i, grid.cols), label, picture, judgement, face))
    return cells


def cut(image: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """The cells of a uint8 [H, W, C] sheet, row by row, uint8 [h, w, C]; edges lie at `round(i * W / cols)`.

    Raises ValueError when a cell has fewer than MIN_CELL pixels a side.
    """
    height, width, _ = image.shape
    ys = [round(i * height / grid.rows) for i in range(grid.rows + 1)]
    xs = [round(i * width / grid.cols) for i in range(grid.cols + 1)]
    m = grid.margin
    least = min(height // grid.rows, width // grid.cols) - 2 * m
    if least < MIN_CELL:
        raise ValueError(
            f"its {width}x{height} pixels leave {max(0, least)} a side for each cell of a {grid} grid with a margin "
            f"of {m}, expected at least {MIN_CELL}"
        )
    return [
        np.ascontiguousarray(image[y0 + m : y1 - m, x0 + m : x1 - m])
        for y0, y1 in pairwise(ys)
        for x0, x1 in pairwise(xs)
    ]


def doubt(cells: list[Cell], grid: Grid) -> str | None:
    """What speaks against the grid: in most cells that should hold a face, none stands whole in the middle."""
    expected = [cell for cell in cells if cell.label is not None]
    misplaced = Counter(cell.judgement.reason for cell in expected if cell.judgement.reason in _MISPLACED)
    if misplaced.total() <= len(expected) / 2:
        return None
    found = ", ".join(f"{reason}: {count}" for reason, count in misplaced.most_common())
    return f"does not look like a sheet of {grid} faces ({found}); see --rows and --cols"


@dataclass
class Tally:
    """Counts over sheets: cells and kept faces by sheet and by class, and rejections by reason."""

    reasons: Counter[str] = field(default_factory=Counter)
    _cells: dict[str, Counter[str]] = field(default_factory=lambda: {"sheet": Counter(), "class": Counter()})
    _kept: dict[str, Counter[str]] = field(default_factory=lambda: {"sheet": Counter(), "class": Counter()})

    def add(self, sheet: str, cell: Cell) -> None:
        """Counts a cell."""
        for kind, name in (("sheet", sheet), ("class", cell.label)):
            if name is not None:
                self._cells[kind][name] += 1
                self._kept[kind][name] += cell.face is not None
        if cell.judgement.reason is not None:
            self.reasons[cell.judgement.reason] += 1

    @property
    def num_cells(self) -> int:
        """All cells."""
        return self._cells["sheet"].total()

    @property
    def num_kept(self) -> int:
        """Cells whose face is kept."""
        return self._kept["sheet"].total()

    def by_sheet(self) -> list[Yield]:
        """In the order of the sheets."""
        return [(name, count, self._kept["sheet"][name]) for name, count in self._cells["sheet"].items()]

    def by_class(self) -> list[Yield]:
        """In canonical order; cells without a label belong to no class."""
        counts = self._cells["class"]
        return [(name, counts[name], self._kept["class"][name]) for name in in_order(counts)]


def _images_below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)  # a named pipe or a link to a device would be read for ever
            if not name.startswith(".") and path.suffix.casefold() in SUFFIXES and path.is_file():
                yield path


def _label_from_folder(path: Path, root: Path) -> str:
    label = canonical(path.parent.name)
    if path.parent == root and label not in CANONICAL_ORDER:
        raise UserError(
            f"{path}: it lies in no folder of a class, and {root.name!r} is no known expression; put the sheets in "
            "folders named after their classes, or choose another --label-from"
        )
    return label


def _label_from_name(path: Path) -> str:
    words = [word for word in re.findall(r"[^\W\d_]+", path.stem.casefold()) if len(word) >= _MIN_WORD]
    found = sorted({_WORDS[word] for word in words if word in _WORDS})
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{path}: its name holds several classes ({', '.join(found)}); leave one, e.g. {found[0]}_01")
    hint = nearest(max(words, key=len), _WORDS) if words else ""
    hint = hint if "mean" in hint else f"; known: {', '.join(CANONICAL_ORDER)}"
    raise UserError(f"{path}: no class in its name, expected one as a word of its own, e.g. happy_003.png{hint}")


def _labels_from_json(path: Path, grid: Grid) -> tuple[str | None, ...]:
    source = path.with_suffix(".json")
    try:
        if source.stat().st_size > MAX_LABEL_BYTES or not source.is_file():
            raise UserError(f"{source} is larger than {MAX_LABEL_BYTES:,} bytes, or no file; expected a sheet's labels")
        content = json.loads(source.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read {source}, the labels of {path.name}: {error.strerror or error}; write one, "
            'e.g. {"label": "happy"}, or use --label-from folder or name'
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not readable as JSON ({error})") from error
    content = content if isinstance(content, dict) else {}
    count = grid.rows * grid.cols
    for key, value in (("rows", grid.rows), ("cols", grid.cols)):
        if content.get(key, value) != value:
            raise UserError(f"{source}: {key} is {content[key]!r}, but the grid is {grid}; pass --{key} to match")
    cells = content.get("cells", [content] * count)
    if not isinstance(cells, list) or len(cells) != count:
        found = f"{len(cells)} cells" if isinstance(cells, list) else repr(cells)
        raise UserError(f"{source}: `cells` must list the {count} cells of a {grid} grid, row by row, got {found}")
    labels = []
    for i, cell in enumerate(cells):
        if not isinstance(cell, dict) or "label" not in cell or not isinstance(cell["label"], str | None):
            place = "" if "cells" not in content else f" of cell {i} (row {i // grid.cols}, column {i % grid.cols})"
            raise UserError(f'{source}: the label{place} must be a class name or null, e.g. "label": "happy"')
        labels.append(None if cell["label"] is None else canonical(cell["label"]))
    return tuple(labels)


def _check_label(path: Path, label: str) -> None:
    if not label or "," in label or printable(label) != label:
        raise UserError(f"{path}: its class {label!r} must be a name without commas and control characters; rename it")
