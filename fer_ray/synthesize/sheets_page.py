"""The page of `synthesize sheets`: the yield, and every cell as a small picture, kept or rejected, and why."""

from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

import cv2

from fer_ray import page
from fer_ray.faces.quality import Limits, Measures

if TYPE_CHECKING:
    from fer_ray.synthesis.sheets import Cell, Grid, Tally, Yield

MAX_SHEETS = 60
"""Sheets whose cells are shown, the first ones: about 5 MB of page. The manifest has all."""

PICTURE = 64
"""Longer side of a cell's picture, in pixels."""

STYLE = """
.sheet { display: grid; gap: 8px 4px; justify-content: start; overflow-x: auto; margin-top: .6rem; }
.sheet figure { width: 92px; line-height: 1.2; text-align: center; }
.sheet img { border: 3px solid; border-radius: 5px; box-sizing: content-box; }
.sheet .kept img { border-color: #2da44e; }
.sheet .rejected img { border-color: #cf222e; }
.sheet figcaption { font-size: .7rem; }
"""


class Page:
    """Takes sheets one by one, and keeps the HTML of the first MAX_SHEETS."""

    def __init__(self, grid: "Grid", limits: Limits) -> None:
        self._grid, self._limits = grid, limits
        self._sections: list[str] = []

    def add(self, name: str, cells: "list[Cell]", doubt: str | None) -> None:
        """Shows the cells of a sheet as they lie in it."""
        if len(self._sections) == MAX_SHEETS:
            return
        kept = page.paragraphs([f"{sum(cell.face is not None for cell in cells)} of {len(cells)} cells kept."])
        warning = f'<p class="warning">This sheet {escape(doubt)}.</p>' if doubt else ""
        columns = f"grid-template-columns: repeat({self._grid.cols}, 92px)"
        pictures = f'<div class="sheet" style="{columns}">{"".join(_picture(cell) for cell in cells)}</div>'
        self._sections.append(page.section(f"sheet-{len(self._sections) + 1}", name, kept + warning + pictures))

    def render(self, title: str, tally: "Tally", manifest: str) -> str:
        """The whole page. `manifest` is the name of the file that has a row per cell."""
        by_sheet = tally.by_sheet()
        sentences = [
            f"{tally.num_kept:,} of {tally.num_cells:,} cells kept ({tally.num_kept / tally.num_cells:.0%}). "
            f"{manifest} has a row per cell with all that was measured; so does the hint over each picture.",
            f"Limits: {_listed(self._limits)}.",
        ]
        if len(by_sheet) > MAX_SHEETS:
            sentences.append(f"Shown are the cells of the first {MAX_SHEETS} of {len(by_sheet):,} sheets.")
        reasons = page.table(["rejected because", "cells"], tally.reasons.most_common()) if tally.reasons else ""
        by_class = _yield_table("class", tally.by_class())
        overview = [
            page.section("yield", "Yield", page.paragraphs(sentences) + by_class + reasons),
            page.section("sheets", "By sheet", _yield_table("sheet", by_sheet)),
        ]
        parts = [f"<header><h1>{escape(title)}</h1></header>", "<main>", *overview, *self._sections, "</main>"]
        return page.document(title, "\n".join(parts), styles=[STYLE])


def _yield_table(first: str, yields: "list[Yield]") -> str:
    rows = [(name, cells, kept, f"{kept / cells:.0%}") for name, cells, kept in yields]
    return page.table([first, "cells", "kept", "yield"], rows)


def _picture(cell: "Cell") -> str:
    height, width, channels = cell.picture.shape
    scale = PICTURE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(cell.picture, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    label, reason = cell.label or "no label", cell.judgement.reason
    told = f"row {cell.row}, column {cell.col}, {label}: {reason or 'kept'}"
    if cell.judgement.measures:
        told += f" ({_listed(cell.judgement.measures)})"
    kind, caption = ("rejected", f"✗ {reason}") if reason else ("kept", f"✓ {label}")
    return f'<figure class="{kind}">{page.image(small, told)}<figcaption>{escape(caption)}</figcaption></figure>'


def _listed(values: Limits | Measures) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in asdict(values).items())
