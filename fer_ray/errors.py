"""The one error that users see as a message instead of a traceback, and nearest-name hints."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: a file, a flag, a value, a full disk.

    The message names the file or key, the value, what was expected and what to do. Commands print it without a
    traceback and exit with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error message: `; did you mean 'ResNet18'?`, or the known names if none is near.

    >>> nearest("ResNet81", ["ResNet18", "ConvNeXtTiny"])
    "; did you mean 'ResNet18'?"
    """
    names = list(known)
    for candidate in names:  # optimizer.lr for optimizer.learning_rate
        words = candidate.rpartition(".")[2].split("_")
        if len(words) > 1 and "".join(word[:1] for word in words) == name.rpartition(".")[2]:
            return f"; did you mean {candidate!r}?"
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def printable(text: str) -> str:
    """The text as a terminal may get it: line ends stay, other characters that do not print are written as escapes.

    >>> printable("\x1b[31mred")
    '\\\\x1b[31mred'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
