import math
import pickle

import numpy as np
import pytest
from faces import encode, random_faces
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_ray.data import readers
from fer_ray.data.readers import SPLITS, Form, affectnet
from fer_ray.errors import UserError

FACES = random_faces(6, size=32, channels=3)
TEXT = np.str_


def write(folder, samples, kind=TEXT):
    """prefix -> (expression, valence, arousal), stored as text or as numbers; images are PNG to compare pixels."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for i, (prefix, values) in enumerate(samples.items()):
        (folder / "images" / f"{prefix}.png").write_bytes(encode(FACES[i]))
        for name, value in zip(("exp", "val", "aro"), values, strict=True):
            np.save(
                folder / "annotations" / f"{prefix}_{name}.npy", np.array(str(value) if kind is TEXT else kind(value))
            )
        np.save(folder / "annotations" / f"{prefix}_lnd.npy", np.zeros(136))
    return folder


SAMPLES = {"0": (1, 0.5, 0.25), "1": (0, 0.0, -1.0), "12": (7, -2, -2), "3": (6, "nan", 1.0)}


@pytest.mark.parametrize("kind", [TEXT, np.float64, np.float32, np.bytes_])
def test_numbers_and_text_are_read_alike(tmp_path, kind):
    if kind is np.bytes_:
        write(tmp_path / "set", {key: tuple(str(v).encode() for v in values) for key, values in SAMPLES.items()}, kind)
    else:
        write(tmp_path / "set", SAMPLES, kind)
    samples = readers.read(tmp_path / "set")
    order = [list(SAMPLES).index(prefix) for prefix in sorted(SAMPLES)]
    assert np.array_equal(samples.images, FACES[order])
    assert [samples.classes[label] for label in samples.labels] == ["happy", "neutral", "contempt", "angry"]
    assert samples.valence.tolist() == pytest.approx([0.5, 0.0, math.nan, math.nan], nan_ok=True)
    assert samples.arousal.tolist() == pytest.approx([0.25, -1.0, math.nan, 1.0], nan_ok=True)


def test_a_number_in_an_array_of_one_is_a_number_too(tmp_path):
    write(tmp_path / "set", SAMPLES)
    np.save(tmp_path / "set/annotations/0_exp.npy", np.array([[1]], ">i8"))
    samples = readers.read(tmp_path / "set")
    assert samples.classes[samples.labels[0]] == "happy"


def test_train_set_is_trained_on_and_val_set_is_the_test_which_is_said(tmp_path):
    write(tmp_path / "train_set", {"0": (0, 0, 0), "1": (1, 0, 0)})
    write(tmp_path / "val_set", {"0": (1, 0, 0)})  # prefixes repeat between sets
    samples = readers.read(tmp_path)
    assert [SPLITS[split] for split in samples.splits] == ["train", "train", "test"]
    assert any("val_set is the test split" in note for note in samples.notes)
    alone = readers.read(tmp_path / "train_set")
    assert [SPLITS[split] for split in alone.splits] == ["train", "train"]
    assert not any("val_set" in note for note in alone.notes)


def test_missing_partners_are_left_out_and_counted(tmp_path):
    folder = write(tmp_path / "set", {str(i): (i % 2, 0.1, 0.2) for i in range(6)})
    (folder / "images/0.png").unlink()
    (folder / "annotations/1_exp.npy").unlink()
    (folder / "annotations/2_val.npy").unlink()
    samples = readers.read(folder)
    assert len(samples.images) == 4
    assert np.isnan(samples.valence).tolist() == [True, False, False, False]
    notes = "\n".join(samples.notes)
    assert "set: 1 images left out that have no _exp" in notes
    assert "set: 1 _exp annotations left out that have no image" in notes
    assert "set: 1 samples without a _val or _aro" in notes


def test_samples_without_an_expression_are_dropped_and_counted(tmp_path):
    samples = readers.read(write(tmp_path / "set", {"0": (0, 0, 0), "1": (8, 0, 0), "2": (10, 0, 0), "3": (2, 0, 0)}))
    assert [samples.classes[label] for label in samples.labels] == ["neutral", "sad"]
    notes = "\n".join(samples.notes)
    assert "1 samples left out whose expression is 'none'" in notes
    assert "1 samples left out whose expression is 'no face'" in notes


def test_the_seven_class_form_has_seven_classes(tmp_path):
    samples = readers.read(write(tmp_path / "set", {str(i): (i, 0, 0) for i in range(6)}))
    assert "contempt" not in samples.classes


def test_expressions_without_affect_have_none(tmp_path):
    folder = write(tmp_path / "set", SAMPLES)
    for path in [*folder.glob("annotations/*_val.npy"), *folder.glob("annotations/*_aro.npy")]:
        path.unlink()
    samples = readers.read(folder)
    assert samples.valence is None
    assert samples.arousal is None
    assert samples.notes == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0_val", 1.5, r"0_val\.npy: 1\.5 is outside \[-1, 1\]"),
        ("1_aro", -3, r"1_aro\.npy: -3 is outside"),
        ("0_val", math.inf, "outside"),
        ("0_exp", 11, r"0_exp\.npy: expression 11"),
        ("0_exp", -1, "expression -1"),
        ("0_exp", 2.5, r"expression 2\.5"),
        ("0_exp", math.nan, "expression nan"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_file(tmp_path, name, value, message):
    folder = write(tmp_path / "set", SAMPLES)
    np.save(folder / f"annotations/{name}.npy", np.array(value))
    with pytest.raises(UserError, match=message):
        readers.read(folder)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file's code was run",))


def npy(descr, shape, data=b""):
    """A .npy file with this header, whatever it claims."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(118).encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HOSTILE = {
    "empty": b"",
    "pickle": pickle.dumps(Bomb()),
    "object array": npy("|O", "()", pickle.dumps(Bomb())),
    "header that nests": b"\x93NUMPY\x01\x00\x00\x04" + b"(" * 1024,
    "header with code": b"\x93NUMPY\x01\x00\x40\x00" + b"__import__('os').system('echo run')".ljust(64),
    "huge text": npy("<U999999999", "()"),
    "huge shape": npy("<f8", "(99999999999,)"),
    "two values": npy("<f8", "(2,)", bytes(16)),
    "record": npy("<f8,<f8", "()", bytes(16)),
    "cut off": npy("<f8", "()", bytes(7)),
    "too long": npy("<f8", "()", bytes(9)),
    "words": npy("|S5", "()", b"happy"),
    "text beyond Unicode": npy("<U1", "()", b"\xff\xff\xff\xff"),
    "large file": bytes(10_000),
    "no array": b"\x89PNG\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_annotation_is_refused_by_name(tmp_path, data):
    folder = write(tmp_path / "set", SAMPLES)
    (folder / "annotations/12_exp.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"12_exp\.npy"):
        readers.read(folder)


@settings(max_examples=300, deadline=None)
@given(
    position=st.integers(0, 140),
    replacement=st.binary(min_size=0, max_size=6),
    length=st.integers(0, 140),
    value=st.sampled_from([np.array("0.25"), np.array(b"3"), np.array(0.5), np.array(3)]),
)
def test_a_mutated_annotation_is_a_number_or_refused(tmp_path_factory, position, replacement, length, value):
    path = tmp_path_factory.getbasetemp() / "0_val.npy"
    np.save(path, value)
    data = path.read_bytes()
    path.write_bytes((data[:position] + replacement + data[position + len(replacement) :])[: max(length, position)])
    try:
        message = str(path) if isinstance(affectnet.read_number(str(path)), float) else "no number"
    except UserError as error:
        message = str(error)
    assert str(path) in message


def test_numbers_are_those_that_numpy_reads(tmp_path):
    values = [
        np.array("-0.0241"),
        np.array(b"0.5"),
        np.float32(0.1),
        np.int8(-2),
        np.array([7], np.uint16),
        np.float16(1),
    ]
    for value in values:
        np.save(tmp_path / "a.npy", value)
        golden = float(
            np.load(tmp_path / "a.npy").item() if np.asarray(value).dtype.kind != "S" else value.item().decode()
        )
        assert affectnet.read_number(str(tmp_path / "a.npy")) == golden


def test_two_images_of_one_prefix_are_refused(tmp_path):
    folder = write(tmp_path / "set", SAMPLES)
    (folder / "images/0.jpg").write_bytes(encode(FACES[0], "JPEG"))
    with pytest.raises(UserError, match=r"0\.jpg and 0\.png"):
        readers.read(folder)


def test_a_broken_image_is_refused_by_name(tmp_path):
    folder = write(tmp_path / "set", SAMPLES)
    (folder / "images/12.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"images/12\.png"):
        readers.read(folder, Form())


def test_a_folder_of_classes_is_another_layout(tmp_path):
    for name in ("images", "happy"):
        (tmp_path / name).mkdir()
    assert not affectnet.is_layout(tmp_path)
    (tmp_path / "annotations").mkdir()
    assert affectnet.is_layout(tmp_path)
    with pytest.raises(UserError, match="no image has an expression"):
        readers.read(tmp_path)
