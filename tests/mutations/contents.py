"""Contents: text that is none, labels that are none, programs."""

import io
import pickle
import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mutations.datasets import images, npy, parquet
from mutations.files import CLASSES, MARKER, Files
from mutations.names import NAMES
from mutations.pickles import PAYLOADS, generator_pickle


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
