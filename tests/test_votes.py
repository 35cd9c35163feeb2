import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.data.votes import targets

MODES = ("majority", "probability", "multi_target")

# Ten columns of fer2013new.csv, and what microsoft/FERPlus makes of them, run as it is: `_process_data`, then the share
# of each class as `load_folders` keeps it, {} where it drops the face. The first rows are the file's own, the later
# ones are ties and faces on the edge of being dropped.
GOLDEN = [
    ("4 0 0 1 3 2 0 0 0 0", {}, {0: 0.571429, 4: 0.428571}, {0: 0.571429, 4: 0.428571}),
    ("6 0 1 1 0 0 0 0 2 0", {0: 1}, {0: 1}, {0: 1}),
    ("4 0 0 4 1 0 0 0 1 0", {}, {0: 0.5, 3: 0.5}, {0: 0.5, 3: 0.5}),
    ("6 0 0 1 0 0 1 1 1 0", {0: 1}, {0: 1}, {0: 1}),
    ("0 10 0 0 0 0 0 0 0 0", {1: 1}, {1: 1}, {1: 1}),
    ("0 0 6 0 0 0 4 0 0 0", {2: 1}, {2: 0.6, 6: 0.4}, {2: 0.6, 6: 0.4}),
    ("5 0 0 3 0 0 0 0 2 0", {}, {0: 0.625, 3: 0.375}, {0: 0.625, 3: 0.375}),
    ("1 0 2 4 2 0 0 0 1 0", {}, {2: 0.25, 3: 0.5, 4: 0.25}, {}),
    ("4 2 4 0 0 0 0 0 0 0", {}, {0: 0.5, 2: 0.5}, {0: 0.5, 2: 0.5}),
    ("2 2 3 1 0 1 1 0 0 0", {}, {0: 0.285714, 1: 0.285714, 2: 0.428571}, {}),
    ("5 0 5 0 0 0 0 0 0 0", {}, {0: 0.5, 2: 0.5}, {0: 0.5, 2: 0.5}),
    ("5 0 1 0 0 0 0 0 4 0", {0: 1}, {0: 1}, {0: 1}),
    ("0 0 3 0 3 0 3 0 1 0", {}, {2: 0.333333, 4: 0.333333, 6: 0.333333}, {2: 0.333333, 4: 0.333333, 6: 0.333333}),
    ("3 0 2 1 1 0 0 0 3 0", {}, {}, {0: 1}),
    ("3 3 0 0 0 0 0 4 0 0", {}, {0: 0.3, 1: 0.3, 7: 0.4}, {0: 0.3, 1: 0.3, 7: 0.4}),
    ("0 2 0 3 2 2 0 0 1 0", {}, {}, {}),
    ("2 2 0 2 2 2 0 0 0 0", {}, {}, {}),
    ("3 0 0 0 0 0 0 0 7 0", {}, {}, {}),
    ("3 0 0 0 0 0 0 0 3 4", {}, {}, {}),
    ("2 2 0 0 0 0 0 0 4 2", {}, {}, {}),
    ("1 1 1 1 1 1 1 1 1 1", {}, {}, {}),
    ("0 0 0 0 0 0 0 0 0 10", {}, {}, {}),
    ("4 3 0 0 0 0 0 0 3 0", {}, {0: 0.571429, 1: 0.428571}, {0: 0.571429, 1: 0.428571}),
    ("2 0 0 2 0 2 0 0 2 2", {}, {0: 0.333333, 3: 0.333333, 5: 0.333333}, {}),
    ("5 2 0 0 0 0 0 0 3 0", {}, {}, {0: 1}),
    ("0 0 0 0 5 0 0 0 5 0", {}, {}, {4: 1}),
]


@pytest.mark.parametrize(("row", "majority", "probability", "multi_target"), GOLDEN)
def test_targets_are_those_of_the_authors_code(row, majority, probability, multi_target):
    votes = np.array([row.split()], np.uint8)
    for mode, golden in zip(MODES, (majority, probability, multi_target), strict=True):
        expected = [golden.get(column, 0) for column in range(8)]
        assert targets(votes, mode)[0] == pytest.approx(expected, abs=1e-5), mode


def test_a_batch_gives_what_its_rows_give():
    votes = np.array([row.split() for row, *_ in GOLDEN], np.uint8)
    for mode in MODES:
        rows = np.concatenate([targets(votes[i : i + 1], mode) for i in range(len(votes))])
        assert np.array_equal(targets(votes, mode), rows)
        assert rows.dtype == np.float32


@given(st.lists(st.lists(st.integers(0, 255), min_size=10, max_size=10), min_size=1, max_size=5))
def test_a_row_sums_to_one_or_is_dropped(rows):
    votes = np.array(rows, np.uint8)
    for mode in MODES:
        sums = targets(votes, mode).sum(axis=1)
        assert np.all((np.abs(sums - 1) < 1e-5) | (sums == 0))


def test_no_mode_trains_on_a_face_that_is_unknown_to_most():
    votes = np.array([[0, 3, 0, 0, 0, 0, 0, 0, 4, 3], [2, 2, 0, 0, 0, 0, 0, 0, 0, 6]], np.uint8)
    assert not any(targets(votes, mode).any() for mode in MODES)
