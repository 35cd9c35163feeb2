"""Copies across parts are found whatever was done to them, and nothing else is."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.fft

from fer_ray.data import demo, leakage
from fer_ray.data.cache import cache_folder
from fer_ray.data.perceptual_hash import phash
from fer_ray.data.readers.samples import SPLITS
from fer_ray.data.store import Dataset, open_dataset

FER2013 = Path(__file__).resolve().parents[2] / "shared" / "data" / "fer2013.parquet"


def dataset(images: np.ndarray) -> Dataset:
    """Faces [n, H, W, C] as the cache would hold them, but in the order given."""
    keys = [hashlib.sha1(np.ascontiguousarray(image)).hexdigest()[:16] for image in images]
    return Dataset(
        name="faces",
        images=images,
        ids=np.array([f"{key}-train-happy-{i}" for i, key in enumerate(keys)], "S"),
        labels=np.zeros(len(images), np.int16),
        splits=np.full(len(images), SPLITS.index("train"), np.int8),
        classes=("happy",),
        valence=None,
        arousal=None,
        digest="",
    )


def find(**parts: np.ndarray) -> leakage.Leaks:
    return leakage.find({name: (dataset(images), np.arange(len(images))) for name, images in parts.items()})


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return demo.render(160, domain="real", seed=5).images.astype(np.uint8)


def moved(image: np.ndarray, *, x: float = 0, y: float = 0, degrees: float = 0, zoom: float = 1) -> np.ndarray:
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    affine = cv2.getRotationMatrix2D(centre, degrees, zoom)
    affine[:, 2] += x, y
    return cv2.warpAffine(image, affine, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG": lambda image: compressed(image, 50),
    "brighter": lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8),
    "less contrast": lambda image: (image * 0.7 + 30).astype(np.uint8),
    "resampled": lambda image: cv2.resize(cv2.resize(image, (36, 36), interpolation=cv2.INTER_AREA), (48, 48)),
    "larger": lambda image: cv2.resize(image, (96, 96)),
    "mirrored": lambda image: image[:, ::-1],
    "moved": lambda image: moved(image, x=2, y=-2),
    "turned": lambda image: moved(image, degrees=3),
    "cropped": lambda image: moved(image, zoom=12 / 11),
    "noise": noisy,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_matched_with_their_original(change: str, faces: np.ndarray) -> None:
    copies = np.stack([CHANGES[change](image[:, :, 0])[:, :, None] for image in faces[:60]])
    leaks = find(train=faces, test=copies)
    number = {side: [int(i.rsplit(b"-", 1)[1]) for i in getattr(leaks, side)] for side in ("first", "second")}
    right = {b for a, b in zip(number["first"], number["second"], strict=True) if a == b}
    assert len(right) >= 57  # 95 %
    assert not leaks.exact.any()


def test_different_faces_are_no_copies(faces: np.ndarray) -> None:
    assert len(find(train=faces[:80], test=faces[80:])) == 0


def test_colour_copy_of_a_grey_face_is_found(faces: np.ndarray) -> None:
    leaks = find(train=faces[:5], synthetic=np.repeat(faces[3:4], 3, axis=3))
    assert leaks.images("train", ["synthetic"]).tolist() == [dataset(faces[:5]).ids[3]]


def test_every_image_with_a_copy_is_listed_on_both_sides(faces: np.ndarray) -> None:
    bright = np.clip(faces[:1].astype(int) + 10, 0, 255).astype(np.uint8)
    leaks = find(train=np.concatenate([faces[:1], faces[:1], bright, faces[1:4]]), test=faces[[0, 0, 2, 9]])
    assert leaks.counts() == {
        ("train", "test"): {
            "pairs": 5,
            "first_images": 4,
            "second_images": 3,
            "exact_first_images": 3,
            "exact_second_images": 3,
        }
    }
    assert len(leaks.images("test", ["train"])) == 3
    assert leaks.duplicates_within == {"train": 1, "test": 1}


def test_images_asks_only_about_the_parts_named(faces: np.ndarray) -> None:
    leaks = find(train=faces[:3], validation=faces[2:5], test=faces[4:7])
    assert len(leaks.images("train", ["validation"])) == 1
    assert len(leaks.images("train", ["test"])) == 0
    assert len(leaks.images("validation", ["train", "test"])) == 2


def test_flat_images_match_only_when_equal() -> None:
    grey = np.full((1, 48, 48, 1), 90, np.uint8)
    nearly = np.concatenate([grey + 3, grey])
    nearly[0, 5, 5] += 1
    leaks = find(train=grey, test=nearly)
    assert leaks.exact.tolist() == [True]


def test_thousands_of_equal_images_make_a_pair_each(faces: np.ndarray) -> None:
    many = np.broadcast_to(faces[:1], (20_000, 48, 48, 1))
    leaks = find(train=many, test=many[:5_000])
    assert leaks.exact.all()
    assert len(leaks.images("train", ["test"])) == 20_000
    assert len(leaks.images("test", ["train"])) == 5_000
    assert len(leaks) < 25_000
    assert len(leakage.to_json(leaks)["between"][0]["examples"]) == 100


def test_thousands_of_like_images_are_all_found(faces: np.ndarray) -> None:
    many = np.broadcast_to(faces[:1], (2_000, 48, 48, 1)).copy()
    many[np.arange(2_000), np.arange(2_000) // 48, np.arange(2_000) % 48] ^= 64
    leaks = find(train=many[:1_500], test=many[1_500:])
    assert len(leaks.images("train", ["test"])) == 1_500
    assert len(leaks.images("test", ["train"])) == 500
    assert len(leaks) <= 2_000


def test_hash_is_the_published_one(faces: np.ndarray) -> None:
    """imagehash.phash: DCT-II of 32x32, the lowest 8x8, above their median."""
    images = np.stack([cv2.resize(image, (32, 32)) for image in faces[:50]])
    low = scipy.fft.dctn(images.astype(float), type=2, axes=(1, 2))[:, :8, :8].reshape(50, 64)
    expected = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    assert np.array_equal(phash(images).view(np.uint8).reshape(50, 8), expected)


def test_second_start_reads_the_cache_and_a_damaged_file_is_made_again(
    faces: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path))
    expected = find(train=faces[:20], test=faces[10:30])
    (file,) = (cache_folder() / "leakage").iterdir()
    for damage in (b"", b"\x93NUMPY", file.read_bytes()[:-3], b"x" * 300):
        file.write_bytes(damage)
        assert find(train=faces[:20], test=faces[10:30]).first.tolist() == expected.first.tolist()
    monkeypatch.setattr(leakage, "_compare", lambda *_: pytest.fail("compared again"))
    assert find(train=faces[:20], test=faces[10:30]).second.tolist() == expected.second.tolist()


def test_report_names_parts_and_numbers(faces: np.ndarray) -> None:
    (line,) = leakage.report_lines(find(train=faces[:10], test=faces[8:12]))
    told, _, pair = line.partition(", e.g. ")
    assert told == "train / test: 2 of 4 test images are copies of 2 train images (2 exact, 0 near-duplicates)"
    test, train = pair.split(" of ")
    assert test[:16] == train[:16]  # the id of a picture starts with the hash of its pixels
    assert leakage.report_lines(find(train=faces[:10], test=faces[20:22])) == ["no picture is in two of train, test"]


def test_parts_may_be_empty(faces: np.ndarray) -> None:
    assert len(find(train=faces[:3], test=faces[:0])) == 0
    assert leakage.report_lines(leakage.find({})) == []


@pytest.mark.skipif(not FER2013.exists(), reason="needs ../shared/data/fer2013.parquet")
def test_fer2013_has_288_private_test_images_that_are_exact_copies_of_training_images() -> None:
    data = open_dataset(str(FER2013))
    test = data.in_split("private")
    keys = data.ids.astype("S16")
    train = np.intersect1d(data.in_split("train"), np.flatnonzero(np.isin(keys, keys[test])))  # the rest costs seconds
    leaks = leakage.find({"train": (data, train), "test": (data, test)})
    assert leaks.counts()["train", "test"]["exact_second_images"] == 288
