"""The report of a search: its tables, its page, and the best configuration as a recipe."""

from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from fer_ray import page, results
from fer_ray.analysis import search as searches
from fer_ray.analysis import search_tables as told
from fer_ray.analysis import tables
from fer_ray.analysis.importance import Importance, assess
from fer_ray.analysis.search import RECIPE, Search
from fer_ray.analysis.tables import Table
from fer_ray.errors import UserError
from fer_ray.proposals import Proposal
from fer_ray.space import OBJECTIVES

TOP = 10
"""Proposals in the terminal."""
COSTS = tuple(name for name in OBJECTIVES if not name.startswith("validation_"))
"""Objectives that are no shares."""


def write_search_report(root: str | Path, console: Console) -> list[Path]:
    """Prints what a search found and writes trials.parquet, epochs.parquet, tables/, dashboard.html and, where a
    proposal is complete, best_recipe.json. Everything is overwritten. Returns the paths.

    Raises UserError when the folder is damaged or cannot be written.
    """
    search = searches.read_search(root)
    frame = searches.frame(search)
    found = [assess(search, k) for k in range(len(search.objectives))]
    winner = searches.best(search)
    front = searches.front(search) if len(search.objectives) > 1 else []
    built = _tables(search, frame, found, winner, front)
    findings = told.headline(search)
    unknown = [note for importance in found[:1] if importance is None for note in told.importance_notes(search, None)]
    short = {**built, "proposals": [told.proposal_table(search, frame, TOP)]} if search.complete else {}
    for table in (table for parts in short.values() for table in parts):
        console.print(table.title, style="bold", markup=False, highlight=False)
        # A caption would be folded to the width of its table, which may be narrow.
        tables.print_whole(console, replace(table, title="", caption=""))
        console.print(table.caption, style="dim", markup=False, highlight=False)
        console.print()
    for sentence in [*told.notes(search), *unknown]:
        console.print(sentence, style="dim", markup=False, highlight=False)
    console.print()
    for sentence in [*findings, *([told.recipe_command(search)] if winner else [])]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    # plotly takes half a second to import, and the tables need not wait for it.
    from fer_ray.analysis import search_views

    views = search_views.build_views(search, found, front)
    folder = search.sweep.root
    written = [folder / name for name in ("trials.parquet", "epochs.parquet", "tables", "dashboard.html")]
    try:
        results.compact(search.sweep)
        _write_tables(folder / "tables", built, frame, found)
        (folder / "dashboard.html").write_text(
            _page(search, frame, built, [*findings, *unknown], views),
            encoding="utf-8",
        )
        if winner is not None:
            results.write_json(folder / RECIPE, searches.recipe(search, winner))
            written.insert(-1, folder / RECIPE)
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return written


def _tables(
    search: Search,
    frame: pd.DataFrame,
    found: list[Importance | None],
    winner: Proposal | None,
    front: list[Proposal],
) -> dict[str, list[Table]]:
    built = {"proposals": [told.proposal_table(search, frame)]}
    if any(found):
        built["importance"] = told.importance_tables(search, found)
    if winner is not None:
        built["neighbourhood"] = [told.neighbour_table(search, winner, searches.neighbours(search, winner))]
    if front:
        built["pareto"] = [told.front_table(search, front)]
    return built


def _page(
    search: Search, frame: pd.DataFrame, built: dict[str, list[Table]], findings: list[str], views: list[Any]
) -> str:
    from fer_ray.analysis import parts

    info, trials = search.sweep.info, search.sweep.trials
    name = str(info.get("name", search.sweep.root.name))
    facts = {
        "Data": parts.values(trials, "data_name"),
        "Training images": f"{info['num_train_images']:,}" if info.get("num_train_images") else None,
        "Sampler": info.get("sampler"),
        "Scheduler": info.get("scheduler"),
        "Seeds a proposal may run": ", ".join(map(str, info.get("seeds", []))),
        "Training time": parts.duration(pd.to_numeric(trials.get("train_seconds", pd.Series(dtype=float))).sum()),
    }
    columns = [column for column in frame if frame[column].notna().any()]
    listed = frame[columns].replace({"state": told.STATES}).rename(columns=_column_names(search))
    shares = {told.objective_label(c) for c in (*search.objectives, *searches.TEST_COLUMNS) if c not in COSTS}
    sections = [
        *map(parts.figure, views[:1]),
        _best_section(search, built),
        *map(parts.figure, views[1:]),
        parts.sortable("Proposals", listed, {*shares, "low", "high", "last value"}, "sgd complete"),
        page.section("notes", "Notes", page.paragraphs(told.notes(search))),
        parts.health(search.sweep),
    ]
    said = [*findings, told.status_text(search)]
    return parts.document(name, parts.header(info, name, said, facts), sections, views)


def _best_section(search: Search, built: dict[str, list[Table]]) -> str:
    """The best configuration as a command, those near it, and the front; nothing without a complete proposal."""
    shown = [table for key in ("neighbourhood", "pareto") for table in built.get(key, [])]
    if not shown:
        return ""
    # A caption inside a table would be folded to its width.
    content = [
        f'<div class="twin">{tables.to_html(replace(table, caption=""))}</div>{page.paragraphs([table.caption])}'
        for table in shown
    ]
    command = f"<pre><code>{escape(told.recipe_command(search))}</code></pre>"
    return page.section("best", "The best configuration", command + "".join(content))


def _column_names(search: Search) -> dict[str, str]:
    names = {name: told.objective_label(name) for name in (*search.objectives, *searches.TEST_COLUMNS)}
    return names | {"num_seeds": "seeds"} | {f"param.{p.name}": p.label for p in search.parameters}


def _write_tables(
    folder: Path, built: dict[str, list[Table]], frame: pd.DataFrame, found: list[Importance | None]
) -> None:
    folder.mkdir(exist_ok=True)
    numbers = {"proposals": frame, "importance": _importance_frame(found)}
    for name, parts in built.items():
        (folder / f"{name}.md").write_text("\n".join(map(tables.to_markdown, parts)), encoding="utf-8")
        (folder / f"{name}.tex").write_text("\n".join(map(tables.to_latex, parts)), encoding="utf-8")
        if name in numbers:
            (folder / f"{name}.csv").write_text(numbers[name].to_csv(index=False, lineterminator="\n"), "utf-8")


def _importance_frame(found: list[Importance | None]) -> pd.DataFrame:
    """A row per objective, method and parameter, or pair of them."""
    records = []
    for importance in filter(None, found):
        shares = [("PED-ANOVA", (name,), share) for name, share in importance.ped_anova.items()]
        shares += [("fANOVA", (name,), share) for name, share in importance.main.items()]
        records += [
            (importance.objective, method, " x ".join(names), share, importance.num_proposals)
            for method, names, share in [
                *shares,
                *(("fANOVA", pair, share) for pair, share in importance.pairs.items()),
            ]
        ]
    return pd.DataFrame(records, columns=["objective", "method", "parameters", "share", "num_proposals"])
