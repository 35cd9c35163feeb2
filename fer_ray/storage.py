"""Where a sweep's results lie: a folder, or a place in S3 with a mirror of it in the cache folder.

All that writes or reads results works on files below `Storage.folder`. Where the place is remote, `push` copies them
there and `pull` brings what others pushed; where it is a folder, both do nothing. A mirrored file carries the size and
the time of its object, which is how either side tells what is new.
"""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from fer_ray.errors import UserError

PROBE_BYTES = 2**16


def open_storage(location: str | Path) -> "Storage":
    """The place of one sweep: a local folder, or `s3://BUCKET/PREFIX/NAME`. Connects to nothing.

    Credentials, region and endpoint come from the standard AWS variables and files; `AWS_ENDPOINT_URL`, or
    `?endpoint_override=HOST:PORT&scheme=http` at the end of the address, names a server that is not Amazon's.

    Raises UserError for another scheme, an option that is unknown, or credentials in the address.
    """
    text = str(location)
    if text.startswith("s3:"):
        from fer_ray.s3 import S3Storage

        return S3Storage(text)
    if "://" in text:
        raise UserError(
            f"storage {text}: expected a folder or s3://BUCKET/PREFIX, got the scheme {urlsplit(text).scheme}"
        )
    return Storage(text)


def place(storage: str | Path, name: str) -> str:
    """The location of the sweep `name` under what `--storage` says: before the options of an s3:// address.

    >>> place("s3://bucket/fer?region=eu-west-1", "ratios")
    's3://bucket/fer/ratios?region=eu-west-1'
    """
    if not str(storage).startswith("s3:"):
        return str(Path(storage).expanduser().absolute() / name)
    path, mark, options = str(storage).partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


class Storage:
    """A local folder, perhaps one that all nodes share.

    Attributes:
        location: as text, for messages and for `open_storage` elsewhere.
        folder: where its files are read and written on this machine. May not exist yet.
    """

    is_remote = False

    def __init__(self, location: str) -> None:
        self.folder = Path(location).expanduser().absolute()
        self.location = str(self.folder)

    def pull(self, *names: str) -> None:
        """Brings what is new or changed elsewhere under these files and folders, by default everything, into `folder`.

        Weights and checkpoints come only when named. A trial comes only if its row.json is there, and its row.json
        comes last. What was pulled before and is gone there goes here as well. Raises UserError.
        """

    def push(self, *names: str) -> None:
        """Copies these files and folders of `folder` to the remote place, where they are new or changed.

        A trial's folder replaces what was there before: its row.json goes first and comes last, so that the trial is
        whole or not there. So does a run's folder of checkpoints. Hidden files stay. Raises UserError.
        """

    def remove(self, *names: str) -> None:
        """Deletes these files and folders, here and there; those that are not there are passed over."""
        for name in names:
            path = self.folder / name
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot delete {path}: {error.strerror or error}") from error

    def probe(self) -> None:
        """Writes a file, replaces it and reads it back. Raises UserError with the reason where that does not work."""
        path, content = self.folder / f".probe-{uuid.uuid4().hex}", os.urandom(PROBE_BYTES)
        partial = path.with_name(f"{path.name}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"replaced")
            partial.write_bytes(content)
            os.replace(partial, path)
            read = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder} ({error.strerror or error}); choose another --storage, or make room"
            ) from error
        finally:
            for left in (path, partial):
                with suppress(OSError):
                    left.unlink()
        if read != content:
            raise UserError(f"{self.folder} gives back another file than was written; choose another --storage")
