"""Names of expressions: label sets in the order their source numbers them, aliases, and class matching by name.

Classes meet by name, never by number: FER2013's CSV has neutral at 6, a reader that sorts folders has it at 4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fer_ray.errors import UserError

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven classes in the order of the `emotion` column of fer2013.csv (Goodfellow et al. 2013)."""

SETS = {
    "fer7": FER2013,
    "fer4": ("angry", "happy", "sad", "neutral"),
    "affectnet8": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
    "affectnet7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    "ferplus8": ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"),
    "emotieff8": ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "emotieff7": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}
"""Label sets in the order in which their source numbers the classes: FER2013's CSV, AffectNet's files (Mollahosseini et
al. 2017), FER+ (Barsoum et al. 2016), the EmotiEff models (alphabetical). fer4 merges FER2013's classes, see MERGED."""

MERGED = {"fer4": {"disgust": "angry", "fear": "sad", "surprise": "neutral"}}
"""Label set -> classes of other sets that become one of its own. What is neither in a set nor merged is dropped."""

CANONICAL_ORDER = (*FER2013, "contempt")

ALIASES = {
    "anger": "angry",
    "ang": "angry",
    "an": "angry",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "smile": "happy",
    "sadness": "sad",
    "unhappy": "sad",
    "surprised": "surprise",
    "surprising": "surprise",
    "neutrality": "neutral",
    "calm": "neutral",
    "natural": "neutral",
}
"""Other spellings that data sets and folders use, to the names of FER2013."""


def canonical(name: str) -> str:
    """The one name of an expression: lower case, stripped, aliases resolved. Unknown names stay, in lower case.

    >>> canonical(" Happiness ")
    'happy'
    """
    folded = name.strip().casefold()
    return ALIASES.get(folded, folded)


@dataclass(frozen=True)
class LabelMap:
    """How classes become those of a label set.

    Attributes:
        classes: of the set, in its order; those only that the source has.
        merged: source class -> the class that takes it in.
        dropped: source classes without a place in the set; their samples are left out.
        missing: classes of the set that the source does not have.
    """

    classes: tuple[str, ...]
    merged: Mapping[str, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]

    def notes(self) -> list[str]:
        """What is merged, dropped or missing, a line each."""
        lines = [f"{', '.join(f'{old} counts as {new}' for old, new in self.merged.items())}"] if self.merged else []
        if self.dropped:
            lines.append(f"left out, as the label set has no such class: {', '.join(self.dropped)}")
        if self.missing:
            lines.append(f"not in the data: {', '.join(self.missing)}")
        return lines


def map_to(source: Sequence[str], name: str) -> LabelMap:
    """The map from canonical class names to the label set `name`, a key of SETS; classes meet by name.

    Raises UserError when fewer than two classes would be left.

    >>> map_to(FER2013, "fer4").merged
    {'disgust': 'angry', 'fear': 'sad', 'surprise': 'neutral'}
    """
    target = SETS[name]
    merged = {old: new for old, new in MERGED.get(name, {}).items() if old in source}
    reached = {*source, *merged.values()}
    classes = tuple(wanted for wanted in target if wanted in reached)
    if len(classes) < 2:
        raise UserError(
            f"classes {', '.join(source)} share {len(classes)} with label set {name} ({', '.join(target)}); "
            "at least 2 are needed"
        )
    dropped = tuple(old for old in source if old not in target and old not in merged)
    return LabelMap(classes, merged, dropped, tuple(wanted for wanted in target if wanted not in reached))


def positions(of: Sequence[str], among: Sequence[str]) -> list[int]:
    """Where each name of `of` stands in `among`: `scores[:, positions(of, among)]` brings columns into order `of`.

    >>> positions(SETS["affectnet8"], SETS["emotieff8"])
    [5, 4, 6, 7, 3, 2, 0, 1]
    """
    return [list(among).index(name) for name in of]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct canonical names, FER2013's order first and contempt after it, then all others by name."""
    distinct = {canonical(name) for name in names}
    known = [name for name in CANONICAL_ORDER if name in distinct]
    return (*known, *sorted(distinct.difference(CANONICAL_ORDER)))


def common_classes(parts: Mapping[str, Sequence[str]], policy: str) -> tuple[str, ...]:
    """The classes of an experiment over several data sets, in the order of the first.

    Args:
        parts: what a data set is called in messages -> its classes, e.g. `{"real": ..., "synthetic": ...}`.
        policy: "same" demands equal sets and names the difference otherwise; "common" keeps the shared ones.

    Raises UserError when the sets differ under "same", or share fewer than two classes under "common".
    """
    (first, classes), *others = parts.items()
    shared = set(classes)
    for other, other_classes in others:
        if set(classes) != set(other_classes) and policy == "same":
            only_first = ", ".join(in_order(set(classes).difference(other_classes))) or "none"
            only_other = ", ".join(in_order(set(other_classes).difference(classes))) or "none"
            raise UserError(
                f"{first} and {other} faces have different classes: only {first}: {only_first}; only {other}: "
                f"{only_other}. Rename the classes, or pass --classes common to go on with those they share"
            )
        shared &= set(other_classes)
    if len(shared) < 2:
        named = " and ".join(f"{part} classes ({', '.join(names)})" for part, names in parts.items())
        raise UserError(f"{named} share {len(shared)}; at least 2 are needed")
    return tuple(name for name in classes if name in shared)
