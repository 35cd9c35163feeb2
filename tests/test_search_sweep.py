"""Searches from the command line to tables, through a real Ray and Optuna."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from fer_ray import results
from fer_ray.proposals import Proposal, read_proposals

PATIENCE_SECONDS = 600

SPACE = """
from fer_ray.space import Search


def suggest(trial):
    values = {"optimizer.learning_rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True)}
    if trial.suggest_categorical("sam", (False, True)):
        values["optimizer.sam_rho"] = trial.suggest_float("rho", 0.01, 0.5, log=True)
    return values


SPACE = Search(
    name="little",
    question="Which rate?",
    suggest=suggest,
    known=({"rate": 1e-3, "sam": False},),
    base={
        "model.name": "ShuffleNetV2-x1.0",
        "data.image_size": 32,
        "data.num_train_images": 64,
        "training.epochs": 3,
        "training.batch_size": 16,
    },
)
"""


def two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def sweep(root: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a sweep whose results are in `root`, and which ends with this code."""
    given = [f"--storage={root.parent}", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-m", "fer_ray.sweep", *given],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        preexec_fn=two_cores,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def start(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Starts a search of the space above, in a user's own file."""
    space = root.parent / "little.py"
    space.write_text(SPACE)
    return sweep(root, f"--space={space}", f"--name={root.name}", "--device=cpu", *arguments)


def rows_of(root: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in results.read_rows(root)}


def check(root: Path, num_trials: int) -> list[Proposal]:
    """What holds for every search: files, rows, study and tables agree."""
    proposals, rows = read_proposals(root), rows_of(root)
    assert [proposal.number for proposal in proposals] == list(range(len(proposals)))
    assert sum(proposal.state != "repeated" for proposal in proposals) == num_trials
    assert not any(proposal.state == "running" for proposal in proposals)
    runs = {run.id: (run.status, proposal.number) for proposal in proposals for run in proposal.runs}
    assert {run_id: (row["status"], row["proposal"]) for run_id, row in rows.items()} == runs
    for row in rows.values():
        tested = [name for name in row if name.startswith("test_") and name not in ("test_reads", "test_name")]
        if row["status"] == results.STOPPED:
            assert tested == []
            assert (row["test_reads"], row["epochs_run"]) in ((0, 1), (0, 2))
            assert not (root / "checkpoints" / row["id"]).exists()
        else:
            assert (row["status"], row["epochs_run"], row["test_reads"]) == (results.FINISHED, 3, 1)
            assert row["test_macro_f1"] is not None
    study = optuna.load_study(study_name="little", storage=f"sqlite:///{root / 'study.db'}")
    of_state = {"complete": "COMPLETE", "repeated": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    mirrored = {trial.user_attrs["proposal"]: trial.state.name for trial in study.trials}
    assert {p.number: of_state[p.state] for p in proposals if p.state != "repeated"} == {
        number: state for number, state in mirrored.items() if proposals[number].state != "repeated"
    }
    assert len(mirrored) == len(study.trials)
    assert len(pd.read_parquet(root / "trials.parquet")) == len(rows)
    assert list((root / "tables").iterdir())
    assert (root / "dashboard.html").exists()
    assert not (root / ".tune").exists()
    return proposals


@pytest.mark.slow
def test_a_search_with_asha_over_two_seeds_can_be_resumed_and_extended(tmp_path: Path) -> None:
    root = tmp_path / "asha"
    start(root, "--sampler=tpe", "--scheduler=asha", "--trials=8", "--seeds=0,1")
    proposals = check(root, 8)
    assert proposals[0].source == "known"
    assert proposals[0].params == {"rate": 1e-3, "sam": False}
    states = {proposal.state for proposal in proposals}
    assert {"complete", "pruned"} <= states
    for proposal in proposals:
        if proposal.state == "pruned":
            assert proposal.intermediate, "the epoch at which it was stopped is told"
    assert max(len(proposal.runs) for proposal in proposals) == 2

    rows = rows_of(root)
    resumed = sweep(root, "--resume=asha")
    assert rows_of(root) == rows
    assert "8 of 8 proposals judged" in resumed.stdout
    sweep(root, "--extend=asha", "--trials=2")
    more = check(root, 10)
    assert more[: len(proposals)] == proposals
    assert {name: row for name, row in rows_of(root).items() if name in rows} == rows


@pytest.mark.slow
def test_hyperband_pauses_trials_and_goes_on_with_them(tmp_path: Path) -> None:
    root = tmp_path / "hyperband"
    start(root, "--scheduler=hyperband", "--trials=8", "--seeds=0")
    check(root, 8)


@pytest.mark.slow
def test_a_population_gives_places_to_copies_and_ends_with_a_config(tmp_path: Path) -> None:
    root = tmp_path / "pbt"
    start(root, "--scheduler=pbt", "--trials=4", "--seeds=0")
    proposals, rows = read_proposals(root), rows_of(root)
    assert {run.id: run.status for p in proposals for run in p.runs} == {k: row["status"] for k, row in rows.items()}
    assert Counter(proposal.state for proposal in proposals) == {"complete": 4, "pruned": 2}
    assert {row["epochs_run"] for row in rows.values() if row["status"] == results.STOPPED} == {1, 2}
    assert not (root / "checkpoints").exists() or not list((root / "checkpoints").iterdir())
    best = max((proposal for proposal in proposals if proposal.state == "complete"), key=lambda p: p.values or [0])
    recipe = results.read_json(root / "best_recipe.json")
    assert recipe["training.phases"] == best.config["training.phases"]
    assert "rate by generation" in (root / "tables" / "proposals.md").read_text()

    resumed = sweep(root, "--resume=pbt")
    assert "4 of 4 proposals judged" in resumed.stdout
    assert (read_proposals(root), rows_of(root)) == (proposals, rows)
    for arguments, problem in (
        (["--extend=pbt", "--trials=2"], "a population stays as large as it began"),
        (["--resume=pbt", "--trials=6"], "trials: 4 before, 6 now"),
        (["--resume=pbt", "--seeds=0,1"], "a population is trained with one seed"),
        (["--resume=pbt", "--scheduler=asha"], "scheduler: pbt before, asha now"),
    ):
        refused = sweep(root, *arguments, code=2)
        assert problem in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_two_objectives_give_a_front(tmp_path: Path) -> None:
    root = tmp_path / "two"
    start(root, "--objectives=validation_macro_f1,images_per_second", "--sampler=nsga2", "--trials=6", "--seeds=0")
    proposals = check(root, 6)
    rows = rows_of(root)
    for proposal in proposals:
        row = rows[proposal.runs[0].id] if proposal.runs else None
        if row is not None:
            assert proposal.values == [row["validation_macro_f1"], row["images_per_second"]]
    assert results.read_json(root / "sweep.json")["directions"] == ["maximize", "maximize"]


@pytest.mark.slow
def test_a_budget_ends_a_search_in_order_and_resume_finishes_it(tmp_path: Path) -> None:
    root = tmp_path / "short"
    ended = start(root, "--trials=6", "--seeds=0", "--image-budget=300", "--sampler=random", "--concurrency=1")
    assert "the sweep has spent its 300 training images: " in ended.stderr
    assert "of 6 proposals are missing" in ended.stderr
    before = read_proposals(root)
    assert len(before) < 6
    sweep(root, "--resume=short", "--image-budget=100000")
    after = check(root, 6)
    assert [proposal.params for proposal in after[: len(before)]] == [proposal.params for proposal in before]
