"""Cuts sheets of generated faces into cells, keeps the usable faces, and shows every cell on a page."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, get_args

from fer_ray import cli
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from fer_ray.synthesis.sheets import Cell, Tally, Yield

MAX_LISTED = 20
"""Sheets in the terminal's table; of more, those with the lowest yield are listed."""

CELL_COLUMNS = ("sheet", "row", "col", "label", "kept", "reason")
"""First columns of the manifest; the fields of `quality.Measures` follow, empty where no face was found."""

LIMITS = {
    "min_face": (cli.number(above=0, most=1), "smallest face, as a share of the cell's shorter side"),
    "max_offset": (cli.number(least=0, most=0.5), "largest distance of its centre from the cell's, as a share"),
    "min_inside": (cli.number(least=0, most=1), "smallest share of the face's box inside the cell"),
    "min_sharpness": (cli.number(least=0), "smallest variance of the Laplacian of the face at 64x64 grey levels"),
    "min_brightness": (cli.number(least=0, most=255), "smallest mean grey level of the face"),
    "max_brightness": (cli.number(least=0, most=255), "largest mean grey level of the face"),
    "max_dark": (cli.number(least=0, most=1), "largest share of nearly black pixels"),
    "max_bright": (cli.number(least=0, most=1), "largest share of nearly white pixels"),
    "min_contrast": (cli.number(least=0), "smallest standard deviation of the grey levels"),
    "rival": (
        cli.number(above=0, most=1),
        "a second face of this share of the first one's size makes a cell ambiguous",
    ),
}
"""Field of `quality.Limits` -> the type and help of its flag."""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.synthesize sheets`."""
    from fer_ray.faces.quality import Limits
    from fer_ray.synthesis.sheets import LabelFrom

    parser = cli.Parser(
        "synthesize sheets",
        "Cut sheets of generated faces along their grid, judge the face in each cell, and write those that are kept, "
        "aligned, as Parquet; beside it a manifest (.manifest.csv, a row per cell) and a page (.html) that shows every "
        "cell, kept or rejected, and why.",
        "python -m fer_ray.synthesize sheets generated/ --label-from folder --out faces.parquet",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of sheets; folders below it count")
    parser.add_argument(
        "--label-from",
        choices=get_args(LabelFrom),
        required=True,
        help="a sheet's class: the folder it is in, a word of its file name, or the JSON beside it, which may have "
        "a label per cell (required)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write (required)")
    for flag, default, text in (("--rows", 6, "rows of a sheet"), ("--cols", 6, "columns of a sheet")):
        parser.add_argument(
            flag, type=cli.number(int, least=1), default=default, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--margin",
        type=cli.number(int, least=0),
        default=0,
        metavar="PX",
        help="pixels to cut off every side of a cell, for sheets with lines between them (default: 0)",
    )
    parser.add_argument(
        "--face-size",
        type=cli.number(int, least=16, most=1024),
        default=128,
        metavar="PX",
        help="side of the faces written (default: 128)",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page (default: --out with .html)")
    group = parser.add_argument_group("when a face is kept")
    for limit in fields(Limits):
        kind, text = LIMITS[limit.name]
        group.add_argument(
            f"--{limit.name.replace('_', '-')}",
            type=kind,
            default=limit.default,
            metavar="VALUE",
            help=f"{text} (default: {limit.default:g})",
        )
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.synthesize sheets`; returns the exit code."""
    options = parser().parse(arguments)
    page_path = options.page or options.out.with_suffix(".html")
    manifest_path = options.out.with_suffix(".manifest.csv")
    for path in (options.out, page_path):
        cli.writable_file(path)

    import cv2
    import numpy as np

    from fer_ray.data.faces_file import write_faces
    from fer_ray.faces.quality import Limits, Measures
    from fer_ray.labels import in_order
    from fer_ray.synthesis import sheets
    from fer_ray.synthesize import sheets_page

    limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    grid = sheets.Grid(options.rows, options.cols, options.margin)
    found = sheets.find(options.folder, options.label_from, grid)
    console = cli.stderr_console()
    console.print(f"{len(found):,} sheets of {grid} cells in {options.folder}")

    cv2.setNumThreads(1)  # a sheet per thread is faster than many threads per cell
    tally = sheets.Tally()
    page = sheets_page.Page(grid, limits)
    places: dict[str, dict[str, int]] = {}  # class -> name of a face -> its number in `pixels`
    # Hundreds of sheets do not fit in memory: kept faces wait on the disk until all are known.
    with _whole_file(manifest_path) as manifest, TemporaryFile(dir=options.out.parent) as pixels:
        rows = csv.writer(manifest)
        rows.writerow([*CELL_COLUMNS, *(measure.name for measure in fields(Measures))])
        with _progress() as progress:
            every = sheets.read_all(found, grid, limits, options.face_size, os.cpu_count() or 1)
            for sheet, cells in progress.track(every, total=len(found)):
                for cell in cells:
                    if cell.face is not None and cell.label is not None:
                        name = f"{sheet.name}, row {cell.row}, column {cell.col}"
                        places.setdefault(cell.label, {})[name] = tally.num_kept
                        pixels.write(cell.face.tobytes())
                    tally.add(sheet.name, cell)
                    rows.writerow(_manifest_row(sheet.name, cell))
                doubt = sheets.doubt(cells, grid)
                page.add(sheet.name, cells, doubt)
                if doubt:
                    console.print(f"{sheet.name} {doubt}")
        if places:
            pixels.flush()
            side = options.face_size
            faces = np.memmap(pixels, np.uint8, "r", shape=(tally.num_kept, side, side, 3))
            write_faces(
                options.out,
                {label: map(faces.__getitem__, places[label].values()) for label in in_order(places)},
                f"cells of {len(found)} sheets ({grid}) in {options.folder.name}, aligned to {side} px",
                names={label: list(names) for label, names in places.items()},
            )
    with _whole_file(page_path) as file:
        file.write(page.render(f"Faces from {len(found):,} sheets", tally, manifest_path.name))
    _print_summary(tally)
    where = f"every cell: {page_path} and {manifest_path}"
    if not places:
        raise UserError(f"{options.folder}: no face was kept, {options.out} was not written; {where}")
    for name, _, kept in tally.by_class():
        if not kept:
            console.print(f"no face of class {name} was kept")
    print(f"{tally.num_kept:,} faces written to {options.out}; {where}")
    return 0


def _manifest_row(sheet: str, cell: "Cell") -> list[object]:
    measures = cell.judgement.measures
    values = [f"{value:.4g}" for value in astuple(measures)] if measures else []
    return [sheet, cell.row, cell.col, cell.label, cell.face is not None, cell.judgement.reason, *values]


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its name only once it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another --out") from error
    finally:
        partial.unlink(missing_ok=True)


def _progress() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = cli.stderr_console()
    columns = (TextColumn("sheets"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("left"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_summary(tally: "Tally") -> None:
    console = cli.stdout_console()
    by_sheet, title = tally.by_sheet(), "sheet"
    if len(by_sheet) > MAX_LISTED:
        by_sheet = sorted(by_sheet, key=lambda row: row[2] / row[1])[:MAX_LISTED]
        title = f"the {MAX_LISTED} sheets with the lowest yield"
    for first, yields in ((title, by_sheet), ("class", tally.by_class())):
        console.print(_yield_table(first, yields))
    if tally.reasons:
        table = _table("rejected because", "cells")
        for reason, count in tally.reasons.most_common():
            table.add_row(reason, f"{count:,}")
        console.print(table)


def _yield_table(first: str, yields: "list[Yield]") -> "Table":
    from rich.text import Text

    table = _table(first, "cells", "kept", "yield")
    for name, cells, kept in yields:
        table.add_row(Text(name), f"{cells:,}", f"{kept:,}", f"{kept / cells:.0%}")
    return table


def _table(first: str, *numbers: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
