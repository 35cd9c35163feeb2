"""The interactive figures of a search's page: each a set of figures, one for every choice of its selects."""

from collections.abc import Sequence
from itertools import combinations

from fer_ray.analysis import importance_figures
from fer_ray.analysis import search_figures as figures
from fer_ray.analysis.importance import Importance
from fer_ray.analysis.parallel_figure import parallel_coordinates
from fer_ray.analysis.search import Search
from fer_ray.analysis.search_tables import METHODS, importance_notes, objective_label
from fer_ray.analysis.views import Figures, Select, View
from fer_ray.proposals import Proposal


def build_views(search: Search, found: Sequence[Importance | None], front: list[Proposal]) -> list[View]:
    """All figures of the page; `found` has the importances for each objective."""
    views = [_history(search)]
    if len(search.objectives) > 1 and front:
        views.append(_pareto(search, front))
    views += _importances(search, found)
    if search.complete:
        views += [_slices(search), _parallel(search)]
    return [*views, *_learning_curves(search)]


def _objectives(search: Search, numbers: Sequence[int] | None = None) -> list[Select]:
    """A choice where there are several."""
    shown = [objective_label(search.objectives[k]) for k in numbers or range(len(search.objectives))]
    return [Select("Objective", shown)] if len(shown) > 1 else []


def _history(search: Search) -> View:
    made: Figures = {(k,): figures.history(search, k) for k in range(len(search.objectives))}
    return View(
        "history",
        "Search history",
        "Proposals in the order they were made: the mean over seeds, with its 95 % t-interval where there are three. "
        "Stopped ones stand where they were stopped, after fewer epochs.",
        _objectives(search),
        _keyed(made),
    )


def _pareto(search: Search, front: list[Proposal]) -> View:
    pairs = list(combinations(range(len(search.objectives)), 2))
    names = [f"{objective_label(search.objectives[a])}, {objective_label(search.objectives[b])}" for a, b in pairs]
    made: Figures = {(n,): figures.pareto(search, front, b, a) for n, (a, b) in enumerate(pairs)}
    goals = ", ".join(
        f"{objective_label(name)} {'higher' if direction == 'maximize' else 'lower'}"
        for name, direction in zip(search.objectives, search.directions, strict=True)
    )
    return View(
        "pareto",
        "Pareto front",
        f"Better is: {goals}. No complete proposal betters one of the front without being worse in something.",
        [Select("Objectives", names)] if len(pairs) > 1 else [],
        _keyed(made),
    )


def _importances(search: Search, found: Sequence[Importance | None]) -> list[View]:
    labels = {parameter.name: parameter.label for parameter in search.parameters}
    known = [(k, importance) for k, importance in enumerate(found) if importance]
    if not known:
        return []
    numbers = [k for k, _ in known]
    bars: Figures = {
        (n,): importance_figures.importance_bars(importance, labels) for n, (_, importance) in enumerate(known)
    }
    views = [
        View(
            "importance",
            "What mattered",
            " ".join([METHODS, *(_notes(search, importance, len(known) > 1) for _, importance in known)]),
            _objectives(search, numbers),
            _keyed(bars),
        )
    ]
    if all(importance.pairs for _, importance in known):
        maps: Figures = {
            (n,): importance_figures.interactions(importance, labels) for n, (_, importance) in enumerate(known)
        }
        views.append(
            View(
                "interactions",
                "What mattered together",
                "fANOVA: share of the variance that two parameters cause together beyond what each causes alone; on "
                "the diagonal, what one causes alone. Read it only where the forest predicts.",
                _objectives(search, numbers),
                _keyed(maps),
            )
        )
    return views


def _notes(search: Search, importance: Importance, is_one_of_several: bool) -> str:
    name = f"For {objective_label(importance.objective)}: " if is_one_of_several else ""
    return name + " ".join(importance_notes(search, importance))


def _slices(search: Search) -> View:
    space = [parameter for parameter in search.parameters if parameter.varies]
    made: Figures = {
        (p, k): figures.slice_of(search, parameter, k)
        for p, parameter in enumerate(space)
        for k in range(len(search.objectives))
    }
    chosen = _objectives(search)
    return View(
        "slices",
        "One parameter at a time",
        "Every proposal that has the parameter; the others of its parameters differ too.",
        [Select("Parameter", [parameter.label for parameter in space]), *chosen],
        made if chosen else {key[:1]: figure for key, figure in made.items()},
    )


def _parallel(search: Search) -> View:
    made: Figures = {(k,): parallel_coordinates(search, k) for k in range(len(search.objectives))}
    return View(
        "parallel",
        "All parameters at once",
        "A line per complete proposal. Click a fifth to hide its lines, twice to see it alone.",
        _objectives(search),
        _keyed(made),
    )


def _learning_curves(search: Search) -> list[View]:
    """Of the objectives that epochs have; macro F1 and loss where none has."""
    epochs = search.sweep.epochs
    wanted = [name for name in search.objectives if name in epochs] or ["validation_macro_f1", "validation_loss"]
    columns = [name for name in wanted if name in epochs and epochs[name].notna().any()]
    if not columns:
        return []
    made: Figures = {(n,): figures.learning_curves(search, name) for n, name in enumerate(columns)}
    labels = [objective_label(name) for name in columns]
    return [
        View(
            "learning-curves",
            "Learning curves",
            "A line per run, by epoch; runs that were stopped are faded.",
            [Select("Value", labels)] if len(labels) > 1 else [],
            _keyed(made),
        )
    ]


def _keyed(made: Figures) -> Figures:
    """Without a select there is one figure, of no choice."""
    return {(): next(iter(made.values()))} if len(made) == 1 else made
