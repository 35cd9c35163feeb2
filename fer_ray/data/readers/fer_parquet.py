"""Parquet: a row per face with the columns `image` and `label`, and optionally `usage`, `path`, `valence`, `arousal`.

`image` holds an encoded image file. `label` is a name, or a number into the names that the schema's metadata lists
under `label_names`, separated by commas. `usage` names the split (Training, PublicTest, test, val, ...).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.data.readers.class_folders import MAX_CLASSES
from fer_ray.data.readers.images import Form, decode_all
from fer_ray.data.readers.samples import Samples, split_index
from fer_ray.errors import UserError
from fer_ray.labels import canonical

MAX_EXPANSION = 1_000
"""Times the size of the file that its columns may take in memory."""

_ROWS_AT_ONCE = 2_000
_COLUMNS = ("image", "label", "usage", "path", "valence", "arousal")


def read(path: Path, form: Form) -> Samples:
    """Reads and decodes a Parquet file. Raises UserError naming file and row."""
    try:
        # pq.read_table would import pyarrow.dataset for this, a third of a second.
        with pq.ParquetFile(path, memory_map=True) as file:
            names = file.schema_arrow.names
            table = _table(path, file, [name for name in _COLUMNS if name in names])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    missing = [name for name in ("image", "label") if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}; columns: {', '.join(names)}. "
            "Expected image (bytes of an image file), label, and optionally usage, path, valence, arousal"
        )
    if not table.num_rows:
        raise UserError(f"{path} has no rows")
    encoded = table["image"]
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        raise UserError(f"{path}, column image: expected bytes of image files, got {encoded.type}")
    _refuse_nulls(path, table, [name for name in ("image", "label", "usage") if name in table.column_names])
    labels, classes = _labels(path, table)
    files = table["path"] if "path" in table.column_names else None

    def name_of(row: int) -> str:
        return f"{path}, row {row + 1}" + (f" ({files[row]})" if files is not None else "")

    images, notes = decode_all(table.num_rows, lambda row: encoded[row].as_py(), name_of, form)
    splits = _splits(path, table["usage"]) if "usage" in table.column_names else np.zeros(table.num_rows, np.int8)
    return Samples(
        images, labels, classes, splits, _affect(path, table, "valence"), _affect(path, table, "arousal"), notes=notes
    )


def _table(path: Path, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    """The columns, read in parts: a value that is stored once may be declared for millions of rows."""
    most = MAX_EXPANSION * path.stat().st_size
    parts, size = [], 0
    for part in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
        size += part.nbytes
        if size > most:
            raise UserError(
                f"{path} declares more than {MAX_EXPANSION} times the bytes that it has; it would fill the memory"
            )
        parts.append(part)
    schema = parts[0].schema if parts else pa.schema([file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches(parts, schema.with_metadata(file.schema_arrow.metadata))


def _labels(path: Path, table: pa.Table) -> tuple[np.ndarray, tuple[str, ...]]:
    column = table["label"]
    if not pa.types.is_integer(column.type):
        codes, names = _encoded(path, column)
        if len(names) > MAX_CLASSES:
            raise UserError(f"{path}: {len(names):,} different labels, expected at most {MAX_CLASSES:,}")
        classes = tuple(dict.fromkeys(canonical(name) for name in names))
        lookup = np.array([classes.index(canonical(name)) for name in names], np.int16)
        return lookup[codes], classes
    metadata = table.schema.metadata or {}
    if b"label_names" not in metadata:
        raise UserError(
            f"{path}: labels are numbers, but the schema's metadata has no label_names (names separated by commas), "
            "so nothing says which number is which expression; add it, or store names in the column label"
        )
    names = [canonical(name) for name in metadata[b"label_names"].decode("utf-8", "replace").split(",")]
    if len(names) > MAX_CLASSES:
        raise UserError(f"{path}: {len(names):,} label_names, expected at most {MAX_CLASSES:,}")
    numbers = _numbers(column, object)  # unsigned ones of 64 bits do not fit into others
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{path}, row {row + 1}: label {numbers[row]} is outside the set 0 to {len(names) - 1} ({', '.join(names)})"
        )
    classes = tuple(dict.fromkeys(names))
    return np.array([classes.index(name) for name in names], np.int16)[numbers.astype(np.int64)], classes


def _splits(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    codes, names = _encoded(path, column)
    found = [split_index(name) for name in names]
    if None in found:
        unknown = found.index(None)
        row = int(np.flatnonzero(codes == unknown)[0])
        raise UserError(
            f"{path}, row {row + 1}: unknown usage {names[unknown]!r}; expected Training, Validation, PublicTest, "
            "PrivateTest or Test"
        )
    return np.array(found, np.int8)[codes]


def _encoded(path: Path, column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A text column as codes into its distinct values."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{path}: labels and usages are text, or labels whole numbers, got a column of {column.type}")
    array = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    return _numbers(array.indices, np.int64), array.dictionary.to_pylist()


def _numbers(column: pa.Array | pa.ChunkedArray, dtype: type) -> np.ndarray:
    # to_numpy() would import pandas for this, a third of a second.
    return np.array(column.to_pylist(), dtype)


def _affect(path: Path, table: pa.Table, name: str) -> np.ndarray | None:
    if name not in table.column_names:
        return None
    try:
        values = _numbers(table[name].cast(pa.float32()), np.float32)
    except pa.ArrowException as error:
        raise UserError(f"{path}, column {name}: expected numbers in [-1, 1], got {table[name].type}") from error
    if len(wrong := np.flatnonzero(np.abs(values) > 1)):
        raise UserError(
            f"{path}, row {wrong[0] + 1}: {name} {values[wrong[0]]:g} is outside [-1, 1]; correct it, or leave it empty"
        )
    return values


def _refuse_nulls(path: Path, table: pa.Table, names: list[str]) -> None:
    for name in names:
        if table[name].null_count:
            row = pc.index(pc.is_null(table[name]), True).as_py()
            raise UserError(f"{path}, row {row + 1}: {name} is missing")
