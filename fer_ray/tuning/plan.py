"""A sweep before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_ray.config import TRAINING_VERSION, RunConfig
from fer_ray.data import leakage
from fer_ray.experiment import (
    DEMO,
    Experiment,
    check_leaks,
    leak_columns,
)
from fer_ray.space import VARIANT, Search, Space
from fer_ray.tuning import samplers


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    Attributes:
        space: with the axes, seeds and objectives of the command line.
        base: what every run starts from.
        fixed: flat config of everything that is neither varied nor seed.
        configs: every run of a factorial design, those expected to take longest first, so that the last ones to end
            are short; of a search, examples of what it may propose.
        experiments: FER+ vote mode -> the opened data; one for all runs unless the modes are compared.
        notes: decisions to say aloud, a line each.
        parameters: of a search, name -> distribution as Optuna writes it.
        points: of a search, example -> what it was drawn as.
        variants: run -> the variant that it is of, where a design has some.
    """

    space: Space | Search
    base: RunConfig
    fixed: Mapping[str, Any]
    configs: tuple[RunConfig, ...]
    experiments: Mapping[str, Experiment]
    notes: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[RunConfig, samplers.Point] = field(default_factory=dict)
    variants: Mapping[RunConfig, str] = field(default_factory=dict)

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

    @property
    def is_search(self) -> bool:
        return isinstance(self.space, Search)

    def run_id(self, config: RunConfig) -> str:
        """The folder name of a run."""
        return config.run_id(self.of(config).signature(config))

    def tags(self, config: RunConfig) -> dict[str, Any]:
        """Columns of a run's row that say what of the design it is."""
        return {VARIANT: self.variants[config]} if config in self.variants else {}

    def axes(self) -> dict[str, list[Any]]:
        """Axis -> its values, of a factorial design; variants are one."""
        if isinstance(self.space, Search):
            return {}
        variants = {VARIANT: list(self.space.variants)} if self.space.variants else {}
        return variants | {key: list(values) for key, values in self.space.axes.items()}

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
            **self._design(),
            "seeds": list(self.space.seeds),
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

    def _design(self) -> dict[str, Any]:
        space = self.space
        if isinstance(space, Search):
            return {
                "kind": "search",
                "axes": {},
                "parameters": dict(self.parameters),
                "objectives": list(space.objectives),
                "directions": samplers.directions(space.objectives),
                "metric": "test_macro_f1",
            }
        return {
            "kind": "factorial",
            "axes": self.axes(),
            "variants": {name: dict(values) for name, values in space.variants.items()},
            "rows": space.rows,
            "columns": space.columns,
            "metric": space.metric,
            "planned": len(self.configs),
        }
