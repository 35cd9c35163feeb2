"""Figures hold the numbers they claim to show."""

import numpy as np
import pandas as pd
import pytest

from fer_ray.analysis import figures


def summary(columns=(0.0, 0.5, 1.0), rows=("A", "B")):
    records = [
        {"model.name": row, "data.real_fraction": column, "mean": 0.3 + 0.1 * r + 0.05 * c, "num_seeds": 2}
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
    ]
    frame = pd.DataFrame(records)
    return frame.assign(low=frame["mean"] - 0.02, high=frame["mean"] + 0.03, chance=0.25, reaches_chance=False)


def seeds(frame):
    twice = pd.concat([frame.assign(seed=seed, value=frame["mean"] + seed / 100) for seed in (0, 1)])
    return twice[["model.name", "data.real_fraction", "seed", "value"]]


PLACE = {"rows": "model.name", "columns": "data.real_fraction", "metric": "accuracy"}


def test_curves_show_means_intervals_and_a_dot_for_each_seed():
    frame = summary()
    figure = figures.curves(frame, seeds(frame), **PLACE)
    lines = [trace for trace in figure.data if "lines" in trace.mode]
    assert [line.name for line in lines] == ["A", "B"]
    assert list(lines[1].y) == pytest.approx([0.4, 0.45, 0.5])
    assert list(lines[0].error_y.array) == pytest.approx([0.03] * 3)
    assert list(lines[0].error_y.arrayminus) == pytest.approx([0.02] * 3)
    assert [len(trace.x) for trace in figure.data if trace.mode == "markers"] == [6, 6]
    assert figure.layout.shapes[0].y0 == 0.25


def test_curves_of_many_models_stay_nearest_to_their_own_share():
    frame = summary(rows=tuple("ABCDEFG"))
    figure = figures.curves(frame, seeds(frame), **PLACE)
    for trace in figure.data:
        if "lines" in trace.mode:
            np.testing.assert_allclose(trace.x, [0, 0.5, 1], atol=0.13)


def test_a_missing_cell_is_a_gap_not_a_zero():
    frame = summary()
    frame.loc[1, ["mean", "low", "high", "chance"]] = np.nan
    assert len(figures.curves(frame, seeds(frame), **PLACE).data[0].x) == 2
    heat = figures.heat_map(frame, **PLACE).data[0]
    assert heat.z[0][1] is None or np.isnan(heat.z[0][1])
    assert heat.text[0][1] == "–"


def test_axes_of_rates_are_logarithmic_and_of_names_even():
    assert figures._places([1e-4, 1e-3, 1e-2]) == pytest.approx([-4, -3, -2])
    assert figures._places(["none", "standard"]) == [0, 1]
    assert figures._places([0.0, 0.1, 1.0]) == [0, 0.1, 1]


def test_heat_map_keeps_the_order_of_the_axes_and_marks_chance():
    frame = summary()
    frame["reaches_chance"] = frame["mean"] < 0.31
    heat = figures.heat_map(frame, **PLACE).data[0]
    assert (list(heat.y), list(heat.x)) == (["A", "B"], ["0", "0.5", "1"])
    assert heat.text[0][0] == ".300°"
    assert heat.text[1][2] == ".500"


def test_learning_curves_mark_the_chosen_epoch_on_each_panel():
    epochs = pd.DataFrame({"epoch": [1, 2, 3]})
    for position, name in enumerate(("loss", "accuracy", "macro_f1")):
        epochs[f"train_{name}"] = position + 0.1
        epochs[f"validation_{name}"] = [position, position + 0.5, None]
    figure = figures.learning_curves(epochs, 2)
    rings = [trace for trace in figure.data if trace.name == "chosen epoch"]
    assert [ring.y[0] for ring in rings] == [0.5, 1.5, 2.5]
    assert figure.data[1].y[2] is None or np.isnan(figure.data[1].y[2])


def test_learning_curves_of_a_trial_without_epochs_are_empty():
    columns = ["epoch", *(f"{s}_{q}" for s in ("train", "validation") for q in ("loss", "accuracy", "macro_f1"))]
    assert all(len(trace.x) == 0 for trace in figures.learning_curves(pd.DataFrame(columns=columns), None).data)


def test_confusion_is_coloured_by_row_share_and_shows_percent_or_counts():
    counts = np.array([[3, 1, 0], [0, 6, 0], [0, 0, 0]])
    percent, absolute = (figures.confusion(counts, ("a", "b", "c"), shares=shares).data[0] for shares in (True, False))
    assert list(percent.z[0]) == [0.75, 0.25, 0]
    assert [list(line) for line in percent.text] == [["75", "25", "0"], ["0", "100", "0"], ["", "", ""]]
    assert list(absolute.text[0]) == ["3", "1", "0"]
    assert percent.customdata[2][0] == "no image"


def test_class_f1_is_the_mean_over_seeds():
    trials = pd.DataFrame(
        {"model.name": ["A", "A", "B"], "test_f1_sad": [0.2, 0.4, None], "test_support_sad": [9, 9, 9]}
    )
    heat = figures.class_f1(trials, rows="model.name", row_values=["A", "B"], classes=["sad"]).data[0]
    assert heat.text[0][0] == ".300"
    assert heat.text[1][0] == "–"
    assert heat.x[0] == "sad<br>n = 9"


def test_names_that_look_like_markup_are_escaped():
    frame = summary(rows=("<b>x</b>",))
    assert figures.curves(frame, seeds(frame), **PLACE).data[0].name == "&lt;b&gt;x&lt;/b&gt;"
