"""`python -m fer_ray.data cache`: what the cache of decoded images holds; checks it, and empties it."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fer_ray import cli
from fer_ray.errors import UserError, printable

LOCK_SECONDS = 10.0
"""How long another process may hold the cache before a change of it is refused."""

_ENTRY = re.compile(r"[0-9a-f]{16}-\d+x\d+x\d+|\.[0-9a-f]{8}")
_SOURCE = re.compile(r"[0-9a-f]{16}\.(json|partial)")
_FEATURES = re.compile(r"[0-9a-f]{32}\.f32")
_WEIGHTS = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{8}")
_LEAKS = re.compile(r"\.?[0-9a-f]{8,16}\.npy")


@dataclass(frozen=True)
class Entry:
    """A decoded data set in the cache.

    Attributes:
        path: its folder.
        num_images: number of its images, or None where its files do not say.
        num_bytes: of all its files.
        last_use: when its images were last opened, to the day, as file systems keep it.
        sources: the paths it was read from; empty where these have another content by now.
    """

    path: Path
    num_images: int | None
    num_bytes: int
    last_use: date
    sources: tuple[str, ...]


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.data cache`."""
    parser = cli.Parser(
        "data cache",
        "Show the cache of decoded images: $FER_RAY_CACHE, else fer_ray in the XDG cache folder. Whatever is deleted "
        "is decoded again when it is needed.",
        "python -m fer_ray.data cache --verify",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--verify",
        action="store_true",
        help="hash all images again; entries that are damaged are deleted, and the exit code is 1",
    )
    action.add_argument("--clear", action="store_true", help="delete all entries")
    return parser


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.data cache`; returns the exit code."""
    options = parser().parse(arguments)

    from fer_ray.data.cache import cache_folder

    folder = cache_folder()
    if options.clear:
        return _clear(folder)
    found = entries(folder)
    if not found:
        print(f"the cache at {folder} is empty")
        return 0
    return _verify(folder, found) if options.verify else _show(folder, found)


def entries(folder: Path) -> list[Entry]:
    """The entries of a cache, the last used first; unfinished ones are left out."""
    sources: dict[str, list[str]] = {}
    for path in _named(folder / "sources", _SOURCE):
        try:
            record = json.loads(path.read_bytes())
            sources.setdefault(record["entry"], []).append(record["origin"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # written again when the source is opened
    found = [
        Entry(path, _num_images(path), _size(path), _last_use(path), tuple(sorted(sources.get(path.name, []))))
        for path in _named(folder / "entries", _ENTRY)
        if not path.name.startswith(".")
    ]
    return sorted(found, key=lambda entry: (entry.last_use, entry.path.name), reverse=True)


def damage(folder: Path) -> str | None:
    """What is wrong with an entry: every image is hashed again, and ids, labels and splits are compared.

    Returns None for a sound one.
    """
    import numpy as np

    from fer_ray.data import cache
    from fer_ray.data.store import NO_CLASS, content_digest, id_stem

    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        fields = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in meta["fields"]}
        images, ids, labels, splits = (fields[name] for name in ("images", "ids", "labels", "splits"))
        names = [*meta["classes"], NO_CLASS]
        digest = content_digest(fields)
        if digest != meta["digest"] or not folder.name.startswith(digest):
            return "its ids or values are not those it was written with"
        if not len(images) == len(ids) == len(labels) == len(splits):
            return "its files differ in length"
        for part in cache.blocks(images):
            for i in range(part.start, part.stop):
                if ids[i].decode().rpartition("-")[0] != id_stem(images[i], splits[i], names[labels[i]]):
                    return f"image {i:,} of {len(images):,}, its label or its split is not what was written"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError) as error:
        return f"its files cannot be read ({error})"
    return None


def _show(folder: Path, found: list[Entry]) -> int:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("entry", box=box.SIMPLE_HEAD)
    for name in ("images", "size", "last use"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sources", overflow="fold")
    for entry in found:
        count = "damaged" if entry.num_images is None else f"{entry.num_images:,}"
        sources = Text("\n".join(map(printable, entry.sources)) or "none that has this content still")
        table.add_row(entry.path.name, count, _mb(entry.num_bytes), str(entry.last_use), sources)
    total = sum(entry.num_bytes for entry in found)
    print(f"{folder}: {len(found)} data {'set' if len(found) == 1 else 'sets'}, {_mb(total)}")
    cli.stdout_console().print(table)
    return 0


def _verify(folder: Path, found: list[Entry]) -> int:
    num_damaged = 0
    for entry in found:
        problem = damage(entry.path)
        if problem:
            num_damaged += 1
            with _held(folder):
                _delete(entry.path)
        print(f"{entry.path.name}: {f'{problem}; deleted' if problem else f'{entry.num_images:,} images are sound'}")
    return cli.FAILED_TRIALS if num_damaged else 0


def _clear(folder: Path) -> int:
    freed = num_entries = 0
    if folder.is_dir():
        with _held(folder):
            for path in [
                *_named(folder / "entries", _ENTRY),
                *_named(folder / "sources", _SOURCE),
                *_named(folder / "leakage", _LEAKS),
                *_named(folder / "features", _FEATURES),
                *_named(folder / "weights", _WEIGHTS),
            ]:
                freed += _size(path)
                num_entries += _ENTRY.fullmatch(path.name) is not None
                _delete(path)
    print(f"{_mb(freed)} freed: {num_entries} data {'set' if num_entries == 1 else 'sets'} deleted from {folder}")
    return 0


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The cache's lock, unless another process keeps it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise UserError(
            f"the cache at {folder} is in use: another process is decoding a data set into it; wait for it, or end it"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write the cache at {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """What the cache itself put into one of its folders, by name; a folder that is a link leads elsewhere: nothing."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot delete {path}: {error.strerror or error}") from error


def _num_images(entry: Path) -> int | None:
    import numpy as np

    try:
        return len(np.load(entry / "ids.npy", mmap_mode="r"))  # not images.npy: opening it would count as its use
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _last_use(entry: Path) -> date:
    images = entry / "images.npy"
    status = (images if images.exists() else entry).stat()
    return date.fromtimestamp(max(status.st_atime, status.st_mtime))


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; links count for themselves."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(inner) for inner in path.iterdir())
    return path.lstat().st_size


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
