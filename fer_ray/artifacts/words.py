"""Names and numbers as people read them."""

import math

MISSING = "–"


def plain(name: str, longest: int | None = None) -> str:
    """A name from outside on one line: what cannot be printed becomes �; of a long one the middle is left out.

    >>> plain("a\\nb"), plain("happily ever after", 9)
    ('a�b', 'happ…fter')
    """
    text = "".join(letter if letter.isprintable() else "�" for letter in name)
    if longest is None or len(text) <= longest:
        return text
    tail = longest // 2
    return f"{text[: longest - 1 - tail]}…{text[-tail:]}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many decimals; a dash where it is undefined.

    >>> number(0.65249), number(None), number(float("nan"))
    ('0.652', '–', '–')
    """
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
