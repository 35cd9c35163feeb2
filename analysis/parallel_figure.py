"""Parallel coordinates of a search: a line per proposal through all of its parameters.

Drawn as lines: plotly's own need a page that may compile code, which ours may not.
"""

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fer_ray.analysis.figures import PALETTE, finished_figure, rounded
from fer_ray.analysis.parameters import Parameter
from fer_ray.analysis.search import Search
from fer_ray.analysis.search_figures import STRONG, hover_text
from fer_ray.analysis.search_tables import measure, objective_label
from fer_ray.analysis.tables import value_text

GROUPS = ("best fifth", "second", "third", "fourth", "last fifth")
GROUP_COLOURS = (STRONG, PALETTE[4], PALETTE[5], PALETTE[0], "rgba(128,128,128,0.6)")
ABSENT = -0.14
"""Where a line passes an axis whose parameter its proposal does not have."""


def parallel_coordinates(search: Search, objective: int) -> go.Figure:
    """A line per complete proposal through its parameters, coloured by its fifth; the objective is the last axis."""
    space = [parameter for parameter in search.parameters if parameter.varies]
    ordered = sorted(search.complete, key=lambda p: search.loss(p, objective))
    values = np.array([search.mean(p, objective) for p in ordered])
    low, high = float(values.min()), float(values.max())
    places = list(range(len(space) + 1))
    traces = []
    for group, members in enumerate(np.array_split(np.arange(len(ordered)), len(GROUPS))):
        xs: list[Any] = []
        ys: list[Any] = []
        texts: list[str] = []
        for member in members:
            proposal = ordered[member]
            line = [p.position(proposal.params[p.name]) if p.name in proposal.params else ABSENT for p in space]
            line.append(0.5 if high == low else (values[member] - low) / (high - low))
            xs, ys = [*xs, *places, None], [*ys, *line, np.nan]
            texts += [hover_text(search, proposal)] * len(places) + [""]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": GROUPS[group],
                "x": xs,
                "y": rounded(ys),
                "text": texts,
                "line": {"color": GROUP_COLOURS[group], "width": 1.5},
                "marker": {"size": 4},
                "opacity": 0.85,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    has_absent = any(parameter.is_conditional for parameter in space)
    marks = [mark for place, p in enumerate(space) for mark in _axis_marks(place, p)]
    marks += [_mark(len(space), at, measure(end)) for at, end in ((0.0, low), (1.0, high))]
    return finished_figure(
        traces[::-1],
        {
            "xaxis": {
                "title": {"text": ""},
                "tickvals": places,
                "ticktext": [
                    escape(name).replace(" ", "<br>")
                    for name in (*(p.label for p in space), objective_label(search.objectives[objective]))
                ],
                "tickangle": 0,
                "range": [-0.25, len(places) - 0.4],
                "showgrid": True,
                "side": "top",
            },
            "yaxis": {
                "title": {"text": ""},
                "range": [ABSENT - 0.06 if has_absent else -0.09, 1.09],
                "showgrid": False,
                "showticklabels": has_absent,
                "tickvals": [ABSENT],
                "ticktext": ["not in it"],
            },
            "annotations": marks,
            "legend": {"traceorder": "reversed", "orientation": "h", "y": -0.04},
            "margin": {"l": 70, "r": 20, "t": 60, "b": 30},
            "height": 440,
        },
    )


def _axis_marks(place: int, parameter: Parameter) -> list[dict[str, Any]]:
    if parameter.choices:
        return [_mark(place, parameter.position(c), escape(value_text(c))) for c in parameter.choices]
    return [_mark(place, at, f"{end:.3g}") for at, end in ((0, parameter.low), (1, parameter.high))]


def _mark(place: int, at: float, text: str) -> dict[str, Any]:
    """The value at a point of a vertical axis: beyond its ends, or right of it, where lines do not run over it."""
    beside = {"xanchor": "left", "xshift": 5} if 0 < at < 1 else {"yshift": 11 if at else -11}
    return {"x": place, "y": at, "text": text, "showarrow": False, "font": {"size": 11}, **beside}
