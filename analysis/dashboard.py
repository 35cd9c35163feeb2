"""`dashboard.html`: one file that works offline, with all figures, tables and facts of a study."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from fer_ray import page, results
from fer_ray.analysis import tables
from fer_ray.analysis.load import FOLD, OTHER_TESTS, SEED, Study, plain
from fer_ray.analysis.stats import METRICS
from fer_ray.analysis.tables import Table, axis_label, number, value_text
from fer_ray.analysis.views import View

SCORES = ("test_accuracy", "test_macro_f1", "test_macro_recall", "test_auroc")
TRIAL_FACTS = (
    "chosen_epoch",
    "num_train_real",
    "num_train_synthetic",
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "device",
    "precision",
    "threads",
)


def render(study: Study, findings: list[str], built: list[Table], views: list[View]) -> str:
    """The page as HTML. Nothing is fetched: scripts and styles are inside, and its policy forbids connections."""
    scripts = [get_plotlyjs(), _asset("dashboard.js")]
    name = str(study.sweep.info.get("name", study.sweep.root.name))
    data = {view.key: view.data() for view in views}
    body = [
        _header(study, name, findings),
        "<main>",
        *(_figure(view) for view in views[:2]),
        page.section(
            "tables", "Tables", "".join(map(tables.to_html, built)) + page.paragraphs([" ".join(built[0].notes)])
        ),
        *(_figure(view) for view in views[2:]),
        _trial_table(study),
        _leaks(study),
        _health(study),
        "</main>",
    ]
    return page.document(name, "\n".join(body), data={"views": data}, scripts=scripts, styles=[_asset("dashboard.css")])


def _asset(name: str) -> str:
    return files("fer_ray.analysis").joinpath(name).read_text(encoding="utf-8")


def _header(study: Study, name: str, findings: list[str]) -> str:
    info, trials = study.sweep.info, study.sweep.trials
    warning = (
        '<p class="warning" role="note"><strong>Rendered demo faces.</strong> These figures show that the system '
        "works; they say nothing about real faces.</p>"
        if info.get("demo")
        else ""
    )
    finished, total = len(study.trials), len(trials)
    facts = {
        "Data": _values(study.trials, "data_name"),
        "Test": _values(study.trials, "test_name"),
        **{f"Test on {what}": _values(study.trials, f"{test}_name") for test, what in OTHER_TESTS.items()},
        "Training images": f"{info['num_train_images']:,}" if info.get("num_train_images") else None,
        "Seeds": ", ".join(map(str, sorted(study.trials[SEED].unique()))),
        "Trials": f"{finished} finished, {total - finished} failed",
        "Training time": _duration(pd.to_numeric(study.trials.get("train_seconds", pd.Series(dtype=float))).sum()),
    }
    return (
        f'<header><p class="name">{escape(name)}</p><h1>{escape(str(info.get("question") or name))}</h1>{warning}'
        f'<div class="findings">{page.paragraphs(findings)}</div>{page.facts(facts)}</header>'
    )


def _figure(view: View) -> str:
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


def _trial_table(study: Study) -> str:
    trials = study.sweep.trials
    axes = [*study.axes, SEED, *([FOLD] if FOLD in trials and trials[FOLD].notna().any() else [])]
    columns = ["id", *axes, "status", *(c for c in (*SCORES, *TRIAL_FACTS) if c in trials)]
    head = "".join(
        f'<th scope="col" aria-sort="none"{_text_class(trials[c])}>'
        f'<button type="button">{escape(_column_label(c))}</button></th>'
        for c in columns
    )
    body = "".join(
        "<tr>"
        + "".join(_trial_entry(column, plain(row[column]), _text_class(trials[column])) for column in columns)
        + "</tr>"
        for _, row in trials.iterrows()
    )
    return page.section(
        "trials",
        "Trials",
        '<div class="controls"><label>Filter <input type="search" placeholder="ResNet18 failed"></label> '
        '<output aria-live="polite"></output></div><div class="scroll" tabindex="0" role="region" aria-label="Trials">'
        f'<table class="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
    )


def _trial_entry(column: str, value: Any, text_class: str) -> str:
    if value is None:
        return f"<td{text_class}>{tables.MISSING}</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = number(value) if column in SCORES else f"{value:,.6g}"
        return f'<td data-value="{value!r}">{text}</td>'
    return f"<td{text_class}>{escape(str(value))}</td>"


def _text_class(values: pd.Series) -> str:
    """Words are set flush left, numbers flush right."""
    return "" if pd.api.types.is_numeric_dtype(values) else " class=text"


def _leaks(study: Study) -> str:
    """Pictures that are in two parts of the data; nothing where the sweep did not look."""
    record = study.sweep.info.get("leakage")
    if not record or not record["sizes"]:
        return ""
    dropped = {bool(plain(value)) for value in study.trials.get("data.drop_leaks", [False])}
    head = ("parts", "images of the second", "with a copy in the first", "exact", "example", "its copy")
    rows = []
    for pair in record["between"]:
        example: dict[str, Any] = next(iter(pair["examples"]), {})
        rows.append(
            (
                f"{pair['first_part']} / {pair['second_part']}",
                record["sizes"][pair["second_part"]],
                pair["second_images"],
                pair["exact_second_images"],
                example.get("second"),
                example.get("first"),
            )
        )
    said = {
        (False,): "Nothing was left out of training.",
        (True,): "Copies of validation and test images were left out of training (--drop-leaks).",
        (False, True): "Copies were left out of training in the trials with drop leaks True, and in no other.",
    }[tuple(sorted(dropped))]
    said += " Tables on test images without a copy in training come from the same predictions."
    if FOLD in study.trials and study.trials[FOLD].nunique() > 1:
        said += " The numbers are those of the first fold; what validates in it is trained on in the others."
    looked = "Equal pixels, or near-duplicates by perceptual hash, compared before training."
    return page.section("leaks", "Copies across the data", page.paragraphs([looked, said]) + page.table(head, rows))


def _health(study: Study) -> str:
    info, trials = study.sweep.info, study.sweep.trials
    failed = trials[trials["status"] != results.FINISHED]
    errors = "".join(
        f"<li><code>{escape(row['id'])}</code>: {escape(str(plain(row.get('error')) or 'no error recorded'))}</li>"
        for _, row in failed.iterrows()
    )
    facts = {
        "Data digest": _values(study.trials, "data_digest"),
        "Device": _values(study.trials, "device"),
        "Precision": _values(study.trials, "precision"),
        "Threads per trial": _values(study.trials, "threads"),
        "Git commit": info.get("git_commit"),
        "Data notes": _record({k: v for k, v in (info.get("data") or {}).items() if k not in ("name", "digest")}),
        "Machine": _record(info.get("machine")),
        "Versions": _record(info.get("versions")),
    }
    problems = f"<ul>{errors}</ul>" if errors else "<p>Every trial finished.</p>"
    command = f"<pre><code>{escape(str(info['command']))}</code></pre>" if info.get("command") else ""
    return page.section("health", "Run health and provenance", problems + command + page.facts(facts))


def _record(value: Any) -> str:
    """A nested record of sweep.json in one line: `torch 2.15.0, ray 2.59.0`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_record(item)}" for key, item in value.items())
    return "; ".join(map(_record, value)) if isinstance(value, list) else value_text(value)


def _values(trials: pd.DataFrame, column: str) -> str | None:
    return ", ".join(sorted(value_text(v) for v in trials[column].dropna().unique())) if column in trials else None


def _column_label(key: str) -> str:
    if "." in key:
        return axis_label(key)
    return METRICS.get(key.removeprefix("test_"), key.replace("_", " "))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
