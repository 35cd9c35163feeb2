"""Damage that a file of any format can take."""

import pickle
import random
from collections.abc import Callable

from mutations.datasets import class_folder
from mutations.files import packed
from mutations.pickles import PAYLOADS
from mutations.seeds import SEEDS


def truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def emptied(rng: random.Random, data: bytes) -> bytes:
    return b""


def flipped(rng: random.Random, data: bytes) -> bytes:
    """1 to 100 bits, half of the time in the first 512 bytes, where the headers are."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 10, 100])):
        most = min(len(out), 512) if rng.random() < 0.5 else len(out)
        out[rng.randrange(most)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(rng: random.Random, data: bytes) -> bytes:
    """A run of random, equal or printable bytes."""
    start, length = rng.randrange(len(data)), rng.choice([1, 4, 8, 64, 500])
    run = rng.choice([rng.randbytes(length), b"\x00" * length, b"\xff" * length, b"9" * length, b'"' * length])
    return data[:start] + run + data[start + length :]


def duplicated(rng: random.Random, data: bytes) -> bytes:
    start, stop = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:stop] + data[start:stop] * rng.choice([1, 1, 10]) + data[stop:]


def deleted(rng: random.Random, data: bytes) -> bytes:
    start, stop = sorted(rng.choices(range(len(data) + 1), k=2))
    return data[:start] + data[stop:]


def of_another_kind(rng: random.Random, data: bytes) -> bytes:
    """A whole file of another format under this name."""
    make, _ = SEEDS[rng.choice(["folder", "csv", "fer_plus", "parquet", "affectnet", "pickle", "networks", "config"])]
    files = [content for content in make(rng).values() if isinstance(content, bytes)]
    archive = packed(class_folder(rng))
    return rng.choice([rng.choice(files), archive, pickle.dumps(rng.choice(PAYLOADS)), b"text", b"\xff\xfe\x00"])


BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    truncated, truncated, emptied, flipped, flipped, flipped, overwritten, overwritten, duplicated, deleted,
    of_another_kind,
)  # fmt: skip
