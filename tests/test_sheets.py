"""`python -m fer_ray.synthesize sheets` cuts, labels and judges cells, and says what it did with each."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from faces import SHARED_DATA, encode, needs_detector, write_folders
from PIL import Image

from fer_ray.data.readers import fer_parquet
from fer_ray.data.readers.images import Form
from fer_ray.errors import UserError
from fer_ray.faces.align import TEMPLATE
from fer_ray.faces.detect import Face, detect
from fer_ray.faces.quality import Limits
from fer_ray.synthesis import sheets
from fer_ray.synthesis.sheets import Grid, Sheet
from fer_ray.synthesize import __main__ as synthesize
from fer_ray.synthesize import sheets_page

pytestmark = needs_detector
GRIDS = SHARED_DATA / "grids"
needs_sheets = pytest.mark.skipif(not GRIDS.is_dir(), reason="no ../shared/data/grids beside the project")

SMALL = Grid(2, 3)
CELL = 40


def sheet_image(rows: int = 2, cols: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 [rows * CELL, cols * CELL, 3]: noise, which `any_cell_is_a_face` takes for faces."""
    return np.random.default_rng(seed).integers(0, 256, (rows * CELL, cols * CELL, 3), dtype=np.uint8)


@pytest.fixture
def any_cell_is_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(cell: np.ndarray) -> list[Face]:
        side = cell.shape[0]
        return [Face((0.1 * side, 0.1 * side, 0.9 * side, 0.9 * side), 0.9, np.float32(TEMPLATE * side))]

    monkeypatch.setattr(sheets, "detect", found)


def run(*arguments: object) -> int:
    return synthesize.command(["sheets", *map(str, arguments)])


def run_small(folder: Path, out: Path, *more: object, label_from: str = "folder") -> int:
    return run(folder, "--label-from", label_from, "--out", out, "--rows", 2, "--cols", 3, *more)


def manifest(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# cutting


def test_cells_meet_at_rounded_edges_and_lose_no_pixel() -> None:
    image = sheet_image(25, 26)[:1000, :1024]
    cells = sheets.cut(image, Grid(6, 6))
    edges = [0, 171, 341, 512, 683, 853, 1024]
    for i, cell in enumerate(cells):
        row, col = divmod(i, 6)
        top, bottom = round(row * 1000 / 6), round((row + 1) * 1000 / 6)
        np.testing.assert_array_equal(cell, image[top:bottom, edges[col] : edges[col + 1]])


def test_the_margin_is_cut_off_every_side_of_every_cell() -> None:
    image = sheet_image()
    cells = sheets.cut(image, Grid(2, 3, margin=4))
    assert [cell.shape for cell in cells] == [(32, 32, 3)] * 6
    np.testing.assert_array_equal(cells[4], image[44:76, 44:76])


def test_a_sheet_too_small_for_its_grid_is_refused_by_name(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", {"happy/tiny.png": sheet_image()})
    with pytest.raises(UserError, match=r"tiny\.png.*120x80 pixels.*13 a side.*6x6.*--rows"):
        run(tmp_path / "in", "--label-from", "folder", "--out", tmp_path / "faces.parquet")


# labels


def found_labels(folder: Path, label_from: sheets.LabelFrom, grid: Grid = SMALL) -> dict[str, tuple[str | None, ...]]:
    return {sheet.name: sheet.labels for sheet in sheets.find(folder, label_from, grid)}


def test_the_folder_names_the_class_and_unknown_classes_are_kept(tmp_path: Path) -> None:
    folder = write_folders(
        tmp_path, {"Happiness/a.png": b"", "deep/er/awe/b.jpg": b"", ".hidden/c.png": b"", "awe/readme.txt": b""}
    )
    assert found_labels(folder, "folder") == {"Happiness/a.png": ("happy",) * 6, "deep/er/awe/b.jpg": ("awe",) * 6}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("happy_003.png", "happy"),
        ("sheet-anger-12.jpg", "angry"),
        ("007Sadness.PNG", "sad"),
        ("surprise surprised 1.webp", "surprise"),
        ("an_old_man_fear.png", "fear"),
    ],
)
def test_the_file_name_holds_the_class_as_a_word(tmp_path: Path, name: str, label: str) -> None:
    assert found_labels(write_folders(tmp_path, {name: b""}), "name") == {name: (label,) * 6}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("happy_or_sad.png", r"happy_or_sad\.png.*several classes \(happy, sad\)"),
        ("hapiness_1.png", r"hapiness_1\.png.*no class in its name.*did you mean 'happiness'"),
        ("s_0012.png", r"0012\.png.*no class.*known: angry"),
        ("unhappyface.png", r"unhappyface\.png.*no class"),
    ],
)
def test_a_file_name_without_one_class_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        found_labels(write_folders(tmp_path, {name: b""}), "name")


def test_a_json_beside_the_sheet_has_a_label_per_cell_or_one(tmp_path: Path) -> None:
    labels = ["anger", None, "joy", "awe", "fear", "sad"]
    cells = [{"label": label, "accept": False, "reason": "truth, not to be read"} for label in labels]
    write_folders(
        tmp_path,
        {
            "a.png": b"",
            "a.json": json.dumps({"rows": 2, "cols": 3, "cells": cells}).encode(),
            "b.png": b"",
            "b.json": b'{"label": "disgusted"}',
        },
    )
    assert found_labels(tmp_path, "json") == {
        "a.png": ("angry", None, "happy", "awe", "fear", "sad"),
        "b.png": ("disgust",) * 6,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json.*labels of a\.png.*--label-from folder"),
        (b"", r"a\.json is not readable as JSON"),
        (b"\xff\xfe{", r"a\.json is not readable as JSON"),
        (b"[" * 100_000, r"a\.json is not readable as JSON"),
        (b"[1, 2]", r"a\.json: the label must be a class name or null"),
        (b"{}", r"a\.json: the label must be a class name or null"),
        (b'{"label": 3}', r"a\.json: the label must be"),
        (b'{"cells": 5}', r"a\.json: `cells` must list the 6 cells of a 2x3 grid.*got 5"),
        (b'{"cells": [{"label": "sad"}]}', r"a\.json: `cells` must list the 6.*got 1 cells"),
        (b'{"rows": 6, "label": "sad"}', r"a\.json: rows is 6, but the grid is 2x3; pass --rows"),
        (json.dumps({"cells": [{"label": "sad"}] * 5 + [{}]}).encode(), r"a\.json: the label of cell 5 \(row 1, col"),
        (b'{"label": "a,b"}', r"a\.png: its class 'a,b'.*without commas"),
        (b'{"label": "  "}', r"a\.png: its class ''"),
        (b'{"label": "a\\u001b[31m"}', r"a\.png: its class"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_by_name(tmp_path: Path, content: bytes | None, message: str) -> None:
    write_folders(tmp_path, {"a.png": b""} | ({} if content is None else {"a.json": content}))
    with pytest.raises(UserError, match=message):
        found_labels(tmp_path, "json")


def test_a_folder_without_sheets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        sheets.find(tmp_path, "folder", SMALL)
    with pytest.raises(UserError, match="is not a folder"):
        sheets.find(tmp_path / "missing", "folder", SMALL)


# the command


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_kept_faces_are_read_back_with_their_class_and_place(tmp_path: Path) -> None:
    grey = sheet_image(seed=1)[..., :1]
    write_folders(tmp_path / "in", {"joy/a.png": sheet_image(), "sad/b.png": grey, "sad/c.png": sheet_image(seed=2)})
    out = tmp_path / "faces.parquet"
    assert run_small(tmp_path / "in", out, "--face-size", 32) == 0
    samples = fer_parquet.read(out, Form())
    assert samples.images.shape == (18, 32, 32, 3)
    assert [samples.classes[label] for label in samples.labels] == ["happy"] * 6 + ["sad"] * 12
    assert (samples.images[6:12, ..., 0] == samples.images[6:12, ..., 1]).all()
    expected = sheets.read(Sheet(tmp_path / "in/sad/c.png", "c", ("sad",) * 6), SMALL, Limits(), 32)
    np.testing.assert_array_equal(samples.images[12:], [cell.face for cell in expected])


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_every_cell_has_a_row_in_the_manifest_and_a_picture_on_the_page(tmp_path: Path) -> None:
    image = sheet_image()
    image[:CELL, :CELL] = 90  # flat: not sharp
    cells = [{"label": "happy"}] * 5 + [{"label": None}]
    write_folders(tmp_path / "in", {"a.png": image, "a.json": json.dumps({"cells": cells}).encode()})
    out = tmp_path / "faces.parquet"
    assert run_small(tmp_path / "in", out, label_from="json") == 0
    rows = manifest(out)
    assert [(row["row"], row["col"]) for row in rows] == [(str(r), str(c)) for r in range(2) for c in range(3)]
    assert [row["kept"] for row in rows] == ["False", *["True"] * 4, "False"]
    assert [row["reason"] for row in rows] == ["blurred", *[""] * 4, "no label"]
    assert float(rows[0]["brightness"]) == 90
    assert float(rows[0]["sharpness"]) == 0
    assert rows[5]["face"] is None or rows[5]["face"] == ""
    page = out.with_suffix(".html").read_text()
    assert page.count("<img") == 6
    assert page.count('class="kept"') == 4
    assert "✗ blurred" in page
    assert "✗ no label" in page


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_the_yield_is_printed_per_sheet_class_and_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = sheet_image()
    image[:CELL] = 90
    write_folders(tmp_path / "in", {"fear/a.png": image, "sad/b.png": np.full_like(image, 90)})
    assert run_small(tmp_path / "in", tmp_path / "faces.parquet") == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["fear/a.png", "6", "3", "50%"] in lines
    assert ["sad", "6", "0", "0%"] in lines
    assert ["blurred", "9"] in lines
    assert "3 faces written" in printed.out
    assert "no face of class sad was kept" in printed.err


def test_where_no_face_is_kept_the_page_tells_why_and_no_file_is_written(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", {"fear/a.png": sheet_image()})
    out = tmp_path / "faces.parquet"
    with pytest.raises(UserError, match=r"no face was kept.*faces\.html"):
        run_small(tmp_path / "in", out)
    assert not out.exists()
    assert "✗ no face" in out.with_suffix(".html").read_text()
    assert {row["reason"] for row in manifest(out)} == {"no face"}


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_a_damaged_sheet_stops_the_command_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", {"fear/a.png": sheet_image(), "fear/b.png": encode(sheet_image())[:300]})
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"b\.png: not a usable image"):
        run_small(tmp_path / "in", tmp_path / "out" / "faces.parquet")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_names_from_outside_cannot_write_into_page_or_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path / "in", {"<b>[red]x/\x1b[2J<script>.png": sheet_image()})
    out = tmp_path / "faces.parquet"
    assert run_small(tmp_path / "in", out) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "[red]" in printed.out
    page = out.with_suffix(".html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.usefixtures("any_cell_is_a_face")
def test_a_long_page_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets_page, "MAX_SHEETS", 2)
    write_folders(tmp_path / "in", {f"sad/{i}.png": sheet_image(seed=i) for i in range(3)})
    out = tmp_path / "faces.parquet"
    assert run_small(tmp_path / "in", out, "--page", tmp_path / "cells.html") == 0
    page = (tmp_path / "cells.html").read_text()
    assert page.count("<img") == 12
    assert "the first 2 of 3 sheets" in page
    assert len(manifest(out)) == 18


# real sheets


@dataclass(frozen=True)
class Truth:
    path: Path
    accept: np.ndarray


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    """What each cell of the three sheets is: the evaluation's side of their JSON."""
    files = sorted(GRIDS.glob("sheet_*.json"))
    cells = [json.loads(file.read_bytes())["cells"] for file in files]
    return [
        Truth(file.with_suffix(".jpg"), np.array([cell["accept"] for cell in of_sheet]))
        for file, of_sheet in zip(files, cells, strict=True)
    ]


def kept_of(path: Path, grid: Grid) -> Iterator[bool]:
    """One label for all cells, so that nulls in the JSON give nothing away."""
    sheet = Sheet(path, path.name, ("happy",) * (grid.rows * grid.cols))
    return (cell.face is not None for cell in sheets.read(sheet, grid, Limits(), 128))


@needs_sheets
def test_good_cells_are_kept_and_bad_ones_rejected(truths: list[Truth]) -> None:
    for truth in truths:
        kept = np.fromiter(kept_of(truth.path, Grid()), bool)
        assert kept[truth.accept].mean() >= 0.9
        assert kept[~truth.accept].mean() <= 0.05


@needs_sheets
def test_other_grids_sizes_and_qualities_of_the_same_cells_fare_as_well(truths: list[Truth], tmp_path: Path) -> None:
    """The rule is not fitted to three files: cells shuffled into grey 5x4 sheets of 96 px cells, quality 60."""
    pictures = [cell for truth in truths for cell in sheets.cut(np.asarray(Image.open(truth.path)), Grid())]
    accept = np.concatenate([truth.accept for truth in truths])
    order = np.random.default_rng(0).permutation(len(pictures))[:100].reshape(-1, 20)
    kept = []
    for number, places in enumerate(order):
        sheet = Image.new("L", (4 * 96, 5 * 96))
        for i, place in enumerate(places):
            picture = Image.fromarray(pictures[place]).convert("L").resize((96, 96), Image.Resampling.LANCZOS)
            sheet.paste(picture, (i % 4 * 96, i // 4 * 96))
        path = tmp_path / f"{number}.jpg"
        sheet.save(path, quality=60)
        kept += kept_of(path, Grid(5, 4))
    good = accept[order.ravel()]
    assert np.mean(np.array(kept)[good]) >= 0.9
    assert np.mean(np.array(kept)[~good]) <= 0.05


@needs_sheets
def test_a_sheet_cut_by_another_grid_is_reported(truths: list[Truth], tmp_path: Path, capsys) -> None:
    folder = tmp_path / "happy"
    folder.mkdir()
    shutil.copy(truths[0].path, folder / "one.jpg")
    run(folder, "--label-from", "folder", "--out", tmp_path / "a.parquet")
    assert "does not look like" not in capsys.readouterr().err
    run(folder, "--label-from", "folder", "--out", tmp_path / "b.parquet", "--rows", 8, "--cols", 8)
    assert "one.jpg does not look like a sheet of 8x8 faces" in capsys.readouterr().err
    assert "does not look like a sheet of 8x8 faces" in (tmp_path / "b.html").read_text()


@needs_sheets
def test_written_faces_stand_upright_in_their_place(truths: list[Truth]) -> None:
    sheet = Sheet(truths[1].path, "x", ("happy",) * 36)
    faces = [cell.face for cell in sheets.read(sheet, Grid(), Limits(), 128) if cell.face is not None]
    assert all(face.shape == (128, 128, 3) for face in faces)
    eyes = np.array([found[0].landmarks[:2] / 128 for face in faces if (found := detect(face))])
    assert len(eyes) >= 0.9 * len(faces)
    assert np.abs(np.median(eyes, axis=0) - TEMPLATE[:2]).max() < 0.03
