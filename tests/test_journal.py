"""The journal: what happened, in order, by every driver."""

import json
import os
from pathlib import Path

import pytest
from tune_trials import as_trial, cell, ended, epoch

from fer_ray import results
from fer_ray.tuning.journal import Journal


def lines(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "journal.jsonl").read_text().splitlines()]


def test_what_happens_to_a_trial_is_told_in_order(tmp_path: Path) -> None:
    journal, trial = Journal(tmp_path), as_trial(cell("a"))
    journal.on_trial_start(0, [], trial)
    journal.on_trial_result(0, [], trial, epoch(1))
    journal.on_trial_recover(0, [], trial)
    journal.on_trial_start(0, [], trial)
    journal.on_trial_result(0, [], trial, epoch(1, is_restored=True))
    journal.on_trial_result(0, [], trial, epoch(2))
    trial.last_result = ended()
    journal.on_trial_result(0, [], trial, trial.last_result)
    journal.on_trial_complete(0, [], trial)
    told = [(line["event"], line.get("epoch"), line.get("status")) for line in lines(tmp_path)]
    assert told == [
        ("driver", None, None),
        ("start", None, None),
        ("epoch", 1, None),
        ("worker_died", None, None),
        ("start", None, None),
        ("restored", 1, None),
        ("epoch", 2, None),
        ("end", None, results.FINISHED),
    ]
    assert lines(tmp_path)[0]["pid"] == os.getpid()
    assert {line["host"] for line in lines(tmp_path) if line["event"] == "epoch"} == {"here"}
    assert [line["time"] for line in lines(tmp_path)] == sorted(line["time"] for line in lines(tmp_path))


def test_a_stopped_trial_and_one_that_is_given_up_end_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.on_trial_complete(0, [], as_trial(cell("stopped"), epoch(1)))
    journal.on_trial_error(0, [], as_trial(cell("lost")))
    assert [(line["id"], line["status"]) for line in lines(tmp_path)[1:]] == [
        ("stopped", results.STOPPED),
        ("lost", results.FAILED),
    ]


def test_a_second_driver_goes_on_in_the_same_file(tmp_path: Path) -> None:
    Journal(tmp_path).on_trial_start(0, [], as_trial(cell("a")))
    Journal(tmp_path)
    assert [line["event"] for line in lines(tmp_path)] == ["driver", "start", "driver"]


def test_a_full_disk_ends_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path)
    monkeypatch.setattr(Path, "open", full)
    journal.on_trial_start(0, [], as_trial(cell("a")))
