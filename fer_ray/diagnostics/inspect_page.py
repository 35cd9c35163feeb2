"""The page of a data set: some faces of each class and split, and how classes, sizes and affect are distributed."""

from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fer_ray import page
from fer_ray.data.readers.images import to_shape
from fer_ray.data.store import Dataset
from fer_ray.diagnostics import inspect_words as words
from fer_ray.diagnostics.inspection import Copies, Files, Inspection, copies, counts
from fer_ray.errors import printable

ROW_WIDTH = 840
"""Pixels that the faces of a class take, over all splits."""

MAX_FACE_SIDE = 72
"""Pixels; larger faces are shrunk for the page."""

MAX_LISTED = 1_000
AFFECT_BINS = 40
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def render(found: Inspection) -> str:
    """The page as HTML; whatever comes from the data is escaped."""
    sections, figures = [_summary(found)], {}
    if found.problems:
        sections.append(_problems(found))
    if found.dataset is not None:
        dataset = found.dataset
        figures["classes"] = class_figure(dataset)
        head, *rows = words.count_rows(dataset)
        sections.append(page.section("classes", "Classes", page.figure("classes") + page.table(head, rows)))
        sections.append(page.section("faces", "Faces", _contact_sheet(dataset)))
        sections.append(page.section("copies", "Copies", _copies(copies(dataset))))
        if dataset.valence is not None and dataset.arousal is not None:
            figures["affect"] = affect_figure(dataset.valence, dataset.arousal)
            content = page.figure("affect") + page.paragraphs(words.more_sentences(dataset))
            sections.append(page.section("affect", "Valence and arousal", content))
    if found.files and len(found.files.sizes) > 1:
        figures["sizes"] = size_figure(found.files)
        content = page.figure("sizes", "Of the files, before they are brought to one size.")
        sections.append(page.section("sizes", "Sizes of the image files", content))
    return page.render(f"Data set {found.dataset.name if found.dataset else found.source}", sections, figures)


def class_figure(dataset: Dataset) -> go.Figure:
    """Bars: share of each class within each split."""
    bars = [
        go.Bar(
            name=split,
            x=list(dataset.classes),
            y=(column[:-1] / max(1, column[:-1].sum())).tolist(),
            customdata=column[:-1].tolist(),
            hovertemplate="%{x}, " + split + ": %{customdata:,} images, %{y:.1%}<extra></extra>",
            marker_color=colour,
        )
        for (split, column), colour in zip(counts(dataset).items(), COLOURS, strict=False)
    ]
    return _laid_out(go.Figure(bars), xaxis_title="class", yaxis_title="share of the split", yaxis_tickformat=".0%")


def size_figure(files: Files) -> go.Figure:
    """Histogram: shorter side of the readable files, in pixels."""
    sides = np.repeat([min(size) for size in files.sizes], list(files.sizes.values()))
    numbers, edges = np.histogram(sides, bins=min(50, int(np.ptp(sides)) + 1))
    middles = ((edges[1:] + edges[:-1]) / 2).round(1)
    bars = go.Bar(x=middles.tolist(), y=numbers.tolist(), marker_color=COLOURS[0])
    return _laid_out(go.Figure(bars), xaxis_title="shorter side in pixels", yaxis_title="files")


def affect_figure(valence: np.ndarray, arousal: np.ndarray) -> go.Figure:
    """Histograms of `valence` and `arousal`, float32 [n], NaN where there is none, and of both together."""
    edges = np.linspace(-1, 1, AFFECT_BINS + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).round(3).tolist()
    figure = make_subplots(1, 3, horizontal_spacing=0.08)
    for column, (name, values) in enumerate((("valence", valence), ("arousal", arousal)), 1):
        numbers, _ = np.histogram(values[~np.isnan(values)], bins=edges)
        bars = go.Bar(x=middles, y=numbers.tolist(), marker_color=COLOURS[0], hovertemplate="%{x:.2f}: %{y:,} faces")
        figure.add_trace(bars, 1, column)
        figure.update_xaxes(title=name, range=[-1, 1], row=1, col=column)
    known = ~(np.isnan(valence) | np.isnan(arousal))
    both, _, _ = np.histogram2d(arousal[known], valence[known], bins=[edges, edges])
    heat = go.Heatmap(
        x=middles,
        y=middles,
        z=[[number or None for number in row] for row in both.tolist()],
        colorscale="Viridis",
        colorbar_title="faces",
        hovertemplate="valence %{x:.2f}, arousal %{y:.2f}: %{z:,} faces<extra></extra>",
    )
    figure.add_trace(heat, 1, 3)
    figure.update_xaxes(title="valence", range=[-1, 1], row=1, col=3)
    figure.update_yaxes(title="arousal", range=[-1, 1], row=1, col=3)
    figure.update_yaxes(title="faces", row=1, col=1)
    return _laid_out(figure, showlegend=False)


def _laid_out(figure: go.Figure, **layout: object) -> go.Figure:
    legend = {"orientation": "h", "y": 1.12}
    return figure.update_layout(
        **{"height": 340, "margin": {"l": 60, "r": 20, "t": 30, "b": 50}, "legend": legend, **layout}
    )


def _summary(found: Inspection) -> str:
    facts: dict[str, object] = {"source": found.source, "layout": found.layout}
    sentences = words.file_sentences(found.files) if found.files else []
    if found.dataset is not None:
        dataset = found.dataset
        facts |= {
            "faces": f"{len(dataset.ids):,}",
            "used at": words.form_name(dataset),
            "different images": f"{copies(dataset).num_distinct:,}",
            "digest": dataset.digest,
        }
        sentences += dataset.notes
        if dataset.valence is None:
            sentences += words.more_sentences(dataset)
    return page.section("summary", "What it is", page.facts(facts) + page.paragraphs(sentences))


def _problems(found: Inspection) -> str:
    title = f"Problems ({len(found.problems):,})"
    items = "".join(f"<li>{escape(printable(problem))}</li>" for problem in found.problems[:MAX_LISTED])
    return page.section("problems", title, f'<div class="scroll"><ol>{items}</ol></div>')


def _copies(found: Copies) -> str:
    head, *rows = words.copy_rows(found)
    return page.paragraphs(words.copy_sentences(found)) + (page.table(head, rows) if rows else "")


def _contact_sheet(dataset: Dataset) -> str:
    """A table of strips: classes down, splits side by side."""
    splits = list(counts(dataset))
    shape = _thumbnail(dataset)
    per_strip = max(3, ROW_WIDTH // (len(splits) * shape[1]))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("class", *splits))
    rows = []
    for label, name in enumerate(dataset.classes):
        cells = []
        for split in splits:
            of_class = dataset.in_split(split)
            of_class = of_class[dataset.labels[of_class] == label]
            chosen = of_class[np.linspace(0, len(of_class) - 1, min(per_strip, len(of_class))).astype(int)]
            faces = to_shape(dataset.images[chosen], shape)
            cells.append(f"<td>{_strip(faces, f'{name}, {split}') if len(faces) else '–'}</td>")
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="twin"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        + page.paragraphs(["Drawn evenly over the samples in the order of their ids, which is random but fixed."])
    )


def _thumbnail(dataset: Dataset) -> tuple[int, int, int]:
    """Shape of a face on the page."""
    height, width, channels = dataset.images.shape[1:]
    scale = min(1.0, MAX_FACE_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale)), channels


def _strip(images: np.ndarray, alt: str) -> str:
    """Faces side by side."""
    return page.image(np.concatenate(list(images), axis=1), f"{len(images)} faces: {alt}")
