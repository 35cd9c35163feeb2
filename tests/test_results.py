"""Result files: whole or not there, readable years later, and damaged ones named."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from fer_ray import results
from fer_ray.errors import UserError
from fer_ray.results import Sweep, Trial


def trial(trial_id: str, num_epochs: int = 2, **row: Any) -> Trial:
    epochs = pd.DataFrame(
        {name: [float(epoch) for epoch in range(num_epochs)] for name in results.EPOCH_COLUMNS}
        | {"id": [trial_id] * num_epochs, "epoch": list(range(num_epochs))}
    )
    predictions = pd.DataFrame(
        {
            "id": ["b", "a", "c", "d"],
            "split": ["test", "test", "validation", "test"],
            "label": ["happy", "sad", "sad", "happy"],
            "p_happy": pd.Series([0.75, 0.25, 0.5, 1.0], dtype="float32"),
            "p_sad": pd.Series([0.25, 0.75, 0.5, 0.0], dtype="float32"),
        }
    )
    return Trial({"id": trial_id, "status": results.FINISHED, "classes": ["happy", "sad"], **row}, epochs, predictions)


def write(root: Path, trial_id: str, **row: Any) -> Path:
    return results.write_trial(root / "trials" / trial_id, trial(trial_id, **row), {})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_written_trial_reads_back_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, "one", test_accuracy=0.5, chosen_epoch=1)
    sweep = results.load(tmp_path)
    assert sweep.root == tmp_path
    assert sweep.trials.to_dict("records") == [
        {"id": "one", "status": "finished", "classes": ["happy", "sad"], "test_accuracy": 0.5, "chosen_epoch": 1}
    ]
    pd.testing.assert_frame_equal(sweep.epochs, trial("one").epochs)
    assert results.read_rows(tmp_path) == [trial("one", test_accuracy=0.5, chosen_epoch=1).row]


def test_predictions_come_one_split_at_a_time_sorted_by_sample(tmp_path: Path) -> None:
    write(tmp_path, "one")
    sweep = results.load(tmp_path)
    test = sweep.predictions("one")
    assert test["id"].tolist() == ["a", "b", "d"]
    assert test.index.tolist() == [0, 1, 2]
    assert test["p_happy"].dtype == "float32"
    assert sweep.predictions("one", "validation")["id"].tolist() == ["c"]


def test_further_files_are_written_and_paths_moved_in(tmp_path: Path) -> None:
    weights = tmp_path / "weights.partial"
    weights.write_bytes(b"weights")
    folder = results.write_trial(
        tmp_path / "trials" / "one",
        trial("one"),
        {"command.txt": "python -m fer_ray.train --out é\n", "config.json": b"{}", "best.safetensors": weights},
    )
    assert (folder / "command.txt").read_text(encoding="utf-8").endswith("é\n")
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "best.safetensors").read_bytes() == b"weights"
    assert not weights.exists()


def test_writing_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, "one", status=results.FAILED)
    (folder / "best.safetensors").write_bytes(b"of the earlier run")
    write(tmp_path, "one")
    assert names(folder) == {"row.json", "epochs.parquet", "predictions.parquet"}
    assert results.read_json(folder / "row.json")["status"] == results.FINISHED


def test_a_failed_write_keeps_the_earlier_trial_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    folder = write(tmp_path, "one", test_accuracy=0.5)
    with pytest.raises(UserError, match="cannot write the trial's results"):
        results.write_trial(folder, trial("one", test_accuracy=0.9), {"best.safetensors": tmp_path / "missing"})
    assert names(tmp_path / "trials") == {"one"}
    assert results.read_json(folder / "row.json")["test_accuracy"] == 0.5


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *_, **__: full())
    with pytest.raises(UserError, match=r"trials/one: No space left on device"):
        write(tmp_path, "one")
    assert names(tmp_path / "trials") == set()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"results/trials/one: "):
        write(tmp_path / "results", "one")


def test_folders_that_a_crash_left_half_written_are_no_trials(tmp_path: Path) -> None:
    write(tmp_path, "one")
    staging = write(tmp_path, "two")
    staging.rename(staging.with_name(".two.0a1b2c3d"))
    (tmp_path / "trials" / "three").mkdir()
    assert results.load(tmp_path).trials["id"].tolist() == ["one"]


def test_trials_and_epochs_are_sorted_whatever_the_order_of_their_end(tmp_path: Path) -> None:
    for trial_id in ("b", "c", "a"):
        write(tmp_path, trial_id)
    sweep = results.load(tmp_path)
    results.compact(sweep)
    assert pq.read_table(tmp_path / "trials.parquet")["id"].to_pylist() == ["a", "b", "c"]
    epochs = pq.read_table(tmp_path / "epochs.parquet")
    order = list(zip(epochs["id"].to_pylist(), epochs["epoch"].to_pylist(), strict=True))
    assert order == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)]


def test_compacting_again_gives_the_same_bytes_and_leaves_no_partial_file(tmp_path: Path) -> None:
    write(tmp_path, "one", test_auroc=None)
    results.compact(results.load(tmp_path))
    files = {name: (tmp_path / name).read_bytes() for name in ("trials.parquet", "epochs.parquet")}
    results.compact(results.load(tmp_path))
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert names(tmp_path) == {"trials", *files}


def test_trials_with_other_columns_and_failed_ones_without_epochs_read_together(tmp_path: Path) -> None:
    write(tmp_path, "one", test_accuracy=0.5)
    results.write_trial(
        tmp_path / "trials" / "two", trial("two", num_epochs=0, status=results.FAILED, error="loss is not finite"), {}
    )
    sweep = results.load(tmp_path)
    assert sweep.trials["status"].tolist() == ["finished", "failed"]
    assert sweep.trials["test_accuracy"].isna().tolist() == [False, True]
    assert set(sweep.epochs["id"]) == {"one"}
    assert sweep.epochs["epoch"].dtype.kind == "i"
    results.compact(sweep)


def test_a_sweep_whose_trials_all_failed_at_once_still_has_the_epoch_columns(tmp_path: Path) -> None:
    results.write_trial(tmp_path / "trials" / "one", trial("one", num_epochs=0), {})
    sweep = results.load(tmp_path)
    assert tuple(sweep.epochs.columns) == results.EPOCH_COLUMNS
    assert len(sweep.epochs) == 0


def test_what_is_undefined_is_null_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    results.write_json(path, {"b": math.nan, "a": [math.inf, {"c": (-math.inf, 0.5)}], "n": None, "zero": 0.0})
    text = path.read_text()
    assert json.loads(text) == {"b": None, "a": [None, {"c": [None, 0.5]}], "n": None, "zero": 0.0}
    assert list(json.loads(text)) == ["b", "a", "n", "zero"]
    assert names(tmp_path) == {"value.json"}


def test_the_sweeps_own_facts_are_read_and_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path, "one")
    assert results.load(str(tmp_path)).info == {}
    results.write_json(tmp_path / "sweep.json", {"question": "Does it help?"})
    assert results.load(tmp_path).info == {"question": "Does it help?"}


def test_a_missing_and_an_empty_results_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results folder at .*missing"):
        results.load(tmp_path / "missing")
    with pytest.raises(UserError, match="no trial has ended yet"):
        results.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"id": "one"', b"\xff\xfe", b"[1, 2]", b"null"])
def test_a_damaged_row_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "fine")
    (write(tmp_path, "damaged") / "row.json").write_bytes(content)
    for read in (results.load, results.read_rows):
        with pytest.raises(UserError, match=r"trials/damaged/row\.json"):
            read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 cut short", b"x" * 100])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path, "one")
    (folder / "predictions.parquet").write_bytes(content)
    sweep: Sweep = results.load(tmp_path)
    with pytest.raises(UserError, match=r"one/predictions\.parquet cannot be read"):
        sweep.predictions("one")
    (folder / "epochs.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"one/epochs\.parquet cannot be read"):
        results.load(tmp_path)


def test_costs_are_the_columns_that_may_differ_between_equal_runs() -> None:
    assert {"train_seconds", "wall_seconds", "images_per_second", "peak_memory_mb"} <= set(results.COST_COLUMNS)
    assert not any(column.startswith(("test_", "validation_")) for column in results.COST_COLUMNS)


def test_in_a_cross_validation_what_validates_was_trained_on_too(tmp_path: Path) -> None:
    pairs = {"first": ["t1", "v1"], "second": ["a", "b"], "first_part": ["train", "validation"]}
    pairs |= {"second_part": ["test", "test"]}
    write(tmp_path, "one", **{"data.fold": "1/2"})
    results.write_leakage(tmp_path, pairs)
    assert results.load(tmp_path).leaked() == {"a"}
    write(tmp_path, "two", **{"data.fold": "2/2"})
    assert results.load(tmp_path).leaked() == {"a", "b"}
