"""Names, links and special files in folders."""

import functools
import os
import random
from pathlib import Path

from mutations.files import Files

NAMES = (
    "<script>alert(1)<%2fscript>", "[red]happy[red]", "[bold", "a\"b'c", "two\nlines", "\x1b[31mred\x1b[0m", "\x07bell",
    "\udcff\udcfe", "x" * 240, "a,b", "{0}%s", "‮evil", "-rf", "nul\x7f", "ＨＡＰＰＹ", "happy ", "..x", "\\..\\x",
    "\u2028",
)  # fmt: skip
"""Names of files and classes: markup of HTML and rich, control characters, undecodable bytes, separators."""


def renamed(rng: random.Random, files: Files) -> Files:
    """A folder or a file has a name with markup, control characters, or bytes that are no text."""
    name = rng.choice([name for name in files if "/" in name])
    parts = name.split("/")
    place = rng.randrange(1, len(parts))
    suffix = "".join(Path(parts[place]).suffixes[-1:]) if place == len(parts) - 1 else ""
    above, odd = parts[:place], rng.choice(NAMES) + suffix
    renamed: Files = {}
    for other, data in files.items():
        others = other.split("/")
        renamed[
            "/".join([*above, odd, *others[place + 1 :]] if others[: place + 1] == parts[: place + 1] else others)
        ] = data
    return renamed


def special_file(rng: random.Random, files: Files) -> Files:
    """A link to a device, to nothing, to a folder above or a file outside, or a named pipe, in an entry's place."""
    name = rng.choice([name for name in files if "/" in name])
    targets = ("/dev/zero", "/dev/full", "nothing", "..", ".", "/etc/passwd", "/proc/self/mem", "/proc/kmsg")
    makers = [os.mkfifo, sparse, *(functools.partial(os.symlink, target) for target in targets)]
    in_place = rng.random() < 0.7
    return {**files, (name if in_place else f"{name.rpartition('/')[0]}/more{Path(name).suffix}"): rng.choice(makers)}


def sparse(path: Path) -> None:
    """A file of a terabyte that takes no room."""
    with path.open("wb") as file:
        file.truncate(2**40)


def loops(rng: random.Random, files: Files) -> Files:
    """Folders that hold links to themselves and to each other."""
    top = next(iter(files)).partition("/")[0]
    return {**files, **{f"{top}/loop{i}": functools.partial(os.symlink, ".") for i in range(rng.choice([1, 5]))}}
