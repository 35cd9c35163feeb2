"""`dashboard.html`: one file that works offline, with all figures, tables and facts of a study."""

from typing import Any

import pandas as pd

from fer_ray import page
from fer_ray.analysis import parts, tables
from fer_ray.analysis.load import FOLD, OTHER_TESTS, SEED, Study, plain, status_text
from fer_ray.analysis.stats import METRICS
from fer_ray.analysis.tables import Table
from fer_ray.analysis.views import View

SCORES = tuple(f"test_{metric}" for metric in METRICS)
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
    """The page of a factorial sweep as HTML."""
    name = str(study.sweep.info.get("name", study.sweep.root.name))
    sections = [
        *map(parts.figure, views[:2]),
        page.section(
            "tables", "Tables", "".join(map(tables.to_html, built)) + page.paragraphs([" ".join(built[0].notes)])
        ),
        *map(parts.figure, views[2:]),
        _trial_table(study),
        _leaks(study),
        parts.health(study.sweep),
    ]
    return parts.document(name, parts.header(study.sweep.info, name, findings, _facts(study)), sections, views)


def _facts(study: Study) -> dict[str, Any]:
    info, trials = study.sweep.info, study.trials
    return {
        "Data": parts.values(trials, "data_name"),
        "Test": parts.values(trials, "test_name"),
        **{f"Test on {what}": parts.values(trials, f"{test}_name") for test, what in OTHER_TESTS.items()},
        "Training images": f"{info['num_train_images']:,}" if info.get("num_train_images") else None,
        "Seeds": ", ".join(map(str, sorted(trials[SEED].unique()))),
        "Trials": status_text(study.sweep),
        "Training time": parts.duration(pd.to_numeric(trials.get("train_seconds", pd.Series(dtype=float))).sum()),
    }


def _trial_table(study: Study) -> str:
    trials = study.sweep.trials
    axes = [*study.axes, SEED, *([FOLD] if FOLD in trials and trials[FOLD].notna().any() else [])]
    columns = ["id", *axes, "status", *(c for c in (*SCORES, *TRIAL_FACTS) if c in trials)]
    return parts.sortable("Trials", trials[columns], set(SCORES), "ResNet18 failed")


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
