"""Result tables of a study: the numbers once, then as terminal, Markdown, LaTeX and HTML text."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.measure import Measurement
from rich.table import Table as RichTable

from fer_ray.analysis import stats
from fer_ray.analysis.load import FOLD, SEED, Study, plain, status_text, where

TABLE_METRICS = ("accuracy", "macro_f1", "auroc", "valence_ccc", "arousal_ccc")
CHANCE_MARK = "°"
MISSING = "–"


@dataclass(frozen=True)
class Entry:
    """A cell's text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any format.

    Attributes:
        title: what the numbers are, and the values of the other axes where there are some.
        caption: what to know of this table alone: its chance level.
        notes: what to know of all tables of the study.
        corner: names of the two axes, rows then columns; "" for columns that are no axis but a fact each.
        row_names, column_names: the axes' values as text.
        entries: a list per row, an Entry per column.
    """

    title: str
    caption: str
    notes: list[str]
    corner: tuple[str, str]
    row_names: list[str]
    column_names: list[str]
    entries: list[list[Entry]]


def axis_label(key: str) -> str:
    """A config key as people say it.

    >>> axis_label("data.real_fraction"), axis_label("model.name")
    ('real fraction', 'model')
    """
    group, _, name = key.rpartition(".")
    return group if name == "name" else name.replace("_", " ")


def value_text(value: Any) -> str:
    """An axis value as text; numbers without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def number(value: float, signed: bool = False) -> str:
    """Three decimals without the leading zero, as tables of shares print them: `.412`, `−.021`, `1.000`."""
    if not np.isfinite(value):
        return MISSING
    digits = f"{abs(value):.3f}"
    sign = "−" if value < 0 and float(digits) else "+" if signed and float(digits) else ""
    return sign + digits.removeprefix("0")


def build(study: Study, summary: pd.DataFrame, metric: str, where_tested: str = "") -> list[Table]:
    """The tables of one metric from `stats.summarize`: one for each combination of the axes beyond rows and columns.

    `where_tested` comes after the metric's name, where the images are not those of the test split.
    """
    caption, shared = _chance_text(summary), notes(study, summary)
    tables = []
    for extra in product(*(study.axes[key] for key in study.other_axes)):
        values = dict(zip(study.other_axes, extra, strict=True))
        here = summary
        for key, value in values.items():
            here = where(here, key, value)
        panel = ", ".join(f"{axis_label(k)} {value_text(v)}" for k, v in values.items() if len(study.axes[k]) > 1)
        tables.append(
            Table(
                " ".join([stats.METRICS[metric], *filter(None, [where_tested, panel and f"({panel})"])]),
                caption,
                shared,
                (axis_label(study.rows), axis_label(study.columns)),
                [value_text(value) for value in study.axes[study.rows]],
                [value_text(value) for value in study.axes[study.columns]],
                _entries(study, here),
            )
        )
    return tables


def notes(study: Study, summary: pd.DataFrame) -> list[str]:
    """What holds for all tables: data, test split, N, seeds, how intervals were made, and what to be careful about."""
    trials = study.trials
    sentences = []
    if study.sweep.info.get("demo"):
        sentences.append("Rendered demo faces: these figures say nothing about real ones.")
    sentences.append(f"{_distinct(trials, 'data_name')}, test: {_distinct(trials, 'test_name')}.")
    total = trials[["num_train_real", "num_train_synthetic"]].sum(axis=1).astype(int)
    few, many = total.min(), total.max()
    sentences.append(f"{few:,} training images." if few == many else f"{few:,} to {many:,} training images.")
    folds = trials[FOLD].nunique() if FOLD in trials else 0
    sentences.append(interval_text(summary["num_seeds"], "run" if folds > 1 else "seed"))
    if folds > 1:
        seeds = _count(trials[SEED].nunique(), "seed")
        sentences.append(
            f"The runs of a cell are {seeds} by {folds} folds of a cross-validation. Folds share training images, so "
            "that runs are more alike than independent ones, and intervals somewhat too narrow."
        )
    sentences.append(f"Trials: {status_text(study.sweep)}.")
    if empty := int((summary["num_seeds"] == 0).sum()):
        sentences.append(f"{MISSING} marks {_count(empty, 'cell')} without a finished trial.")
    for column, what in (("precision", "precisions"), ("test_name", "test sets"), ("data_digest", "data sets")):
        if column in trials and trials[column].nunique() > 1:
            sentences.append(f"Careful, the tables mix {what}: {_distinct(trials, column)}.")
    return sentences


def interval_text(num_seeds: pd.Series, what: str = "seed") -> str:
    """How the means and intervals were made, given the seeds, or runs of seeds and folds, of each cell."""
    counts = sorted(set(num_seeds[num_seeds > 0]))
    if counts == [1]:
        cell = f"one {what}"
    else:
        cell = f"the mean of {' to '.join(str(count) for count in sorted({counts[0], counts[-1]}))} {what}s"
    if counts[0] >= stats.MIN_RESAMPLED:
        over = f"{what}s and test images"
    elif counts[-1] < stats.MIN_RESAMPLED:
        over = f"test images, not over {what}s"
    else:
        over = f"test images, and over {what}s where a cell has {stats.MIN_RESAMPLED}"
    return (
        f"Each cell is {cell}, ± half the width of its 95 % interval: bootstrap over {over} "
        f"({stats.RESAMPLES:,} resamples, {stats.AUROC_RESAMPLES} for AUROC)."
    )


def to_rich(table: Table) -> RichTable:
    """For the terminal, without the notes; the best of a column is bold and underlined."""
    rows, columns = table.corner
    result = RichTable(
        title=escape_markup(f"{table.title}: {rows} down, {columns} across" if columns else table.title),
        caption=escape_markup(table.caption),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        # Seven networks by five shares fit into 80 columns, without the space before ± and with one between cells.
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    cells = [[entry.text.replace(" ±", "±") for entry in entries] for entries in table.entries]
    result.add_column(
        escape_markup(rows),
        overflow="fold",
        min_width=max(map(len, [rows, *table.row_names] if not columns else table.row_names)),
    )
    for name, column in zip(table.column_names, zip(*cells, strict=True), strict=True):
        # A long name may fold, a sentence between its words; a number is never cut.
        words = [] if columns else name.split()
        width = max(map(len, [*column, *words]))
        result.add_column(escape_markup(name), justify="right", overflow="fold", min_width=width)
    for name, entries, texts in zip(table.row_names, table.entries, cells, strict=True):
        texts = [f"[bold underline]{t}[/]" if entry.best else t for t, entry in zip(texts, entries, strict=True)]
        result.add_row(escape_markup(name), *texts)
    return result


def print_whole(console: Console, table: Table) -> None:
    """Prints a table; where the terminal is too narrow its lines run on, since a number that is cut misleads."""
    rendered = to_rich(table)
    needed = Measurement.get(console, console.options.update(max_width=10_000), rendered).minimum
    console.print(rendered, width=max(needed, console.width), crop=False)


def to_markdown(table: Table) -> str:
    """A pipe table under its title; the best of a column is bold."""
    header = [_pipe(text) for text in (_corner(table), *table.column_names)]
    lines = [f"### {table.title}", "", _row(header), _row(["---", *["---:"] * len(table.column_names)])]
    for name, entries in zip(table.row_names, table.entries, strict=True):
        lines.append(_row([_pipe(name), *(f"**{entry.text}**" if entry.best else entry.text for entry in entries)]))
    return "\n".join([*lines, "", " ".join([table.caption, *table.notes]), ""])


def to_latex(table: Table) -> str:
    r"""A `table` environment for the booktabs package; everything that LaTeX would read as markup is escaped."""
    rows, columns = table.corner
    width = len(table.column_names)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}. {_tex(' '.join([table.caption, *table.notes]))}}}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        *(
            [rf" & \multicolumn{{{width}}}{{c}}{{{_tex(columns)}}} \\", rf"\cmidrule(l){{2-{width + 1}}}"]
            if columns
            else []
        ),
        " & ".join(_tex(text) for text in (rows, *table.column_names)) + r" \\",
        r"\midrule",
    ]
    for name, entries in zip(table.row_names, table.entries, strict=True):
        texts = [rf"\textbf{{{_tex(entry.text)}}}" if entry.best else _tex(entry.text) for entry in entries]
        lines.append(" & ".join([_tex(name), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def to_html(table: Table) -> str:
    """A `<table>` with escaped text; the best of a column has the class `best`."""
    rows, columns = (escape(text) for text in table.corner)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.column_names)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td{' class=best' if entry.best else ''}>{escape(entry.text)}</td>" for entry in entries)
        + "</tr>"
        for name, entries in zip(table.row_names, table.entries, strict=True)
    )
    over = (
        f'<tr><td></td><th scope="colgroup" colspan="{len(table.column_names)}">{columns}</th></tr>' if columns else ""
    )
    caption = f"<caption>{escape(table.title)} <small>{escape(table.caption)}</small></caption>"
    return (
        f'<table>{caption}<thead>{over}<tr><th scope="col">{rows}</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _entries(study: Study, summary: pd.DataFrame) -> list[list[Entry]]:
    cells = {(plain(row[study.rows]), plain(row[study.columns])): row for _, row in summary.iterrows()}
    best = {
        column: _best([cells[name, column]["mean"] for name in study.axes[study.rows]])
        for column in study.axes[study.columns]
    }
    return [
        [Entry(_text(cells[name, column]), index == best[column]) for column in study.axes[study.columns]]
        for index, name in enumerate(study.axes[study.rows])
    ]


def _chance_text(summary: pd.DataFrame) -> str:
    levels = " or ".join(sorted({number(value) for value in summary["chance"].dropna()}))
    reached = int(summary["reaches_chance"].sum())
    mark = f"; {CHANCE_MARK} marks {_count(reached, 'cell')} whose interval reaches it" if reached else ""
    return f"Chance is {levels}{mark}."


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}{'s' if number_of > 1 else ''}"


def _best(means: Sequence[float]) -> int | None:
    """Place of the largest mean; none where fewer than two are there to compare."""
    return int(np.nanargmax(means)) if np.isfinite(means).sum() > 1 else None


def _text(cell: pd.Series) -> str:
    if not np.isfinite(cell["mean"]):
        return MISSING
    half = number((cell["high"] - cell["low"]) / 2)
    return f"{number(cell['mean'])} ±{half}{CHANCE_MARK if cell['reaches_chance'] else ''}"


def _distinct(trials: pd.DataFrame, column: str) -> str:
    return ", ".join(sorted(trials[column].dropna().astype(str).unique())) if column in trials else "not recorded"


def _corner(table: Table) -> str:
    return "{} ↓  {} →".format(*table.corner) if table.corner[1] else table.corner[0]


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _pipe(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


TEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "°": r"$^\circ$",
    "−": "$-$",
    "–": "--",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)
