"""Faces as a Parquet file that `readers.fer_parquet` reads: what every way of making synthetic faces writes."""

import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fer_ray.errors import UserError

_ROWS_AT_ONCE = 1_000  # held in memory, and a row group of the file


def write_faces(
    path: Path,
    faces: Mapping[str, Iterable[np.ndarray]],
    source: str,
    *,
    names: Mapping[str, list[str]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes uint8 [H, W, C] faces by class name; C is 1 or 3. The file is whole or not there.

    Columns: `label` (int16, into the metadata's `label_names`), `path` (a name for messages), `image` (PNG: what is
    read is what was made).

    Args:
        path: the file, replaced if it is there.
        faces: class name -> its faces, e.g. an array [n, H, W, C], or an iterator that makes them as they are written;
            classes without a comma in their names.
        source: how they were made, for people; kept in the schema's metadata under `source`.
        names: class name -> a name per face; by default `<class>_<number>.png`.
        metadata: more facts for the schema's metadata.

    Raises UserError when the file cannot be written, or a class has a comma in its name.
    """
    if commas := [name for name in faces if "," in name]:
        raise UserError(f"class {commas[0]!r} has a comma in its name, which separates names in the file; rename it")
    columns = [("label", pa.int16()), ("path", pa.string()), ("image", pa.binary())]
    schema = pa.schema(columns, {"label_names": ",".join(faces), "source": source, **(metadata or {})})
    partial = path.with_name(f".{path.name}.partial")
    rows = _rows(faces, names)
    try:
        with pq.ParquetWriter(partial, schema) as file:
            while group := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                file.write_table(pa.Table.from_pylist(group, schema))
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another --out") from error
    finally:
        partial.unlink(missing_ok=True)


def _rows(faces: Mapping[str, Iterable[np.ndarray]], names: Mapping[str, list[str]] | None) -> Iterator[dict[str, Any]]:
    for label, (name, images) in enumerate(faces.items()):
        default = (f"{name}_{number:05d}.png" for number in itertools.count())
        named = zip(default, images, strict=False) if names is None else zip(names[name], images, strict=True)
        for face_path, image in named:
            yield {"label": label, "path": face_path, "image": _encoded(image)}


def _encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()
