import subprocess
import sys

import numpy as np
import pytest
from faces import SHARED_DATA, csv_row, encode, random_faces, write_csv, write_folders

from fer_ray import cli
from fer_ray.data import __main__ as data_command
from fer_ray.data.store import open_dataset
from fer_ray.diagnostics import inspect_command, inspect_page, inspection


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))


def quietly(done, total):
    pass


def class_folders(root):
    faces = random_faces(8, size=40)
    files = {f"train/{name}/{i}.png": faces[i] for i, name in enumerate(["happy", "happy", "sad", "sad"])}
    files |= {f"test/{name}/{i}.png": faces[i + 4] for i, name in enumerate(["happy", "sad"])}
    files["test/happy/copy.png"] = faces[0]  # of one in train, with its label
    files["train/sad/again.png"] = faces[0]  # and with another
    return write_folders(root, files)


def test_counts_and_copies_are_those_of_the_files(tmp_path):
    found = inspection.inspect(str(class_folders(tmp_path / "set")), quietly)
    assert found.layout == "a folder of images per class"
    assert found.problems == ()
    by_split = inspection.counts(found.dataset)
    assert {name: numbers.tolist() for name, numbers in by_split.items()} == {"train": [2, 3, 0], "test": [2, 1, 0]}
    copies = inspection.copies(found.dataset)
    assert (copies.num_images, copies.num_distinct, copies.num_conflicts) == (8, 6, 1)
    assert copies.across == {
        ("train", "train"): 1,
        ("train", "test"): 2,
        ("test", "train"): 1,
        ("test", "test"): 0,
    }


def test_sizes_and_modes_are_those_of_the_files_not_of_the_cache(tmp_path):
    colour, grey = random_faces(2, size=50, channels=3), random_faces(3, size=30)
    files = {f"happy/{i}.png": face for i, face in enumerate(colour)}
    files |= {f"sad/{i}.png": face for i, face in enumerate(grey)}
    found = inspection.inspect(str(write_folders(tmp_path / "set", files)), quietly)
    assert found.files.sizes == {(50, 50): 2, (30, 30): 3}
    assert found.files.num_colour == 2


BROKEN = {"happy/a.png": b"", "sad/b.jpg": b"\xff\xd8\xff\xe0", "sad/c\x1b[31m<b>.png": b"no image"}


@pytest.mark.parametrize("edition", ["folder", "zip"])
def test_all_unreadable_files_are_listed_and_the_exit_code_is_1(tmp_path, capsys, edition):
    root = write_folders(class_folders(tmp_path / "set") / "train", BROKEN).parent
    if edition == "zip":
        import shutil

        root = shutil.make_archive(str(tmp_path / "set"), "zip", root)
    assert data_command.command(["inspect", str(root), "--out", str(tmp_path / "page.html")]) == cli.FAILED_TRIALS
    printed = capsys.readouterr().out
    assert "11 encoded images, 3 unreadable" in printed
    assert "3 problems" in printed
    for name in ("a.png", "b.jpg", "c\\x1b[31m<b>.png"):
        assert printed.count(name) == 1
    assert "\x1b[31m" not in printed
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "[31m&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_a_broken_layout_is_told_beside_the_files(tmp_path, capsys):
    root = write_folders(tmp_path / "set", {"happy/0.png": random_faces(1)[0]})
    assert inspect_command.command([str(root)]) == cli.FAILED_TRIALS
    assert "only one class folder" in capsys.readouterr().out


def test_a_broken_row_of_a_csv_is_told(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", [csv_row(9, random_faces(1)[0], "Training")])
    assert inspect_command.command([str(path)]) == cli.FAILED_TRIALS
    assert "emotion '9'" in capsys.readouterr().out


def test_broken_annotations_are_all_listed(tmp_path, capsys):
    folder = tmp_path / "set"
    for i, face in enumerate(random_faces(4)):
        write_folders(folder / "images", {f"{i}.png": encode(face)})
        (folder / "annotations").mkdir(exist_ok=True)
        for kind, value in (("exp", i % 2), ("val", 0.5), ("aro", -0.5)):
            np.save(folder / f"annotations/{i}_{kind}.npy", np.array(str(value)))
    assert inspect_command.command([str(folder)]) == 0
    assert "valence from 0.50 to 0.50" in capsys.readouterr().out
    (folder / "annotations/1_exp.npy").write_bytes(b"")
    np.save(folder / "annotations/2_val.npy", np.array(7.0))
    assert inspect_command.command([str(folder)]) == cli.FAILED_TRIALS
    printed = capsys.readouterr().out
    assert "1_exp.npy" in printed
    assert "2_val.npy: 7 is outside" in printed


def test_the_page_shows_faces_of_each_class_and_split_and_loads_nothing(tmp_path):
    page = inspect_page.render(inspection.inspect(str(class_folders(tmp_path / "set")), quietly))
    for strip in ("2 faces: happy, train", "3 faces: sad, train", "2 faces: happy, test", "1 faces: sad, test"):
        assert strip in page
    body = page.split("<script")[0]
    assert 'src="http' not in body


def test_affect_figure_counts_each_face_that_has_both():
    valence, arousal = np.float32([-1, 1, np.nan, 0.5]), np.float32([-1, 1, 0, np.nan])
    _, _, both = inspect_page.affect_figure(valence, arousal).data
    assert sum(number or 0 for row in both.z for number in row) == 2
    assert both.z[0][0] == both.z[-1][-1] == 1


def test_figures_of_fer2013_are_the_known_ones():
    if not (SHARED_DATA / "fer2013.parquet").exists():
        pytest.skip("no ../shared/data/fer2013.parquet")
    copies = inspection.copies(open_dataset(str(SHARED_DATA / "fer2013.parquet")))
    assert copies.num_distinct == 34_034  # see ../shared/facts/fer.md
    assert copies.across["private", "train"] == 288


def test_an_unknown_action_is_answered_with_the_nearest():
    done = subprocess.run([sys.executable, "-m", "fer_ray.data", "inspct"], capture_output=True, text=True, check=False)
    assert done.returncode == cli.USAGE
    assert "did you mean 'inspect'?" in done.stderr


def test_a_broken_file_does_not_hide_what_the_others_hold(tmp_path, capsys):
    faces = random_faces(12)
    files = {f"{('happy', 'sad')[i % 2]}/{i}.png": face for i, face in enumerate(faces)}
    folder = write_folders(tmp_path / "faces", {**files, "happy/bad.png": b"no image"})
    assert inspect_command.command([str(folder)]) == cli.FAILED_TRIALS
    shown = capsys.readouterr().out
    assert "12 faces" in shown
    assert "happy/bad.png: not a usable image" in shown
