"""Sizes that a header declares."""

import pickletools
import random
import struct
import zlib

from mutations.files import Files

HUGE = (0, 1, 2**16 - 1, 100_000, 2**31 - 1, 2**32 - 1)


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
