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
    parser.add_argument("results", help="folder of a sweep, the one that holds trials/, or s3://BUCKET/PREFIX/NAME")
    parser.add_argument("--rows", metavar="KEY", help="axis shown down (default: as the space says)")
    parser.add_argument("--cols", metavar="KEY", help="axis shown across (default: as the space says)")
    parser.add_argument(
        "--metric",
        help="accuracy, macro_f1, macro_recall, auroc, valence_ccc or arousal_ccc: opens the dashboard (default: as "
        "the space says)",
    )
    options = parser.parse(arguments)
    # Only now, so that --help and a typo answer at once.
    from fer_ray.analysis.report import write_report
    from fer_ray.errors import UserError
    from fer_ray.storage import open_storage

    storage = open_storage(options.results)
    storage.pull()
    if storage.is_remote and not (storage.folder / "trials").is_dir():
        raise UserError(f"{storage.location} holds no trials: no trial has ended yet, or the place is another")
    paths = write_report(
        storage.folder, rows=options.rows, columns=options.cols, metric=options.metric, console=cli.stdout_console()
    )
    storage.push(*(path.name for path in paths))
    for path in paths:
        print(path)
    if storage.is_remote:
        print(f"copied to {storage.location}")
    return 0


if __name__ == "__main__":
    cli.main(command)
