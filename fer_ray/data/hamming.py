"""Hashes of 64 bits near each other, all against all, in bounded time and memory even where thousands are alike."""

from collections.abc import Iterator

import numpy as np

_NEAREST = 16  # other hashes near one whose images are looked at
_FEW = 4  # images of one hash that are looked at on behalf of an image of another
_MANY = 1_000_000  # pairs of hashes after which all but the nearest are let go
_ROWS, _COLUMNS = 16, 4096  # hashes compared at once, such that they stay in the processor's cache


def neighbours(first: np.ndarray, second: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of numbers in two uint64 arrays of hashes that differ in at most `radius` bits, and in how many.

    Hashes that occur often are compared once, and of the candidates of an image only the nearest are kept, so that time
    and memory stay bounded where thousands of images are alike.
    """
    one, other = _Groups(first), _Groups(second)
    rows, columns, distance = _close(one.values, other.values, radius)
    near = _ranks(rows, distance) < _NEAREST
    own, partner = _members(one, rows[near], other, columns[near])
    near = _ranks(columns, distance) < _NEAREST
    other_own, other_partner = _members(other, columns[near], one, rows[near])
    pairs = np.unique(np.stack([np.r_[own, other_partner], np.r_[partner, other_own]]), axis=1)
    return pairs[0], pairs[1], np.bitwise_count(first[pairs[0]] ^ second[pairs[1]])


class _Groups:
    """Equal hashes. Of `order`, `count[i]` numbers from `start[i]` on are those of the hash `values[i]`."""

    def __init__(self, hashes: np.ndarray) -> None:
        self.values, inverse, self.count = np.unique(hashes, return_inverse=True, return_counts=True)
        self.order = np.argsort(inverse, kind="stable")
        self.start = np.cumsum(self.count) - self.count


def _members(all_of: _Groups, here: np.ndarray, few_of: _Groups, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of groups `here[i]`, `there[i]` as pairs of numbers: all members of the one, few of the other."""
    few = np.minimum(few_of.count[there], _FEW)
    size = all_of.count[here] * few
    nth = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    few, here, there = np.repeat(few, size), np.repeat(here, size), np.repeat(there, size)
    return all_of.order[all_of.start[here] + nth // few], few_of.order[few_of.start[there] + nth % few]


def _close(first: np.ndarray, second: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of numbers in two arrays of hashes within radius, with distances; the nearest of each at least."""
    found = [np.empty((3, 0), np.int64)]
    num_found = 0
    for pairs in _blocks(first, second, radius):
        found.append(pairs)
        num_found += pairs.shape[1]
        if num_found > _MANY:
            rows, columns, distance = together = np.concatenate(found, axis=1)
            kept = (_ranks(rows, distance) < _NEAREST) | (_ranks(columns, distance) < _NEAREST)
            found, num_found = [together[:, kept]], 0
    rows, columns, distance = np.concatenate(found, axis=1)
    return rows, columns, distance


def _blocks(first: np.ndarray, second: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """int64 [3, n] at a time: numbers in both arrays and distances of all pairs of hashes within radius.

    All pairs by exclusive or and bit count cost .8 ns each. Of a block where most pairs are close, only the nearest one
    of each row and column is returned.
    """
    buffer = np.empty(_ROWS * _COLUMNS, np.uint64), np.empty(_ROWS * _COLUMNS, np.uint8)
    for top in range(0, len(second), _ROWS):
        below = second[top : top + _ROWS, None]
        for left in range(0, len(first), _COLUMNS):
            across = first[None, left : left + _COLUMNS]
            shape = len(below), across.shape[1]
            different, distance = (array[: shape[0] * shape[1]].reshape(shape) for array in buffer)
            np.bitwise_count(np.bitwise_xor(below, across, out=different), out=distance)
            hits = np.flatnonzero(distance <= radius)
            if len(hits) > _COLUMNS:
                nearest = np.zeros(distance.shape, bool)
                nearest[distance.argmin(axis=0), np.arange(distance.shape[1])] = True
                nearest[np.arange(distance.shape[0]), distance.argmin(axis=1)] = True
                hits = np.flatnonzero(nearest & (distance <= radius))
            if len(hits):
                row, column = np.divmod(hits, distance.shape[1])
                yield np.stack([column + left, row + top, distance.ravel()[hits].astype(np.int64)])


def _ranks(groups: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """int64 [n]: how many pairs of the same group are nearer, or as near and earlier."""
    order = np.lexsort((distance, groups))
    starts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]][: len(order)])
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return ranks
