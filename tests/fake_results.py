"""A results folder as a sweep leaves it, with made-up predictions, so that the analysis is tested without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_ray import labels, metrics, results
from fer_ray.config import RunConfig

SKILL = {
    "ResNet18": 0.9,
    "ResNet50": 1.0,
    "EfficientNetB0": 0.55,
    "MobileNetV3-Large": 0.7,
    "ShuffleNetV2-x1.0": 1.05,
    "DenseNet121": 0.85,
    "ConvNeXt-Tiny": 1.5,
}
"""How well each network can do; the real share adds to it."""
FRACTIONS = (0.0, 0.1, 0.3, 0.5, 1.0)
CLASS_SHARES = np.array([0.137, 0.015, 0.147, 0.245, 0.166, 0.116, 0.174])
"""FER2013's, disgust rare."""


def write_sweep(
    root: Path,
    *,
    models: Sequence[str] = tuple(SKILL),
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0,),
    num_images: int = 700,
    demo: bool = False,
    failed: Sequence[tuple[str, float, int]] = (),
    extra_axes: dict[str, tuple[Any, ...]] | None = None,
    **info: Any,
) -> Path:
    """Writes `sweep.json` and a folder per trial; `failed` lists (model, real fraction, seed) that did not end."""
    rng = np.random.default_rng(7)
    truth = rng.choice(len(CLASS_SHARES), num_images, p=CLASS_SHARES)
    easy = rng.normal(size=num_images)
    axes: dict[str, tuple[Any, ...]] = {"model.name": tuple(models), "data.real_fraction": tuple(fractions)}
    axes |= extra_axes or {}
    root.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": root.name,
        "question": "How does the share of real faces in training change accuracy, and for which networks?",
        "command": "python -m fer_ray.sweep --space ratios --data fer2013.parquet --synthetic ppca.parquet",
        "axes": axes,
        "rows": "model.name",
        "columns": "data.real_fraction",
        "metric": "test_macro_f1",
        "seeds": list(seeds),
        "demo": demo,
        "num_train_images": 10_500,
        "data": {"name": "FER2013", "digest": "0f3c51aa9d2e4b67"},
        "versions": {"fer_ray": "0.1.0", "python": "3.11.14", "torch": "2.15.0", "ray": "2.59.0"},
        "machine": {"cpu": "AMD EPYC 7R13", "cores": 4, "memory_gb": 16},
        "git_commit": "1a2b3c4",
        **info,
    }
    results.write_json(root / "sweep.json", sweep)
    combinations = [{}] if not extra_axes else [{k: v} for k, values in extra_axes.items() for v in values]
    for extra in combinations:
        for model in models:
            for fraction in fractions:
                for seed in seeds:
                    values = {"model.name": model, "data.real_fraction": fraction, "training.seed": seed, **extra}
                    config = RunConfig.from_flat(values)
                    if (model, fraction, seed) in failed:
                        trial = _failed(config)
                    else:
                        skill = SKILL.get(model, 0.8) * (0.35 + 0.65 * fraction**0.5) + rng.normal(0, 0.05)
                        trial = _finished(config, truth, easy, skill, rng)
                    results.write_trial(root / "trials" / trial.row["id"], trial, {})
    return root


def probabilities_for(truth: np.ndarray, easy: np.ndarray, skill: float, rng: np.random.Generator) -> np.ndarray:
    """float32[n, 7] with an accuracy that grows with `skill`; `easy` float[n] is shared by all trials."""
    logits = rng.normal(size=(len(truth), len(CLASS_SHARES))) + np.log(CLASS_SHARES) * 0.5
    logits[np.arange(len(truth)), truth] += skill * (1 + 0.7 * easy)
    exponentials = np.exp(1.5 * logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _identity(config: RunConfig) -> dict[str, Any]:
    signature = config.signature("0f3c51aa9d2e4b67", None)
    flat = config.flat()
    return {"id": config.run_id(signature), "signature": signature, **flat, "data_name": "FER2013"}


def _finished(
    config: RunConfig, truth: np.ndarray, easy: np.ndarray, skill: float, rng: np.random.Generator
) -> results.Trial:
    classes = list(labels.FER2013)
    identity = _identity(config)
    splits, row = [], {**identity, "status": results.FINISHED, "error": None, "classes": classes}
    for split in ("validation", "test"):
        scores = probabilities_for(truth, easy, skill, rng)
        row |= {
            f"{split}_{key}": value for key, value in metrics.classification_metrics(truth, scores, classes).items()
        }
        frame = pd.DataFrame(scores, columns=[f"p_{name}" for name in classes])
        frame.insert(0, "id", [f"{split}-{number:05d}" for number in range(len(truth))])
        frame.insert(1, "split", split)
        frame.insert(2, "label", [classes[code] for code in truth])
        splits.append(frame.sample(frac=1, random_state=1))
    row |= {
        "chosen_epoch": 17,
        "num_train_real": round(10_500 * config.data.real_fraction),
        "num_train_synthetic": round(10_500 * (1 - config.data.real_fraction)),
        "parameters": 11_170_000,
        "test_name": f"PrivateTest ({len(truth):,} images)",
        "validation_name": f"PublicTest ({len(truth):,} images)",
        "data_digest": "0f3c51aa9d2e4b67",
        "train_seconds": 61.5,
        "wall_seconds": 66.2,
        "images_per_second": 144.0,
        "peak_memory_mb": 812.0,
        "precision": "float32",
        "device": "cpu",
        "threads": 1,
    }
    return results.Trial(row, _epochs(identity["id"], row), pd.concat(splits, ignore_index=True))


def _epochs(trial_id: str, row: dict[str, Any]) -> pd.DataFrame:
    epoch = np.arange(1, 21)
    progress = 1 - np.exp(-epoch / 6)
    frame = pd.DataFrame(
        {"id": trial_id, "epoch": epoch, "phase": 1, "images_seen": epoch * 10_500, "learning_rate": 2e-3}
    )
    for split, lead in (("train", 1.25), ("validation", 1.0)):
        frame[f"{split}_loss"] = 1.95 - 0.7 * lead * progress
        frame[f"{split}_accuracy"] = row["validation_accuracy"] * lead * progress
        frame[f"{split}_macro_f1"] = row["validation_macro_f1"] * lead * progress
    frame = frame.assign(seconds=3.1, images_per_second=144.0, peak_memory_mb=812.0)
    return frame.reindex(columns=list(results.EPOCH_COLUMNS))


def _failed(config: RunConfig) -> results.Trial:
    row = {**_identity(config), "status": results.FAILED, "error": "loss is not finite at step 120; lower the rate"}
    return results.Trial(row, pd.DataFrame(columns=results.EPOCH_COLUMNS), pd.DataFrame({"id": [], "split": []}))
