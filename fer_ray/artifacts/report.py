"""The classification report, in the layout of scikit-learn's."""

from collections.abc import Iterable

import numpy as np

from fer_ray import metrics
from fer_ray.artifacts.judged import Judged
from fer_ray.artifacts.words import number, plain

COLUMNS = ("precision", "recall", "f1-score")


def classification_report(part: Judged) -> str:
    """Precision, recall, F1 and support of each class; accuracy, macro and weighted averages, all 0 to 1.

    It is the text of scikit-learn's `classification_report` with 4 digits where every value is defined. Where one is
    not, it is a dash that counts as 0 in the averages; a class without images is not in them.
    """
    assert part.labels is not None
    assert part.probabilities is not None
    values = metrics.classification_metrics(part.labels, part.probabilities, part.classes)
    names = [plain(name) for name in part.classes]
    width = max(len("weighted avg"), *map(len, names))
    cells = [[values[f"{key}_{name}"] for key in ("precision", "recall", "f1")] for name in part.classes]
    support = np.bincount(part.labels, minlength=len(names))
    table = np.array([[0.0 if cell is None else cell for cell in line] for line in cells])
    has_images = support > 0
    lines = [" " * width + " " + "".join(f" {name:>9}" for name in (*COLUMNS, "support")), ""]
    lines += [_line(name, width, line, count) for name, line, count in zip(names, cells, support, strict=True)]
    lines += [
        "",
        f"{'accuracy':>{width}} {'':>10}{'':>10} {values['accuracy']:>9.4f} {support.sum():>9}",
        _line("macro avg", width, table[has_images].mean(axis=0), support.sum()),
        _line("weighted avg", width, np.average(table, axis=0, weights=support), support.sum()),
        "",
        part.title,
    ]
    if not has_images.all():
        missing = ", ".join(name for name, count in zip(names, support, strict=True) if not count)
        lines.append(f"Without images here, so in no average: {missing}")
    return "\n".join(lines) + "\n"


def _line(name: str, width: int, values: Iterable[float | None], count: int) -> str:
    return f"{name:>{width}} " + "".join(f" {number(value, 4):>9}" for value in values) + f" {count:>9}"
