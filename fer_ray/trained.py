"""Networks that were trained before: the folder of a trial, or a weights file and what it does not say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray.config import RunConfig
from fer_ray.data.readers.images import read_file
from fer_ray.errors import UserError
from fer_ray.labels import canonical

if TYPE_CHECKING:
    from fer_ray.models.network import Network

WEIGHTS = "best.safetensors"
MAX_SIDE = 1024


@dataclass(frozen=True)
class Trained:
    """A trained network, ready to answer.

    Attributes:
        name: the trial's id, or the file's name.
        network: with its chosen weights, on the CPU.
        config: of its training, as far as it is known.
        classes: what its first outputs stand for, in their order.
        image_size: side of its input in pixels.
        normalization: of its input, resolved.
        row: the trial's row; empty for a weights file.
    """

    name: str
    network: "Network"
    config: RunConfig
    classes: tuple[str, ...]
    image_size: int
    normalization: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What a trial's folder says of its network, without its weights."""

    folder: Path
    row: dict[str, Any]
    config: RunConfig
    image_size: int
    normalization: str


def read_record(folder: Path) -> Record:
    """The record of a finished trial.

    Raises UserError when the folder or a file of it is missing or damaged, or its weights were not kept.
    """
    from fer_ray.data.batches import NORMALIZATIONS

    try:
        row = json.loads(read_file(str(folder / "row.json")))
        config = RunConfig.model_validate_json(read_file(str(folder / "config.json")))
        image_size, normalization = row["data.image_size"], row["data.normalization"]
        if not row["id"] or not row["classes"] or normalization not in ("image", *NORMALIZATIONS):
            raise ValueError("expected an id, classes and a normalization")
        if not isinstance(image_size, int) or not 0 < image_size <= MAX_SIDE:
            raise ValueError(f"data.image_size: got {image_size!r}, expected pixels up to {MAX_SIDE}")
    except UserError as error:
        raise UserError(
            f"{folder}: {error}; expected the folder of a trial, results/NAME/trials/ID, as fer_ray.train and "
            "fer_ray.sweep write it"
        ) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{folder}: its record is damaged ({reason}); train that network again") from error
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder}: it has no {WEIGHTS} (a sweep keeps those of its best three trials); name a trial that has, or "
            "train it again with the command in its command.txt"
        )
    return Record(folder, row, config, image_size, normalization)


def open_trial(record: Record) -> Trained:
    """The network of a trial with its chosen weights. Raises UserError when they are damaged or do not fit."""
    from fer_ray.models import zoo

    classes = tuple(record.row["classes"])
    network = zoo.restore(
        record.config.model, record.folder / WEIGHTS, *_num_outputs(record.config, classes), record.image_size
    )
    return Trained(
        record.row["id"], network, record.config, classes, record.image_size, record.normalization, record.row
    )


def open_file(path: Path, config: RunConfig, classes: Sequence[str]) -> Trained:
    """A network from a weights file; `config` names its architecture, input and task, `classes` its outputs in order.

    Raises UserError when the file is damaged or leaves a part of the network open.
    """
    from fer_ray.models import zoo
    from fer_ray.run_data import normalization

    if config.data.image_size == "native":
        raise UserError(f"{path} does not say the size of its images; give it with --image-size")
    names = tuple(map(canonical, classes))
    network = zoo.restore(config.model, path, *_num_outputs(config, names), config.data.image_size)
    resolved = normalization(config.replace({"model.weights": str(path)}))
    return Trained(path.name, network, config, names, config.data.image_size, resolved, {})


def best_of(root: Path, count: int) -> list[Path]:
    """Folders of the `count` trials of a sweep with the best validation macro F1 among those that kept their weights.

    Raises UserError when there are fewer.
    """
    from fer_ray import results

    kept = [row for row in results.read_rows(root) if (root / "trials" / row["id"] / WEIGHTS).is_file()]
    kept.sort(key=lambda row: (-(row.get("validation_macro_f1") or 0.0), row["id"]))
    if len(kept) < count:
        raise UserError(f"{root}: {len(kept)} trials have their weights, {count} were asked for; lower --best")
    return [root / "trials" / row["id"] for row in kept[:count]]


def _num_outputs(config: RunConfig, classes: tuple[str, ...]) -> tuple[int, int]:
    task = config.task.name
    return (0 if task == "affect" else len(classes)), (0 if task == "expression" else 2)
