"""Files of features: what they stand for, what happens to them, who shares them, and what they take of the machine."""

import multiprocessing
import os
import resource
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import CONFIG, MIRROR, NUM_FEATURES, RUNTIME, batches, dataset, features, network, recomputed

from fer_ray.errors import UserError
from fer_ray.models.network import Network
from fer_ray.training.feature_cache import FILL_BATCH, FeatureBatches


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the features are, empty at first."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path))
    return tmp_path / "features"


def test_no_more_is_on_the_disk_than_was_computed(folder: Path) -> None:
    features(images=batches(dataset(20_000)))(np.arange(5))
    [file] = folder.iterdir()
    assert file.stat().st_size > 1_900_000
    assert file.stat().st_blocks * 512 < 100_000


def changed_weight(net: Network) -> Network:
    with torch.no_grad():
        net.backbone[0].weight[0, 0, 0, 0] += 1e-6
    return net


def changed_buffer(net: Network) -> Network:
    net.backbone[1].running_mean[3] += 1e-6
    return net


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda: features(changed_weight(network())), id="weight"),
        pytest.param(lambda: features(changed_buffer(network())), id="buffer"),
        pytest.param(lambda: features(network(stride=1)), id="stride, which has no weights"),
        pytest.param(lambda: features(images=batches(size=32)), id="size"),
        pytest.param(lambda: features(images=batches(normalization="unit")), id="normalization"),
        pytest.param(lambda: features(images=batches(dataset(seed=1))), id="data"),
        pytest.param(lambda: features(images=batches(dataset(199))), id="number of images"),
        pytest.param(lambda: features(runtime=replace(RUNTIME, precision="bfloat16")), id="precision"),
        pytest.param(lambda: features(runtime=replace(RUNTIME, layout="contiguous")), id="layout"),
        pytest.param(lambda: features(runtime=replace(RUNTIME, threads=2)), id="threads"),
    ],
)
def test_what_features_depend_on_changes_their_file(folder: Path, change: Callable[[], FeatureBatches]) -> None:
    features()(np.arange(2))
    change()(np.arange(2))
    assert len(list(folder.iterdir())) == 2


def test_the_seed_and_the_head_do_not_change_the_file(folder: Path) -> None:
    for seed in (0, 1):
        config = CONFIG.replace({"training.seed": seed, "optimizer.learning_rate": 0.1 + seed, "augmentation.views": 3})
        features(config=config)(np.arange(2))
        features(config=config)(np.arange(2), view=1)
    assert len(list(folder.iterdir())) == 2


def test_views_have_files_of_their_own(folder: Path) -> None:
    config = CONFIG.replace({"augmentation.preset": "standard", "augmentation.views": 3})
    turned = CONFIG.replace({"augmentation.preset": "standard", "augmentation.views": 3, "augmentation.zoom": 0.1})
    found = [features(config=config)(np.arange(9), view=view) for view in (None, MIRROR, 0, 1)]
    found.append(features(config=turned)(np.arange(9), view=1))
    assert len(list(folder.iterdir())) == 5
    for i, one in enumerate(found):
        assert not any(torch.allclose(one, other) for other in found[:i])


def test_many_views_do_not_use_up_the_open_files() -> None:
    cached = features(config=CONFIG.replace({"augmentation.preset": "flip", "augmentation.views": 200}))
    first = [cached(np.arange(5), view=view) for view in range(200)]
    assert len(os.listdir("/proc/self/fd")) < 150
    assert all(torch.equal(cached(np.arange(5), view=view), values) for view, values in enumerate(first))


def _flip_bits(content: bytes) -> bytes:
    damaged = bytearray(content)
    for position in np.random.default_rng(0).choice(len(content), 40, replace=False):
        damaged[position] ^= 8
    return bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip_bits, id="bits"),
        pytest.param(lambda content: b"", id="emptied"),
        pytest.param(lambda content: content[: len(content) // 2 + 3], id="cut short"),
        pytest.param(lambda content: content + b"more", id="too long"),
        pytest.param(lambda content: b"\xff" * len(content), id="overwritten"),
        pytest.param(lambda content: content[10:] + content[:10], id="moved"),
    ],
)
def test_damage_is_noticed_and_computed_again(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    golden = features()(np.arange(200))
    [file] = folder.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert torch.equal(features()(np.arange(200)), golden)
    assert file.read_bytes() == sound


def test_a_cache_that_is_cleared_meanwhile_does_no_harm(folder: Path) -> None:
    cached = features()
    golden = cached(np.arange(50))
    [file] = folder.iterdir()
    file.unlink()
    assert torch.equal(cached(np.arange(200))[:50], golden)


def _fill_and_read(barrier: Any, results: Any, begin: int, end: int) -> None:
    net = network()
    cached = features(net, batches(dataset(1_000)))
    barrier.wait()
    cached.fill(np.arange(begin, end))
    results.put((begin, end, cached(np.arange(begin, end)).numpy(), net.backbone.num_seen))


def test_processes_that_fill_the_same_file_at_once_share_the_work(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    spans = [(0, 1_000), (0, 1_000), (300, 800)]
    processes = [context.Process(target=_fill_and_read, args=(barrier, results, *span)) for span in spans]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len(list(folder.iterdir())) == 1
    golden = recomputed_in_fill_batches(1_000)
    for begin, end, values, _ in found:
        np.testing.assert_array_equal(values, golden[begin:end])
    assert sum(num_seen for *_, num_seen in found) < 2_000  # of 2,500 by all of them alone
    last = network()
    np.testing.assert_array_equal(features(last, batches(dataset(1_000)))(np.arange(1_000)).numpy(), golden)
    assert last.backbone.num_seen == 0


def recomputed_in_fill_batches(count: int) -> np.ndarray:
    net, images = network(), batches(dataset(count))
    index = np.pad(np.arange(count), (0, -count % FILL_BATCH), mode="edge").reshape(-1, FILL_BATCH)
    return np.concatenate([recomputed(net, images(part)) for part in index])[:count]


def test_a_killed_process_leaves_a_file_that_others_go_on_with(folder: Path) -> None:
    def fill_until_killed() -> None:
        plain_write, rows = os.pwrite, []

        def pwrite(file: int, data: bytes, offset: int) -> int:
            rows.append(offset)
            if len(rows) == 100:
                plain_write(file, data[: len(data) // 2], offset)
                os.kill(os.getpid(), 9)
            return plain_write(file, data, offset)

        os.pwrite = pwrite
        features()(np.arange(200))

    process = multiprocessing.get_context("fork").Process(target=fill_until_killed)
    process.start()
    process.join()
    assert process.exitcode == -9
    net = network()
    np.testing.assert_array_equal(features(net)(np.arange(200)).numpy(), recomputed_in_fill_batches(200))
    assert net.backbone.num_seen == 2 * FILL_BATCH  # of 200, 99 were there


def test_a_full_disk_is_a_message() -> None:
    cached = features()
    cached(np.arange(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write the data cache at .*: File too large; make room there"):
            cached(np.arange(200))
        with pytest.raises(UserError, match="cannot write the data cache"):
            features(network(seed=1))(np.arange(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_features_are_mapped_not_held() -> None:
    images = batches(dataset(20_000))
    cached = features(images=images)
    cached.fill(np.arange(0, 20_000, 100))
    tracemalloc.start()
    cached(np.arange(0, 20_000, 1_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 < 20_000 * NUM_FEATURES * 4
