"""Parts that the page of a factorial sweep and that of a search share: figures with choices, tables to sort, health."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from fer_ray import page, results
from fer_ray.analysis import tables
from fer_ray.analysis.load import plain
from fer_ray.analysis.stats import METRICS
from fer_ray.analysis.tables import axis_label, number, value_text
from fer_ray.analysis.views import View


def document(name: str, header: str, sections: list[str], views: list[View]) -> str:
    """The page as HTML. Nothing is fetched: scripts and styles are inside, and its policy forbids connections."""
    body = "\n".join([header, "<main>", *sections, "</main>"])
    scripts = [get_plotlyjs(), _asset("dashboard.js")]
    data = {"views": {view.key: view.data() for view in views}}
    return page.document(name, body, data=data, scripts=scripts, styles=[_asset("dashboard.css")])


def header(info: Mapping[str, Any], name: str, findings: list[str], facts: Mapping[str, Any]) -> str:
    """The question, what was found, and the facts; a warning where faces are rendered ones."""
    warning = (
        '<p class="warning" role="note"><strong>Rendered demo faces.</strong> These figures show that the system '
        "works; they say nothing about real faces.</p>"
        if info.get("demo")
        else ""
    )
    return (
        f'<header><p class="name">{escape(name)}</p><h1>{escape(str(info.get("question") or name))}</h1>{warning}'
        f'<div class="findings">{page.paragraphs(findings)}</div>{page.facts(facts)}</header>'
    )


def figure(view: View) -> str:
    """A section with a view's figure, its selects, its caption and its numbers as a table."""
    selects = "".join(
        f"<label>{escape(select.label)} <select>"
        + "".join(
            f"<option{' selected' if place == select.first else ''}>{escape(option)}</option>"
            for place, option in enumerate(select.options)
        )
        + "</select></label>"
        for select in view.selects
    )
    return page.section(
        view.key,
        view.title,
        f'<div class="controls">{selects}</div><figure data-view="{view.key}"><div class="plot"></div>'
        f"<figcaption>{escape(view.caption)}</figcaption></figure>"
        '<details><summary>Numbers</summary><div class="twin"></div></details>',
    )


def sortable(title: str, frame: pd.DataFrame, scores: set[str], example: str) -> str:
    """A section with every row of a frame, sorted by a click on a column and filtered by words; one of a page.

    `scores` are the columns shown with three decimals; `example` stands in the empty filter.
    """
    head = "".join(
        f'<th scope="col" aria-sort="none"{_text_class(frame[column])}>'
        f'<button type="button">{escape(column_label(str(column)))}</button></th>'
        for column in frame
    )
    body = "".join(
        "<tr>" + "".join(_entry(plain(row[c]), _text_class(frame[c]), c in scores) for c in frame) + "</tr>"
        for _, row in frame.iterrows()
    )
    return page.section(
        "trials",
        title,
        f'<div class="controls"><label>Filter <input type="search" placeholder="{escape(example)}"></label> '
        '<output aria-live="polite"></output></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<table class="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
    )


def health(sweep: results.Sweep) -> str:
    """A section with what did not finish, the command, and the provenance of the finished trials."""
    info, trials = sweep.info, sweep.trials
    finished = trials[trials["status"] == results.FINISHED]
    failed = trials[trials["status"] == results.FAILED]
    errors = "".join(
        f"<li><code>{escape(row['id'])}</code>: {escape(str(plain(row.get('error')) or 'no error recorded'))}</li>"
        for _, row in failed.iterrows()
    )
    facts = {
        "Data digest": values(finished, "data_digest"),
        "Device": values(finished, "device"),
        "Precision": values(finished, "precision"),
        "Threads per trial": values(finished, "threads"),
        "Git commit": info.get("git_commit"),
        "Data notes": _record({k: v for k, v in (info.get("data") or {}).items() if k not in ("name", "digest")}),
        "Machine": _record(info.get("machine") or {}),
        "Versions": _record(info.get("versions") or {}),
    }
    said = "Every trial finished." if len(finished) == len(trials) else "No trial failed."
    problems = f"<ul>{errors}</ul>" if errors else f"<p>{said}</p>"
    command = f"<pre><code>{escape(str(info['command']))}</code></pre>" if info.get("command") else ""
    return page.section("health", "Run health and provenance", problems + command + page.facts(facts))


def values(trials: pd.DataFrame, column: str) -> str | None:
    """The different values of a column in words; None without the column."""
    return ", ".join(sorted(value_text(v) for v in trials[column].dropna().unique())) if column in trials else None


def duration(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def column_label(key: str) -> str:
    """A column of trials as people say it."""
    if "." in key:
        return axis_label(key)
    return METRICS.get(key.removeprefix("test_"), key.replace("_", " "))


def _asset(name: str) -> str:
    return files("fer_ray.analysis").joinpath(name).read_text(encoding="utf-8")


def _entry(value: Any, text_class: str, is_score: bool) -> str:
    if value is None or value is pd.NA:
        return f"<td{text_class}>{tables.MISSING}</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = number(value) if is_score else f"{value:,.6g}"
        return f'<td data-value="{value!r}">{text}</td>'
    return f"<td{text_class}>{escape(str(value))}</td>"


def _text_class(values: pd.Series) -> str:
    """Words are set flush left, numbers flush right."""
    return "" if pd.api.types.is_numeric_dtype(values) else " class=text"


def _record(value: Any) -> str:
    """A nested record of sweep.json in one line: `torch 2.15.0, ray 2.59.0`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_record(item)}" for key, item in value.items())
    return "; ".join(map(_record, value)) if isinstance(value, list) else value_text(value)
