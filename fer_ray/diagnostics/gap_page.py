"""The page of the domain gap: tables, bars per class, and pictures of both domains by PCA and t-SNE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fer_ray import page
from fer_ray.data.store import Dataset
from fer_ray.diagnostics.features import Features
from fer_ray.diagnostics.gap_study import ALL, FLOOR, MEASURES, SYNTHETIC, Comparison, Group

MAX_POINTS = 2_000
"""Faces in a picture, of both domains together."""

TSNE_COMPONENTS = 50
"""Principal components that t-SNE starts from, as van der Maaten and Hinton (2008) do."""

PERPLEXITY = 30.0
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
BARS = ("frechet", "kid", "jensen_shannon", "accuracy")
GREY = "#8C959F"
AMBER = "#B88400"
GRID = {"gridcolor": "rgba(140, 149, 159, 0.3)", "zerolinecolor": GREY}
"""Lines that are seen on light and dark pages alike."""

BUTTONS = {
    "x": 0,
    "xanchor": "left",
    "y": 1.08,
    "showactive": False,  # plotly's mark of the active one is white on any page
    "bgcolor": "rgba(0, 0, 0, 0)",
    "bordercolor": GREY,
}


OVERALL_HEAD = ("measure", "synthetic", "real halves (floor)", "how to read it")
CLASS_HEAD = ("class", "against", "faces", *(measure.title for measure in MEASURES.values()))


def number(value: float) -> str:
    """Three digits, none beyond the fourth decimal."""
    return f"{round(value, 4) + 0.0:.3g}"  # adding 0 makes -0 a plain 0


def overall_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Rows below OVERALL_HEAD: every measure over all classes, of synthetic faces and of the floor."""
    by_against = {c.against: c.row() for c in comparisons if c.group == ALL}
    spread = {"kid": " [{kid_low:.2g}, {kid_high:.2g}]", "accuracy": " ± {accuracy_std:.2g}"}
    rows = []
    for key, measure in MEASURES.items():
        cells = [
            number(row[key]) + spread.get(key, "").format(**row) for row in (by_against[SYNTHETIC], by_against[FLOOR])
        ]
        rows.append((measure.title, *cells, measure.reading))
    return rows


def class_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Rows below CLASS_HEAD: a class against synthetic and against other real faces, or that its faces are too few."""
    rows = []
    for comparison in comparisons:
        if comparison.group == ALL:
            continue
        row = comparison.row()
        values = [number(row[key]) if comparison.gap else "–" for key in MEASURES]
        rows.append((comparison.group, comparison.against, f"{comparison.num_faces:,}", *values))
    return rows


@dataclass(frozen=True)
class Points:
    """Faces of a picture.

    Attributes:
        features: float [n, d].
        is_synthetic: bool [n].
        labels: int [n], index into `classes`.
        classes: names.
    """

    features: np.ndarray
    is_synthetic: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def points(group: Group, real: Dataset, synthetic: Dataset, features: tuple[Features, Features], seed: int) -> Points:
    """A random MAX_POINTS / 2 of the group's real faces, and as many synthetic ones; `features` hold them."""
    rng = np.random.default_rng(seed)
    shown = [rng.permutation(part)[: MAX_POINTS // 2] for part in (group.reference, group.synthetic)]
    return Points(
        np.concatenate([table.of(index) for table, index in zip(features, shown, strict=True)]).astype(np.float64),
        np.repeat([False, True], [len(index) for index in shown]),
        np.concatenate([data.labels[index] for data, index in zip((real, synthetic), shown, strict=True)]),
        real.classes,
    )


def render(
    title: str,
    comparisons: Sequence[Comparison],
    points: Points,
    made: Mapping[str, Any],
    notes: Sequence[str],
    seed: int,
) -> str:
    """The whole page: `made` says how the numbers came about, `notes` what they mean here; `seed` is for t-SNE."""
    features, count = points.features, len(points.features)
    pca = PCA(min(TSNE_COMPONENTS, *features.shape), svd_solver="full").fit(features)
    components = pca.transform(features)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    embedded = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    shares = pca.explained_variance_ratio_
    axes = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%} of the variance)")
    figures = {
        "bars": bars(comparisons),
        "pca": scatter(components, points, axes),
        "tsne": scatter(embedded, points, ("t-SNE 1", "t-SNE 2")),
    }
    overall = [c for c in comparisons if c.group == ALL]
    caption = f"{count // 2:,} faces of each domain, coloured by domain or by class; synthetic faces are crosses."
    return page.render(
        title,
        [
            page.section(
                "overall",
                f"All classes, {overall[0].num_faces:,} faces in each set",
                page.paragraphs(notes) + page.table(OVERALL_HEAD, overall_rows(comparisons)),
            ),
            page.section(
                "classes",
                "By class",
                page.figure("bars", BARS_CAPTION) + page.table(CLASS_HEAD, class_rows(comparisons)),
            ),
            page.section("pca", "Principal components", page.figure("pca", caption)),
            page.section(
                "tsne",
                "t-SNE",
                page.figure("tsne", f"{caption} Perplexity {perplexity:g}; distances between groups mean nothing."),
            ),
            page.section("definitions", "Definitions", page.facts({m.title: m.definition for m in MEASURES.values()})),
            page.section("made", "How it was made", page.facts(made)),
        ],
        figures,
    )


BARS_CAPTION = (
    "Blue: synthetic faces against real ones; grey: one half of the real faces against the other, with as many faces. "
    "What exceeds grey is the gap. Lines on the kernel distance are 95 % intervals, on the classifier one standard "
    "deviation over folds; its chance is .5."
)


def bars(comparisons: Sequence[Comparison]) -> go.Figure:
    """A panel per measure of BARS, a pair of bars per group that was measured."""
    figure = make_subplots(1, len(BARS), subplot_titles=[MEASURES[key].title for key in BARS], horizontal_spacing=0.06)
    for against, colour in ((SYNTHETIC, PALETTE[0]), (FLOOR, GREY)):
        measured = [c for c in comparisons if c.against == against and c.gap]
        groups = [escape(c.group) for c in measured]  # plotly reads some tags in texts
        values = [c.row() for c in measured]
        for column, key in enumerate(BARS, 1):
            spread: dict[str, Any] = {"color": AMBER}
            if key == "kid":
                spread |= {
                    "array": [row["kid_high"] - row["kid"] for row in values],
                    "arrayminus": [row["kid"] - row["kid_low"] for row in values],
                }
            if key == "accuracy":
                spread |= {"array": [row["accuracy_std"] for row in values]}
            trace = go.Bar(
                y=groups,
                x=[row[key] for row in values],
                error_x=spread,
                orientation="h",
                name=against,
                marker_color=colour,
                legendgroup=against,
                showlegend=column == 1,
            )
            figure.add_trace(trace, 1, column)
    for column, key in enumerate(BARS, 1):
        figure.update_xaxes(GRID, row=1, col=column)
        figure.update_yaxes(autorange="reversed", showticklabels=column == 1, row=1, col=column)
        if key == "accuracy":
            figure.update_xaxes(range=[0, 1], row=1, col=column)
            figure.add_vline(0.5, line_dash="dot", line_color=GREY, row=1, col=column)
    figure.update_layout(
        template="none", height=90 + 46 * (1 + len(groups)), margin={"l": 90, "r": 10, "t": 70, "b": 40}
    )
    figure.update_layout(legend={"orientation": "h", "y": -0.12}, barmode="group")
    return figure


def scatter(places: np.ndarray, points: Points, axes: tuple[str, str]) -> go.Figure:
    """The points at places[:, :2], coloured by domain, or by class after a click."""
    figure = go.Figure()
    domains = (("real", ~points.is_synthetic, "circle"), ("synthetic", points.is_synthetic, "x"))
    by_domain = [(name, chosen, PALETTE[i], symbol) for i, (name, chosen, symbol) in enumerate(domains)]
    by_class = [
        (f"{escape(name)}, {domain}", chosen & (points.labels == i), PALETTE[i % len(PALETTE)], symbol)
        for i, name in enumerate(points.classes)
        for domain, chosen, symbol in domains
    ]
    for place, (name, chosen, colour, symbol) in enumerate([*by_domain, *by_class]):
        figure.add_trace(
            go.Scatter(
                x=places[chosen, 0],
                y=places[chosen, 1],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 4, "opacity": 0.7},
                hoverinfo="name",
                visible=place < len(domains),
            )
        )
    shown = [[place < len(domains) for place in range(len(figure.data))]]
    shown.append([not visible for visible in shown[0]])
    buttons = [
        {"label": label, "method": "restyle", "args": ["visible", visible]}
        for label, visible in zip(("by domain", "by class"), shown, strict=True)
    ]
    figure.update_layout(
        template="none",
        height=560,
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        xaxis={"title": axes[0], **GRID},
        yaxis={"title": axes[1], **GRID},
        updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons, **BUTTONS}],
        legend={"itemsizing": "constant"},
    )
    return figure
