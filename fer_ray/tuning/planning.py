"""From a space, the command line and the data to the plan of a sweep. Knows no Ray."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fer_ray import recipes
from fer_ray.config import KEYS, NOT_HASHED, RunConfig
from fer_ray.errors import UserError, nearest
from fer_ray.experiment import (
    DEMO,
    Experiment,
    data_notes,
    draw,
    max_train_images,
    open_experiment,
    uses_synthetic,
    with_absolute_paths,
)
from fer_ray.models import zoo
from fer_ray.space import Search, Space
from fer_ray.tuning import samplers
from fer_ray.tuning.plan import Plan

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


def make(
    space: Space | Search,
    values: Mapping[str, Any],
    *,
    axes: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] | None,
    small: bool,
) -> Plan:
    """Plans every cell of a factorial design with every seed, or looks at what a search may propose.

    Args:
        space: the design.
        values: flat config keys from the command line, the same for every run.
        axes: axes from the command line, which replace or extend those of a factorial design.
        seeds: seeds from the command line.
        small: take the space's small form.

    Raises:
        UserError: a key is both varied and fixed, a value is out of bounds, data cannot be opened or cannot fill a
            cell.
    """
    is_demo = values.get("data.source", DEMO) == DEMO
    # The demo is smaller than small.
    recipe = recipes.load(space.recipe).values if space.recipe else {}
    overrides = {**recipe, **space.base, **(space.small if small else {}), **(space.demo if is_demo else {})}
    default_seeds = overrides.pop(SEED_KEY, space.seeds)
    if SEED_KEY in values:
        raise UserError(f"{SEED_KEY} is varied by the sweep itself; pass --seeds {values[SEED_KEY]}")
    if not (chosen_seeds := tuple(dict.fromkeys(default_seeds if seeds is None else seeds))):
        raise UserError("a sweep needs at least one seed; pass for example --seeds 0,1,2")
    base = with_absolute_paths(RunConfig.from_flat({**overrides, **values}))
    if isinstance(space, Search):
        return _plan_search(replace(space, seeds=chosen_seeds), base, values, axes)
    return _plan_cells(replace(space, seeds=chosen_seeds), base, values, axes)


def _plan_cells(space: Space, base: RunConfig, values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> Plan:
    whole = {**space.axes, **axes}
    varied_by_name = set().union(*space.variants.values()) if space.variants else set()
    for key in values.keys() & (whole.keys() | varied_by_name):
        raise UserError(f"{key} is an axis of space {space.name}, it cannot be set to {values[key]!r} for all trials")
    for key, items in whole.items():
        _check_axis(key, space.name)
        if key in varied_by_name:
            raise UserError(
                f"axis {key!r} of space {space.name} is set by its variants too; it can be only one of both"
            )
        if not items:
            raise UserError(f"axis {key!r} of space {space.name} has no values")
    for key in varied_by_name:
        _check_axis(key, space.name)
    if tuple(whole.get(MIXING_KEY, (base.data.mixing,))) != ("replace",) and 0 in whole.get(FRACTION_KEY, ()):
        # Without replacement by synthetic faces a share of 0 is a cell without images.
        whole[FRACTION_KEY] = tuple(value for value in whole[FRACTION_KEY] if value != 0)
    space = replace(space, axes={key: tuple(dict.fromkeys(items)) for key, items in whole.items()})
    per_variant = len(space.cells()) // max(1, len(space.variants))
    names: list[str | None] = [name for name in space.variants for _ in range(per_variant)]
    names = names or [None] * per_variant
    cells = list(zip(names, space.cells(), strict=True))
    named = [(name, base.replace({**cell, SEED_KEY: seed})) for seed in space.seeds for name, cell in cells]
    _check_variants(space, named)
    configs, experiments, notes = _with_data([config for _, config in named], base)
    variants = {config: name for config, (name, _) in zip(configs, named, strict=True) if name is not None}
    varied = {*space.axes, *varied_by_name, SEED_KEY}
    fixed = {key: value for key, value in configs[0].flat().items() if key not in varied}
    ordered = tuple(sorted(configs, key=_expected_cost, reverse=True))
    return Plan(space, base, fixed, ordered, experiments, notes, variants=variants)


def _plan_search(space: Search, base: RunConfig, values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> Plan:
    if axes:
        raise UserError(
            f"space {space.name} is a search: it has no axes to give values to; write a .py file of your own with "
            "other choices (see the space's file)"
        )
    points = samplers.examples(space, base)
    varied = set().union(*(point.values for point in points))
    for key in values.keys() & varied:
        raise UserError(f"{key} is searched by space {space.name}, it cannot be set to {values[key]!r} for all trials")
    for key in varied:
        _check_axis(key, space.name)
    drawn = [point.config.replace({SEED_KEY: space.seeds[0]}) for point in points]
    configs, experiments, notes = _with_data(drawn, base)
    base = base.replace({"data.num_train_images": configs[0].data.num_train_images})
    fixed = {key: value for key, value in base.flat().items() if key not in {*varied, SEED_KEY}}
    return Plan(
        space,
        base,
        fixed,
        tuple(dict.fromkeys(configs)),
        experiments,
        notes,
        parameters=samplers.parameters(points),
        points=dict(zip(configs, points, strict=True)),
    )


def _check_axis(key: str, space: str) -> None:
    if key not in KEYS:
        raise UserError(f"axis {key!r} of space {space} is no config key{nearest(key, KEYS)}")
    if key in NO_AXES:
        raise UserError(
            f"axis {key!r} of space {space}: data and machine are the same in all trials of a sweep, "
            "and its seeds are not an axis but `seeds`"
        )


def _check_variants(space: Space, named: Sequence[tuple[str | None, RunConfig]]) -> None:
    first: dict[RunConfig, str | None] = {}
    for name, config in named:
        if config in first:
            raise UserError(
                f"space {space.name}: variants {first[config]!r} and {name!r} are the same run; drop one, or change "
                "a value of it"
            )
        first[config] = name


def _with_data(
    configs: Sequence[RunConfig], base: RunConfig
) -> tuple[list[RunConfig], dict[str, Experiment], tuple[str, ...]]:
    """Opens the data, decides N where it is open, and draws every training set once, which refuses what cannot be."""
    from fer_ray.data import augment  # imports torch, which a typo in the space's name need not wait for

    for config in configs:
        zoo.check_name(config.model.name)
        augment.resolve(config.augmentation)
    by_mode: dict[str, RunConfig] = {config.data.votes: config for config in configs}
    opened = {mode: open_experiment(config) for mode, config in by_mode.items()}
    experiment = opened[configs[0].data.votes]
    notes = data_notes(experiment, configs[0])
    if experiment.synthetic is None and any(uses_synthetic(config) for config in configs):
        is_free = len({config.data.mixing for config in configs}) == 1
        raise UserError(_without_synthetic(base, may_be_real=is_free))
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
        draw(config, opened[config.data.votes])
    return list(configs), opened, tuple(notes)


def _pool_of(config: RunConfig) -> tuple[Any, ...]:
    """What decides which images a run may draw, and how."""
    data = config.data
    return data.mixing, data.votes, data.fold, data.drop_leaks


def _expected_cost(config: RunConfig) -> float:
    size = 48 if config.data.image_size == "native" else config.data.image_size
    return zoo.gmac(config.model.name) * size**2 * config.training.epochs


def _without_synthetic(config: RunConfig, *, may_be_real: bool) -> str:
    flags = f"--data {shlex.quote(config.data.source)} --test-split {config.data.test_split}"
    return (
        "this space mixes real and synthetic faces, and no --synthetic was given. Give a folder or .parquet of "
        "generated faces, make some from the data alone with\n"
        f"    python -m fer_ray.synthesize ppca {flags} --per-class 1500 --out synthetic.parquet"
        + ("\nor run the real-only curve with --mixing real_only" if may_be_real else "")
    )
