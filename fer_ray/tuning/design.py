"""Whether a results folder holds the sweep that is asked for, and what of it is finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_ray import results
from fer_ray.config import ADDED_LATER, DATA_PATHS, KEYS
from fer_ray.errors import UserError


def check_same_design(root: Path, info: Mapping[str, Any]) -> None:
    """Refuses another design under a name that is taken; more axis values or seeds are welcome, and so is any where
    nothing has been trained yet.

    Raises UserError that shows the differences.
    """
    has_begun = any(next(root.glob(pattern), None) for pattern in ("trials/*/row.json", "proposals/*.json"))
    if not has_begun or not (root / "sweep.json").exists():
        return
    before = results.read_json(root / "sweep.json")
    differences = []
    for key in {**before["fixed"], **info["fixed"]}:
        if key.startswith("runtime.") or key in DATA_PATHS:
            continue
        # A key added since then was at its default.
        absent = "an axis" if key in (*before["axes"], *info["axes"]) or key not in ADDED_LATER else KEYS[key].default
        old, new = before["fixed"].get(key, absent), info["fixed"].get(key, absent)
        if old != new:
            differences.append(f"{key}: {old} before, {new} now")
    if before["training_version"] != info["training_version"]:
        differences.append(f"training version: {before['training_version']} before, {info['training_version']} now")
    for key in ("digest", "synthetic_digest", "cross_digest"):
        if before["data"].get(key) != info["data"][key]:
            differences.append(f"data {key}: {before['data'].get(key)} before, {info['data'][key]} now")
    if before.get("kind", "factorial") != info["kind"]:
        differences.append(f"kind: {before.get('kind', 'factorial')} before, {info['kind']} now")
    for key in ("objectives", "parameters", "variants"):
        if (before.get(key) or {}) != (info.get(key) or {}):
            differences.append(f"{key}: {before.get(key)} before, {info.get(key)} now")
    if "pbt" in (before.get("scheduler"), info.get("scheduler")):
        # A population's decisions are made again from its rows, and another one's are others.
        differences += [
            f"{key}: {before.get(key)} before, {info.get(key)} now"
            for key in ("scheduler", "trials")
            if before.get(key) != info.get(key)
        ]
    for key, old in {**before["axes"], "seeds": before["seeds"]}.items():
        new = info["seeds"] if key == "seeds" else info["axes"].get(key, [])
        missing = [str(value) for value in old if value not in new]
        if missing:
            differences.append(f"{key}: {', '.join(missing)} before, not now")
    if differences:
        count = before["fixed"].get("data.num_train_images")
        # A new share can change the N that all cells can fill.
        hint = f", or --num-train-images {count} to extend it" if count != info["num_train_images"] else ""
        raise UserError(
            f"{root} holds another sweep; give this one its own --name{hint}. Differences: " + "; ".join(differences)
        )


def finished_ids(root: Path) -> set[str]:
    """Ids of the trials that are finished on disk."""
    return {row["id"] for row in results.read_rows(root) if row["status"] == results.FINISHED}
