"""`python -m fer_ray.analysis RESULTS`: tables and a dashboard from the files of a sweep, without Ray or torch."""

from collections.abc import Sequence

from fer_ray import cli


def command(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = cli.Parser(
        "analysis",
        "Print the tables of a sweep, and write them (Markdown, CSV, LaTeX) with dashboard.html. Reads only the "
        "sweep's files and may be repeated at any time.",
        "python -m fer_ray.analysis results/ratios --rows data.real_fraction --cols model.name --metric accuracy",
    )
    parser.add_argument("results", help="folder of a sweep, the one that holds trials/")
    parser.add_argument("--rows", metavar="KEY", help="axis shown down (default: as the space says)")
    parser.add_argument("--cols", metavar="KEY", help="axis shown across (default: as the space says)")
    parser.add_argument(
        "--metric", help="accuracy, macro_f1, macro_recall or auroc: opens the dashboard (default: as the space says)"
    )
    options = parser.parse(arguments)
    # Only now, so that --help and a typo answer at once.
    from fer_ray.analysis.report import write_report

    paths = write_report(
        options.results, rows=options.rows, columns=options.cols, metric=options.metric, console=cli.stdout_console()
    )
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    cli.main(command)
