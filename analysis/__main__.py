"""`python -m fer_ray.analysis RESULTS`: tables and a dashboard from the files of a sweep, without Ray or torch."""

import argparse
import sys
from collections.abc import Sequence

from fer_ray.errors import UserError

EXAMPLE = """example:
  python -m fer_ray.analysis results/ratios
  python -m fer_ray.analysis results/ratios --rows data.real_fraction --cols model.name --metric accuracy
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 when something outside the program is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_ray.analysis",
        description="Print the tables of a sweep, and write them (Markdown, CSV, LaTeX) with dashboard.html. "
        "Reads only the sweep's files and may be repeated at any time.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="folder of a sweep, the one that holds trials/")
    parser.add_argument("--rows", metavar="KEY", help="axis shown down (default: as the space says)")
    parser.add_argument("--cols", metavar="KEY", help="axis shown across (default: as the space says)")
    parser.add_argument(
        "--metric", help="accuracy, macro_f1, macro_recall or auroc: opens the dashboard (default: as the space says)"
    )
    flags = parser.parse_args(arguments)
    # Only now, so that --help and a typo answer at once.
    from rich.console import Console

    from fer_ray.analysis.report import write_report

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=100)
    try:
        paths = write_report(flags.results, rows=flags.rows, columns=flags.cols, metric=flags.metric, console=console)
    except UserError as error:
        print(f"fer_ray.analysis: {error}", file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
