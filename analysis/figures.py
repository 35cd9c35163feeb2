"""Figures of a study as pure functions, frame -> plotly Figure. Titles and captions belong to the page around them."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from fer_ray.analysis.load import plain, where
from fer_ray.analysis.stats import METRICS
from fer_ray.analysis.tables import CHANCE_MARK, axis_label, number, value_text

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Okabe and Ito (2008), told apart with every colour blindness; grey for their black, which a dark page hides."""
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")
BLUES = ((0.0, "#f7fbff"), (0.3, "#c6dbef"), (0.6, "#85bcdc"), (0.8, "#2f7ebc"), (1.0, "#0a539e"))
GRID = "rgba(128,128,128,0.22)"
LOG_SPAN = 50
"""An axis whose largest value is this many times its smallest is drawn on a logarithmic scale."""


def curves(summary: pd.DataFrame, seeds: pd.DataFrame, *, rows: str, columns: str, metric: str) -> go.Figure:
    """The metric against the values of `columns`: a line with 95 % intervals for each value of `rows`, a dot per seed.

    `summary` is `stats.summarize`; `seeds` has a row per trial with the axes, `seed` and `value`.
    """
    levels = list(dict.fromkeys(plain(value) for value in summary[columns]))
    places = dict(zip(levels, _places(levels), strict=True))
    gap = min(np.diff(sorted(places.values())), default=1.0)
    names = list(dict.fromkeys(plain(value) for value in summary[rows]))
    traces: list[Any] = []
    for index, name in enumerate(names):
        # Lines of many networks meet at the same shares: moved apart a little, their intervals stay readable.
        shift = gap * 0.5 * (index - (len(names) - 1) / 2) / max(len(names), 6)
        colour, group = PALETTE[index % len(PALETTE)], f"row{index}"
        line = where(summary[summary["mean"].notna()], rows, name)
        dots = where(seeds, rows, name)
        hover = [
            f"<b>{escape(value_text(name))}</b>, {axis_label(columns)} {escape(value_text(plain(row[columns])))}<br>"
            f"{METRICS[metric]} {number(row['mean'])} [{number(row['low'])}, {number(row['high'])}], "
            f"seeds: {row['num_seeds']}"
            for _, row in line.iterrows()
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(value_text(name)),
                "legendgroup": group,
                "x": [places[plain(value)] + shift for value in line[columns]],
                "y": rounded(line["mean"]),
                "error_y": {
                    "array": rounded(line["high"] - line["mean"]),
                    "arrayminus": rounded(line["mean"] - line["low"]),
                    "symmetric": False,
                    "thickness": 1.2,
                    "width": 3,
                },
                "line": {"color": colour, "width": 2},
                "marker": {"symbol": MARKERS[index % len(MARKERS)], "size": 8},
                "text": hover,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
        if len(dots) > len(line):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": escape(value_text(name)) + ", seeds",
                    "legendgroup": group,
                    "showlegend": False,
                    "x": [places[plain(value)] + shift for value in dots[columns]],
                    "y": rounded(dots["value"]),
                    "marker": {"color": colour, "size": 5, "opacity": 0.45},
                    "text": [f"{escape(value_text(name))}, seed {seed}" for seed in dots["seed"]],
                    "hovertemplate": "%{text}: %{y:.3f}<extra></extra>",
                }
            )
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": axis_label(columns)},
            "tickvals": list(places.values()),
            "ticktext": [escape(value_text(level)) for level in levels],
            "showgrid": False,
        },
        "yaxis": {"title": {"text": METRICS[metric]}, "tickformat": ".2f"},
        "legend": {"title": {"text": axis_label(rows)}},
        "height": 460,
    }
    chance = summary["chance"].dropna()
    if len(chance) and np.ptp(chance) < 1e-9:
        level = float(chance.iloc[0])
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level}
            | {"line": {"dash": "dot", "width": 1.5, "color": "#888"}}
        ]
        layout["annotations"] = [
            {"xref": "paper", "x": 1, "xanchor": "right", "y": level, "yanchor": "bottom", "showarrow": False}
            | {"text": f"chance {number(level)}", "font": {"size": 11}}
        ]
    return finished_figure(traces, layout)


def heat_map(summary: pd.DataFrame, *, rows: str, columns: str, metric: str) -> go.Figure:
    """Rows x columns of the mean, with the value in the cell and a mark on those that reach chance."""
    names, levels = (list(dict.fromkeys(plain(value) for value in summary[key])) for key in (rows, columns))
    cells = {(plain(row[rows]), plain(row[columns])): row for _, row in summary.iterrows()}
    table = [[cells[name, level] for level in levels] for name in names]
    trace = {
        "type": "heatmap",
        "x": [escape(value_text(level)) for level in levels],
        "y": [escape(value_text(name)) for name in names],
        "z": [rounded([cell["mean"] for cell in line]) for line in table],
        "text": [[number(c["mean"]) + (CHANCE_MARK if c["reaches_chance"] else "") for c in line] for line in table],
        "customdata": [
            [f"[{number(c['low'])}, {number(c['high'])}], seeds: {c['num_seeds']}" for c in line] for line in table
        ],
        "texttemplate": "%{text}",
        "textfont": {"size": 14},
        "hovertemplate": f"%{{y}}, {axis_label(columns)} %{{x}}<br>{METRICS[metric]} %{{text}} %{{customdata}}"
        "<extra></extra>",
        "colorscale": BLUES,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".2f"},
        "xgap": 2,
        "ygap": 2,
    }
    return finished_figure([trace], grid_layout(axis_label(columns), axis_label(rows), len(names)))


def learning_curves(epochs: pd.DataFrame, chosen_epoch: float | None) -> go.Figure:
    """Loss, accuracy and macro F1 of one trial per epoch, on training and validation, with the chosen epoch marked."""
    traces: list[Any] = []
    layout: dict[str, Any] = {"height": 340, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}
    chosen = epochs[epochs["epoch"] == chosen_epoch]
    for panel, (quantity, label) in enumerate((("loss", "Loss"), ("accuracy", "Accuracy"), ("macro_f1", "Macro F1"))):
        axis = str(panel + 1) if panel else ""
        left = panel * 0.36
        layout[f"xaxis{axis}"] = {"domain": [left, left + 0.28], "anchor": f"y{axis}", "title": {"text": "epoch"}}
        layout[f"yaxis{axis}"] = {"anchor": f"x{axis}", "title": {"text": label}}
        for split, colour, dash in (("train", PALETTE[1], "dot"), ("validation", PALETTE[0], "solid")):
            name = "training" if split == "train" else split
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": panel == 0,
                    "x": epochs["epoch"].tolist(),
                    "y": rounded(epochs[f"{split}_{quantity}"]),
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "line": {"color": colour, "dash": dash, "width": 2},
                    "hovertemplate": f"{name}, epoch %{{x}}: %{{y:.3f}}<extra></extra>",
                }
            )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "chosen epoch",
                "legendgroup": "chosen",
                "showlegend": panel == 0,
                "x": chosen["epoch"].tolist(),
                "y": rounded(chosen[f"validation_{quantity}"]),
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "marker": {"symbol": "circle-open", "size": 12, "color": PALETTE[0], "line": {"width": 2}},
                "hovertemplate": "chosen epoch %{x}: %{y:.3f}<extra></extra>",
            }
        )
    return finished_figure(traces, layout)


def confusion(counts: npt.NDArray[np.int64], classes: Sequence[str], *, shares: bool) -> go.Figure:
    """A confusion matrix int64[C, C], rows true. Colour is the share of the row; the text that share, or the count.

    Coloured by count the most frequent class would outshine all others.
    """
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    names = [escape(name) for name in classes]
    percent = [["" if np.isnan(value) else f"{100 * value:.0f}" for value in line] for line in share]
    trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [rounded(line) for line in share],
        "text": percent if shares else [[f"{count}" for count in line] for line in counts],
        "customdata": [
            [f"{count} of {total} ({100 * count / total:.1f} %)" if total else "no image" for count in line]
            for line, (total,) in zip(counts, support, strict=True)
        ],
        "texttemplate": "%{text}",
        "textfont": {"size": 14},
        "hovertemplate": "true %{y}, predicted %{x}: %{customdata}<extra></extra>",
        "colorscale": BLUES,
        "zmin": 0,
        "zmax": 1,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".0%", "title": {"text": "of row"}},
        "xgap": 2,
        "ygap": 2,
    }
    return finished_figure([trace], grid_layout("predicted", "true", len(classes), row_height=52) | {"width": 640})


def class_f1(trials: pd.DataFrame, *, rows: str, row_values: Sequence[Any], classes: Sequence[str]) -> go.Figure:
    """F1 of each class, averaged over seeds, for each value of `rows`. `trials` are those of one column's value."""
    means = [[_mean(where(trials, rows, name)[f"test_f1_{c}"]) for c in classes] for name in row_values]
    supports = [_mean(trials[f"test_support_{c}"]) for c in classes]
    trace = {
        "type": "heatmap",
        "x": [f"{escape(c)}<br>n = {s:,.0f}" for c, s in zip(classes, supports, strict=True)],
        "y": [escape(value_text(name)) for name in row_values],
        "z": [rounded(line) for line in means],
        "text": [[number(value) for value in line] for line in means],
        "texttemplate": "%{text}",
        "textfont": {"size": 14},
        "hovertemplate": "%{y}, %{x}: F1 %{text}<extra></extra>",
        "colorscale": BLUES,
        "zmin": 0,
        "zmax": 1,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".1f", "title": {"text": "F1"}},
        "xgap": 2,
        "ygap": 2,
    }
    return finished_figure([trace], grid_layout("class, with its test images", axis_label(rows), len(row_values)))


def finished_figure(traces: list[Any], layout: dict[str, Any]) -> go.Figure:
    """The figure of these traces in the look that all figures share; every axis of `layout` has a title."""
    common = {
        "template": {},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 70, "r": 20, "t": 24, "b": 56},
        "hoverlabel": {"align": "left"},
        "colorway": PALETTE,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#8c959f", "activecolor": PALETTE[0]},
    }
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
    axes = {key: axis | value for key, value in layout.items() if key.startswith(("xaxis", "yaxis"))}
    for value in axes.values():
        value["title"] = {"standoff": 12} | value["title"]
    return go.Figure(data=traces, layout=common | layout | axes)


def grid_layout(across: str, down: str, num_rows: int, row_height: int = 40) -> dict[str, Any]:
    """The layout of a heat map with named rows and columns, the first row on top."""
    return {
        "xaxis": {"title": {"text": across}, "type": "category", "showgrid": False},
        "yaxis": {
            "title": {"text": down},
            "type": "category",
            "showgrid": False,
            "autorange": "reversed",
        },
        "height": 110 + row_height * num_rows,
    }


def _places(levels: Sequence[Any]) -> list[float]:
    """Where axis values stand: numbers on their own scale, logarithmic if they span it, all else evenly."""
    if not all(isinstance(level, int | float) for level in levels):
        return [float(place) for place in range(len(levels))]
    if min(levels) > 0 and max(levels) >= LOG_SPAN * min(levels):
        return [float(np.log10(level)) for level in levels]
    return [float(level) for level in levels]


def rounded(values: Any) -> list[float | None]:
    """Four decimals are more than an eye reads, and a third of the page's size; NaN is null."""
    return [round(float(value), 4) if pd.notna(value) else None for value in values]


def _mean(values: pd.Series) -> float:
    return float(pd.to_numeric(values).mean())
