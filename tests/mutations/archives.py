"""Archives that others write: by any method, with members outside their folder, with links."""

import io
import random
import zipfile

from mutations.datasets import images
from mutations.files import MARKER, Files, packed


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
