"""`python -m fer_ray.doctor`: what a user reads, and the exit code."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fer_ray import cli, doctor
from fer_ray.doctor import FAIL, INFO, OK, WARN


@pytest.fixture
def smi(monkeypatch):
    """Makes nvidia-smi answer with a text, or fail as an exception says."""

    real = subprocess.run

    def answer(text):
        def run(command, **options):
            if command[0] != "nvidia-smi":
                return real(command, **options)
            if isinstance(text, Exception):
                raise text
            return SimpleNamespace(stdout=text, returncode=0)

        monkeypatch.setattr(doctor.subprocess, "run", run)

    return answer


@pytest.fixture
def healthy(monkeypatch, smi, tmp_path):
    """A machine without faults, whatever this one is; gives what may be broken of it."""
    smi(FileNotFoundError())
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_unmet", lambda extra: [])
    monkeypatch.setattr(doctor, "_cgroup_cpus", lambda: None)
    monkeypatch.setattr(doctor, "_memory", lambda: (64e9, 32e9))
    disk = SimpleNamespace(total=1e12, used=0.0, free=500e9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: disk)
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (65536, 65536))
    return SimpleNamespace(disk=disk, folder=tmp_path)


def checks(section):
    return {check.subject: check for check in section}


def run(arguments, capsys):
    code = cli.exit_code(doctor.command, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_healthy_machine_is_told_and_left_as_it_was(healthy, capsys):
    code, out, err = run([], capsys)
    assert (code, err) == (0, "")
    for part in ("Python 3.", "torch 2.", "ray 2.", "32 GB available", "500 GB free at", "float32", "would count"):
        assert part in out
    assert FAIL not in out
    assert list(healthy.folder.iterdir()) == [], "looking makes no folder"


def test_the_table_fits_80_columns_and_reads_without_colours(healthy, capsys, monkeypatch):
    healthy.disk.free = 1e9
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = run([], capsys)
    assert "\x1b" not in out
    assert "warn" in out
    assert "-> make room" in out


def test_a_failure_gives_exit_code_1_and_a_remedy(healthy, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_unmet", lambda extra: [] if extra else ["timm>=1.0.20"])
    code, out, _ = run([], capsys)
    assert code == 1
    assert "FAIL" in out
    assert "pip install 'timm>=1.0.20'" in out
    assert "1 will fail" in out


def test_warnings_alone_give_exit_code_0(healthy, capsys, smi):
    smi("NVIDIA A10G, 570.1, 23028, 1000\n")
    found = checks(doctor.gpus())["GPU 0"]
    assert found.mark == WARN
    assert "1.0 GB of 24 GB free, driver 570.1" in found.found
    code, out, _ = run([], capsys)
    assert code == 0
    assert "0 will fail, " in out


@pytest.mark.parametrize(
    ("answer", "mark", "part"),
    [
        ("NVIDIA H100 80GB HBM3, 580.9, 81559, 81000\n", OK, "85 GB of 86 GB free"),
        ("NVIDIA H100 80GB HBM3, 580.9, [N/A], [N/A]\n", OK, "not told"),
        (FileNotFoundError(), INFO, "none"),
        (subprocess.CalledProcessError(9, "nvidia-smi"), WARN, "nvidia-smi fails"),
    ],
)
def test_gpus_as_the_driver_tells_them(smi, answer, mark, part):
    smi(answer)
    (check,) = doctor.gpus()
    assert check.mark == mark
    assert part in check.found


def test_a_gpu_that_torch_cannot_use_will_fail(monkeypatch):
    from fer_ray.training import runtime

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(runtime.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "_gpu_is_present", lambda: True)
    (check,) = doctor.used()
    assert check.mark == FAIL
    assert "--device cpu" in check.found


def test_a_package_that_does_not_load_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "IMPORTED", {"opencv": "no_such_module_at_all"})
    check = checks(doctor.software())["opencv"]
    assert check.mark == FAIL
    assert "no_such_module_at_all" in check.found


def test_requirements_are_those_of_the_project(monkeypatch):
    lines = ["numpy>=1", "timm>=999", "no-such-package>=2", 'tensorboard>=999; extra == "tensorboard"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: lines)
    assert doctor._unmet("") == ["timm>=999", "no-such-package>=2"]
    assert doctor._unmet("tensorboard") == ["tensorboard>=999"]


def test_a_container_with_less_time_than_cores_is_told(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "_cgroup_cpus", lambda: 0.5)
    check = checks(doctor.machine())["processor"]
    assert (check.mark, check.remedy) == (WARN, "--concurrency 1")


def test_a_place_that_cannot_be_written_will_fail(healthy, monkeypatch):
    (healthy.folder / "file").write_text("in the way")
    check = checks(doctor.disks(str(healthy.folder / "file" / "results")))["results"]
    assert check.mark == FAIL
    assert "--storage" in check.remedy
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    check = checks(doctor.disks("s3://bucket/fer"))["results"]
    assert check.mark == FAIL
    assert "127.0.0.1:9 cannot be reached" in check.found


def test_a_full_disk_will_fail_and_a_small_one_is_warned_of(healthy):
    for free, mark in ((0.1e9, FAIL), (5e9, WARN), (50e9, OK)):
        healthy.disk.free = free
        assert checks(doctor.disks("results"))["results"].mark == mark


@pytest.mark.slow
def test_nodes_of_a_cluster_are_listed():
    from fer_ray.tuning.local_cluster import LocalCluster

    with LocalCluster(1) as cluster:
        command = [sys.executable, "-m", "fer_ray.doctor", "--address", cluster.address]
        done = subprocess.run(
            command, env=cluster.environment(), capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 nodes at {cluster.address}" in done.stdout
    assert "1 CPUs, 0 GPUs" in done.stdout


def test_a_cluster_that_does_not_answer_will_fail(monkeypatch):
    from fer_ray.tuning import machines

    def refuse(address):
        raise machines.UserError(f"--address {address}: Ray cannot be reached")

    monkeypatch.setattr(machines, "start_ray", refuse)
    (check,) = doctor.cluster("10.0.0.1:6379")
    assert check.mark == FAIL
    assert "10.0.0.1:6379" in check.found


def test_help_and_a_typo_load_nothing_heavy(capsys):
    assert run(["--adress", "auto"], capsys)[0] == 2
