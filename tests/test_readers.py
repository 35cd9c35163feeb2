import csv
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faces import csv_row, encode, fer2013_rows, random_faces, write_csv, write_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_ray.data import readers
from fer_ray.data.readers import SPLITS, fer_csv
from fer_ray.errors import UserError
from fer_ray.labels import FER2013


def names_of(samples):
    return [samples.classes[label] for label in samples.labels]


def splits_of(samples):
    return [SPLITS[split] for split in samples.splits]


def parquet(path, metadata=None, /, **columns):
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
    return path


# CSV


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_is_read_as_python_would_read_it(tmp_path, end):
    faces = random_faces(200)
    faces[3], faces[4], faces[5] = 0, 255, 9
    path = write_csv(tmp_path / "fer2013.csv", fer2013_rows(faces), end=end)
    samples = readers.read(path)
    rows = list(csv.DictReader(path.open()))
    golden = np.array([[int(number) for number in row["pixels"].split()] for row in rows])
    assert np.array_equal(samples.images.reshape(200, -1), golden)
    assert names_of(samples) == [FER2013[int(row["emotion"])] for row in rows]
    assert splits_of(samples)[:3] == ["train", "public", "private"]


def test_column_names_with_spaces_and_another_order_are_understood(tmp_path):
    faces = random_faces(3)
    rows = [f"{i},{usage},{' '.join(map(str, faces[i].ravel()))}" for i, usage in enumerate(["Training"] * 3)]
    samples = readers.read(write_csv(tmp_path / "icml_face_data.csv", rows, "emotion, Usage, pixels"))
    assert np.array_equal(samples.images, faces)
    assert names_of(samples) == ["angry", "disgust", "fear"]


def test_odd_but_valid_csv_is_read_right(tmp_path):
    faces = random_faces(3)
    quoted = [f'"{i}","{" ".join(map(str, face.ravel()))} ",Training' for i, face in enumerate(faces[:2])]
    zeros = "2," + " ".join(f"{value:04d}" for value in faces[2].ravel()) + ", Training"
    path = write_csv(tmp_path / "odd.csv", [quoted[0], "", quoted[1], zeros])
    assert np.array_equal(readers.read(path).images, faces)


def test_csv_without_a_last_line_end_and_with_a_byte_order_mark(tmp_path):
    faces = random_faces(2)
    path = tmp_path / "fer.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(["emotion,pixels,Usage", *fer2013_rows(faces)]).encode())
    assert np.array_equal(readers.read(path).images, faces)


FACE = random_faces(1)[0]
BROKEN_ROWS = {
    "label outside the set": (csv_row(9, FACE, "Training"), "emotion '9'"),
    "emotion is no number": (csv_row("x", FACE, "Training"), "emotion 'x'"),
    "unknown usage": (csv_row(1, FACE, "Holdout"), "unknown Usage 'Holdout'"),
    "a pixel short": (csv_row(1, FACE.ravel()[1:], "Training"), "2,303 pixels, expected 2,304"),
    "a pixel too many": (csv_row(1, np.append(FACE, 7), "Training"), "2,305 pixels"),
    "cut in the middle": ("1,12 13 1", "2 columns, expected 3"),
    "too bright": (csv_row(1, np.append(FACE.ravel()[1:].astype(int), 256), "Training"), "pixel 2,304 is '256'"),
    "far too bright": (csv_row(1, np.append(3000, FACE.ravel()[1:].astype(int)), "Training"), "pixel 1 is '3000'"),
    "negative": (csv_row(1, np.append(-5, FACE.ravel()[1:].astype(int)), "Training"), "pixel 1 is '-5'"),
    "a letter in a number": (csv_row(1, FACE, "Training").replace(" ", " a", 1), "pixel 2 is 'a"),
    "a decimal point": (csv_row(1, np.append(1.5, FACE.ravel()[1:]), "Training"), "pixel 1 is '1.5'"),
    "an empty field": (f",{csv_row(1, FACE, 'Training')}"[0:1] + csv_row(1, FACE, "Training")[2:], "emotion ''"),
}


@pytest.mark.parametrize("damage", BROKEN_ROWS)
def test_broken_csv_row_is_named(tmp_path, damage):
    row, message = BROKEN_ROWS[damage]
    rows = fer2013_rows(random_faces(120))
    rows[97] = row
    path = write_csv(tmp_path / "broken.csv", rows)
    with pytest.raises(UserError) as caught:
        readers.read(path)
    assert f"{path}, row 99: " in str(caught.value)
    assert message in str(caught.value)


def test_numbers_that_slip_from_one_row_to_the_next_are_noticed(tmp_path):
    rows = fer2013_rows(random_faces(4))
    short, long = FACE.ravel()[1:], np.append(FACE, 1)
    rows[1:3] = [csv_row(0, short, "Training"), csv_row(0, long, "Training")]
    with pytest.raises(UserError, match="row 3: 2,303 pixels"):
        readers.read(write_csv(tmp_path / "slipped.csv", rows))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.text('0123456789 ,\n\r-.a"', min_size=1, max_size=4), st.integers(0, 40_000))
def test_fast_reader_gives_up_or_agrees_with_the_exact_one(seed, noise, place):
    block = ("\n".join(fer2013_rows(random_faces(4, seed))) + "\n").encode()
    place %= len(block)
    block = block[:place] + noise.encode() + block[place + len(noise) :]
    layout = fer_csv._Layout(Path("x.csv"), 3, 0, 1, 2)
    fast = fer_csv._read_plain(block, layout)
    if fast is not None:  # then the exact reader must find nothing wrong
        exact = fer_csv._read_exactly(block, 2, layout)
        assert all(np.array_equal(a, b) for a, b in zip(fast, exact, strict=True))


def test_csv_lacking_a_column_or_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match="no column usage"):
        readers.read(write_csv(tmp_path / "a.csv", ["1,2"], "emotion,pixels"))
    with pytest.raises(UserError, match="no rows"):
        readers.read(write_csv(tmp_path / "b.csv", []))


# Class folders and archives


def folder_edition(root, faces, prefix=""):
    names = ["train/anger/Training_1.png", "train/happy/Training_2.png", "test/anger/PublicTest_3.png"]
    names += ["test/happy/PrivateTest_4.png"]
    return write_folders(root, {prefix + name: face for name, face in zip(names, faces, strict=True)})


def test_fer2013_test_folder_is_told_apart_by_file_name(tmp_path):
    faces = random_faces(4)
    samples = readers.read(folder_edition(tmp_path, faces))
    found = sorted(zip(splits_of(samples), names_of(samples), strict=True))
    assert found == [("private", "happy"), ("public", "angry"), ("train", "angry"), ("train", "happy")]


def test_test_folder_stays_whole_if_a_name_does_not_tell_its_half(tmp_path):
    root = folder_edition(tmp_path, random_faces(4))
    write_folders(root, {"test/happy/other.png": FACE})
    assert splits_of(readers.read(root)).count("test") == 3


@pytest.mark.parametrize("word", ["val", "validation", "Valid"])
def test_validation_folder_is_understood(tmp_path, word):
    files = {f"{split}/{c}/1.png": FACE for split in ("Train", word) for c in ("sad", "fear")}
    assert splits_of(readers.read(write_folders(tmp_path, files))).count("validation") == 2


def test_folder_above_and_archive_are_the_same_data(tmp_path):
    faces = random_faces(4)
    plain = readers.read(folder_edition(tmp_path / "plain", faces))
    above = readers.read(folder_edition(tmp_path / "above", faces, "archive/fer2013/"))
    with zipfile.ZipFile(tmp_path / "fer.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "above").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path / "above"))
        archive.writestr("__MACOSX/archive/._fer2013", b"resource fork")
    packed = readers.read(tmp_path / "fer.zip")
    for other in (above, packed):
        assert np.array_equal(plain.images, other.images)
        assert names_of(plain) == names_of(other)
        assert splits_of(plain) == splits_of(other)


def test_classes_without_splits_are_training(tmp_path):
    samples = readers.read(write_folders(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE}))
    assert splits_of(samples) == ["train", "train"]


def test_hidden_files_are_ignored_and_others_counted(tmp_path):
    root = write_folders(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE})
    write_folders(root, {"happy/.DS_Store": b"x", "happy/Thumbs.db": b"x", "README.txt": b"x", "sad/list.txt": b"x"})
    assert readers.read(root).notes == ("2 files left out that are no images",)


def test_empty_class_folder_is_named(tmp_path):
    root = write_folders(tmp_path, {"train/happy/1.png": FACE, "train/sad/1.png": FACE})
    (root / "train" / "fear").mkdir()
    with pytest.raises(UserError, match="train/fear is an empty class folder"):
        readers.read(root)


def test_image_outside_a_class_folder_is_named(tmp_path):
    root = write_folders(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE, "sad/person1/2.png": FACE})
    with pytest.raises(UserError, match=r"sad/person1/2\.png is not in a class folder"):
        readers.read(root)


def test_one_class_folder_is_not_a_data_set(tmp_path):
    with pytest.raises(UserError, match="only one class folder, 'happy'"):
        readers.read(write_folders(tmp_path, {"happy/1.png": FACE}))


def test_folder_that_holds_a_table_says_which_file_to_pass(tmp_path):
    write_csv(tmp_path / "fer2013.csv", fer2013_rows(random_faces(1)))
    with pytest.raises(UserError, match=r"holds no images; pass fer2013\.csv itself"):
        readers.read(tmp_path)


JPEG = encode(random_faces(1, 3)[0], "JPEG")
PNG = encode(FACE)


def bomb_png():
    """A tiny PNG that declares 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return PNG[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


def bomb_jpeg():
    """A small JPEG whose frame header declares 65,000 x 65,000 pixels."""
    frame = JPEG.index(b"\xff\xc0")
    return JPEG[: frame + 5] + struct.pack(">HH", 65_000, 65_000) + JPEG[frame + 9 :]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.jpg", JPEG[:-200], "[Pp]remature|truncated"),
        ("cut.png", PNG[:-200], "truncated|broken"),
        ("text.jpg", b"this is no image", "cannot identify"),
        ("empty.png", b"", "it is empty"),
        ("bomb.png", bomb_png(), "60000x60000 pixels|decompression bomb"),
        ("bomb.jpg", bomb_jpeg(), "65000x65000 pixels"),
    ],
)
def test_broken_image_is_named(tmp_path, name, content, reason):
    root = write_folders(tmp_path, {"happy/1.png": FACE, "sad/1.png": FACE, f"sad/{name}": content})
    with pytest.raises(UserError, match=reason) as caught:
        readers.read(root)
    assert f"{root}/sad/{name}: not a usable image" in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def test_archive_member_that_declares_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers.class_folders, "MAX_FILE_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("happy/1.png", bytes(20_000))
    with pytest.raises(UserError, match=r"happy/1\.png declares 20,000 bytes"):
        readers.read(tmp_path / "bomb.zip")


def test_damaged_archive_member_is_named(tmp_path):
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("happy/1.png", PNG)
        archive.writestr("sad/1.png", PNG)
    data = bytearray(path.read_bytes())
    data[data.rindex(PNG) + 100] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"sad/1\.png cannot be unpacked"):
        readers.read(path)


# Decoding


def test_jpegs_decode_as_pillow_decodes_them(tmp_path):
    grey = random_faces(2)
    root = write_folders(tmp_path, {"happy/1.jpg": grey[0], "sad/2.jpg": grey[1]})
    golden = [np.asarray(Image.open(root / name)) for name in ("happy/1.jpg", "sad/2.jpg")]
    samples = readers.read(root)
    assert samples.images.shape == (2, 48, 48, 1)
    assert np.array_equal(samples.images[..., 0], golden)


def test_grey_faces_saved_as_rgb_are_grey(tmp_path):
    faces = random_faces(2)
    rgb = np.repeat(faces, 3, axis=3)
    samples = readers.read(write_folders(tmp_path, {"happy/1.png": rgb[0], "sad/1.png": faces[1]}))
    assert np.array_equal(samples.images, faces)


def test_one_coloured_image_makes_all_rgb(tmp_path):
    colour, grey = random_faces(1, channels=3)[0], FACE
    samples = readers.read(write_folders(tmp_path, {"happy/1.png": colour, "sad/1.png": grey}))
    assert np.array_equal(samples.images[0], colour)
    assert np.array_equal(samples.images[1], np.repeat(grey, 3, axis=2))


def test_other_sizes_take_the_most_frequent_one_and_this_is_said(tmp_path):
    faces = random_faces(2)
    large = random_faces(1, size=96)[0]
    samples = readers.read(
        write_folders(tmp_path, {"happy/1.png": faces[0], "sad/1.png": faces[1], "sad/2.png": large})
    )
    golden = np.asarray(Image.fromarray(large[..., 0]).resize((48, 48), Image.Resampling.LANCZOS))
    assert np.array_equal(samples.images[2, ..., 0], golden)
    assert samples.notes == ("1 of 3 images resized to 48x48 (they were 96x96)",)


def test_orientation_of_exif_is_applied(tmp_path):
    wide = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 32, axis=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    root = write_folders(
        tmp_path, {"happy/1.jpg": encode(wide, "JPEG", exif=exif), "sad/1.jpg": encode(wide, "JPEG", exif=exif)}
    )
    images = readers.read(root).images
    assert images.shape == (2, 64, 32, 1)
    assert images[0, 60, 0, 0] > images[0, 3, 0, 0]


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    file = io.BytesIO()
    Image.fromarray(FACE[..., 0].astype(np.uint16) << 8).save(file, "PNG")
    samples = readers.read(write_folders(tmp_path, {"happy/1.png": file.getvalue(), "sad/1.png": FACE}))
    assert np.array_equal(samples.images[0], FACE)


# Parquet


def test_parquet_labels_meet_by_name(tmp_path):
    faces = random_faces(3)
    images = [encode(face) for face in faces]
    numbered = parquet(tmp_path / "a.parquet", {"label_names": "neutral,Anger,joy"}, image=images, label=[1, 2, 0])
    named = parquet(tmp_path / "b.parquet", image=images, label=["angry", "happiness", "Neutral"])
    for path in (numbered, named):
        samples = readers.read(path)
        assert names_of(samples) == ["angry", "happy", "neutral"]
        assert splits_of(samples) == ["train"] * 3
        assert np.array_equal(samples.images, faces)


def test_parquet_usage_and_affect_are_read(tmp_path):
    path = parquet(
        tmp_path / "a.parquet",
        image=[PNG] * 3,
        label=["sad", "happy", "sad"],
        usage=["Training", "PrivateTest", "val"],
        valence=[-0.5, 0.5, 0.0],
        arousal=[1.0, 0.0, -1.0],
    )
    samples = readers.read(path)
    assert splits_of(samples) == ["train", "private", "validation"]
    assert samples.valence is not None
    assert samples.valence.tolist() == [-0.5, 0.5, 0.0]
    assert samples.arousal is not None
    assert samples.arousal.tolist() == [1.0, 0.0, -1.0]


BROKEN_TABLES: dict[str, dict] = {
    "row 2 (b.png): not a usable image": {"image": [PNG, PNG[:50]], "label": ["a", "b"], "path": ["a.png", "b.png"]},
    "row 2: label 7 is outside the set 0 to 6": {"image": [PNG, PNG], "label": [0, 7]},
    "row 2: unknown usage 'hold'": {"image": [PNG, PNG], "label": [0, 1], "usage": ["Training", "hold"]},
    "row 1: image is missing": {"image": [None, PNG], "label": [0, 1]},
    "no column 'label'": {"image": [PNG]},
    "expected bytes of image files, got int64": {"image": [1], "label": [0]},
    "labels whole numbers, got a column of double": {"image": [PNG], "label": [0.5]},
    "no rows": {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int8())},
}


@pytest.mark.parametrize("message", BROKEN_TABLES)
def test_broken_parquet_is_named(tmp_path, message):
    path = parquet(tmp_path / "a.parquet", {"label_names": ",".join(FER2013)}, **BROKEN_TABLES[message])
    with pytest.raises(UserError) as caught:
        readers.read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_numbers_without_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="no label_names"):
        readers.read(parquet(tmp_path / "a.parquet", image=[PNG], label=[0]))


# Recognition


def test_layout_is_recognised_by_content_not_by_suffix(tmp_path):
    path = write_csv(tmp_path / "download", fer2013_rows(random_faces(2)))
    assert len(readers.read(path).images) == 2


@pytest.mark.parametrize("content", [b"", b"hello,world\n1,2\n", b"\x00\x01\x02"])
def test_unknown_layout_says_what_is_understood(tmp_path, content):
    path = tmp_path / "faces.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="one folder of images per class") as caught:
        readers.read(path)
    assert str(path) in str(caught.value)


def test_cut_parquet_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", image=[PNG], label=["sad"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a readable Parquet file"):
        readers.read(path)


def test_missing_path_names_the_nearest(tmp_path):
    (tmp_path / "fer2013.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"did you mean 'fer2013\.parquet'"):
        readers.find(str(tmp_path / "fer2031.parquet"))
    with pytest.raises(UserError, match="no data at /nowhere/faces"):
        readers.find("/nowhere/faces")
