"""`metadata.json`: what made the artifacts, and what they are."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_ray import results
from fer_ray.config import RunConfig

FACTS = ("id", "signature", "status", "error", "chosen_epoch", "epochs_run", "parameters", "device", "precision")
SPLITS = ("validation", "test", "synthetic_test", "cross_test")
DATA = tuple(f"{name}_digest" for name in ("data", "synthetic", "cross")) + tuple(
    f"{name}_name" for name in ("data", "synthetic", *SPLITS)
)


def write(folder: Path, row: dict[str, Any], config: RunConfig, classes: Sequence[str]) -> None:
    """Writes `metadata.json` about a trial and the files in `folder`."""
    metrics = [key for key in row if key.startswith(tuple(f"{split}_" for split in SPLITS))]
    versions = [key for key in row if key.startswith(("version_", "git_"))]
    content = {
        **{key: row.get(key) for key in FACTS},
        "classes": list(classes),
        "image_size": row.get("data.image_size"),
        "normalization": row.get("data.normalization"),
        "channels": config.model.channels,
        "config": config.flat(),
        "data": {key: row.get(key) for key in DATA},
        "metrics": {key: row[key] for key in metrics if key not in (*DATA, "test_reads")},
        "versions": {key: row[key] for key in versions},
        "files": [_facts_of(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()],
    }
    results.write_json(folder / "metadata.json", content)


def _facts_of(folder: Path, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": digest}
