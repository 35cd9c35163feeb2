"""What an inspection found as sentences and rows of tables, for the terminal and the page alike."""

from typing import get_args

import numpy as np

from fer_ray.data.store import Dataset
from fer_ray.data.votes import VoteMode, targets
from fer_ray.diagnostics.inspection import Copies, Files, counts

MAX_SIZES = 5
"""Sizes of image files that are named."""


def count_rows(dataset: Dataset) -> list[list]:
    """Head, a row per class and a row of sums: images in each split, in all, and their share."""
    by_split = counts(dataset)
    total = np.sum(list(by_split.values()), axis=0)
    names = [*dataset.classes, "(no class)"]
    rows: list[list] = [["class", *by_split, "all", "share"]]
    for i, name in enumerate(names):
        if i < len(dataset.classes) or total[i]:
            shares = f"{total[i] / total.sum():.1%}"
            rows.append([name, *(int(column[i]) for column in by_split.values()), int(total[i]), shares])
    rows.append(["all", *(int(column.sum()) for column in by_split.values()), int(total.sum()), "100%"])
    return rows


def form_name(dataset: Dataset) -> str:
    """`48x48 grey`, width first."""
    height, width, channels = dataset.images.shape[1:]
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


def file_sentences(files: Files) -> list[str]:
    """What the image files are, in words."""
    num_readable = sum(files.sizes.values())
    kinds = {"colour": files.num_colour, "grey": num_readable - files.num_colour}
    modes = " and ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
    sizes = [f"{w}x{h} ({number:,})" for (h, w), number in files.sizes.most_common(MAX_SIZES)]
    more = f" and {len(files.sizes) - MAX_SIZES:,} more sizes" if len(files.sizes) > MAX_SIZES else ""
    broken = f", {len(files.unreadable):,} unreadable" if files.unreadable else ", all readable"
    sentences = [f"{files.num_files:,} encoded images{broken}"]
    return [*sentences, f"as stored: {modes}; {', '.join(sizes)}{more}"] if num_readable else sentences


def copy_sentences(copies: Copies) -> list[str]:
    """What is there more than once, in words."""
    if copies.num_distinct == copies.num_images:
        return ["no two faces have the same pixels"]
    sentences = [f"{copies.num_distinct:,} different images among {copies.num_images:,}"]
    if copies.num_conflicts:
        sentences.append(f"{copies.num_conflicts:,} images are there under two labels or more")
    return sentences


def copy_rows(copies: Copies) -> list[list]:
    """Head and a row per split: copies beyond the first in it, and its images that another split has too."""
    if copies.num_distinct == copies.num_images:
        return [[]]
    splits = list(dict.fromkeys(split for split, _ in copies.across))
    head = ["copies", "within", *(f"in {other}" for other in splits if len(splits) > 1)]
    rows: list[list] = [head]
    for split in splits:
        elsewhere = ("" if other == split else copies.across[split, other] for other in splits if len(splits) > 1)
        rows.append([split, copies.across[split, split], *elsewhere])
    return rows


def more_sentences(dataset: Dataset) -> list[str]:
    """Valence and arousal, people and votes, in words, where the data set has them."""
    sentences = []
    for name in ("valence", "arousal"):
        values = getattr(dataset, name)
        if values is None:
            continue
        known = values[~np.isnan(values)]
        missing = f", {len(values) - len(known):,} faces have none" if len(known) < len(values) else ""
        low, mean, high = known.min(), known.mean(), known.max()
        sentences.append(f"{name} from {low:.2f} to {high:.2f}, mean {mean:.2f}, std {known.std():.2f}{missing}")
    if dataset.people is not None:
        sentences.append(f"{len(np.unique(dataset.people)):,} people, told from the file names")
    if dataset.votes is not None:
        usable = (
            f"{np.count_nonzero(targets(dataset.votes, mode).any(axis=1)):,} by {mode}" for mode in get_args(VoteMode)
        )
        sentences.append(f"faces that the annotators' votes can label: {', '.join(usable)}")
    return sentences
