"""A whole one of every kind: data sets, snapshots, sheets, trials and configs."""

import functools
import json
import random
from collections.abc import Callable

from faces import encode, random_faces

from fer_ray.config import RunConfig
from fer_ray.models import zoo
from mutations.datasets import affectnet, class_folder, fer_csv, fer_plus, parquet
from mutations.files import CLASSES, Files
from mutations.pickles import networks, snapshot

CONFIG = RunConfig.from_flat({"model.name": "ShuffleNetV2-x1.0"})


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
