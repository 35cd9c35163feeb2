"""A folder of images per class, alone or inside `train/`, `test/` and `val/`; unpacked, or the `.zip` as downloaded.

Images of FER2013's `test/` are told apart into PublicTest and PrivateTest by the start of their names. A folder or
archive that holds only one such folder is taken for it. Nothing of an archive is written to the disk.
"""

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fer_ray.data.people import people_of
from fer_ray.data.readers.images import MAX_FILE_BYTES, SUFFIXES, Form, decode_all, read_file
from fer_ray.data.readers.samples import SPLITS, Samples, split_index
from fer_ray.errors import UserError
from fer_ray.labels import canonical

MAX_CLASSES = 1_000
"""More are refused: they are people or frames, not expressions."""

_MAX_DEPTH = 8
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # with others a file chooses how much memory unpacking takes
# What zipfile raises on a damaged archive; RuntimeError on one that needs a password.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, struct.error, RuntimeError)
_TABLES = (".csv", ".parquet", ".zip")

Parts = tuple[str, ...]
"""A path inside the data set, as its parts."""


@dataclass(frozen=True)
class _Tree:
    """Files and folders below the data set, sorted, hidden ones left out, and how to read a file."""

    root: Path
    files: list[Parts]
    folders: list[Parts]
    read: Callable[[Parts], bytes]


def read(path: Path, form: Form, without: Collection[str] = ()) -> Samples:
    """Reads and decodes a folder or .zip, but for the images named in `without`. Raises UserError naming the file."""
    if path.is_dir():
        return _read_tree(_folder_tree(path), form, without)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise UserError(f"{path} is a damaged archive ({error}); download it again") from error
    with archive:
        return _read_tree(_zip_tree(path, archive), form, without)


def stamp(folder: Path) -> str:
    """A hash over name, size and time of change of every file of a folder that is not hidden."""
    lines = []
    for entry, parts in _walk(folder):
        if entry.is_file():
            status = entry.stat()
            lines.append(f"{'/'.join(parts)}\0{status.st_size}\0{status.st_mtime_ns}")
        else:
            lines.append("/".join(parts))
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _read_tree(tree: _Tree, form: Form, without: Collection[str]) -> Samples:
    images = [parts for parts in tree.files if PurePosixPath(parts[-1]).suffix.casefold() in SUFFIXES]
    if without:
        images = [parts for parts in images if f"{tree.root}/{'/'.join(parts)}" not in without]
    if not images:
        tables = ["/".join(parts) for parts in tree.files if parts[-1].casefold().endswith(_TABLES)]
        hint = f"; pass {tables[0]} itself" if tables else "; expected one folder of images per class"
        raise UserError(f"{tree.root} holds no images{hint}")
    depth = _wrapper_depth(images)
    class_of, split_of = zip(*(_place(tree.root, parts, depth) for parts in images), strict=True)
    _refuse_empty_classes(tree, depth, {parts[:-1] for parts in images})
    number_of = {name: number for number, name in enumerate(dict.fromkeys(class_of))}
    classes = tuple(number_of)
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{tree.root}: {len(classes):,} class folders, expected at most {MAX_CLASSES:,}")
    if len(classes) < 2:
        raise UserError(
            f"{tree.root}: only one class folder, {classes[0]!r}; expected one folder of images per class, "
            "alone or inside train/ and test/"
        )
    pixels, notes = decode_all(
        len(images), lambda i: tree.read(images[i]), lambda i: f"{tree.root}/{'/'.join(images[i])}", form
    )
    if num_others := len(tree.files) - len(images):
        notes = (*notes, f"{num_others:,} files left out that are no images")
    labels = np.array([number_of[name] for name in class_of], np.int16)
    splits = _test_halves(images, np.array(split_of, np.int8))
    return Samples(pixels, labels, classes, splits, notes=notes, people=people_of([parts[-1] for parts in images]))


def _wrapper_depth(images: list[Parts]) -> int:
    """How many folders hold nothing but the next one, before the folders of splits or classes begin."""
    depth = 0
    while True:
        names = {parts[depth] for parts in images}
        is_wrapper = len(names) == 1 and split_index(next(iter(names))) is None
        if not is_wrapper or min(map(len, images)) < depth + 3:
            return depth
        depth += 1


def _place(root: Path, parts: Parts, depth: int) -> tuple[str, int]:
    """Canonical class and split of an image by the folders it lies in."""
    inner = parts[depth:]
    split = split_index(inner[0]) if len(inner) == 3 else None
    if split is None and len(inner) != 2:
        raise UserError(
            f"{root}/{'/'.join(parts)} is not in a class folder; expected <class>/<image> "
            "or <split>/<class>/<image>, with a split of train, val or test. Sheets of many faces are cut first: "
            "python -m fer_ray.synthesize sheets"
        )
    return canonical(inner[-2]), split or 0


def _refuse_empty_classes(tree: _Tree, depth: int, used: set[Parts]) -> None:
    for folder in tree.folders:
        inner = folder[depth:]
        is_class = len(inner) == 2 if inner and split_index(inner[0]) is not None else len(inner) == 1
        if is_class and folder not in used:
            raise UserError(f"{tree.root}/{'/'.join(folder)} is an empty class folder; fill it or remove it")


def _test_halves(images: list[Parts], splits: np.ndarray) -> np.ndarray:
    """Splits with FER2013's test images told apart, if every one of them says by its name which half it is in."""
    prefixes = {"publictest": SPLITS.index("public"), "privatetest": SPLITS.index("private")}
    tests = np.flatnonzero(splits == SPLITS.index("test"))
    halves = [prefixes.get(images[i][-1].casefold().split("_")[0]) for i in tests]
    if None not in halves:
        splits[tests] = halves
    return splits


def _folder_tree(root: Path) -> _Tree:
    found = [(parts, entry.is_file()) for entry, parts in _walk(root)]
    files = sorted(parts for parts, is_file in found if is_file)
    folders = sorted(parts for parts, is_file in found if not is_file)

    return _Tree(root, files, folders, lambda parts: read_file(f"{root}/{'/'.join(parts)}"))


def _walk(folder: Path, above: Parts = ()) -> Iterator[tuple[os.DirEntry[str], Parts]]:
    """Every file and folder below, without hidden ones; links are followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    for entry in entries:
        parts = (*above, entry.name)
        if _is_hidden(parts) or not (entry.is_file() or entry.is_dir()):
            continue
        yield entry, parts
        if entry.is_dir():
            if len(parts) == _MAX_DEPTH:
                raise UserError(f"{entry.path} lies too deep; pass the folder that holds train/ or the class folders")
            yield from _walk(Path(entry.path), parts)


def _zip_tree(path: Path, archive: zipfile.ZipFile) -> _Tree:
    members: dict[Parts, zipfile.ZipInfo] = {}
    folders: set[Parts] = set()
    for member in archive.infolist():
        parts = tuple(part for part in member.filename.split("/") if part)
        if not parts or _is_hidden(parts):
            continue
        if len(parts) > _MAX_DEPTH:
            raise UserError(
                f"{path}/{'/'.join(parts[:2])}/... lies too deep; expected <class>/<image> or <split>/<class>/<image>"
            )
        if member.compress_type not in _METHODS:
            raise UserError(
                f"{path}/{member.filename} is packed by a method other than Deflate; unpack the archive and pass the "
                "folder"
            )
        if (declared := max(member.file_size, member.compress_size)) > MAX_FILE_BYTES:
            raise UserError(
                f"{path}/{member.filename} declares {declared:,} bytes, more than {MAX_FILE_BYTES:,}; "
                "unpack the archive and pass the folder if that is right"
            )
        folders.update(parts[:end] for end in range(1, len(parts)))
        if member.is_dir():
            folders.add(parts)
        else:
            members[parts] = member

    def read_member(parts: Parts) -> bytes:
        try:
            return archive.read(members[parts])
        except _DAMAGED as error:
            raise UserError(f"{path}/{'/'.join(parts)} cannot be unpacked ({error}); download it again") from error

    return _Tree(path, sorted(members), sorted(folders), read_member)


def _is_hidden(parts: Parts) -> bool:
    """Names that systems leave behind: .DS_Store, __MACOSX/, Thumbs.db, desktop.ini."""
    return any(part.startswith((".", "__")) or part.casefold() in ("thumbs.db", "desktop.ini") for part in parts)
