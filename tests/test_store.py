import hashlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from faces import SHARED_DATA, encode, fer2013_rows, random_faces, write_csv, write_folders

from fer_ray.data import store
from fer_ray.data.readers import SPLITS, Samples, rendered
from fer_ray.data.store import IGNORED, open_dataset, open_like
from fer_ray.errors import UserError
from fer_ray.labels import FER2013


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FER_RAY_CACHE", str(folder))
    return folder


@pytest.fixture
def csv_file(tmp_path):
    return str(write_csv(tmp_path / "faces.csv", fer2013_rows(random_faces(30))))


def no_reading(monkeypatch):
    def fail(*_):
        raise AssertionError("the source was read again")

    monkeypatch.setattr(store.readers, "read", fail)


def entries(cache):
    return list((cache / "entries").iterdir())


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("images", "ids", "labels", "splits", "classes")
    )


def test_samples_are_sorted_by_an_id_made_of_pixels_split_class_and_count(csv_file):
    data = open_dataset(csv_file)
    for i, sample_id in enumerate(data.ids):
        pixels, split, name, count = sample_id.decode().split("-")
        assert pixels == hashlib.sha1(data.images[i].tobytes()).hexdigest()[:16]
        assert (split, name) == (SPLITS[data.splits[i]], data.classes[data.labels[i]])
        assert count == "0"
    assert np.array_equal(data.ids, np.sort(data.ids))
    assert data.digest == hashlib.sha256(b"\n".join(data.ids.tolist())).hexdigest()[:16]


def test_equal_faces_of_one_split_and_class_are_counted(tmp_path):
    face = random_faces(1)[0]
    files = {f"{name}/{i}.png": face for name in ("happy", "sad") for i in range(3)}
    ids = [
        sample_id.decode().split("-", 1)[1] for sample_id in open_dataset(str(write_folders(tmp_path / "f", files))).ids
    ]
    assert ids == [f"train-{name}-{i}" for name in ("happy", "sad") for i in range(3)]


def test_order_of_the_source_does_not_matter(tmp_path, cache):
    rows = fer2013_rows(random_faces(40))
    first = open_dataset(str(write_csv(tmp_path / "a.csv", rows)))
    second = open_dataset(str(write_csv(tmp_path / "b.csv", rows[::-1])))
    assert same(first, second)
    assert first.digest == second.digest
    assert len(entries(cache)) == 1


def test_images_are_a_read_only_map_of_the_cache(csv_file):
    images = open_dataset(csv_file).images
    assert isinstance(images.base, np.memmap)
    assert not images.flags.writeable


def test_second_opening_reads_the_cache_alone(csv_file, monkeypatch):
    first = open_dataset(csv_file)
    no_reading(monkeypatch)
    assert same(first, open_dataset(csv_file))


def test_changed_source_is_read_again(tmp_path, csv_file):
    before = open_dataset(csv_file)
    write_csv(tmp_path / "faces.csv", fer2013_rows(random_faces(30, seed=1)))
    os.utime(csv_file, ns=(0, time.time_ns() + 10**9))
    assert open_dataset(csv_file).digest != before.digest


@pytest.mark.parametrize("change", ["added", "removed", "touched"])
def test_changed_folder_is_read_again(tmp_path, change):
    faces = random_faces(5)
    files = {f"{name}/{i}.png": faces[i] for i, name in enumerate(["happy", "happy", "sad", "sad"])}
    root = write_folders(tmp_path / "folder", files)
    before = open_dataset(str(root))
    if change == "added":
        write_folders(root, {"sad/new.png": faces[4]})
    elif change == "removed":
        (root / "sad" / "3.png").unlink()
    else:
        (root / "sad" / "3.png").write_bytes(encode(faces[4]))
    assert open_dataset(str(root)).digest != before.digest


@pytest.mark.parametrize("damage", ["cut images", "no labels", "broken meta", "broken ids", "broken record"])
def test_damaged_cache_is_made_again(csv_file, cache, damage):
    first = open_dataset(csv_file)
    first = replace(first, **{name: getattr(first, name).copy() for name in ("images", "ids", "labels", "splits")})
    (entry,) = entries(cache)
    if damage == "cut images":
        os.truncate(entry / "images.npy", 1000)
    elif damage == "no labels":
        (entry / "labels.npy").unlink()
    elif damage == "broken meta":
        (entry / "meta.json").write_text('{"digest": ')
    elif damage == "broken ids":
        size = (entry / "ids.npy").stat().st_size
        (entry / "ids.npy").write_bytes(bytes(size))
    else:
        (record,) = (cache / "sources").iterdir()
        record.write_text("[")
    assert same(first, open_dataset(csv_file))
    assert len(entries(cache)) == 1


def test_cache_that_cannot_be_made_names_the_variable(tmp_path, csv_file, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write the data cache at .*set FER_RAY_CACHE"):
        open_dataset(csv_file)


def open_with_little_space(source, connection):
    # A file-size limit fails a write half-way, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        open_dataset(source)
        connection.send("no error")
    except UserError as error:
        connection.send(str(error))


def test_disk_full_half_way_leaves_nothing_behind(csv_file, cache):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=open_with_little_space, args=(csv_file, sender))
    process.start()
    message = receiver.recv()
    process.join()
    assert "FER_RAY_CACHE" in message
    assert entries(cache) == []
    assert len(open_dataset(csv_file).images) == 30


def test_broken_source_is_not_blamed_on_the_cache_and_leaves_no_entry(tmp_path, cache):
    path = write_csv(tmp_path / "bad.csv", ["9,1 2,Training"])
    with pytest.raises(UserError, match=r"bad\.csv, row 2"):
        open_dataset(str(path))
    assert not (cache / "entries").exists()


def open_in_process(source, queue):
    queue.put(open_dataset(source).digest)


def test_processes_that_open_at_once_agree(csv_file, cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=open_in_process, args=(csv_file, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    digests = {queue.get(timeout=20) for _ in processes}
    for process in processes:
        process.join()
    assert len(digests) == 1
    assert len(entries(cache)) == 1


def test_affect_follows_its_face_and_is_part_of_the_digest(monkeypatch):
    faces = random_faces(6)
    values = np.linspace(-1, 1, 6, dtype=np.float32)
    digests = []
    for valence in (values, -values):
        monkeypatch.setattr(rendered, "stamp", lambda valence=valence: str(valence))
        samples = Samples(faces, np.arange(6, dtype=np.int16), FER2013, np.zeros(6, np.int8), valence, values)
        monkeypatch.setattr(rendered, "read", lambda domain, samples=samples: samples)
        data = open_dataset("demo")
        digests.append(data.digest)
        for face, value in zip(faces, valence, strict=True):
            assert data.valence is not None
            assert data.valence[(data.images == face).all(axis=(1, 2, 3))] == value
    assert digests[0] != digests[1]


def test_synthetic_faces_take_the_real_size_and_channels(tmp_path, csv_file):
    real = open_dataset(csv_file)
    large = random_faces(4, size=96, channels=3)
    files = {f"{name}/{i}.png": large[i] for i, name in enumerate(["happy", "happy", "sad", "sad"])}
    synthetic = open_like(str(write_folders(tmp_path / "gan", files)), real)
    assert synthetic.images.shape == (4, 48, 48, 1)
    assert synthetic.in_split("train").tolist() == [0, 1, 2, 3]
    assert synthetic.notes == ("4 of 4 images resized to 48x48 (they were 96x96)",)
    native = open_dataset(str(tmp_path / "gan"))
    assert native.images.shape == (4, 96, 96, 3)
    # Brought down antialiased: means of independent noise over 2x2 pixels and more are far from its extremes.
    assert synthetic.images.std() < 0.5 * native.images.std()


def test_grey_synthetic_faces_become_rgb_beside_coloured_real_ones(tmp_path):
    colour = random_faces(2, channels=3)
    real = open_dataset(str(write_folders(tmp_path / "real", {"happy/1.png": colour[0], "sad/1.png": colour[1]})))
    grey = random_faces(2, seed=5)
    synthetic = open_like(str(write_folders(tmp_path / "s", {"happy/1.png": grey[0], "sad/1.png": grey[1]})), real)
    assert synthetic.images.shape == (2, 48, 48, 3)
    assert np.array_equal(synthetic.images[..., 0], synthetic.images[..., 2])


def test_selecting_classes_relabels_and_ignores_the_others(csv_file):
    data = open_dataset(csv_file)
    chosen = data.select_classes(("happy", "angry"))
    assert chosen.images is data.images
    names = [data.classes[label] for label in data.labels]
    expected = [("happy", "angry").index(name) if name in ("happy", "angry") else IGNORED for name in names]
    assert chosen.labels.tolist() == expected
    assert np.array_equal(chosen.in_split(*SPLITS), np.flatnonzero(np.array(expected) != IGNORED))
    again = chosen.select_classes(("angry",))
    assert [again.labels[i] == 0 for i in range(len(names))] == [name == "angry" for name in names]


def test_class_names_beyond_ascii_survive(tmp_path):
    face = random_faces(2)
    data = open_dataset(str(write_folders(tmp_path / "f", {"müde/1.png": face[0], "happy/1.png": face[1]})))
    assert data.classes == ("happy", "müde")


def test_name_of_other_data_is_its_files(csv_file):
    assert open_dataset(csv_file).name == "faces.csv"


@pytest.mark.skipif(not (SHARED_DATA / "fer2013.parquet").exists(), reason="../shared/data/fer2013.parquet is missing")
def test_real_fer2013_is_recognised_with_its_official_counts():
    data = open_dataset(str(SHARED_DATA / "fer2013.parquet"))
    assert data.name == "FER2013"
    assert data.classes == FER2013
    assert [len(data.in_split(name)) for name in ("train", "public", "private")] == [28_709, 3_589, 3_589]
    # Goodfellow et al. 2013, and every copy of the CSV since.
    assert np.bincount(data.labels).tolist() == [4953, 547, 5121, 8989, 6077, 4002, 6198]
    assert len({sample_id[: store.PIXELS_HEX] for sample_id in data.ids}) == 34_034


@pytest.mark.skipif(not (SHARED_DATA / "fer2013.parquet").exists(), reason="../shared/data/fer2013.parquet is missing")
def test_csv_folder_archive_and_parquet_editions_are_one_data_set(tmp_path, cache):
    """On every 40th image of FER2013, written by the script that comes with the data."""
    import pyarrow.parquet as pq

    shutil.copy(SHARED_DATA / "unpack_fer2013.py", tmp_path)
    table = pq.read_table(SHARED_DATA / "fer2013.parquet")
    pq.write_table(table.take(list(range(0, table.num_rows, 40))), tmp_path / "fer2013.parquet")
    for layout in ("csv", "folder"):
        script = [sys.executable, str(tmp_path / "unpack_fer2013.py"), layout, str(tmp_path / layout)]
        subprocess.run(script, check=True)
    shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "folder")
    sources = ["fer2013.parquet", "csv/fer2013.csv", "folder", "archive.zip"]
    first, *others = [open_dataset(str(tmp_path / source)) for source in sources]
    assert len(first.images) == 898
    assert all(same(first, other) and first.digest == other.digest for other in others)
    assert len(entries(cache)) == 1
