"""What a study found: the headline in words, and the paired differences along the column axis as a table."""

from dataclasses import fields
from typing import Any

import pandas as pd

from fer_ray.analysis import stats
from fer_ray.analysis.load import VARIANT, Study, plain, status_text
from fer_ray.analysis.stats import METRICS, Replicates
from fer_ray.analysis.tables import MISSING, Entry, Table, axis_label, number, value_text

SIGNIFICANCE = 0.05


def compared(study: Study) -> str:
    """The axis whose values are compared: that of an ablation's variants, else the columns."""
    return VARIANT if len(study.axes.get(VARIANT, [])) > 1 else study.columns


def headline(study: Study, replicates: Replicates, metric: str) -> list[str]:
    """Sentences: the mean difference between the ends of the compared axis, where it has ends, and the best cell."""
    return [*_ends(study, replicates, metric), _best(study, stats.summarize(study, replicates, metric), metric)]


def baseline(study: Study) -> Any:
    """What others are compared with: the largest number (all faces real), else the first value (the full recipe)."""
    levels = study.axes[compared(study)]
    return max(levels) if _numeric(levels) else levels[0]


def difference_table(study: Study, replicates: Replicates, metric: str, differences: pd.DataFrame) -> Table:
    """Every value of the compared axis against the baseline, paired, for each cell of the other axes and their mean.

    Columns are compared across, variants down. `differences` is `stats.differences` of the compared axis against
    `baseline(study)`.
    """
    base, axis = baseline(study), compared(study)
    others = [key for key in study.axes if key != axis]
    levels = [level for level in study.axes[axis] if level != base]
    names, entries = [], []
    for values, rows in differences.groupby(others, sort=False, dropna=False):
        found = {plain(row[axis]): row for _, row in rows.iterrows()}
        names.append(", ".join(value_text(plain(value)) for value in values))
        entries.append([_entry(found.get(level)) for level in levels])
    effects = {level: stats.effect(study, replicates, metric, axis, level, base) for level in levels}
    known = {level: effect for level, effect in effects.items() if effect is not None}
    columns = [field.name for field in fields(stats.Effect)]
    means = pd.DataFrame([vars(effect) for effect in known.values()], list(known), columns)
    means = means.rename(columns={"mean": "difference"}).assign(p_holm=stats.holm(means["p_value"]))
    if len(names) > 1:
        names.append("mean")
        entries.append([_entry(means.loc[level] if level in means.index else None) for level in levels])
    corner, level_names = (", ".join(map(axis_label, others)), axis_label(axis)), [value_text(v) for v in levels]
    if axis != study.columns:
        corner, names, level_names = (corner[1], corner[0]), level_names, names
        entries = [list(line) for line in zip(*entries, strict=True)]
    return Table(
        f"{METRICS[metric]} less that at {axis_label(axis)} {value_text(base)}",
        f"Paired by test image and seed, ± half the width of the 95 % interval; * Holm-corrected p below "
        f"{number(SIGNIFICANCE)[:-1]}, over {len(differences)} differences, and over {len(means)} for the mean "
        f"(normal distribution, bootstrap standard error{_over(study)}).",
        [f"Trials: {status_text(study.sweep)}."],
        corner,
        names,
        level_names,
        entries,
    )


def _over(study: Study) -> str:
    few = min(len(members) for members in study.members().values()) < stats.MIN_RESAMPLED
    return f" over test images; luck of the seeds counts from {stats.MIN_RESAMPLED} seeds on" if few else ""


def _entry(row: pd.Series | None) -> Entry:
    if row is None:
        return Entry(MISSING)
    mark = "*" if row["p_holm"] < SIGNIFICANCE else ""
    return Entry(f"{number(row['difference'], signed=True)} ±{number((row['high'] - row['low']) / 2)}{mark}")


def _ends(study: Study, replicates: Replicates, metric: str) -> list[str]:
    levels = study.axes[compared(study)]
    if len(levels) < 2 or not (_numeric(levels) or len(levels) == 2):
        return []
    low, high = (min(levels), max(levels)) if _numeric(levels) else levels
    found = stats.effect(study, replicates, metric, compared(study), high, low)
    if found is None:
        return []
    axis, name = axis_label(compared(study)), METRICS[metric]
    over = f", mean over {_what(study, found.num_pairs)}" if found.num_pairs > 1 else ""
    if found.low <= 0 <= found.high:
        interval = f"95 % interval {number(found.low, signed=True)} to {number(found.high, signed=True)}"
        difference = number(found.mean, signed=True)
        return [
            f"No clear difference in {name} between {axis} {value_text(high)} and {value_text(low)}: "
            f"{difference}{over} ({interval})."
        ]
    near, far = sorted((abs(found.low), abs(found.high)))
    direction = "higher" if found.mean > 0 else "lower"
    return [
        f"{name} is {number(abs(found.mean))} {direction} at {axis} {value_text(high)} than at {value_text(low)}"
        f"{over} (95 % interval {number(near)} to {number(far)})."
    ]


def _best(study: Study, summary: pd.DataFrame, metric: str) -> str:
    best, num_cells = summary.loc[summary["mean"].idxmax()], int((summary["num_seeds"] > 0).sum())
    score = (
        f"{METRICS[metric]} {number(best['mean'])} "
        f"(95 % interval {number(best['low'])} to {number(best['high'])}; chance {number(best['chance'])})."
    )
    varied = [key for key in study.axes if len(study.axes[key]) > 1]
    cell = ", ".join(f"{axis_label(key)} {value_text(plain(best[key]))}" for key in varied)
    return f"Best of {num_cells} cells: {cell}, {score}" if num_cells > 1 else score


def _what(study: Study, num_pairs: int) -> str:
    others = [key for key in study.axes if key != compared(study)]
    return (
        f"{num_pairs} {axis_label(others[0]).removesuffix('s')}s" if len(others) == 1 else f"{num_pairs} pairs of cells"
    )


def _numeric(levels: list[Any]) -> bool:
    return all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
