"""Figures of a search as pure functions, search -> plotly Figure; titles and captions belong to the page."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fer_ray.analysis.figures import LOG_SPAN, PALETTE, finished_figure, rounded
from fer_ray.analysis.parameters import Parameter
from fer_ray.analysis.search import Search, best, interval
from fer_ray.analysis.search_tables import STATES, measure, objective_label, point_text
from fer_ray.analysis.tables import value_text
from fer_ray.proposals import Proposal

QUIET, STRONG = "rgba(128,128,128,0.45)", PALETTE[1]


def history(search: Search, objective: int) -> go.Figure:
    """Every proposal by number: complete ones with their interval over seeds, stopped ones at their last value, and
    the best value so far.
    """
    name = search.objectives[objective]
    complete = search.complete
    values = [search.mean(p, objective) for p in complete]
    so_far = np.minimum.accumulate([search.loss(p, objective) for p in complete] or [np.nan])
    sign = -1 if search.directions[objective] == "maximize" else 1
    spans = [interval(search.seed_values(p, name)) for p in complete]
    traces = [
        _points(
            "complete",
            [p.number for p in complete],
            values,
            [hover_text(search, p) for p in complete],
            color=PALETTE[0],
        )
        | {
            "error_y": {
                "array": rounded([(span[1] - span[0]) / 2 if span else np.nan for span in spans]),
                "thickness": 1.2,
                "width": 3,
            }
        }
    ]
    if complete:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": [p.number for p in complete],
                "y": rounded(so_far * sign),
                "line": {"shape": "hv", "color": STRONG, "width": 2},
                "hoverinfo": "skip",
            }
        )
    if objective == 0:
        traces.append(_stopped(search, lambda proposal: proposal.number))
    return finished_figure(
        [trace for trace in traces if len(trace["x"])],
        {
            "xaxis": {"title": {"text": "proposal"}, "showgrid": False, "range": [-1, len(search.proposals)]},
            "yaxis": {"title": {"text": objective_label(name)}},
            "legend": legend(),
            "height": 400,
        },
    )


def slice_of(search: Search, parameter: Parameter, objective: int) -> go.Figure:
    """An objective against one parameter: complete proposals, stopped ones at their last value, and the best one."""
    winner = best(search)
    groups = {
        "complete": ([p for p in search.complete if p is not winner], PALETTE[0], 8),
        "best": ([winner] if winner else [], STRONG, 13),
    }
    traces = []
    for name, (members, colour, size) in groups.items():
        held = [p for p in members if parameter.name in p.params]
        places = [_place(parameter, p) for p in held]
        texts = [hover_text(search, p) for p in held]
        traces.append(_points(name, places, [search.mean(p, objective) for p in held], texts, colour, size))
    if objective == 0:
        traces.insert(0, _stopped(search, lambda proposal: _place(parameter, proposal), parameter.name))
    axis: dict[str, Any] = {"title": {"text": parameter.label}, "showgrid": bool(not parameter.choices)}
    if parameter.choices:
        axis |= {"tickvals": list(range(len(parameter.choices))), "ticktext": _choice_texts(parameter)}
        axis |= {"range": [-0.5, len(parameter.choices) - 0.5]}
    elif parameter.is_log:
        axis |= {"type": "log", "exponentformat": "none"}
        axis |= {"dtick": 1} if parameter.high / parameter.low >= LOG_SPAN else {}
    return finished_figure(
        [trace for trace in traces if len(trace["x"])],
        {
            "xaxis": axis,
            "yaxis": {"title": {"text": objective_label(search.objectives[objective])}},
            "legend": legend(),
            "height": 400,
        },
    )


def learning_curves(search: Search, column: str) -> go.Figure:
    """A column of the epochs, a line per run: finished ones, stopped ones faded, and the best proposal's."""
    winner = best(search)
    ours = {run.id for run in winner.runs} if winner else set()
    status = dict(zip(search.sweep.trials["id"], search.sweep.trials["status"], strict=True))
    runs = {str(key): frame for key, frame in search.sweep.epochs.groupby("id", sort=True)}
    groups = {
        "stopped": ([k for k in runs if status[k] == "stopped"], QUIET, 1.2),
        "finished": ([k for k in runs if status[k] == "finished" and k not in ours], PALETTE[0], 1.2),
        "best proposal": ([k for k in runs if k in ours], STRONG, 2.2),
    }
    traces = []
    for name, (members, colour, width) in groups.items():
        if not members:
            continue
        pieces = [runs[key] for key in members]
        traces.append(
            {
                "type": "scatter",
                # A run of one epoch is a point.
                "mode": "lines+markers",
                "marker": {"size": 3 if width < 2 else 5},
                "name": name,
                "x": [x for piece in pieces for x in [*piece["epoch"].tolist(), None]],
                "y": [y for piece in pieces for y in [*rounded(piece[column]), None]],
                "text": [
                    text
                    for key, piece in zip(members, pieces, strict=True)
                    for text in [*(f"{key}, epoch {epoch}" for epoch in piece["epoch"]), ""]
                ],
                "line": {"color": colour, "width": width},
                "opacity": 0.55 if name == "finished" else 1,
                "hovertemplate": "%{text}: %{y:.3f}<extra></extra>",
            }
        )
    return finished_figure(
        traces,
        {
            "xaxis": {"title": {"text": "epoch"}, "showgrid": False},
            "yaxis": {"title": {"text": objective_label(column)}},
            "legend": legend(),
            "height": 420,
        },
    )


def pareto(search: Search, front: list[Proposal], across: int, up: int) -> go.Figure:
    """Two objectives against each other, the front of all objectives joined."""
    numbers = {proposal.number for proposal in front}
    others = [p for p in search.complete if p.number not in numbers]
    joined = sorted(front, key=lambda p: search.mean(p, across))

    def points(name: str, members: list[Proposal], colour: str, size: int) -> dict[str, Any]:
        xs, ys = ([search.mean(p, k) for p in members] for k in (across, up))
        return _points(name, xs, ys, [hover_text(search, p) for p in members], colour, size)

    traces = [points("other", others, PALETTE[0], 8), points("front", joined, STRONG, 11)]
    if len(search.objectives) == 2:  # With more the front is a surface, and joining its points would mislead.
        # A step, since what lies between two points has been reached by one of them only.
        shape = "hv" if search.directions[across] == "minimize" else "vh"
        traces[1] |= {"mode": "lines+markers", "line": {"color": STRONG, "width": 1.5, "shape": shape}}
    return finished_figure(
        traces,
        {
            "xaxis": {"title": {"text": objective_label(search.objectives[across])}},
            "yaxis": {"title": {"text": objective_label(search.objectives[up])}},
            "legend": legend(),
            "height": 440,
        },
    )


def hover_text(search: Search, proposal: Proposal) -> str:
    """A proposal for who points at it."""
    values = proposal.values or []
    scores = ", ".join(
        f"{objective_label(name)} {measure(value)}" for name, value in zip(search.objectives, values, strict=False)
    )
    seeds = search.num_seeds(proposal)
    head = f"<b>proposal {proposal.number}</b> {STATES.get(proposal.state, proposal.state)}, seeds: {seeds}"
    return "<br>".join([head, *([scores] if scores else []), escape(point_text(search.parameters, proposal))])


def _points(
    name: str, xs: Iterable[Any], ys: Iterable[Any], texts: list[str], color: str, size: int = 8
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(xs),
        "y": rounded(ys),
        "text": texts,
        "marker": {"color": color, "size": size},
        "hovertemplate": "%{text}<extra></extra>",
    }


def _stopped(search: Search, place: Any, parameter: str | None = None) -> dict[str, Any]:
    """Stopped proposals at their last value, faded."""
    found = [
        (proposal, [value for _, value in sorted(proposal.intermediate.items()) if value is not None])
        for proposal in search.proposals
        if proposal.state == "pruned" and (parameter is None or parameter in proposal.params)
    ]
    found = [(proposal, values) for proposal, values in found if values]
    trace = _points(
        "stopped, last value",
        [place(proposal) for proposal, _ in found],
        [values[-1] for _, values in found],
        [f"{hover_text(search, proposal)}<br>{measure(values[-1])} when stopped" for proposal, values in found],
        QUIET,
    )
    return trace | {"marker": {"color": QUIET, "size": 7, "symbol": "circle-open"}}


def _place(parameter: Parameter, proposal: Proposal) -> Any:
    value = proposal.params[parameter.name]
    return parameter.choices.index(value) if parameter.choices else float(f"{value:.5g}")


def _choice_texts(parameter: Parameter) -> list[str]:
    return [escape(value_text(choice)) for choice in parameter.choices]


def legend() -> dict[str, Any]:
    """A legend in one line above the figure."""
    return {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
