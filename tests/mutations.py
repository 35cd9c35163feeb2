"""Damaged and hostile files for every reader: whole ones in their real formats, and what can happen to them.

`make(seed, number, folder)` writes case `number` of a campaign. Everything is drawn from seed and number.
"""

import functools
import io
import itertools
import json
import os
import pickle
import pickletools
import random
import struct
import sys
import types
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from faces import encode, fer2013_rows, random_faces
from PIL import Image

from fer_ray.config import RunConfig
from fer_ray.models import zoo
from fer_ray.synthesis.stylegan2 import Generator
from fer_ray.synthesis.stylegan2_layers import Shape

Files = dict[str, "bytes | Callable[[Path], None]"]
"""Name inside the case's folder -> its bytes, or what makes it there (a link, a named pipe)."""

Mutation = Callable[[random.Random, Files], Files]

MARKER = "fer_ray_pwned"
"""Every payload makes a file of this name in the working directory, or outside the case's folder."""

CLASSES = ("happy", "sad", "neutral")
HUGE = (0, 1, 2**16 - 1, 100_000, 2**31 - 1, 2**32 - 1)
NAMES = (
    "<script>alert(1)<%2fscript>", "[red]happy[red]", "[bold", "a\"b'c", "two\nlines", "\x1b[31mred\x1b[0m", "\x07bell",
    "\udcff\udcfe", "x" * 240, "a,b", "{0}%s", "‮evil", "-rf", "nul\x7f", "ＨＡＰＰＹ", "happy ", "..x", "\\..\\x",
    "\u2028",
)  # fmt: skip
"""Names of files and classes: markup of HTML and rich, control characters, undecodable bytes, separators."""


class Call:
    """Pickled as a call of `function`, whatever that is."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced


PAYLOADS = (
    Call(os.system, f"touch {MARKER}"),
    Call(eval, f"open({MARKER!r}, 'w')"),
    Call(exec, f"open({MARKER!r}, 'w')"),
    Call(getattr, [], "append"),
    Call(open, MARKER, "w"),
    Call(torch.load, MARKER),
    Call(bytearray, 10**10),
)


# Whole files


@functools.cache
def images() -> dict[str, bytes]:
    """Image files by name, of the formats and modes that people have."""
    grey, colour = random_faces(1, 1, 24)[0], random_faces(1, 2, 24, 3)[0]
    picture, rgb = Image.fromarray(grey[..., 0]), Image.fromarray(colour)
    exif = Image.Exif()
    exif[274] = 6
    made = {
        "grey.jpg": (picture, {}), "rgb.jpg": (rgb, {}), "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "rotated.jpg": (rgb, {"exif": exif}), "progressive.jpeg": (rgb, {"progressive": True}),
        "grey.png": (picture, {}), "rgb.png": (rgb, {}), "rgba.png": (rgb.convert("RGBA"), {}),
        "palette.png": (rgb.convert("P"), {}), "bit.png": (picture.convert("1"), {}),
        "alpha.png": (picture.convert("LA"), {}), "deep.png": (Image.fromarray(grey[..., 0].astype("u2") * 257), {}),
        "grey.bmp": (picture, {}), "rgb.bmp": (rgb, {}), "palette.bmp": (rgb.convert("P"), {}),
        "still.gif": (picture, {}), "moving.gif": (rgb, {"save_all": True, "append_images": [picture, rgb]}),
        "lossy.webp": (rgb, {}), "lossless.webp": (rgb, {"lossless": True}),
        "moving.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "grey.tif": (picture, {}), "rgb.tiff": (rgb, {}), "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "deflated.tif": (rgb, {"compression": "tiff_deflate"}), "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "deep.tif": (Image.fromarray(grey[..., 0].astype("u2") * 257), {}),
        "float.tif": (picture.convert("F"), {}), "pages.tif": (rgb, {"save_all": True, "append_images": [picture]}),
        "grey.pgm": (picture, {}), "rgb.ppm": (rgb, {}),
        "deep.pgm": (Image.fromarray(grey[..., 0].astype("u2") * 257), {}),
    }  # fmt: skip
    formats = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "pgm": "PPM", "ppm": "PPM"}
    files = {}
    for name, (image, options) in made.items():
        file = io.BytesIO()
        kind = name.rpartition(".")[2]
        image.save(file, formats.get(kind, kind.upper()), **options)
        files[name] = file.getvalue()
    return files


def class_folder(rng: random.Random) -> Files:
    """Images of two or three classes, alike or mixed, with splits or without."""
    pool = rng.sample(sorted(images()), rng.choice([1, 1, 4]))
    splits = rng.choice([("",), ("train/", "test/")])
    classes = CLASSES[: rng.choice([2, 3])]
    return {
        f"data/{split}{name}/{i}_{image}": images()[image]
        for split, name, i in itertools.product(splits, classes, range(2))
        for image in [rng.choice(pool)]
    }


def fer_csv(rng: random.Random) -> Files:
    rows = fer2013_rows(random_faces(6))
    return {"fer2013.csv": "\n".join(["emotion,pixels,Usage", *rows, ""]).encode()}


def fer_plus(rng: random.Random) -> Files:
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    usages = ("Training", "PublicTest", "PrivateTest")
    rows = [f"{usages[i % 3]},fer{i:07d}.png,{'10,' if i % 2 else '0,10,'}0,0,0,0,0,0,0,0" for i in range(6)]
    rows = [row if row.count(",") == 11 else f"{row},0" for row in rows]
    return {"fer2013new.csv": "\n".join([header, *rows, ""]).encode(), **fer_csv(rng)}


def parquet(rng: random.Random, metadata: dict | None = None, codec: str | None = None, **changed: Any) -> Files:
    names = [CLASSES[i % 3] for i in range(12)]
    pool = rng.choice([["grey.png"], ["rgb.jpg"], sorted(images())])
    columns: dict[str, Any] = {
        "image": [images()[rng.choice(pool)] for _ in names],
        "label": rng.choice([names, pa.array(names).dictionary_encode(), pa.array(names, pa.large_string())]),
        "usage": [("Training", "PublicTest", "PrivateTest")[i % 3] for i in range(12)],
        "path": [f"{i}.png" for i in range(12)],
        "valence": pa.array([i / 12 for i in range(12)], rng.choice([pa.float32(), pa.float64()])),
    }
    if rng.random() < 0.3 and "label" not in changed:
        columns["label"], metadata = [i % 3 for i in range(12)], {"label_names": ",".join(CLASSES), **(metadata or {})}
    table = pa.table({**columns, **changed})
    file = io.BytesIO()
    codec = codec or rng.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
    version = rng.choice(["1.0", "2.0"])
    pq.write_table(table.replace_schema_metadata(metadata), file, compression=codec, data_page_version=version)
    return {"faces.parquet": file.getvalue()}


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def affectnet(rng: random.Random) -> Files:
    image = rng.choice(["rgb.jpg", "grey.jpg", "rotated.jpg"])
    as_text = rng.random() < 0.5
    sets = rng.choice([("",), ("train_set/", "val_set/")])
    files: Files = {}
    for place, i in itertools.product(sets, range(4)):
        files[f"data/{place}images/{i}.jpg"] = images()[image]
        for kind, value in (("exp", i % 3), ("val", i / 8), ("aro", -i / 8), ("lnd", np.zeros(136))):
            text = as_text and kind != "lnd"
            files[f"data/{place}annotations/{i}_{kind}.npy"] = npy(np.array(str(value)) if text else np.asarray(value))
    return files


def persisted(module: torch.nn.Module, attributes: Callable[[str], dict[str, Any]], name: str = "") -> Call:
    """A module as the official implementation pickles it, with a program for those who would run it."""
    children = {key: persisted(child, attributes, f"{name}.{key}") for key, child in module._modules.items() if child}
    state = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers), "_modules": children}
    source = f"open({MARKER!r}, 'w')"
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": type(module).__name__}
    return Call(_reconstruct(), {**meta, "state": {**state, **attributes(name)}})


def _reconstruct() -> Callable[..., Any]:
    # Pickle looks a function up where it says that it lives.
    for name in ("torch_utils", "torch_utils.persistence"):
        sys.modules.setdefault(name, types.ModuleType(name))
    module = sys.modules["torch_utils.persistence"]
    if not hasattr(module, "_reconstruct_persistent_obj"):

        def _reconstruct_persistent_obj(meta: Any) -> None: ...

        _reconstruct_persistent_obj.__module__ = module.__name__
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    return module._reconstruct_persistent_obj


@functools.cache
def generator_pickle(protocol: int, **injected: int) -> bytes:
    """A small snapshot in the official format; `injected` names an entry and the payload beside the generator."""
    torch.manual_seed(0)
    size = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 8, "img_channels": 1}
    shape = Shape(
        **size, embed_dim=0, mapping_dims=(4, 4), channels=(4, 4), architecture="skip", mapping_multiplier=0.01,
        conv_clamp=None,
    )  # fmt: skip
    generator = Generator(shape)
    for values in generator.state_dict().values():
        values.normal_()

    def attributes(name: str) -> dict[str, Any]:
        layer = name.rpartition(".")[2]
        if not name:
            return {**size, "num_ws": 4}
        if layer == "mapping":
            return {"num_layers": 2}
        if layer in ("b4", "b8"):
            return {"architecture": "skip"}
        if layer.startswith("conv"):
            return {"conv_clamp": None, "use_noise": True, "activation": "lrelu"}
        return {"conv_clamp": None} if layer == "torgb" else {"bias_gain": 0.01} if layer.startswith("fc") else {}

    payloads = {name: PAYLOADS[number] for name, number in injected.items()}
    snapshot = {"training_set_kwargs": {"path": "x"}, **payloads, "G_ema": persisted(generator, attributes)}
    return pickle.dumps(snapshot, protocol)


def snapshot(rng: random.Random) -> Files:
    return {"network.pkl": generator_pickle(rng.choice([2, 4, 5]))}


def networks(rng: random.Random) -> Files:
    return {"networks.yaml": b"happy: a.pkl\nsad: sub/../a.pkl\n", "a.pkl": generator_pickle(2), "sub/x": b""}


@functools.cache
def sheet_image() -> bytes:
    return encode(random_faces(1, 3, 96, 3)[0])


def sheets(rng: random.Random) -> Files:
    label = rng.choice([{"label": "happy"}, {"cells": [{"label": "sad"}] * 3 + [{"label": None}], "rows": 2}])
    return {"sheets/happy_1.png": sheet_image(), "sheets/happy_1.json": json.dumps(label).encode()}


@functools.cache
def weights() -> bytes:
    from safetensors.torch import save

    return save(zoo.build(CONFIG.model, len(CLASSES)).state_dict())


CONFIG = RunConfig.from_flat({"model.name": "ShuffleNetV2-x1.0"})


def trial(rng: random.Random) -> Files:
    row = {"id": "a", "classes": list(CLASSES), "data.image_size": 48, "data.normalization": "image", "loss": None}
    files = {"row.json": json.dumps(row).encode(), "config.json": CONFIG.model_dump_json().encode()}
    return {f"trial/{name}": data for name, data in {**files, "best.safetensors": weights()}.items()}


def config(rng: random.Random) -> Files:
    return {"config.json": CONFIG.model_dump_json(indent=1).encode()}


SEEDS: dict[str, tuple[Callable[[random.Random], Files], str]] = {
    "folder": (class_folder, "data"),
    "zip": (class_folder, "data.zip"),
    "csv": (fer_csv, "fer2013.csv"),
    "fer_plus": (fer_plus, "fer2013new.csv"),
    "parquet": (parquet, "faces.parquet"),
    "affectnet": (affectnet, "data"),
    "pickle": (snapshot, "network.pkl"),
    "networks": (networks, "networks.yaml"),
    "sheets": (sheets, "sheets"),
    "trial": (trial, "trial"),
    "config": (config, "config.json"),
}
"""Kind -> what makes a whole one, and the path that a user passes."""

SHARES = {"folder": 5, "zip": 4, "csv": 2, "fer_plus": 2, "parquet": 4, "affectnet": 3, "pickle": 4, "sheets": 2}
"""How often a kind is drawn; others once."""


# Damage that a file of any format can take


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


def packed(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A .zip of the files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            if isinstance(data, bytes):
                archive.writestr(name.encode("utf-8", "replace").decode(), data)
    return file.getvalue()


# Sizes that a header declares


def oversized(rng: random.Random, files: Files) -> Files:
    """One file declares a size that it does not have, or that nobody has."""
    name = rng.choice([name for name, data in files.items() if data])
    data = files[name]
    assert isinstance(data, bytes)
    width, height = rng.choice([(2**31 - 1, 2**31 - 1), (100_000, 100_000), (60_000, 1_000), (1, 2**24), (0, 0)])
    small = min(width, 65_535), min(height, 65_535)
    out = bytearray(data)
    match name.rpartition(".")[2]:
        case "png":
            out[16:24] = struct.pack(">II", width, height)
            out[29:33] = struct.pack(">I", zlib.crc32(out[12:29]))
        case "bmp":
            out[18:26] = struct.pack("<ii", width, rng.choice([height, -height]))
        case "gif":
            at = rng.choice([6, data.index(b",\0\0\0\0") + 5])
            out[at : at + 4] = struct.pack("<HH", *small)
        case "jpg" | "jpeg":
            at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
            out[at + 5 : at + 9] = struct.pack(">HH", *small)
        case "webp":
            out[24:30] = rng.choice([b"\xff" * 6, b"\0" * 6])
        case "tif" | "tiff":
            start = struct.unpack_from("<I", data, 4)[0]
            count = struct.unpack_from("<H", data, start)[0]
            entry = start + 2 + 12 * rng.randrange(count)  # tag, type, number of values, value or its offset
            at = entry + rng.choice([4, 8])
            out[at : at + 4] = struct.pack("<I", rng.choice(HUGE))
        case "pgm" | "ppm":
            out = bytearray(data.replace(b"24 24", f"{width} {height}".encode()))
        case "npy":
            shape = rng.choice(["(1000000000000,)", "(0,)", "(-1,)", "(" * 500, "(1," * 60 + ")" * 60, "(2,)"])
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
            out = bytearray(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8))
        case "parquet":
            out[-8:-4] = struct.pack("<I", rng.choice([*HUGE, len(data)]))
        case "zip":
            at = data.index(b"PK\x01\x02", rng.randrange(data.rindex(b"PK\x01\x02") + 1))
            field = at + rng.choice([20, 24, 28, 30, 32, 42])  # sizes, lengths of name and more, offset
            out[field : field + 4] = struct.pack("<I", rng.choice(HUGE))
        case "pkl":
            places = [at for opcode, argument, at in pickletools.genops(data) if isinstance(argument, str | bytes)]
            at = rng.choice(places) + 1
            out[at : at + 4] = struct.pack("<I", rng.choice(HUGE))
        case "safetensors":
            out[:8] = struct.pack("<Q", rng.choice([0, 10**7, 2**60, 2**64 - 1]))
        case "json":
            out = bytearray(data.replace(b":", b":" + rng.choice([b"9" * 5_000, b"1e999", b"NaN", b"-1"]), 1))
        case "csv":
            digits = rng.choice([b"9" * 5_000, b"256", b"-1", b"1e3", b"NaN", b"inf", "²".encode(), b"0" * 200_000])
            at = rng.randrange(len(data))
            out[at:at] = rng.choice([b" ", b","]) + digits + rng.choice([b" ", b","])
        case _:
            out += b"a" * 2**21
    return {**files, name: bytes(out)}


# Bombs: little on the disk, much in memory or time


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


def other_method(rng: random.Random, files: Files) -> Files:
    """Packed by a method that others can write, damaged or whole."""
    data = bytearray(packed(files, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])))
    start = 30 + int.from_bytes(data[26:28], "little")
    choice = rng.randrange(4)
    if choice == 1:
        data[start : start + 12] = rng.randbytes(12)
    elif choice == 2:  # a dictionary of 4 GB
        data[start : start + 9] = b"\x09\x04\x05\x00\x5d" + b"\xff" * 4
    elif choice == 3:  # encrypted, in both headers
        data[6] |= 1
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return {"data.zip": bytes(data)}


def escaping(rng: random.Random, files: Files) -> Files:
    """Archive members that would leave the folder they are unpacked to."""
    names = [f"../../{MARKER}.png", f"/tmp/{MARKER}.png", f"happy/../../../{MARKER}.png", f"..\\..\\{MARKER}.png"]
    names += [f"C:\\{MARKER}.png", f"./happy/./{MARKER}.png", f"//{MARKER}/{MARKER}/a.png", f"happy/\0{MARKER}.png"]
    return {**files, **dict.fromkeys(rng.sample(names, 2), images()["grey.png"])}


def linked_archive(rng: random.Random, files: Files) -> Files:
    """Links as archive members: to a file outside, and to the folder above."""
    file = io.BytesIO(packed(files))
    with zipfile.ZipFile(file, "a") as archive:
        for name, target in (("data/happy/link.png", "/etc/passwd"), ("data/loop", "..")):
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o120777 << 16
            archive.writestr(member, target)
    return {"data.zip": file.getvalue()}


# Names, links and special files in folders


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


# Contents: text that is none, labels that are none, programs


def other_encoding(rng: random.Random, files: Files) -> Files:
    """A text file in UTF-16, Latin-1 with an umlaut, with NULs, or with other line ends."""
    name = rng.choice([name for name in files if name.endswith((".csv", ".json", ".yaml"))])
    data = files[name]
    assert isinstance(data, bytes)
    text = data.decode()
    changed = [
        text.encode("utf-16"), text.replace("a", "ä", 1).encode("latin-1"), data.replace(b"a", b"\0a", 1),
        data.replace(b"\n", b"\r"), data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data, data.replace(b",", b";"),
        data + b'"' + b"x" * 200_000, data + b"\n" * 10**6, data.replace(b"\n", b"\n\x1b[31m[red]<b>", 2),
    ]  # fmt: skip
    return {**files, name: rng.choice(changed)}


def nested(rng: random.Random, files: Files) -> Files:
    """JSON or YAML that is deep, long, or refers to itself."""
    name = rng.choice([name for name in files if name.endswith((".json", ".yaml"))])
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    texts = ["[" * 10**5, '{"a":' * 10**5, "[" * 900 + "]" * 900, laughs, "a: &a [*a]", "- " * 5_000, "? " * 5_000]
    texts += ["".join(f"k{i}: a.pkl\n" for i in range(60_000)), "!!python/object/apply:os.system [touch x]: a.pkl"]
    texts += ['{"label": "' + "\\ud800" + '"}', '{"label": "<script>"}', '{"label": "\\u001b[31m"}', "null", "[]", "1"]
    texts += ["happy: /dev/zero", "happy: [a]", "<script>: a.pkl", "? [a]\n: b", "'[red]\x1b': a.pkl", "happy: ../../x"]
    texts += ['{"cells": 5}', '{"cells": [1, 2, 3, 4]}', '{"rows": {}}', '{"id": 1, "classes": 5}', '{"model": null}']
    texts += ['{"model": {"name": "[red]<b>\\u001b"}}', '{"model": {"name": ["a"]}}', '{"data": {"image_size": 1e400}}']
    texts += ['{"training": {"epochs": "NaN"}, "x": {}}', '{"training": {"seed": ' + "9" * 4_000 + "}}"]
    return {**files, name: rng.choice(texts).encode("utf-8", "surrogatepass")}


def odd_columns(rng: random.Random, files: Files) -> Files:
    """Parquet columns of other types, out of range, missing, doubled, or repeated a million times."""
    names = [CLASSES[i % 3] for i in range(12)]
    odd = rng.choice(NAMES).encode("utf-8", "replace").decode()
    numbers = [i % 3 for i in range(12)]
    columns: list[dict[str, Any]] = [
        {"valence": [float("inf")] * 12}, {"valence": [float("nan")] * 12}, {"arousal": [1e30] * 12},
        {"valence": ["x"] * 12}, {"arousal": [None] * 12}, {"arousal": [[0.5]] * 12},
        {"label": [odd, *names[1:]]}, {"label": [""] * 6 + names[:6]}, {"label": [*names[:11], None]},
        {"label": ["happy"] * 12}, {"label": [1.5] * 12}, {"label": [b"\xff"] * 12}, {"label": [["sad"]] * 12},
        {"label": numbers}, {"label": pa.array([2**64 - 1] * 12, pa.uint64())},
        {"label": pa.array([0, 1, 9] * 4, pa.int8())}, {"label": [-1] * 12}, {"label": ["x" * 10**6, *names[1:]]},
        {"label": pa.array(names).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.large_string()))},
        {"usage": [odd] * 12}, {"usage": [None] * 12}, {"usage": numbers}, {"path": [odd] * 12}, {"path": numbers},
        {"image": [None] * 12}, {"image": [b""] * 12}, {"image": ["text"] * 12}, {"image": [[1]] * 12},
        {"image": pa.array([images()["grey.png"]] * 12, pa.large_binary())},
        {"image": pa.array([images()["grey.png"]] * 12, pa.binary_view())},
        {"image": pa.array([images()["grey.png"]] * 12).dictionary_encode()},
        {"image": [{"bytes": images()["grey.png"], "path": odd}] * 12}, {"label": pa.nulls(12)},
    ]  # fmt: skip
    names_of_numbers = rng.choice([b"happy,sad,neutral", b"\xff\xfe,b", b"", odd.encode(), b"a,A,a"])
    return parquet(rng, {"label_names": names_of_numbers}, **rng.choice(columns))


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


def odd_values(rng: random.Random, files: Files) -> Files:
    """An annotation of another type, of many values, out of range, not a number, or a pickled program."""
    name = rng.choice([name for name in files if name.endswith(("exp.npy", "val.npy", "aro.npy"))])
    values = [
        np.nan, np.inf, -np.inf, -2, 2, 11, -1, 1.5, 2**63 - 1, True, 1j, np.float16(1), np.array("x"), np.array(""),
        np.array("nan"), np.array("1e999"), np.array("\U0010ffff"), np.array(b"1"), np.array(b"\xff"), np.zeros(3),
        np.zeros(0), np.array([[0.5]]), np.array(["1"]), np.array("1_0"), np.array("<b>[red]\x1b[31m"),
        np.array(None), np.array(rng.choice(PAYLOADS), dtype=object), np.datetime64("2020-01-01"), np.array("٣"),
        np.array([(1, 2.0)], dtype="i4,f8"), np.array("9" * 900), np.array("0x1"), np.array(" 1 "),
    ]  # fmt: skip
    return {**files, name: npy(values[rng.randrange(len(values))])}


def program(rng: random.Random, files: Files) -> Files:
    """A pickle that would run something: alone, beside the generator, inside a tensor, or in another format."""
    payload = rng.choice(PAYLOADS)
    protocol = rng.choice([0, 1, 2, 3, 4, 5])
    inner, legacy = io.BytesIO(), io.BytesIO()
    torch.save(payload, inner)
    torch.save(payload, legacy, _use_new_zipfile_serialization=False)
    tensor = rng.choice([inner, legacy]).getvalue()
    forms = [
        pickle.dumps(payload, protocol),
        pickle.dumps({"G_ema": payload}, protocol),
        generator_pickle(rng.choice([2, 4, 5]), D=rng.randrange(len(PAYLOADS))),
        tensor,
        b"\x80\x04}\x8c\x05G_emactorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(tensor)) + tensor + b"\x85Rs.",
        f"cos\nsystem\n(S'touch {MARKER}'\ntR.".encode(),
        f"(S'touch {MARKER}'\nios\nsystem\n.".encode(),
    ]  # fmt: skip
    return {**files, rng.choice([name for name in files if name.endswith(".pkl")]): rng.choice(forms)}


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


SPECIAL: dict[str, tuple[Mutation, ...]] = {
    "folder": (oversized, oversized, renamed, special_file, loops, image_bomb),
    "zip": (oversized, oversized, renamed, zip_bomb, other_method, escaping, linked_archive, image_bomb),
    "csv": (oversized, other_encoding),
    "fer_plus": (oversized, other_encoding),
    "parquet": (oversized, odd_columns, odd_columns, parquet_bomb),
    "affectnet": (oversized, renamed, special_file, odd_values, odd_values, image_bomb),
    "pickle": (oversized, program, program, pickle_bomb),
    "networks": (oversized, other_encoding, nested, program, pickle_bomb),
    "sheets": (oversized, renamed, special_file, other_encoding, nested, image_bomb),
    "trial": (oversized, other_encoding, nested, special_file),
    "config": (oversized, other_encoding, nested),
}


# Cases


@dataclass(frozen=True)
class Case:
    """A case on disk.

    Attributes:
        kind: a key of SEEDS.
        mutation: what was done.
        target: the path that a user passes.
        paths: every file of the case, some of them links or pipes; the folder where these name others.
    """

    kind: str
    mutation: str
    target: Path
    paths: tuple[Path, ...]


def make(seed: int, number: int, folder: Path) -> Case:
    """Writes a case into `folder`, which is made."""
    rng = random.Random(f"{seed} {number}")
    kinds = [kind for kind in SEEDS for _ in range(SHARES.get(kind, 1))]
    kind = kinds[number % len(kinds)]
    whole, target = SEEDS[kind]
    files = whole(rng)
    if kind == "zip" and rng.random() < 0.6:
        files = {target: packed(files)}
    usable = [mutation for mutation in SPECIAL[kind] if target not in files or mutation not in (renamed, escaping)]
    if rng.random() < 0.5:
        mutation = rng.choice(usable)
        name, files = mutation.__name__, mutation(rng, files)
    else:
        damage = rng.choice(BYTES)
        name, broken = damage.__name__, rng.choice([name for name, data in files.items() if data])
        files[broken] = damage(rng, files[broken])
    if kind == "zip" and target not in files:
        files = {target: packed(files)}
    paths = write(folder, files)
    return Case(
        kind, name, folder / target, (*paths, folder, Path("/dev/zero")) if kind == "networks" else tuple(paths)
    )


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
