import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faces import encode, fer2013_rows, random_faces, write_csv
from filelock import FileLock

from fer_ray import cli
from fer_ray.data.store import open_dataset
from fer_ray.diagnostics import cache_command
from fer_ray.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with two data sets."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FER_RAY_CACHE", str(folder))
    for seed in (0, 1):
        open_dataset(str(write_csv(tmp_path / f"{seed}.csv", fer2013_rows(random_faces(20, seed)))))
    return folder


def entry_of(cache, name):
    for path in cache.glob("sources/*.json"):
        record = json.loads(path.read_bytes())
        if record["origin"].endswith(name):
            return cache / "entries" / record["entry"]
    raise AssertionError(name)


def change(path, offset):
    """Flips one bit, counted from the end."""
    data = bytearray(path.read_bytes())
    data[-offset] ^= 1
    path.write_bytes(data)


def test_entries_are_shown_with_size_images_and_sources(cache, capsys):
    assert cache_command.command([]) == 0
    printed = capsys.readouterr().out
    assert "2 data sets" in printed
    assert str(cache) in printed
    for name in ("0.csv", "1.csv"):
        assert entry_of(cache, name).name in printed
    found = cache_command.entries(cache)
    assert [entry.num_images for entry in found] == [20, 20]
    assert all(entry.num_bytes > 20 * 48 * 48 for entry in found)


def test_an_empty_or_missing_cache_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "none"))
    for arguments in ([], ["--verify"], ["--clear"]):
        assert cache_command.command(arguments) == 0
    assert "is empty" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_clear_deletes_all_entries_and_says_what_was_freed(cache, capsys, tmp_path):
    assert cache_command.command(["--clear"]) == 0
    assert "2 data sets deleted" in capsys.readouterr().out
    assert not list(cache.glob("entries/*")) + list(cache.glob("sources/*"))
    assert len(open_dataset(str(tmp_path / "0.csv")).ids) == 20  # decoded again


def test_clear_deletes_nothing_else(cache, tmp_path):
    own = [tmp_path / "precious", cache / "entries" / "notes", cache / "sources" / "mine.json", cache / "more"]
    for path in own:
        path.mkdir()
        (path / "file").write_text("kept")
    link = cache / "entries" / "0123456789abcdef-48x48x1"
    link.symlink_to(tmp_path / "precious", target_is_directory=True)
    cache_command.command(["--clear"])
    assert not link.is_symlink()
    assert all((path / "file").read_text() == "kept" for path in own)


def test_clear_follows_no_link_in_place_of_its_folders(cache, tmp_path):
    os.rename(cache / "entries", tmp_path / "elsewhere")
    (cache / "entries").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    cache_command.command(["--clear"])
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2


def test_clear_is_refused_while_another_process_decodes(cache, monkeypatch):
    monkeypatch.setattr(cache_command, "LOCK_SECONDS", 0.05)
    with FileLock(cache / "lock"), pytest.raises(UserError, match="in use: another process"):
        cache_command.command(["--clear"])
    assert len(list(cache.glob("entries/*"))) == 2


def test_sound_entries_pass(cache, capsys):
    assert cache_command.command(["--verify"]) == 0
    assert capsys.readouterr().out.count("20 images are sound") == 2


@pytest.mark.parametrize("field", ["images", "ids", "labels", "splits"])
def test_one_changed_bit_is_found_and_its_entry_deleted(cache, tmp_path, capsys, field):
    damaged, sound = entry_of(cache, "0.csv"), entry_of(cache, "1.csv")
    change(damaged / f"{field}.npy", offset=2)
    assert cache_command.command(["--verify"]) == cli.FAILED_TRIALS
    printed = capsys.readouterr().out
    assert f"{damaged.name}: " in printed
    assert "deleted" in printed
    assert not damaged.exists()
    assert sound.exists()
    faces = open_dataset(str(tmp_path / "0.csv")).images
    assert sorted(map(bytes, faces)) == sorted(map(bytes, random_faces(20, 0)))


def test_a_changed_valence_is_found(cache, tmp_path):
    faces = [encode(face) for face in random_faces(4, seed=2)]
    columns = {"image": faces, "label": ["happy", "sad"] * 2, "valence": [0.1, 0.2, 0.3, 0.4]}
    pq.write_table(pa.table(columns), tmp_path / "affect.parquet")
    open_dataset(str(tmp_path / "affect.parquet"))
    entry = entry_of(cache, "affect.parquet")
    assert cache_command.damage(entry) is None
    change(entry / "valence.npy", offset=2)
    assert "values are not those" in cache_command.damage(entry)


@pytest.mark.parametrize("name", ["meta.json", "images.npy", "ids.npy"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_damage_and_listed_as_such(cache, name, content, capsys):
    (entry_of(cache, "0.csv") / name).write_bytes(content)
    assert cache_command.command([]) == 0
    assert cache_command.command(["--verify"]) == cli.FAILED_TRIALS
    assert "deleted" in capsys.readouterr().out


def test_names_from_outside_do_not_steer_the_terminal(cache, tmp_path, capsys):
    path = write_csv(tmp_path / "a\x1b[31m[b]x.csv", fer2013_rows(np.flip(random_faces(20))))
    open_dataset(str(path))
    cache_command.command([])
    printed = capsys.readouterr().out
    assert "\x1b[31m" not in printed
