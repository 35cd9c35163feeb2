"""Names of expressions: label sets in the order their source numbers them, aliases, and class matching by name.

Classes meet by name, never by number: FER2013's CSV has neutral at 6, a reader that sorts folders has it at 4.
"""

from collections.abc import Iterable, Sequence

from fer_ray.errors import UserError

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven classes in the order of the `emotion` column of fer2013.csv (Goodfellow et al. 2013)."""

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


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct canonical names, FER2013's order first and contempt after it, then all others by name."""
    distinct = {canonical(name) for name in names}
    known = [name for name in CANONICAL_ORDER if name in distinct]
    return (*known, *sorted(distinct.difference(CANONICAL_ORDER)))


def common_classes(real: Sequence[str], synthetic: Sequence[str], policy: str) -> tuple[str, ...]:
    """The classes of an experiment over two domains, in canonical order.

    `policy` "same" demands equal sets and names the difference otherwise; "common" keeps the shared ones.

    Raises UserError when the sets differ under "same", or share fewer than two classes under "common".
    """
    first, second = set(in_order(real)), set(in_order(synthetic))
    if first != second and policy == "same":
        only_real = ", ".join(in_order(first - second)) or "none"
        only_synthetic = ", ".join(in_order(second - first)) or "none"
        raise UserError(
            f"real and synthetic faces have different classes: only real: {only_real}; only synthetic: "
            f"{only_synthetic}. Rename the classes, or pass --classes common to go on with those they share"
        )
    shared = in_order(first & second)
    if len(shared) < 2:
        raise UserError(
            f"real classes ({', '.join(in_order(first))}) and synthetic classes ({', '.join(in_order(second))}) "
            f"share {len(shared)}; at least 2 are needed"
        )
    return shared
