"""A results folder as a search leaves it, with a made-up objective, so that its analysis is tested without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import distribution_to_json

from fer_ray import results
from fer_ray.config import RunConfig
from fer_ray.proposals import Proposal, ProposedRun, write_proposal

EPOCHS = 8

STATUS_OF: dict[str, Literal["finished", "stopped", "failed"]] = {
    "complete": "finished",
    "pruned": "stopped",
    "failed": "failed",
}


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """A conditional space: rho only with SAM."""
    values: dict[str, Any] = {
        "optimizer.learning_rate": trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-1, log=True),
        "optimizer.name": trial.suggest_categorical("optimizer.name", ["adamw", "sgd"]),
        "data.real_fraction": trial.suggest_float("data.real_fraction", 0.25, 1.0, step=0.25),
    }
    if trial.suggest_categorical("sam", [False, True]):
        values["optimizer.sam_rho"] = trial.suggest_float("optimizer.sam_rho", 0.01, 0.5, log=True)
    return values


def score(config: dict[str, Any]) -> float:
    """Macro F1 of a config before luck: learning rate matters most, and the best one depends on the optimizer."""
    peak = -2.8 if config["optimizer.name"] == "adamw" else -1.7
    away = np.log10(config["optimizer.learning_rate"]) - peak
    rho = config.get("optimizer.sam_rho")
    sam = 0.0 if rho is None else 0.03 - 0.05 * abs(np.log10(rho) + 1.3)
    return float(0.6 - 0.12 * away**2 + 0.05 * config["data.real_fraction"] + sam)


def write_search(
    root: Path,
    *,
    trials: int = 40,
    objectives: Sequence[str] = ("validation_macro_f1",),
    raced: int = 5,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    num_stopped: int = 10,
    num_failed: int = 1,
    **info: Any,
) -> Path:
    """Writes sweep.json, `trials` proposals and their runs.

    The best `raced` proposals run every seed, the others the first; the worst `num_stopped` are stopped after two
    epochs, and the `num_failed` next worst fail. One more proposal repeats the best one, and one is running.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(3)
    directions = ["maximize" if name != "train_seconds" else "minimize" for name in objectives]
    fixed = {k: v for k, v in RunConfig().flat().items() if k not in ("training.seed", "optimizer.learning_rate")}
    fixed |= {"training.epochs": EPOCHS, "runtime.threads": 1, "data.num_train_images": 480}
    root.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": root.name,
        "kind": "search",
        "question": "Which learning rate, optimizer and share of real faces give the best macro F1?",
        "command": "python -m fer_ray.sweep --space hpo --data fer2013.csv",
        "axes": {},
        "metric": "test_macro_f1",
        "objectives": list(objectives),
        "directions": directions,
        "sampler": "random",
        "scheduler": "asha",
        "trials": trials,
        "seeds": list(seeds),
        "fixed": fixed,
        "demo": False,
        "num_train_images": 480,
        "data": {"name": "FER2013", "digest": "0f3c51aa9d2e4b67"},
        **info,
    }
    results.write_json(root / "sweep.json", sweep)
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=5))
    asked = [study.ask() for _ in range(trials)]
    configs = [suggest(trial) for trial in asked]
    ranks = list(np.argsort([-score(config) for config in configs]))
    written = []
    for trial, config in zip(asked, configs, strict=True):
        rank = ranks.index(trial.number)
        state: Literal["complete", "pruned", "failed"] = "complete"
        if rank >= trials - num_stopped:
            state = "pruned"
        elif rank >= trials - num_stopped - num_failed:
            state = "failed"
        rows = [
            _write_run(root, {**fixed, **config, "training.seed": seed}, trial.number, score(config), state, rng)
            for seed in (seeds if rank < raced else seeds[:1])
        ]
        status = STATUS_OF[state]
        curve = _curve(rows[0]["validation_macro_f1"] or score(config), 2 if state == "pruned" else EPOCHS)
        proposal = Proposal(
            number=trial.number,
            source="known" if trial.number == 0 else "sampler",
            params=trial.params,
            distributions={name: distribution_to_json(d) for name, d in trial.distributions.items()},
            config=config,
            state=state,
            runs=[ProposedRun(row["id"], row["training.seed"], status) for row in rows],
            values=[float(np.mean([row[name] for row in rows])) for name in objectives]
            if state == "complete"
            else None,
            intermediate=dict(enumerate(curve, 1)) if state != "failed" else {},
            reason="stopped by asha" if state == "pruned" else None,
        )
        write_proposal(root, proposal)
        written.append(proposal)
    best = written[ranks[0]]
    record = {k: getattr(best, k) for k in ("params", "distributions", "config", "runs", "values", "intermediate")}
    write_proposal(root, Proposal(number=trials, source="sampler", state="repeated", repeats=best.number, **record))
    running = {k: record[k] for k in ("params", "distributions", "config")}
    write_proposal(
        root, Proposal(number=trials + 1, source="sampler", runs=[ProposedRun("now", 0, "running")], **running)
    )
    return root


def _write_run(
    root: Path, flat: dict[str, Any], number: int, truth: float, state: str, rng: np.random.Generator
) -> dict[str, Any]:
    config = RunConfig.from_flat(flat)
    value = truth + rng.normal(0, 0.01)
    row: dict[str, Any] = {
        "id": config.run_id(config.signature("0f3c51aa9d2e4b67", None)),
        **config.flat(),
        "proposal": number,
        "status": {"complete": results.FINISHED, "pruned": results.STOPPED, "failed": results.FAILED}[state],
        "error": "loss is not finite at step 120; lower the rate" if state == "failed" else None,
        "validation_macro_f1": None if state == "failed" else value * (0.4 if state == "pruned" else 1),
        "images_per_second": 100 + 50 * (flat["optimizer.name"] == "sgd") + rng.normal(0, 2),
        "train_seconds": 60.0 * (2 if flat.get("optimizer.sam_rho") else 1) * flat["data.real_fraction"],
        "data_name": "FER2013",
        "data_digest": "0f3c51aa9d2e4b67",
        "device": "cpu",
    }
    if state == "complete":
        row |= {"test_accuracy": value + 0.02, "test_macro_f1": value - 0.01, "test_name": "PrivateTest (400 images)"}
    num_epochs = {"complete": EPOCHS, "pruned": 2, "failed": 0}[state]
    epochs = pd.DataFrame({"id": row["id"], "epoch": np.arange(1, num_epochs + 1)})
    epochs["validation_macro_f1"] = _curve(value, num_epochs)
    epochs = epochs.reindex(columns=list(results.EPOCH_COLUMNS))
    trial = results.Trial(row, epochs, pd.DataFrame({"id": [], "split": []}))
    results.write_trial(root / "trials" / row["id"], trial, {})
    return row


def _curve(value: float, num_epochs: int) -> list[float]:
    """Macro F1 after each epoch: `value` at the last one of EPOCHS."""
    progress = (1 - np.exp(-np.arange(1, num_epochs + 1) / 2)) / (1 - np.exp(-EPOCHS / 2))
    return [float(x) for x in value * progress]
