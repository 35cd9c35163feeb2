"""Figures of importances as pure functions: what one parameter causes, and what two cause together."""

from html import escape

import numpy as np
import plotly.graph_objects as go

from fer_ray.analysis.figures import BLUES, PALETTE, finished_figure, grid_layout, rounded
from fer_ray.analysis.importance import Importance
from fer_ray.analysis.search_figures import legend
from fer_ray.analysis.tables import number


def importance_bars(importance: Importance, labels: dict[str, str]) -> go.Figure:
    """Both methods' shares of each parameter, the most important on top."""
    names = list(importance.ped_anova)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": method,
            "y": [escape(labels[name]) for name in names],
            "x": rounded([shares.get(name, np.nan) for name in names]),
            "text": [number(shares[name]) if name in shares else "not in it" for name in names],
            "textposition": "outside",
            "cliponaxis": False,
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}: {method} %{{text}}<extra></extra>",
        }
        for method, shares, colour in (
            ("PED-ANOVA", importance.ped_anova, PALETTE[0]),
            ("fANOVA", importance.main, PALETTE[4]),
        )
    ]
    return finished_figure(
        traces,
        {
            "barmode": "group",
            "xaxis": {"title": {"text": "share"}, "range": [0, 1.08], "tickformat": ".1f"},
            "yaxis": {"title": {"text": ""}, "autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
            "legend": legend(),
            "height": 130 + 48 * len(names),
        },
    )


def interactions(importance: Importance, labels: dict[str, str]) -> go.Figure:
    """Parameter x parameter: the share both cause together; on the diagonal what one causes alone."""
    names = list(importance.main)
    shares = {**importance.pairs, **{(b, a): share for (a, b), share in importance.pairs.items()}}
    shares |= {(name, name): share for name, share in importance.main.items()}
    shown = [escape(labels[name]) for name in names]
    trace = {
        "type": "heatmap",
        "x": shown,
        "y": shown,
        "z": [rounded([shares[a, b] for b in names]) for a in names],
        "text": [[number(shares[a, b]) for b in names] for a in names],
        "texttemplate": "%{text}",
        "textfont": {"size": 14},
        "hovertemplate": "%{y} × %{x}: %{text}<extra></extra>",
        "colorscale": BLUES,
        "zmin": 0,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".2f", "title": {"text": "share"}},
        "xgap": 2,
        "ygap": 2,
    }
    return finished_figure([trace], grid_layout("", "", len(names)) | {"width": 220 + 110 * len(names)})
