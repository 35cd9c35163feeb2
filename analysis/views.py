"""The dashboard's interactive figures: each a set of plotly figures, one for every choice of its selects."""

import json
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from fer_ray import metrics, results
from fer_ray.analysis import figures
from fer_ray.analysis.load import SEED, Study, plain, where
from fer_ray.analysis.stats import METRICS, Replicates
from fer_ray.analysis.tables import axis_label, value_text

Figures = dict[tuple[int, ...], go.Figure]
"""One option number per select -> the figure of that choice."""


@dataclass(frozen=True)
class Select:
    """A choice in the page: its label, its options, and the number of the one shown first."""

    label: str
    options: list[str]
    first: int = 0


@dataclass(frozen=True)
class View:
    """One figure of the page.

    Attributes:
        key: id in the page: lower-case letters and dashes.
        title, caption: plain text, escaped by the page.
        selects: the choices; with none there is one figure.
        figures: the figure of every choice.
    """

    key: str
    title: str
    caption: str
    selects: list[Select]
    figures: Figures

    def data(self) -> dict[str, Any]:
        """The figures as JSON: the first one whole, of the others only what differs, which is a tenth of the size."""
        whole = {",".join(map(str, key)): json.loads(figure.to_json()) for key, figure in self.figures.items()}
        base = next(iter(whole.values()))
        return {"base": base, "patches": {key: _patch(base, figure) for key, figure in whole.items()}}


def build_views(study: Study, replicates: Replicates, summaries: dict[str, pd.DataFrame], metric: str) -> list[View]:
    """All figures of the dashboard; `metric` is shown first."""
    panels = _Panels(study)
    names = list(replicates.values)
    chosen = Select("Metric", [METRICS[name] for name in names], names.index(metric))
    place = {"rows": study.rows, "columns": study.columns}
    lines: Figures = {}
    maps: Figures = {}
    for (m, name), (p, panel) in product(enumerate(names), enumerate(panels.values)):
        summary = panels.only(summaries[name], panel)
        seeds = study.trials[list(study.axes)].assign(seed=study.trials[SEED], value=replicates.values[name][:, 0])
        seeds = panels.only(seeds, panel)
        lines[(m, p)] = figures.curves(summary, seeds, **place, metric=name)
        maps[(m, p)] = figures.heat_map(summary, **place, metric=name)
    return [
        View(
            "curves",
            f"{_sentence(axis_label(study.rows))} by {axis_label(study.columns)}",
            "Mean of a cell with its 95 % interval; faint dots are single seeds. Lines are moved apart sideways a "
            "little so that intervals stay readable. Click a name to hide its line, twice to see it alone.",
            [chosen, *panels.selects],
            panels.keys(lines),
        ),
        View(
            "heat-map",
            f"{_sentence(axis_label(study.rows))} × {axis_label(study.columns)}",
            "Mean of each cell. ° marks a cell whose 95 % interval reaches chance.",
            [chosen, *panels.selects],
            panels.keys(maps),
        ),
        *_trial_views(study, metric),
        _class_view(study, panels),
    ]


class _Panels:
    """The combinations of the axes beyond rows and columns; a select of the page where there are several."""

    def __init__(self, study: Study) -> None:
        self.axes = study.other_axes
        self.values = list(product(*(study.axes[key] for key in self.axes)))
        names = [", ".join(value_text(value) for value in panel) for panel in self.values]
        label = ", ".join(_sentence(axis_label(key)) for key in self.axes)
        self.selects = [Select(label, names)] if len(self.values) > 1 else []

    def only(self, frame: pd.DataFrame, panel: tuple[Any, ...]) -> pd.DataFrame:
        for key, value in zip(self.axes, panel, strict=True):
            frame = where(frame, key, value)
        return frame

    def keys(self, made: Figures) -> Figures:
        return made if self.selects else {key[:-1]: figure for key, figure in made.items()}


def _trial_views(study: Study, metric: str) -> list[View]:
    best = int(pd.to_numeric(study.trials[f"test_{metric}"]).idxmax())
    trial = Select("Trial", study.trials["id"].tolist(), best)
    epochs = dict(iter(study.sweep.epochs.groupby("id", sort=False)))
    empty = pd.DataFrame(columns=results.EPOCH_COLUMNS)
    curves: Figures = {}
    matrices: Figures = {}
    for number, row in study.trials.iterrows():
        curves[(number,)] = figures.learning_curves(epochs.get(row["id"], empty), plain(row["chosen_epoch"]))
        answer = study.predictions[number]
        counts = metrics.confusion_matrix(answer.labels, answer.probabilities.argmax(axis=1), len(answer.classes))
        for mode, shares in enumerate((True, False)):
            matrices[(number, mode)] = figures.confusion(counts, answer.classes, shares=shares)
    return [
        View(
            "learning-curves",
            "Learning curves",
            "Dotted: training, with augmentation and in training mode, so it may lie below validation. Solid: "
            "validation. The ring is the epoch chosen on validation, from which the test split was read once.",
            [trial],
            curves,
        ),
        View(
            "confusion",
            "Confusion matrix",
            "Test images of one trial, true class down, predicted across. Colour is the share of the row.",
            [trial, Select("Numbers", ["Row percent", "Counts"])],
            matrices,
        ),
    ]


def _class_view(study: Study, panels: _Panels) -> View:
    levels = study.axes[study.columns]
    made: Figures = {}
    for (c, level), (p, panel) in product(enumerate(levels), enumerate(panels.values)):
        trials = where(panels.only(study.trials, panel), study.columns, level)
        classes = list(dict.fromkeys(name for answer in study.predictions for name in answer.classes))
        made[(c, p)] = figures.class_f1(trials, rows=study.rows, row_values=study.axes[study.rows], classes=classes)
    return View(
        "class-f1",
        "F1 of each class",
        "Mean over seeds on the test images; n counts the images of a class. A rare class moves with few images.",
        [
            Select(_sentence(axis_label(study.columns)), [value_text(level) for level in levels], len(levels) - 1),
            *panels.selects,
        ],
        panels.keys(made),
    )


def _patch(base: dict[str, Any], figure: dict[str, Any]) -> dict[str, Any]:
    if len(base["data"]) != len(figure["data"]):
        return figure
    return {
        "data": [
            {key: value for key, value in new.items() if old.get(key) != value}
            for old, new in zip(base["data"], figure["data"], strict=True)
        ],
        "layout": {key: value for key, value in figure["layout"].items() if base["layout"].get(key) != value},
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
