"""From a space, the command line and the data to the list of runs of a sweep. Knows no Ray."""

import importlib.util
import pkgutil
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray import recipes, results
from fer_ray.config import ADDED_LATER, DATA_PATHS, KEYS, NOT_HASHED, TRAINING_VERSION, RunConfig
from fer_ray.data import leakage
from fer_ray.errors import UserError, nearest
from fer_ray.experiment import (
    DEMO,
    Experiment,
    check_leaks,
    data_notes,
    draw,
    leak_columns,
    max_train_images,
    open_experiment,
    uses_synthetic,
    with_absolute_paths,
)
from fer_ray.models import zoo
from fer_ray.space import Space

SEED_KEY, FRACTION_KEY, MIXING_KEY = "training.seed", "data.real_fraction", "data.mixing"

NO_AXES = NOT_HASHED | {
    "data.classes",
    "data.label_set",
    "data.align",
    "data.test_split",
    "data.synthetic_test_fraction",
    SEED_KEY,
}
"""One sweep has one data set and its tests; how a run is executed is not part of its identity; seeds are replicates."""


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    Attributes:
        space: with the axes and seeds of the command line.
        fixed: flat config of everything that is neither axis nor seed.
        configs: every run, those expected to take longest first, so that the last ones to end are short.
        experiments: FER+ vote mode -> the opened data; one for all runs unless the modes are compared.
        notes: decisions to say aloud, a line each.
    """

    space: Space
    fixed: Mapping[str, Any]
    configs: tuple[RunConfig, ...]
    experiments: Mapping[str, Experiment]
    notes: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        """The data of the first run."""
        return self.of(self.configs[0])

    def of(self, config: RunConfig) -> Experiment:
        """The data of a run."""
        return self.experiments[config.data.votes]

    @property
    def is_demo(self) -> bool:
        return self.fixed["data.source"] == DEMO

    def run_id(self, config: RunConfig) -> str:
        """The folder name of a run."""
        return config.run_id(self.of(config).signature(config))

    def check_leaks(self, is_strict: bool) -> list[str]:
        """See `experiment.check_leaks`: tells of the first run, and if `is_strict` refuses for any."""
        if is_strict:
            divided = {(c.data.votes, c.data.fold, c.data.drop_leaks): c for c in self.configs}
            for config in divided.values():
                check_leaks(self.of(config), config, is_strict)
        return check_leaks(self.experiment, self.configs[0], is_strict)

    def leak_columns(self) -> dict[str, Any]:
        """See `experiment.leak_columns`. The modes of FER+ train on different faces; pairs of all of them are there."""
        first = {config.data.votes: config for config in reversed(self.configs)}
        found = [leak_columns(self.experiments[mode], config) for mode, config in first.items()]
        return {name: [value for columns in found for value in columns[name]] for name in found[0]}

    def info(self) -> dict[str, Any]:
        """What `sweep.json` says of the design and the data."""
        real, synthetic, cross = self.experiment.real, self.experiment.synthetic, self.experiment.cross
        parts = self.experiment.parts(self.configs[0])
        return {
            "space": self.space.name,
            "question": self.space.question,
            "axes": {key: list(values) for key, values in self.space.axes.items()},
            "seeds": list(self.space.seeds),
            "rows": self.space.rows,
            "columns": self.space.columns,
            "metric": self.space.metric,
            "fixed": dict(self.fixed),
            "training_version": TRAINING_VERSION,
            "demo": self.is_demo,
            "num_train_images": self.fixed["data.num_train_images"],
            "data": {
                "name": real.name,
                "digest": real.digest,
                "classes": list(real.classes),
                "validation": parts.validation_name,
                **{name: test.name for name, test in parts.tests.items()},
                "synthetic_name": synthetic.name if synthetic else None,
                "synthetic_digest": synthetic.digest if synthetic else None,
                "cross_digest": cross.digest if cross else None,
                "notes": list(self.notes),
            },
            "leakage": leakage.to_json(self.experiment.leaks(self.configs[0])),
        }


def space_names() -> list[str]:
    """Names of the installed spaces."""
    import fer_ray.search_spaces

    return [module.name for module in pkgutil.iter_modules(fer_ray.search_spaces.__path__)]


def load_space(name: str) -> Space:
    """A space by name, or from a user's own .py file that defines SPACE. Raises UserError otherwise."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--space {name}: no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # a user's own code may raise anything
            raise UserError(f"--space {name}: {type(error).__name__}: {error}") from error
    elif name in space_names():
        module = importlib.import_module(f"fer_ray.search_spaces.{name}")
    else:
        raise UserError(f"--space: no space or .py file {name!r}{nearest(name, space_names())}")
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise UserError(f"--space {name}: expected the file to define SPACE, a fer_ray.space.Space")
    return space


def make(
    space: Space,
    values: Mapping[str, Any],
    *,
    axes: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] | None,
    small: bool,
) -> Plan:
    """Plans every cell of a space with every seed.

    Args:
        space: the design.
        values: flat config keys from the command line, the same for every run.
        axes: axes from the command line, which replace or extend those of the space.
        seeds: seeds from the command line.
        small: take the space's small form.

    Raises:
        UserError: a key is both axis and fixed, a value is out of bounds, data cannot be opened or cannot fill a cell.
    """
    from fer_ray.data import augment  # imports torch, which a typo in the space's name need not wait for

    is_demo = values.get("data.source", DEMO) == DEMO
    # The demo is smaller than small.
    recipe = recipes.load(space.recipe).values if space.recipe else {}
    overrides = {**recipe, **space.base, **(space.small if small else {}), **(space.demo if is_demo else {})}
    default_seeds = overrides.pop(SEED_KEY, space.seeds)
    if SEED_KEY in values:
        raise UserError(f"{SEED_KEY} is varied by the sweep itself; pass --seeds {values[SEED_KEY]}")
    whole = {**space.axes, **axes}
    for key in values.keys() & whole.keys():
        raise UserError(f"{key} is an axis of space {space.name}, it cannot be set to {values[key]!r} for all trials")
    for key, items in whole.items():
        if key not in KEYS:
            raise UserError(f"axis {key!r} of space {space.name} is no config key{nearest(key, KEYS)}")
        if key in NO_AXES:
            raise UserError(
                f"axis {key!r} of space {space.name}: data and machine are the same in all trials of a sweep, "
                "and its seeds are not an axis but `seeds`"
            )
        if not items:
            raise UserError(f"axis {key!r} of space {space.name} has no values")
    if not (chosen_seeds := tuple(dict.fromkeys(default_seeds if seeds is None else seeds))):
        raise UserError("a sweep needs at least one seed; pass for example --seeds 0,1,2")

    base = with_absolute_paths(RunConfig.from_flat({**overrides, **values}))
    if tuple(whole.get(MIXING_KEY, (base.data.mixing,))) != ("replace",) and 0 in whole.get(FRACTION_KEY, ()):
        # Without replacement by synthetic faces a share of 0 is a cell without images.
        whole[FRACTION_KEY] = tuple(value for value in whole[FRACTION_KEY] if value != 0)
    space = Space(
        name=space.name,
        question=space.question,
        axes={key: tuple(dict.fromkeys(items)) for key, items in whole.items()},
        seeds=chosen_seeds,
        rows=space.rows,
        columns=space.columns,
        metric=space.metric,
    )
    configs = [base.replace({**cell, SEED_KEY: seed}) for seed in space.seeds for cell in space.cells()]
    for config in configs:
        zoo.check_name(config.model.name)
        augment.resolve(config.augmentation)
    by_mode: dict[str, RunConfig] = {config.data.votes: config for config in configs}
    opened = {mode: open_experiment(config) for mode, config in by_mode.items()}
    experiment = opened[configs[0].data.votes]
    notes = data_notes(experiment, configs[0])
    if experiment.synthetic is None and any(uses_synthetic(config) for config in configs):
        raise UserError(_without_synthetic(base))
    if any(config.data.num_train_images == "auto" for config in configs):
        groups: dict[Any, list[RunConfig]] = {}
        for config in configs:
            groups.setdefault(_pool_of(config), []).append(config)
        count = min(
            max_train_images(
                group[0],
                opened[group[0].data.votes],
                sorted({c.data.real_fraction for c in group}),
                group[0].data.mixing,
            )
            for group in groups.values()
        )
        notes.append(f"N = {count:,} training images in every cell, the largest that all of them can fill")
        configs = [
            config.replace({"data.num_train_images": count}) if config.data.num_train_images == "auto" else config
            for config in configs
        ]
    drawn = {(*_pool_of(c), c.data.real_fraction, c.data.num_train_images): c for c in configs}
    for config in drawn.values():
        draw(config, opened[config.data.votes])  # refuses what a cell cannot fill, before anything starts
    varied = {*space.axes, SEED_KEY}
    fixed = {key: value for key, value in configs[0].flat().items() if key not in varied}
    ordered = sorted(configs, key=_expected_cost, reverse=True)
    return Plan(space, fixed, tuple(ordered), opened, tuple(notes))


def _pool_of(config: RunConfig) -> tuple[Any, ...]:
    """What decides which images a run may draw, and how."""
    data = config.data
    return data.mixing, data.votes, data.fold, data.drop_leaks


def _expected_cost(config: RunConfig) -> float:
    size = 48 if config.data.image_size == "native" else config.data.image_size
    return zoo.gmac(config.model.name) * size**2 * config.training.epochs


def _without_synthetic(config: RunConfig) -> str:
    flags = f"--data {shlex.quote(config.data.source)} --test-split {config.data.test_split}"
    return (
        "this space mixes real and synthetic faces, and no --synthetic was given. Give a folder or .parquet of "
        "generated faces, make some from the data alone with\n"
        f"    python -m fer_ray.synthesize ppca {flags} --per-class 1500 --out synthetic.parquet\n"
        "or run the real-only curve with --mixing real_only"
    )


def check_same_design(root: Path, info: Mapping[str, Any]) -> None:
    """Refuses another design under a name that is taken; more axis values or seeds are welcome.

    Raises UserError that shows the differences.
    """
    if not (root / "sweep.json").exists():
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
