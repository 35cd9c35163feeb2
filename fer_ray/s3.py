"""A sweep's place in S3, mirrored in the cache folder, through Arrow's file system."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from filelock import FileLock
from pyarrow import fs

from fer_ray.data.cache import cache_folder
from fer_ray.errors import UserError, nearest
from fer_ray.storage import PROBE_BYTES, Storage

ON_REQUEST = ("best.safetensors", "checkpoints")
"""Large files and folders, which `pull` brings only where they, or what lies in them, are named."""

UNITS = ("trials", "checkpoints")
"""Folders whose folders are replaced as a whole: a trial's files belong together, and so do a run's checkpoints."""

URI_OPTIONS = ("endpoint_override", "region", "scheme")
"""Options that may follow `?` in an address, named as Arrow names them."""

CONNECT_SECONDS = 3
ATTEMPTS = 3
TRANSFERS_AT_ONCE = 8
BLOCK_BYTES = 2**22


class S3Storage(Storage):
    """A place `s3://BUCKET/PREFIX/NAME` and its mirror. See `open_storage`."""

    is_remote = True

    def __init__(self, location: str) -> None:
        parts = urlsplit(location)
        path = PurePosixPath(parts.path.strip("/"))
        if parts.scheme != "s3" or not parts.netloc or not path.name:
            raise UserError(f"storage {location}: expected s3://BUCKET/PREFIX/NAME")
        if "@" in parts.netloc:
            raise UserError(
                f"storage s3://...@{parts.netloc.rpartition('@')[2]}{parts.path}: credentials do not belong in an "
                "address; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            )
        self._options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for option in self._options:
            if option not in URI_OPTIONS:
                raise UserError(f"storage {location}: unknown option {option!r}{nearest(option, URI_OPTIONS)}")
        self._bucket = parts.netloc
        self._root = f"{parts.netloc}/{path}"
        self.location = f"s3://{self._root}" + (f"?{parts.query}" if parts.query else "")
        key = hashlib.sha256(f"{self._endpoint} {self._root}".encode()).hexdigest()[:16]
        self.folder = cache_folder() / "mirrors" / key / path.name

    @property
    def _endpoint(self) -> str | None:
        """The server: of the address, or of the environment, which Arrow reads for some constructors only."""
        chosen = self._options.get("endpoint_override")
        return chosen or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None

    @cached_property
    def _s3(self) -> fs.S3FileSystem:
        region = self._options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None and self._endpoint is None:
            region = fs.resolve_s3_region(self._bucket)
        return fs.S3FileSystem(
            endpoint_override=self._endpoint,
            scheme=self._options.get("scheme"),
            region=region,
            connect_timeout=CONNECT_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            allow_delayed_open=True,  # a small file is one request instead of three
        )

    def pull(self, *names: str) -> None:
        with self._told():
            there: dict[str, fs.FileInfo] = {}
            for name in names or ("",):
                there |= self._listed(name)
            if not there and not names:
                self._check_bucket()
            changed = [name for name, info in there.items() if not _same(self.folder / name, _stamp(info))]
            rows = [name for name in changed if _is_row(name)]
            for batch in (set(changed) - set(rows), rows):
                _at_once(lambda name: self._download(name, there[name]), sorted(batch))
            self._forget_others(there, names)

    def push(self, *names: str) -> None:
        with self._told():
            here = sorted({name for given in names for name in self._files_here(given)})
            units = {_unit(name) for name in here} - {None}
            self._upload([name for name in here if _unit(name) is None])
            for unit in sorted(filter(None, units)):
                self._push_unit(unit, [name for name in here if _unit(name) == unit])

    def remove(self, *names: str) -> None:
        with self._told():
            for name in names:
                there = self._found(name)
                for batch in (filter(_is_row, there), there):  # first its row: a trial is whole or not there
                    _at_once(self._delete, list(batch))
        super().remove(*names)

    def probe(self) -> None:
        path, content = f"{self._root}/.probe-{uuid.uuid4().hex}", os.urandom(PROBE_BYTES)
        with self._told():
            for version in (b"replaced", content):
                with self._s3.open_output_stream(path) as stream:
                    stream.write(version)
            with self._s3.open_input_stream(path) as stream:
                read = stream.read()
            self._s3.delete_file(path)
        if read != content:
            raise UserError(f"{self.location} gives back another file than was written; choose another --storage")

    def _push_unit(self, unit: str, here: list[str]) -> None:
        there = self._found(unit)
        row = f"{unit}/row.json"
        is_replaced = row in here and not (row in there and _same(self.folder / row, _stamp(there[row])))
        if is_replaced and row in there:
            self._delete(row)
        self._upload([name for name in here if name != row], there)
        if is_replaced or unit.startswith("checkpoints/"):
            _at_once(self._delete, sorted(there.keys() - here - {row}))
        if is_replaced:
            self._upload([row], there)

    def _upload(self, names: list[str], there: dict[str, fs.FileInfo] | None = None) -> None:
        """Uploads what is not the same there."""

        def upload(name: str) -> None:
            info = self._s3.get_file_info(f"{self._root}/{name}") if there is None else there.get(name)
            if info is None or not _same(self.folder / name, _stamp(info)):
                with suppress(FileNotFoundError):  # deleted here since it was listed
                    self._put(name, info)

        _at_once(upload, names)

    def _put(self, name: str, earlier: fs.FileInfo | None) -> None:
        """Uploads a file, and gives it the time of its object, unless it was written again meanwhile."""
        path, target = self.folder / name, f"{self._root}/{name}"
        before = path.stat()
        while True:
            with path.open("rb") as source, self._s3.open_output_stream(target) as stream:
                stream.upload(source)
            info = self._s3.get_file_info(target)
            if earlier is None or _stamp(info) != _stamp(earlier):
                break
            time.sleep(0.2)  # another content of that size and second would not be noticed by who pulls
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            _date(path, info)

    def _download(self, name: str, info: fs.FileInfo) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with self._s3.open_input_stream(f"{self._root}/{name}") as stream, partial.open("wb") as file:
                shutil.copyfileobj(stream, file, BLOCK_BYTES)
            _date(partial, info)
            os.replace(partial, path)
        except FileNotFoundError:
            pass  # replaced or removed there since it was listed; the next pull sees what it is now
        finally:
            partial.unlink(missing_ok=True)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._s3.delete_file(f"{self._root}/{name}")

    def _listed(self, name: str) -> dict[str, fs.FileInfo]:
        """What a pull of `name` brings."""
        found = self._found(name)
        whole = {_unit(path) for path in found if _is_row(path)}

        def is_brought(path: str) -> bool:
            below = PurePosixPath(path).relative_to(name).parts
            return not set(below) & set(ON_REQUEST) and (not path.startswith("trials/") or _unit(path) in whole)

        return {path: info for path, info in found.items() if path == name or is_brought(path)}

    def _found(self, name: str) -> dict[str, fs.FileInfo]:
        """Objects by their path below the place: the one called `name`, or all below it."""
        base = f"{self._root}/{name}".rstrip("/")
        info = self._s3.get_file_info(base)
        if info.type == fs.FileType.Directory:
            infos = self._s3.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        else:
            infos = [info]
        found = {item.path.removeprefix(f"{self._root}/"): item for item in infos if item.type == fs.FileType.File}
        return {path: item for path, item in found.items() if not _is_hidden(path)}

    def _files_here(self, name: str) -> Iterator[str]:
        path = self.folder / name
        for file in [path] if path.is_file() else path.rglob("*"):
            inside = file.relative_to(self.folder).as_posix()
            if file.is_file() and not _is_hidden(inside):
                yield inside

    def _forget_others(self, there: dict[str, fs.FileInfo], names: Iterable[str]) -> None:
        """Deletes what an earlier pull brought and is no longer there, unless it was written anew here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.folder / ".mirror.json"
        with FileLock(self.folder / ".mirror.lock"):
            known: dict[str, list[int]] = json.loads(record.read_text()) if record.exists() else {}
            for name, (size, time_ns) in list(known.items()):
                is_asked = not names or any(PurePosixPath(name).is_relative_to(given) for given in names)
                if is_asked and name not in there and not set(PurePosixPath(name).parts) & set(ON_REQUEST):
                    del known[name]
                    if _same(self.folder / name, (size, time_ns)):
                        (self.folder / name).unlink(missing_ok=True)
            known |= {name: list(_stamp(info)) for name, info in there.items()}
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(known))
            os.replace(partial, record)

    def _check_bucket(self) -> None:
        if self._s3.get_file_info(self._bucket).type == fs.FileType.NotFound:
            raise OSError("NO_SUCH_BUCKET")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells an OSError of S3, or of the mirror, as a UserError in one line."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.location}: {self._reason(error)}") from error

    def _reason(self, error: OSError) -> str:
        text = str(error).splitlines()[0]
        if error.errno is not None:
            return f"its mirror {self.folder} cannot be written ({error.strerror}); make room, or set FER_RAY_CACHE"
        if "NO_SUCH_BUCKET" in text or "' not found" in text:
            return f"there is no bucket {self._bucket!r} at {self._endpoint or 'Amazon S3'}; make it, or check its name"
        if "NETWORK_CONNECTION" in text or "curlCode" in text:
            server = self._endpoint or "Amazon S3"
            return f"{server} cannot be reached ({text.rpartition('; Details: ')[2]}); check AWS_ENDPOINT_URL"
        if any(word in text for word in ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "403")):
            return (
                "access denied; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile or role) that may read, "
                "write, list and delete there"
            )
        return text


def _at_once(action: Callable[[str], Any], names: list[str]) -> None:
    with ThreadPoolExecutor(TRANSFERS_AT_ONCE) as threads:
        list(threads.map(action, names))


def _stamp(info: fs.FileInfo) -> tuple[int, int]:
    """Size and time in ns of an object, in whole seconds: finer ones come from some requests of some servers only."""
    return info.size or 0, (info.mtime_ns or 0) // 10**9 * 10**9


def _date(path: Path, info: fs.FileInfo) -> None:
    os.utime(path, ns=(_stamp(info)[1],) * 2)


def _same(path: Path, stamp: tuple[int, int]) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == stamp


def _unit(name: str) -> str | None:
    """`trials/<id>` of a file in it; None for a file outside such a folder."""
    parts = PurePosixPath(name).parts
    return "/".join(parts[:2]) if len(parts) > 2 and parts[0] in UNITS else None


def _is_row(name: str) -> bool:
    return name.startswith("trials/") and name.endswith("/row.json")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
