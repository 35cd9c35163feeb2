"""Whole data sets in the formats that people have: folders of images, CSV, Parquet, and .npy beside images."""

import functools
import io
import itertools
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from faces import fer2013_rows, random_faces
from PIL import Image

from mutations.files import CLASSES, Files


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
