"""Tables: layout, marks, captions and escaping in every format."""

import io

import numpy as np
import pandas as pd
import pytest
from fake_results import FRACTIONS, SKILL, write_sweep
from rich.console import Console

from fer_ray.analysis import findings, stats, tables
from fer_ray.analysis.load import read_study
from fer_ray.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    failed = [("ResNet50", 0.3, 0)]
    return write_sweep(tmp_path_factory.mktemp("ratios"), num_images=400, demo=True, failed=failed)


@pytest.fixture(scope="module")
def built(root):
    study = read_study(root)
    return tables.build(study, stats.summarize(study, stats.bootstrap(study), "accuracy"), "accuracy")[0]


def table_of(root, **axes):
    study = read_study(root, **axes)
    return tables.build(study, stats.summarize(study, stats.bootstrap(study), "macro_f1"), "macro_f1")


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.4123, False, ".412"),
        (1.0, False, "1.000"),
        (-0.0214, True, "−.021"),
        (0.0214, True, "+.021"),
        (-0.0001, True, ".000"),
        (float("nan"), False, "–"),
    ],
)
def test_numbers_are_short_and_keep_their_sign(value, signed, text):
    assert tables.number(value, signed) == text


def test_rows_and_columns_follow_the_order_of_the_space(built):
    assert built.row_names == list(SKILL)
    assert built.column_names == ["0", "0.1", "0.3", "0.5", "1"]
    assert built.corner == ("model", "real fraction")


def test_rows_and_columns_can_be_swapped_by_naming_one(root):
    swapped = table_of(root, rows="data.real_fraction")[0]
    assert swapped.corner == ("real fraction", "model")
    assert swapped.column_names == list(SKILL)


def test_unknown_axis_names_the_nearest(root):
    with pytest.raises(UserError, match=r"--rows data.real_fracton.*did you mean 'data.real_fraction'"):
        read_study(root, rows="data.real_fracton")
    with pytest.raises(UserError, match="must differ"):
        read_study(root, rows="model.name", columns="model.name")


def test_cells_hold_the_mean_half_the_interval_and_the_chance_mark(root, built):
    study = read_study(root)
    summary = stats.summarize(study, stats.bootstrap(study), "accuracy").set_index(list(study.axes))
    for name, entries in zip(SKILL, built.entries, strict=True):
        for fraction, entry in zip(FRACTIONS, entries, strict=True):
            cell = summary.loc[(name, fraction)]
            if np.isnan(cell["mean"]):
                assert entry.text == "–"
                continue
            mean, half = entry.text.rstrip("°").split(" ±")
            assert float(mean) == pytest.approx(cell["mean"], abs=5.1e-4)
            assert float(half) == pytest.approx((cell["high"] - cell["low"]) / 2, abs=6e-4)
            assert entry.text.endswith("°") == (cell["low"] <= cell["chance"])


def test_one_entry_a_column_is_the_best(built):
    assert [sum(line[c].best for line in built.entries) for c in range(5)] == [1] * 5
    assert built.entries[list(SKILL).index("ConvNeXt-Tiny")][4].best


def test_notes_state_data_test_split_seeds_interval_failures_and_demo(built):
    text = " ".join(built.notes)
    for part in ("demo faces", "PrivateTest (400 images)", "10,500 training images", "one seed", "not over seeds"):
        assert part in text
    assert "Trials: 34 finished, 1 failed, 0 stopped." in text
    assert "– marks 1 cell without" in text


def test_tables_that_mix_precisions_say_so(root):
    study = read_study(root)
    study.trials.loc[0, "precision"] = "bfloat16"
    summary = stats.summarize(study, stats.bootstrap(study), "accuracy")
    assert "the tables mix precisions: bfloat16, float32" in " ".join(tables.notes(study, summary))


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([1, 1], "one seed, ± half the width of its 95 % interval: bootstrap over test images, not over seeds"),
        ([2, 2], "the mean of 2 seeds, ± half the width of its 95 % interval: bootstrap over test images, not"),
        ([3, 0], "the mean of 3 seeds, ± half the width of its 95 % interval: bootstrap over seeds and test images"),
        ([2, 3], "the mean of 2 to 3 seeds"),
    ],
)
def test_notes_say_which_bootstrap_was_used(seeds, expected):
    assert expected in tables.interval_text(pd.Series(seeds))


def test_folds_are_not_called_seeds(tmp_path):
    write_sweep(tmp_path, models=("ResNet18",), fractions=(1.0,), extra_axes={"data.fold": ("1/3", "2/3", "3/3")})
    study = read_study(tmp_path)
    text = " ".join(tables.notes(study, stats.summarize(study, stats.bootstrap(study), "accuracy")))
    assert "the mean of 3 runs" in text
    assert "1 seed by 3 folds" in text
    assert "seeds and test images" not in text


def test_a_third_axis_gives_a_table_for_each_of_its_values(tmp_path):
    root = write_sweep(
        tmp_path / "three", models=("ResNet18",), fractions=(0.0, 1.0), extra_axes={"training.patience": (None, 5)}
    )
    built = table_of(root)
    assert [table.title for table in built] == ["Macro F1 (patience none)", "Macro F1 (patience 5)"]
    assert built[0].entries != built[1].entries
    assert all(entry.text != "–" for table in built for entry in table.entries[0])


def test_a_space_with_one_axis_still_has_rows_and_columns(tmp_path):
    root = write_sweep(tmp_path / "lr", models=("ResNet18",), fractions=(1.0,))
    (root / "sweep.json").unlink()
    (table,) = table_of(root)
    assert (table.row_names, table.column_names) == (["ResNet18"], ["1"])
    assert not table.entries[0][0].best


def test_the_terminal_shows_seven_models_and_five_shares_in_100_columns(built):
    stream = io.StringIO()
    Console(file=stream, width=100).print(tables.to_rich(built))
    lines = stream.getvalue().splitlines()
    assert any("MobileNetV3-Large" in line and line.count("±") == 5 for line in lines)
    assert "…" not in stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 100])
def test_no_number_is_cut_where_seven_models_go_across(root, width):
    study = read_study(root, rows="data.real_fraction", columns="model.name")
    summary = stats.summarize(study, stats.bootstrap(study), "accuracy")
    (table,) = tables.build(study, summary, "accuracy")
    stream = io.StringIO()
    tables.print_whole(Console(file=stream, width=width), table)
    for entry in (entry for entries in table.entries for entry in entries):
        assert entry.text.replace(" ±", "±") in stream.getvalue()


def hostile():
    return tables.Table(
        "T",
        "50 % of_it",
        ["note & more"],
        ("model", "c#"),
        ["a|b_<script>", "[red]x[/red]"],
        ["$1 & 2"],
        [[tables.Entry(".1 ±.2°", best=True)], [tables.Entry("−.1")]],
    )


def test_markdown_escapes_pipes_and_marks_the_best():
    text = tables.to_markdown(hostile())
    assert "a\\|b_<script>" in text
    assert "**.1 ±.2°**" in text
    assert text.rstrip().endswith("50 % of_it note & more")


def test_latex_escapes_what_it_would_read_as_markup():
    text = tables.to_latex(hostile())
    assert r"a|b\_<script>" in text
    assert r"\$1 \& 2" in text
    assert r"50 \% of\_it note \& more" in text
    assert r"\textbf{.1 $\pm$.2$^\circ$}" in text
    assert r"\toprule" in text


def test_html_and_terminal_show_names_as_they_are():
    assert "a|b_&lt;script&gt;" in tables.to_html(hostile())
    stream = io.StringIO()
    Console(file=stream, width=100).print(tables.to_rich(hostile()))
    assert "[red]x[/red]" in stream.getvalue()


def test_headline_gives_the_effect_with_its_interval_and_the_best_cell(root):
    study = read_study(root)
    replicates = stats.bootstrap(study)
    effect = stats.effect(study, replicates, "accuracy", "data.real_fraction", 1.0, 0.0)
    first, second = findings.headline(study, replicates, "accuracy")
    assert first.startswith(
        f"Accuracy is {tables.number(effect.mean)} higher at real fraction 1 than at 0, mean over 7 m"
    )
    assert f"95 % interval {tables.number(effect.low)} to {tables.number(effect.high)}" in first
    assert "ConvNeXt-Tiny, real fraction 1" in second


def test_headline_does_not_claim_a_difference_whose_interval_holds_zero(tmp_path):
    root = write_sweep(tmp_path / "same", models=("ResNet18",), fractions=(0.99, 1.0), num_images=200)
    study = read_study(root)
    assert findings.headline(study, stats.bootstrap(study), "accuracy")[0].startswith("No clear difference in Accuracy")


def test_difference_table_compares_with_all_real_and_ends_with_the_mean(root):
    study = read_study(root)
    replicates = stats.bootstrap(study)
    frame = stats.differences(study, replicates, "accuracy", study.columns, findings.baseline(study))
    table = findings.difference_table(study, replicates, "accuracy", frame)
    assert table.title == "Accuracy less that at real fraction 1"
    assert table.column_names == ["0", "0.1", "0.3", "0.5"]
    assert table.row_names == [*SKILL, "mean"]
    assert table.entries[1][2].text == "–"
    assert table.entries[-1][0].text.startswith("−.")
