"""The one entry to the analysis: a results folder in, tables and a dashboard out."""

from pathlib import Path

import pandas as pd
from rich.console import Console

from fer_ray import results
from fer_ray.analysis import stats, tables
from fer_ray.analysis.findings import baseline, compared, difference_table, headline
from fer_ray.analysis.load import OTHER_TESTS, Study, other_tests, read_study
from fer_ray.analysis.tables import Table
from fer_ray.errors import UserError, nearest

OTHER_TEST_METRICS = ("accuracy", "macro_f1")
"""What is told of tests other than the test split; the first one also in the terminal."""


def write_report(
    root: str | Path,
    *,
    rows: str | None = None,
    columns: str | None = None,
    metric: str | None = None,
    console: Console,
) -> list[Path]:
    """Prints the tables of a results folder and writes trials.parquet, epochs.parquet, tables/ and dashboard.html.

    Of a search, see `search_report.write_search_report`; the rest is of a factorial sweep. `rows` and `columns` are
    axes of the space, by default those it states. `metric` is a key of `stats.METRICS`, by default the space's: the
    one of the headline, of the table of differences and of the dashboard's first view. Everything is overwritten, and
    depends on nothing but the trials. Returns the four paths, the dashboard last.

    Raises UserError when the folder has no finished trial, is damaged or cannot be written, or when an axis or metric
    is unknown.
    """
    if _is_search(Path(root)):
        given = {"--rows": rows, "--cols": columns, "--metric": metric}
        for flag in (flag for flag, value in given.items() if value is not None):
            raise UserError(f"{flag}: {root} holds a search, which has no axes and ranks by its own objective")
        from fer_ray.analysis.search_report import write_search_report

        return write_search_report(root, console)
    study = read_study(root, rows=rows, columns=columns)
    replicates = stats.bootstrap(study)
    metric = _metric(study, replicates, metric)
    numbers = {name: stats.summarize(study, replicates, name) for name in replicates.values}
    shown = [name for name in tables.TABLE_METRICS if name in numbers]
    built = {name: tables.build(study, numbers[name], name) for name in shown}
    if len(study.axes[compared(study)]) > 1:
        differences = stats.differences(study, replicates, metric, compared(study), baseline(study))
        if len(differences):
            built["differences"] = [difference_table(study, replicates, metric, differences)]
            numbers["differences"] = differences
    for test, elsewhere in other_tests(study).items():
        there = stats.bootstrap(elsewhere)
        for name in OTHER_TEST_METRICS:
            key = f"{name}_{test}"
            numbers[key] = stats.summarize(elsewhere, there, name)
            built[key] = tables.build(elsewhere, numbers[key], name, _where(elsewhere, test))
        shown.append(f"{OTHER_TEST_METRICS[0]}_{test}")
    findings = headline(study, replicates, metric)
    _print(console, [table for name in shown for table in built[name]], findings)
    # plotly takes half a second to import, and the tables need not wait for it.
    from fer_ray.analysis import dashboard, views

    figures = views.build_views(study, replicates, numbers, metric)
    page = dashboard.render(study, findings, [table for parts in built.values() for table in parts], figures)
    folder = study.sweep.root
    try:
        results.compact(study.sweep)
        _write_tables(folder / "tables", built, numbers)
        (folder / "dashboard.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return [folder / name for name in ("trials.parquet", "epochs.parquet", "tables", "dashboard.html")]


def _is_search(root: Path) -> bool:
    path = root / "sweep.json"
    return path.exists() and results.read_json(path).get("kind") == "search"


def _where(study: Study, test: str) -> str:
    if test in OTHER_TESTS:
        names = sorted(study.trials[f"{test}_name"].unique())
        return f"on {OTHER_TESTS[test]}: {', '.join(names)}"
    counts = sorted({len(answer.labels) for answer in study.predictions})
    return f"on the {' to '.join(f'{count:,}' for count in counts)} test images without a copy in training"


def _print(console: Console, built: list[Table], findings: list[str]) -> None:
    for table in built:
        tables.print_whole(console, table)
        console.print()
    console.print(" ".join(built[0].notes), markup=False, highlight=False, style="dim")
    console.print()
    for sentence in findings:
        console.print(sentence, markup=False, highlight=False)


def _metric(study: Study, replicates: stats.Replicates, metric: str | None) -> str:
    known = replicates.values
    if metric is None:
        stated = str(study.sweep.info.get("metric", "")).removeprefix("test_")
        return stated if stated in known else "macro_f1"
    if metric not in known:
        raise UserError(f"--metric {metric}: not a metric of these tables{nearest(metric, known)}")
    return metric


def _write_tables(folder: Path, built: dict[str, list[Table]], numbers: dict[str, pd.DataFrame]) -> None:
    folder.mkdir(exist_ok=True)
    for name, parts in built.items():
        (folder / f"{name}.md").write_text("\n".join(map(tables.to_markdown, parts)), encoding="utf-8")
        (folder / f"{name}.tex").write_text("\n".join(map(tables.to_latex, parts)), encoding="utf-8")
        (folder / f"{name}.csv").write_text(numbers[name].to_csv(index=False, lineterminator="\n"), encoding="utf-8")
