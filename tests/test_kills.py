"""A short campaign of kills, and that its examination would see what it looks for."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_ray.bench import kills

START = datetime(2026, 1, 1, tzinfo=UTC)


def campaign(folder: Path, events: list[tuple[str, str, int]], finished: dict[str, float]) -> kills.Campaign:
    """A campaign that ended, whose journal has an event, a trial and an epoch per second."""
    made = kills.Campaign(None, Path(), folder, random.Random(0), [])  # type: ignore[arg-type]
    (made.root / "tables").mkdir(parents=True)
    with (made.root / "journal.jsonl").open("w") as file:
        for second, (event, run_id, epoch) in enumerate(events):
            moment = (START + timedelta(seconds=second)).isoformat()
            file.write(json.dumps({"time": moment, "event": event, "id": run_id, "epoch": epoch}) + "\n")
        file.write('{"time": "2026-01-0')  # by a driver that was killed
    made.finished_at.update({run_id: START + timedelta(seconds=second) for run_id, second in finished.items()})
    for run_id in finished:
        (made.root / "trials" / run_id).mkdir(parents=True)
        row = {"id": run_id, "status": "finished", "test_accuracy": 0.5, "wall_seconds": len(events)}
        (made.root / "trials" / run_id / "row.json").write_text(json.dumps(row))
    return made


QUIET = [("start", "a", 0), ("epoch", "a", 1), ("epoch", "a", 2), ("epoch", "a", 3)]


def test_an_undisturbed_sweep_lost_nothing(tmp_path: Path) -> None:
    left, right = campaign(tmp_path / "1", QUIET, {"a": 4}), campaign(tmp_path / "2", QUIET[:2], {"a": 4})
    outcome = kills.examine(left, right.root, 1)
    assert outcome.is_good
    assert (outcome.starts, outcome.epochs_lost) == (1, [])


@pytest.mark.parametrize(
    ("events", "lost"),
    [
        (
            [
                ("start", "a", 0),
                ("epoch", "a", 1),
                ("start", "a", 0),
                ("restored", "a", 1),
                ("epoch", "a", 2),
                ("epoch", "a", 3),
            ],
            [],
        ),
        ([*QUIET, ("start", "a", 0), ("restored", "a", 2), ("epoch", "a", 3)], [1]),
        ([*QUIET, ("start", "a", 0), ("restored", "a", 1), ("epoch", "a", 2), ("epoch", "a", 3)], [2]),
    ],
)
def test_epochs_that_were_reported_and_trained_again_are_counted(tmp_path: Path, events, lost: list[int]) -> None:
    made = campaign(tmp_path, events, {"a": 99})
    outcome = kills.examine(made, made.root, 1)
    assert outcome.epochs_lost == lost
    assert outcome.is_good == (not lost)


def test_a_finished_trial_that_is_trained_again_is_seen(tmp_path: Path) -> None:
    made = campaign(tmp_path, [*QUIET, ("start", "a", 0), ("epoch", "a", 4)], {"a": 3.5})
    outcome = kills.examine(made, made.root, 1)
    assert outcome.trained_again == ["a"]
    assert not outcome.is_good


def test_the_last_epoch_is_reported_after_the_row_is_written(tmp_path: Path) -> None:
    made = campaign(tmp_path, QUIET, {"a": 2.5})
    assert kills.examine(made, made.root, 1).is_good


def test_a_trial_that_is_missing_is_seen(tmp_path: Path) -> None:
    made = campaign(tmp_path, QUIET, {"a": 4})
    assert not kills.examine(made, made.root, 2).is_good


def test_other_numbers_in_tables_and_rows_are_seen_and_other_costs_are_not(tmp_path: Path) -> None:
    left, right = campaign(tmp_path / "1", QUIET, {"a": 4}), campaign(tmp_path / "2", QUIET[:2], {"a": 4})
    assert kills.differences(left.root, right.root) == []
    (left.root / "tables" / "test_accuracy.csv").write_text("0.5")
    (right.root / "tables" / "test_accuracy.csv").write_text("0.50")
    row = {"id": "a", "status": "finished", "test_accuracy": 0.25, "wall_seconds": 1}
    (right.root / "trials" / "a" / "row.json").write_text(json.dumps(row))
    assert kills.differences(left.root, right.root) == ["test_accuracy.csv", "test_accuracy"]


def test_kills_are_of_all_kinds_and_come_while_trials_run() -> None:
    planned = kills.plan_kills(SimpleNamespace(kills=30, trials=40, epochs=5, nodes=2), random.Random(0))
    kinds = [kind for _, kind in planned]
    assert (len(kinds), kinds.count("node"), kinds.count("driver")) == (30, 8, 8)
    assert [when for when, _ in planned] == sorted(when for when, _ in planned)
    assert planned[-1][0] < 40 * 5


@pytest.mark.slow
def test_nothing_is_lost_when_workers_nodes_and_drivers_are_killed(capsys: pytest.CaptureFixture[str]) -> None:
    code = kills.command(["--kills=6", "--trials=8", "--epochs=4"])
    output = capsys.readouterr().out
    assert code == 0, output
    assert "6 kills" in output
    assert "trials lost: 0 of 8" in output
    assert "finished trials trained again: 0" in output
