import numpy as np
import pytest
from faces import csv_row, random_faces, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_ray.data import readers
from fer_ray.data.readers import SPLITS, UNLABELLED, Form, fer_plus
from fer_ray.errors import UserError

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"

# In the form of the official file; 0, 2, 3, 7 and 17 are its own rows of these numbers.
ROWS = [
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",  # no majority
    "PublicTest,fer0000002.png,5,0,0,3,1,0,0,0,1,0",  # 5 of 8 once single votes are out: neutral
    "PrivateTest,fer0000003.png,4,0,0,4,1,0,0,0,1,0",  # a tie
    "Training,fer0000007.png,0,10,0,0,0,0,0,0,0,0",
    "Training,,0,0,0,0,0,0,0,0,0,10",
    "Training,fer0000201.png,1,0,0,1,0,0,0,0,8,0",  # unknown
    "PublicTest,fer0000202.png,2,0,0,0,0,0,0,0,0,8",  # no face
    "PrivateTest,fer0000203.png,0,0,0,0,0,0,0,9,1,0",
]
USAGES = [row.split(",")[0] for row in ROWS]


def write(folder, rows=ROWS, faces=None, usages=None, pixels="fer2013.csv"):
    faces = random_faces(len(ROWS)) if faces is None else faces
    usages = usages or USAGES
    write_csv(folder / pixels, [csv_row(0, face, usage) for face, usage in zip(faces, usages, strict=True)])
    return write_csv(folder / "fer2013new.csv", rows, HEADER)


def test_votes_become_labels_and_pixels_come_from_the_csv_beside(tmp_path):
    faces = random_faces(len(ROWS))
    samples = readers.read(write(tmp_path, faces=faces))
    kept = [0, 1, 2, 3, 7]
    assert np.array_equal(samples.images, faces[kept])
    names = [samples.classes[label] if label != UNLABELLED else None for label in samples.labels]
    assert names == [None, "neutral", None, "happy", "contempt"]
    assert [SPLITS[split] for split in samples.splits] == ["train", "public", "private", "train", "private"]
    assert set(samples.classes) == {"neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"}
    assert samples.votes.tolist() == [[int(v) for v in ROWS[i].split(",")[2:]] for i in kept]


def test_what_is_dropped_is_counted_by_reason(tmp_path):
    notes = "\n".join(readers.read(write(tmp_path)).notes)
    assert (
        "3 of 8 faces dropped: 1 without an image name, 1 with most votes for unknown, 1 with most for no face" in notes
    )
    assert "2 faces without a majority judge nothing" in notes


def test_faces_are_brought_to_the_form_asked_for(tmp_path):
    samples = readers.read(write(tmp_path), Form((24, 24, 3)))
    assert samples.images.shape == (5, 24, 24, 3)


def test_pixels_may_be_in_the_only_other_csv_of_fer2013(tmp_path):
    path = write(tmp_path, pixels="icml_face_data.csv")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert len(readers.read(path).images) == 5


@pytest.mark.parametrize("line_end", ["\r\n", "\n\n"])
def test_line_ends_of_other_systems_and_blank_lines(tmp_path, line_end):
    path = write(tmp_path)
    path.write_bytes((HEADER + line_end + line_end.join(ROWS)).encode())
    assert len(readers.read(path).images) == 5


def test_votes_without_pixels_name_the_file_that_is_missing(tmp_path):
    path = write(tmp_path)
    (tmp_path / "fer2013.csv").unlink()
    with pytest.raises(UserError, match=r"fer2013new\.csv holds the votes .* no .*fer2013\.csv"):
        readers.read(path)


def test_two_possible_files_of_pixels_are_both_named(tmp_path):
    path = write(tmp_path, pixels="a.csv")
    write(tmp_path, pixels="b.csv")
    with pytest.raises(UserError, match=r"a\.csv, b\.csv"):
        readers.read(path)


def test_files_of_different_length_are_both_named(tmp_path):
    with pytest.raises(UserError, match=r"fer2013new\.csv has 7 rows and .*fer2013\.csv 8"):
        readers.read(write(tmp_path, rows=ROWS[:-1]))


def test_rows_in_another_order_are_refused(tmp_path):
    usages = [USAGES[1], USAGES[0], *USAGES[2:]]
    with pytest.raises(UserError, match=r"row 2: Usage is 'train' but 'public'.*2 rows differ"):
        readers.read(write(tmp_path, usages=usages))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Training,a.png,x,0,0,0,0,0,0,0,0,0", "row 3: neutral has 'x' votes"),
        ("Training,a.png,1,-1,0,0,0,0,0,0,0,0", "row 3: happiness has '-1' votes"),
        ("Training,a.png,1,0,0,0,0,0,0,0,0,300", "row 3: nf has '300' votes"),
        ("Training,a.png,1.5,0,0,0,0,0,0,0,0,0", "row 3: neutral has '1.5' votes"),
        ("Training,a.png,1,2", "row 3: 4 columns, expected 12"),
        ("Holdout,a.png,1,0,0,0,0,0,0,0,0,9", "row 3: unknown Usage 'Holdout'"),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        readers.read(write(tmp_path, rows=[ROWS[0], row, *ROWS[2:]]))


def test_a_file_of_dropped_faces_alone_is_refused(tmp_path):
    rows = [f"{usage},,0,0,0,0,0,0,0,0,0,10" for usage in USAGES]
    with pytest.raises(UserError, match="no row has an image name and votes"):
        readers.read(write(tmp_path, rows=rows))


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 500), replacement=st.binary(min_size=0, max_size=4))
def test_damaged_votes_are_read_or_refused_by_name(tmp_path_factory, position, replacement):
    path = write(tmp_path_factory.mktemp("votes"))
    data = path.read_bytes()
    path.write_bytes(data[:position] + replacement + data[position + len(replacement) :])
    try:
        fer_plus.read(path, Form())
    except UserError as error:
        message = str(error)
    else:
        message = str(path)
    assert str(path) in message
