"""Where results lie: a folder, or S3 with a mirror, against a server on loopback."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_results import write_sweep
from pyarrow import fs

from fer_ray import cli, results
from fer_ray.analysis.__main__ import command as analyse
from fer_ray.errors import UserError
from fer_ray.storage import open_storage, place


@pytest.fixture
def s3(s3_bucket, monkeypatch, tmp_path):
    """A place of its own, and a cache folder."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    return f"{s3_bucket}/{tmp_path.name}/ratios"


@pytest.fixture
def machine(monkeypatch, tmp_path, s3):
    """Opens a place as another machine would: with a cache folder of its own."""

    def open_on(name: str, location: str = s3):
        monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / name))
        return open_storage(location)

    return open_on


def write(storage, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = storage.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(storage) -> dict[str, str]:
    files = (path for path in storage.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(storage.folder).as_posix(): path.read_text() for path in files}


TRIAL = {"trials/a/row.json": "{}", "trials/a/epochs.parquet": "e", "trials/a/best.safetensors": "w"}


def test_a_folder_is_its_own_mirror(tmp_path):
    storage = open_storage(tmp_path / "results" / "ratios")
    assert not storage.is_remote
    assert storage.folder == tmp_path / "results" / "ratios"
    storage.probe()
    write(storage, TRIAL)
    storage.push("trials")
    storage.pull()
    assert read(storage) == TRIAL
    storage.remove("trials/a", "never there")
    assert read(storage) == {}


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*file.*--storage"):
        open_storage(tmp_path / "file" / "ratios").probe()


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("s3://bucket/fer", "s3://bucket/fer/ratios"),
        ("s3://bucket/", "s3://bucket/ratios"),
        ("s3://bucket?scheme=http&endpoint_override=h:1", "s3://bucket/ratios?scheme=http&endpoint_override=h:1"),
        (Path("/results"), "/results/ratios"),
    ],
)
def test_the_place_of_a_sweep(storage, expected):
    assert place(storage, "ratios") == expected


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("gs://bucket/ratios", "expected a folder or s3://"),
        ("s3:/bucket/ratios", "expected s3://BUCKET/PREFIX/NAME"),
        ("s3://bucket", "expected s3://BUCKET/PREFIX/NAME"),
        ("s3://bucket/ratios?endpoint=h:1", "did you mean 'endpoint_override'"),
        ("s3://me:secret@bucket/ratios", "credentials do not belong"),
    ],
)
def test_a_wrong_address_is_said(location, message):
    with pytest.raises(UserError, match=message) as caught:
        open_storage(location)
    assert "secret" not in str(caught.value).replace("SECRET", "").replace("secret_", "")


def test_what_one_machine_pushes_another_pulls(machine):
    one, other = machine("one"), machine("other")
    assert one.is_remote
    assert one.folder != other.folder
    assert one.folder.name == "ratios"
    files = {"sweep.json": "{}", "proposals/00001.json": '{"number": 1}', **TRIAL}
    write(one, {**files, "local.txt": "stays", "trials/.b.12345678/row.json": "half written"})
    one.push("sweep.json", "proposals", "trials")
    other.pull()
    assert read(other) == {name: text for name, text in files.items() if "best" not in name}
    other.pull("trials/a/best.safetensors")
    assert read(other) == files


def test_checkpoints_come_when_named_and_old_ones_go(machine):
    one, other = machine("one"), machine("other")
    write(one, {"checkpoints/a/1.pt": "first", "checkpoints/a/2.pt": "second"})
    one.push("checkpoints/a")
    (one.folder / "checkpoints/a/1.pt").unlink()
    write(one, {"checkpoints/a/3.pt": "third"})
    one.push("checkpoints/a")
    other.pull()
    assert read(other) == {}
    other.pull("checkpoints/a")
    assert read(other) == {"checkpoints/a/2.pt": "second", "checkpoints/a/3.pt": "third"}


def test_a_half_uploaded_trial_is_not_seen(machine, s3):
    one, other = machine("one"), machine("other")
    write(one, TRIAL)
    one.push("trials/a/epochs.parquet", "trials/a/best.safetensors")
    other.pull()
    other.pull("trials", "trials/a")
    assert read(other) == {}


def test_a_row_goes_first_and_comes_last(machine, monkeypatch):
    one, other = machine("one"), machine("other")
    write(one, TRIAL)
    one.push("trials")
    write(one, {"trials/a/row.json": '{"again": 1}', "trials/a/epochs.parquet": "new", "trials/a/traceback.txt": "!"})
    (one.folder / "trials/a/best.safetensors").unlink()
    upload = type(one)._upload

    def cut_off(storage, names, *rest):
        if names == ["trials/a/row.json"]:
            raise UserError("killed")
        upload(storage, names, *rest)

    other.pull()
    with monkeypatch.context() as patched:
        patched.setattr(type(one), "_upload", cut_off)
        with pytest.raises(UserError, match="killed"):
            one.push("trials/a")
    other.pull()
    assert read(other) == {}, "a trial that is being replaced is not there"
    one.push("trials/a")
    other.pull()
    other.pull("trials/a/best.safetensors")
    assert read(other) == {
        "trials/a/row.json": '{"again": 1}',
        "trials/a/epochs.parquet": "new",
        "trials/a/traceback.txt": "!",
    }


def test_a_pull_that_is_cut_off_leaves_no_trial(machine, monkeypatch):
    one, other = machine("one"), machine("other")
    write(one, TRIAL)
    one.push("trials")
    download = type(other)._download

    def cut_off(storage, name, info):
        if name.endswith("epochs.parquet"):
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject; Details: reset")
        download(storage, name, info)

    with monkeypatch.context() as patched:
        patched.setattr(type(other), "_download", cut_off)
        with pytest.raises(UserError, match="cannot be reached"):
            other.pull()
    assert "trials/a/row.json" not in read(other)
    other.pull()
    assert "trials/a/row.json" in read(other)


def test_weights_that_were_not_pulled_survive_a_push_of_the_mirror(machine):
    one, other = machine("one"), machine("other")
    write(one, TRIAL)
    one.push("trials")
    other.pull()
    other.push("trials")
    other.pull("trials/a/best.safetensors")
    assert read(other) == TRIAL


def test_only_what_is_new_or_changed_travels(machine, monkeypatch):
    one, other = machine("one"), machine("other")
    write(one, {"sweep.json": "{}", **TRIAL})
    one.push("sweep.json", "trials")
    other.pull()
    moved = []
    for method in ("_download", "_put"):
        original = getattr(type(one), method)

        def counted(storage, name, *rest, original=original):
            moved.append(name)
            return original(storage, name, *rest)

        monkeypatch.setattr(type(one), method, counted)
    other.pull()
    one.pull()
    one.push("sweep.json", "trials")
    assert moved == []
    write(one, {"sweep.json": "[]", "trials/b/row.json": "{}"})
    one.push("sweep.json", "trials")
    assert moved == ["sweep.json", "trials/b/row.json"]
    moved.clear()
    other.pull()
    assert moved == ["sweep.json", "trials/b/row.json"]
    assert read(other)["sweep.json"] == "[]"


def test_what_is_gone_there_goes_here_and_what_is_new_here_stays(machine, s3):
    one, other = machine("one"), machine("other")
    write(one, {"sweep.json": "{}", **TRIAL, "trials/b/row.json": "{}"})
    one.push("sweep.json", "trials")
    other.pull()
    write(other, {"trials/b/row.json": '{"written": "here"}', "trials/c/row.json": "{}"})
    one.remove("trials")
    assert read(one) == {"sweep.json": "{}"}
    other.pull("sweep.json")
    assert "trials/a/row.json" in read(other)
    other.pull()
    assert read(other) == {
        "sweep.json": "{}",
        "trials/b/row.json": '{"written": "here"}',
        "trials/c/row.json": "{}",
    }


def test_many_workers_push_while_a_driver_pulls(machine):
    one, other = machine("one"), machine("other")
    names = [f"trials/{number:02d}" for number in range(24)]
    for name in names:
        write(one, {f"{name}/row.json": f'{{"id": "{name}"}}', f"{name}/epochs.parquet": name * 100})
    with ThreadPoolExecutor(6) as workers:
        pushing = [workers.submit(one.push, name) for name in names]
        for _ in range(5):
            other.pull("trials")
            for row in (other.folder / "trials").glob("*/row.json"):
                name = json.loads(row.read_text())["id"]
                assert (row.parent / "epochs.parquet").read_text() == name * 100
        for push in pushing:
            push.result()
    other.pull("trials")
    assert read(other) == read(one)


def test_a_file_of_several_parts_arrives_whole(machine):
    one, other = machine("one"), machine("other")
    content = os.urandom(25_000_000)
    write(one, {"trials/a/row.json": "{}"})
    (one.folder / "trials/a/best.safetensors").write_bytes(content)
    one.push("trials/a")
    other.pull("trials/a/best.safetensors")
    assert (other.folder / "trials/a/best.safetensors").read_bytes() == content


def test_the_endpoint_may_stand_in_the_address(machine, monkeypatch, s3_server, s3):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    here = machine("one", f"{s3}?endpoint_override={s3_server.removeprefix('http://')}&scheme=http")
    here.probe()
    write(here, {"sweep.json": "{}"})
    here.push("sweep.json")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    other = machine("other")
    other.pull()
    assert read(other) == {"sweep.json": "{}"}


def test_a_probe_leaves_nothing(machine):
    one = machine("one")
    one.probe()
    assert one._s3.get_file_info(fs.FileSelector(one._root, allow_not_found=True)) == []


@pytest.mark.parametrize("action", ["probe", "pull"])
@pytest.mark.parametrize(
    ("endpoint", "bucket", "message"),
    [
        (None, "missing", "there is no bucket 'missing'"),
        ("http://127.0.0.1:9", "sweeps", "http://127.0.0.1:9 cannot be reached"),
        ("http://no.such.host.invalid", "sweeps", "cannot be reached .*resolve"),
    ],
)
def test_what_is_wrong_with_a_place_is_one_line_soon(s3, monkeypatch, action, endpoint, bucket, message):
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UserError, match=message) as caught:
        getattr(open_storage(f"s3://{bucket}/ratios"), action)()
    assert "\n" not in str(caught.value)


def test_missing_credentials_are_said(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    with pytest.raises(UserError, match="access denied; set AWS_ACCESS_KEY_ID"):
        open_storage(s3).probe()


def test_the_analysis_reads_from_there_and_writes_back(machine, tmp_path, s3, capsys):
    root = write_sweep(tmp_path / "ratios", models=("ResNet18",), fractions=(0.0, 1.0), num_images=100)
    writer = machine("one")
    shutil.copytree(root, writer.folder)
    writer.push("sweep.json", "trials")
    machine("laptop")
    assert cli.exit_code(analyse, [s3]) == 0
    assert f"copied to {s3}" in capsys.readouterr().out
    reader = machine("another")
    reader.pull()
    assert {"dashboard.html", "trials.parquet", "epochs.parquet", "tables/accuracy.csv"} <= read_names(reader)
    assert len(results.load(reader.folder).trials) == 2


def read_names(storage) -> set[str]:
    return {path.relative_to(storage.folder).as_posix() for path in storage.folder.rglob("*")}


def test_the_analysis_of_an_empty_place_names_it(machine, s3, capsys):
    machine("laptop")
    assert cli.exit_code(analyse, [s3]) == 2
    assert f"{s3} holds no trials" in capsys.readouterr().err
