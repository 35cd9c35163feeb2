"""What a case is made of: files by name, how they are packed and written, and what several modules know."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

Files = dict[str, "bytes | Callable[[Path], None]"]
"""Name inside the case's folder -> its bytes, or what makes it there (a link, a named pipe)."""

Mutation = Callable[[random.Random, Files], Files]

MARKER = "fer_ray_pwned"
"""Every payload makes a file of this name in the working directory, or outside the case's folder."""

CLASSES = ("happy", "sad", "neutral")


def packed(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A .zip of the files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            if isinstance(data, bytes):
                archive.writestr(name.encode("utf-8", "replace").decode(), data)
    return file.getvalue()


def write(folder: Path, files: Files) -> list[Path]:
    """Makes the files, and returns their paths."""
    paths = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        paths.append(path)
    return paths
