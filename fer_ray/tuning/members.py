"""The members of a population: what they begin as, and what a copy of one is (see `population`)."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import optuna

from fer_ray.config import RunConfig
from fer_ray.errors import UserError
from fer_ray.phases import Phase, epochs_of
from fer_ray.proposals import Proposal, ProposedRun, Source
from fer_ray.space import Search
from fer_ray.tuning import samplers

SIZE = 8
"""Members, by default."""
LEAST_SIZE = 4

GENERATIONS = 10
"""At most; of a run of fewer epochs each is one."""

FACTORS = (0.8, 1.2)

SCHEDULE = {"optimizer.schedule": "constant", "optimizer.warmup_fraction": 0.0}
"""Of all members; what changes between the generations is in the phases."""

MAX_DRAWS = 1000


@dataclass(frozen=True)
class Member:
    """A place in the population.

    Attributes:
        proposal: of which it is the run; its config has the phases.
        factors: of the learning rate, one per generation; those that are still to come are like the last one so far.
    """

    proposal: Proposal
    config: RunConfig
    factors: tuple[float, ...]

    @property
    def run_id(self) -> str:
        return self.proposal.runs[0].id


def check(space: Search, base: RunConfig, size: int) -> None:
    """Raises UserError for an objective that no epoch has, too few members, or runs that may end before their epochs
    do.
    """
    if not space.objectives[0].startswith("validation_"):
        raise UserError(f"--scheduler pbt: {space.objectives[0]} is nothing that grows from epoch to epoch")
    if size < LEAST_SIZE:
        raise UserError(f"--scheduler pbt: a population of {size} is too small; expected --trials {LEAST_SIZE} or more")
    if base.training.patience is not None:
        raise UserError("--scheduler pbt: its generations are of equal length; leave training.patience out")


class Family:
    """Makes the members of one population, of a space and on top of a base, and numbers them."""

    def __init__(self, space: Search, base: RunConfig, run_id: Callable[[RunConfig], str]) -> None:
        self._space, self._base, self._run_id = space, base, run_id
        epochs = base.training.epochs
        self.lengths = epochs_of([Phase("all", 1.0)] * min(GENERATIONS, epochs), epochs)

    def founders(self, size: int) -> list[Member]:
        """The space's known points and then random ones, all different, numbered from 0.

        Raises UserError where the space has too few that can be members, or decides the schedule itself.
        """
        study = optuna.create_study(sampler=samplers.build("random", self._space.seeds[0], 1))
        for point in self._space.known:
            study.enqueue_trial(dict(point))
        factors = (1.0,) * len(self.lengths)
        members: dict[str, Member] = {}
        for number in range(MAX_DRAWS):
            drawn = samplers.propose(self._space, self._base, study.ask())
            if found := drawn.values.keys() & SCHEDULE.keys():
                raise UserError(f"--scheduler pbt: space {self._space.name} gives {found.pop()}, which pbt decides")
            training = drawn.config.training
            if training.phases is None and training.patience is None and training.epochs == sum(self.lengths):
                source: Source = "known" if number < len(self._space.known) else "sampler"
                founder = self._member(len(members), drawn.values, factors, drawn.params, drawn.distributions, source)
                if founder.run_id not in members:
                    members[founder.run_id] = founder
            if len(members) == size:
                return list(members.values())
        raise UserError(
            f"--scheduler pbt: {MAX_DRAWS} points of space {self._space.name} held {len(members)} different members; "
            f"expected {size} that train the whole network in one phase, for {sum(self.lengths)} epochs"
        )

    def copies(
        self, originals: Sequence[Member], done: int, number: int, draw: random.Random
    ) -> Iterator[tuple[Member, Member]]:
        """Originals after `done` generations and copies of them, by chance and without end, so that a population in
        which most failed is full again. A copy gets the number.
        """
        for power in count(1):
            pairs = [(original, step**power) for original in originals for step in FACTORS]
            for original, step in draw.sample(pairs, len(pairs)):
                factor = float(f"{original.factors[done - 1] * step:.4g}")
                factors = original.factors[:done] + (factor,) * (len(self.lengths) - done)
                parent = original.proposal
                yield (
                    original,
                    self._member(number, parent.config, factors, parent.params, parent.distributions, "population"),
                )

    def _member(
        self, number: int, values: Any, factors: tuple[float, ...], params: Any, distributions: Any, source: Source
    ) -> Member:
        phases = [
            f"all {length} x{factor:g}{' carry' if place else ''}"
            for place, (length, factor) in enumerate(zip(self.lengths, factors, strict=True))
        ]
        values = {**values, **SCHEDULE, "training.phases": ", ".join(phases)}
        seed = self._space.seeds[0]
        config = self._base.replace({**values, "training.seed": seed})
        run = ProposedRun(self._run_id(config), seed, "running")
        proposal = Proposal(
            number=number, source=source, params=params, distributions=distributions, config=values, runs=(run,)
        )
        return Member(proposal, config, factors)
