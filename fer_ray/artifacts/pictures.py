"""Pictures of one trial as pure functions to a matplotlib Figure, to be made and saved inside `style()`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fer_ray import metrics
from fer_ray.artifacts.judged import Judged
from fer_ray.artifacts.words import number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito (2008), told apart with every colour blindness; grey for their yellow, which white hides."""
LINES = ("-", "--", ":", "-.")

FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Hiragino Sans",
    "Arial Unicode MS",
)
"""Asked, where they are installed, for letters that matplotlib's own font does not have."""

HISTORY = {
    "loss": ("Loss", "loss, mean over the images"),
    "accuracy": ("Accuracy", "accuracy, 0 to 1"),
    "ccc": ("CCC of valence and arousal", "mean of both, −1 to 1"),
    "mae": ("MAE of valence and arousal", "mean of both, 0 to 2"),
}
"""Figure of an epoch -> its panel's title and axis."""


@contextmanager
def style() -> Iterator[None]:
    """The look of all pictures, whatever the user's matplotlibrc says. No text is read as mathematics."""
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "text.parse_math": False,
                "font.family": ["DejaVu Sans", *(name for name in FONTS if name in installed)],
                "axes.titlesize": 11,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "legend.frameon": False,
                "figure.constrained_layout.w_pad": 0.12,
                "figure.constrained_layout.h_pad": 0.12,
            }
        )
        yield


def save(figure: "Figure", path: Path) -> None:
    """Writes a PNG; the same figure gives the same bytes. OSError passes through."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def panels(
    title: str, num_panels: int, width: float, height: float, *, is_shared: bool = False
) -> "tuple[Figure, Sequence[Axes]]":
    """An empty figure of panels side by side, each of that size in inches, and their axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * num_panels, height), layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(1, num_panels, sharey=is_shared, squeeze=False)[0])


def training_history(row: dict[str, Any], epochs: pd.DataFrame) -> "Figure":
    """A panel for each figure that was followed, training and validation, with the phases and the chosen epoch."""
    columns = [f"{part}_{name}" for name in HISTORY for part in ("train", "validation")]
    values = epochs.reindex(columns=columns).apply(pd.to_numeric).dropna(axis="columns", how="all")
    shown = [name for name in HISTORY if not values.filter(like=f"_{name}").empty]
    figure, every = panels(f"Training of {plain(row['model.name'], 40)}", len(shown), 5, 4.4)
    for axes, name in zip(every, shown, strict=True):
        for i, (part, label) in enumerate((("train", "training"), ("validation", "validation"))):
            if (column := f"{part}_{name}") in values:
                axes.plot(epochs["epoch"], values[column], LINES[i], color=COLOURS[i], marker=".", label=label)
        _mark_epochs(axes, row, epochs)
        axes.set(title=HISTORY[name][0], xlabel="epoch", ylabel=HISTORY[name][1])
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def confusion_matrix(part: Judged) -> "Figure":
    """Counts, and shares of each true class, side by side: rows are true classes, columns predicted ones."""
    assert part.labels is not None
    assert part.probabilities is not None
    counts = metrics.confusion_matrix(part.labels, part.probabilities.argmax(axis=1), len(part.classes))
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    cell = min(0.75, 20 / len(counts))
    side = cell * len(counts)
    figure, (left, right) = panels(part.title, 2, side + 1.8, side + 2)
    _heatmap(left, counts, [[f"{count:,}" for count in line] for line in counts], part.classes, cell)
    _heatmap(right, shares, [[number(100 * share, 1) for share in line] for line in shares], part.classes, cell)
    left.set_title("number of images")
    right.set_title("% of the true class")
    return figure


def roc_curves(part: Judged) -> "Figure":
    """A curve for each class against the rest, with its area; a class for which it is not defined has a dash."""
    from sklearn.metrics import roc_curve

    assert part.labels is not None
    assert part.probabilities is not None
    areas = metrics.auroc_per_class(part.labels, part.probabilities)
    figure, (axes,) = panels(part.title, 1, 8.5, 6)
    for i, (name, area) in enumerate(zip(part.classes, areas, strict=True)):
        x, y = [], []
        if area is not None:
            x, y, _ = roc_curve(part.labels == i, part.probabilities[:, i])
        # The number comes first, as matplotlib leaves labels that begin with _ out.
        label = f"{number(area)}  {plain(name, 24)}"
        axes.plot(x, y, LINES[i // len(COLOURS) % len(LINES)], color=COLOURS[i % len(COLOURS)], label=label)
    mean = metrics.auroc(part.labels, part.probabilities)
    axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=1, label="0.500  chance")
    axes.set(title=f"One class against the rest; mean AUROC {number(mean)}", aspect="equal")
    axes.set(xlabel="false positive rate, 0 to 1", ylabel="true positive rate (recall), 0 to 1")
    columns = 1 + (len(areas) - 1) // 24
    axes.legend(title="AUROC", loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, alignment="left")
    return figure


def affect_scatter(part: Judged) -> "Figure":
    """Predicted against true valence and arousal, a dot per image."""
    assert part.affect is not None
    true, predicted = part.affect[:, :2], part.affect[:, 2:]
    values = metrics.affect_metrics(true, predicted)
    figure, every = panels(part.title, 2, 5, 5.2)
    for i, (axes, name) in enumerate(zip(every, ("valence", "arousal"), strict=True)):
        axes.plot([-1, 1], [-1, 1], color="#888888", linewidth=1)
        axes.scatter(true[:, i], predicted[:, i], s=9, color=COLOURS[i], alpha=0.35, linewidths=0)
        facts = ", ".join(f"{key.upper()} {number(values[f'{name}_{key}'])}" for key in ("ccc", "mae", "rmse"))
        axes.set(
            title=f"{name.capitalize()}: {facts}", xlabel=f"true {name}, −1 to 1", ylabel=f"predicted {name}, −1 to 1"
        )
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    return figure


def _mark_epochs(axes: "Axes", row: dict[str, Any], epochs: pd.DataFrame) -> None:
    """Whole numbers below, a grey line before each phase but the first, a dotted one at the chosen epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for phase, start in epochs.groupby("phase")["epoch"].min().iloc[1:].items():
        axes.axvline(start - 0.5, color="#AAAAAA", linewidth=1, label=f"phase {phase} begins")
    if row.get("chosen_epoch"):
        label = f"chosen epoch: {row['chosen_epoch']}"
        axes.axvline(row["chosen_epoch"], color="#000000", linewidth=1, linestyle=":", label=label)


def _heatmap(axes: "Axes", values: np.ndarray, texts: list[list[str]], classes: Sequence[str], cell: float) -> None:
    """A matrix with its numbers; `cell` is the side of a field in inches."""
    size = min(10, 18 * cell)
    axes.imshow(values, cmap="Blues", vmin=0)
    dark = 0.65 * np.nanmax(values, initial=0)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > dark else "black"
        axes.text(column, row, texts[row][column], ha="center", va="center", color=colour, fontsize=size)
    names = [plain(name, 18) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
