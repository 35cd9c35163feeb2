"""`python -m fer_ray.data inspect`: what a data set holds, in the terminal and as a page with faces."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray import cli
from fer_ray.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fer_ray.diagnostics.inspection import Inspection

MAX_LISTED = 20
"""Problems that the terminal lists; the page has up to 1,000."""


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.data inspect`."""
    parser = cli.Parser(
        "data inspect",
        "Read all of a data set and tell what it holds: layout, classes and splits, sizes, copies, unreadable files, "
        "valence and arousal. Exit code 1 if a file cannot be read.",
        "python -m fer_ray.data inspect fer2013.csv --out inspect.html",
    )
    parser.add_argument("data", metavar="PATH", help="a folder, .csv, .parquet or .zip, or demo for rendered faces")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="HTML page to write: faces of each class, and distributions"
    )
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.data inspect`; returns the exit code."""
    options = parser().parse(arguments)
    if options.out:
        cli.writable_file(options.out)

    found = _with_progress(options.data)
    _print(found, cli.stdout_console())
    if options.out:
        from fer_ray.diagnostics import inspect_page

        # Names of files need not be Unicode.
        options.out.write_text(inspect_page.render(found), encoding="utf-8", errors="replace")
        print(f"page written to {printable(str(options.out))}")
    return cli.FAILED_TRIALS if found.problems else 0


def _with_progress(source: str) -> "Inspection":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fer_ray.diagnostics import inspection

    console = cli.stderr_console()
    if not console.is_terminal:
        console.print(f"reading {printable(source)}")
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        return inspection.inspect(source, lambda done, total: progress.update(task, completed=done, total=total))


def _print(found: "Inspection", console: "Console") -> None:
    from fer_ray.diagnostics import inspect_words as words
    from fer_ray.diagnostics.inspection import copies

    def line(text: str) -> None:
        console.print(printable(text), markup=False, soft_wrap=True)

    line(f"{found.source}: {found.layout}")
    if found.files:
        for sentence in words.file_sentences(found.files):
            line(sentence)
    if found.dataset is not None:
        num_images, form = len(found.dataset.ids), words.form_name(found.dataset)
        line(f"{found.dataset.name}: {num_images:,} faces, used at {form}, digest {found.dataset.digest}")
        for note in found.dataset.notes:
            line(note)
        _print_table(words.count_rows(found.dataset), console)
        same = copies(found.dataset)
        for sentence in words.copy_sentences(same):
            line(sentence)
        _print_table(words.copy_rows(same), console)
        for sentence in words.more_sentences(found.dataset):
            line(sentence)
    if found.problems:
        num_problems = len(found.problems)
        line(f"{num_problems:,} {'problem' if num_problems == 1 else 'problems'}; correct them and inspect again:")
        for problem in found.problems[:MAX_LISTED]:
            line(f"  {problem}")
        if num_problems > MAX_LISTED:
            line(f"  ... and {num_problems - MAX_LISTED:,} more (--out lists them)")


def _print_table(rows: list[list], console: "Console") -> None:
    """Head and rows, of which the first column are names; nothing if there are no rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, *body = rows
    if not body:
        return
    table = Table(head[0], box=box.SIMPLE_HEAD)
    for name in head[1:]:
        table.add_column(name, justify="right")
    for name, *values in body:
        table.add_row(Text(printable(name)), *(f"{v:,}" if isinstance(v, int) else v for v in values))
    console.print(table)
