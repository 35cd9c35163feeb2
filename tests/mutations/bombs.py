"""Bombs: little on the disk, much in memory or time."""

import functools
import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mutations.datasets import images
from mutations.files import CLASSES, Files, packed


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG of compressed rows `data`."""
    body = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in body
    )


@functools.cache
def image_bombs() -> dict[str, bytes]:
    """Zeros of 64 million pixels, of a hundred times as many, behind a text, and a million frames."""
    zeros = zlib.compress(bytes(8_001 * 8_000), 9)
    text = zlib.compress(bytes(10**8), 9)
    tiff = io.BytesIO()
    Image.fromarray(np.zeros((8_000, 8_000), np.uint8)).save(tiff, "TIFF", compression="tiff_deflate")
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02L\x01\0"
    return {
        "bomb.png": png(8_000, 8_000, zeros),
        "huge.png": png(80_000, 80_000, zeros),
        "more.png": png(24, 24, zeros),
        "text.png": png(24, 24, zlib.compress(bytes(25 * 24)), (b"zTXt", b"a\0\0" + text)),
        "profile.png": png(24, 24, zlib.compress(bytes(25 * 24)), (b"iCCP", b"a\0\0" + text)),
        "bomb.tif": tiff.getvalue(),
        "frames.gif": b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff" + frame * 10**5 + b";",
        "thin.png": png(1, 2**26, zlib.compress(bytes(2**27), 9)),
    }


def image_bomb(rng: random.Random, files: Files) -> Files:
    """One image is a bomb."""
    kind = rng.choice(sorted(image_bombs()))
    name = rng.choice([name for name in files if Path(name).suffix in (".png", ".jpg", ".gif", ".bmp", ".tif")] or [""])
    return {**files, name: image_bombs()[kind]} if name else {**files, f"data/happy/{kind}": image_bombs()[kind]}


@functools.cache
def zip_bombs() -> dict[str, bytes]:
    """Archives of zeros, of far more entries or folders than images, or inside each other."""
    face = {"happy/a.png": images()["grey.png"], "sad/a.png": images()["grey.png"]}
    zeros = packed({**face, "happy/b.png": bytes(10**8)})
    lying = bytearray(zeros)
    at = lying.rindex(b"PK\x01\x02")
    declaring = bytearray(zeros)
    lying[at + 24 : at + 28], declaring[at + 24 : at + 28] = struct.pack("<I", 100), struct.pack("<I", 2**31)
    return {
        "zeros": zeros,
        "lying": bytes(lying),
        "declared": bytes(declaring),
        "deep": packed({**face, "a/" * 32_000 + "a.png": images()["grey.png"]}),
        "entries": packed({**face, **{f"happy/{i}.txt": b"" for i in range(30_000)}}, zipfile.ZIP_STORED),
        "nested": packed({"a.zip": zeros}),
        "same": packed(face) + packed({**face, "happy/c.png": b""}),
    }


def zip_bomb(rng: random.Random, files: Files) -> Files:
    return {"data.zip": zip_bombs()[rng.choice(sorted(zip_bombs()))]}


@functools.cache
def parquet_bombs() -> dict[str, bytes]:
    """Images that are stored once and declared very often; more classes than there are numbers for."""
    face = images()["grey.png"] + bytes(30_000)
    bombs = {}
    for name, count, label in (("repeated", 10**5, "sad"), ("classes", 40_000, "x")):
        image = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, "i4")), pa.array([face if label == "sad" else b""])
        )
        labels = [f"x{i}" for i in range(count)] if label == "x" else [CLASSES[i % 2] for i in range(count)]
        file = io.BytesIO()
        pq.write_table(pa.table({"image": image, "label": labels}), file, store_schema=False)
        bombs[name] = file.getvalue()
    return bombs


def parquet_bomb(rng: random.Random, files: Files) -> Files:
    return {"faces.parquet": parquet_bombs()[rng.choice(sorted(parquet_bombs()))]}


def pickle_bomb(rng: random.Random, files: Files) -> Files:
    """Opcodes that ask for memory, depth or time, or write on the terminal."""
    equal = b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(9_000))
    twice = b"\x8c\x06latin1\x86R"
    forms = [
        b"\x80\x04X\xff\xff\xff\x7fabc.", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", b"I" + b"9" * 10**5 + b"\n.",
        b"\x80\x04]r\xff\xff\xff\xff.", b"\x80\x02\x8b\xff\xff\xff\x7f1.", b"\x80\x04)" + b"\x85" * 200_000 + b".",
        b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.", b"\x80\x04" + b"]" * 600_000 + b".", b"\x80\x04]\x94h\x00a.",
        b"\x80\x04}(" + equal + b"u.", b"\x80\x04" + b"(" * 10**5 + b"1" * 10**5 + b"N.",
        b"\x80\x04}\x94\x8c\x01ah\x00s.",
        b"\x80\x04]" + b"\x94h\x00h\x00\x86" * 40 + b".", b"\x80\x04\x8c\x06\x1b[31m\n\x8c\x03[b]\x93.",
        b"\x80\x02X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00c_codecs\nencode\nq\x010"
        + (b"h\x01h\x00" + twice) * 2_000 + b".",
    ]  # fmt: skip
    return {**files, rng.choice([name for name in files if name.endswith(".pkl")]): rng.choice(forms)}
