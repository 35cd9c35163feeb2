"""What every test shares: a cache of its own, one thread, and a data set small enough to train on in a second."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faces import encode
from pyarrow import fs

# Before anything imports torch; commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSES = ("happy", "sad", "neutral")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FER_RAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True)
class TinyFaces:
    """Paths of 24x24 grey "faces" of three classes: 60 to train on, 18 to choose on, 18 to test on; 60 synthetic."""

    real: Path
    synthetic: Path
    synthetic_other_classes: Path


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory: pytest.TempPathFactory) -> TinyFaces:
    folder = tmp_path_factory.mktemp("faces")
    usages = ["Training"] * 60 + ["PublicTest"] * 18 + ["PrivateTest"] * 18
    return TinyFaces(
        _write(folder / "real.parquet", seed=0, classes=CLASSES, usages=usages),
        _write(folder / "synthetic.parquet", seed=1, classes=CLASSES, usages=["Training"] * 60),
        _write(folder / "others.parquet", seed=2, classes=("happy", "sad", "fear"), usages=["Training"] * 60),
    )


def _write(path: Path, *, seed: int, classes: tuple[str, ...], usages: list[str]) -> Path:
    """Noise with a bright bar whose place tells the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (len(usages), 24, 24, 1), dtype=np.uint8)
    labels = np.arange(len(usages)) % len(classes)
    for image, label in zip(images, labels, strict=True):
        image[4 + 6 * label : 8 + 6 * label] += 120
    columns = {
        "image": [encode(image) for image in images],
        "label": [classes[i] for i in labels],
        "usage": usages,
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on loopback with a bucket `sweeps`: its address."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server], see the extra `test`")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    maker = fs.S3FileSystem(endpoint_override=address, access_key="a", secret_key="b", allow_bucket_creation=True)
    maker.create_dir("sweeps")
    yield address
    running.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bucket, in the environment of a user of that server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return "s3://sweeps"
