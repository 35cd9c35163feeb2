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
from faces import random_faces
from torch import nn
from torch.nn import functional

from fer_ray.config import RunConfig
from fer_ray.data import augment
from fer_ray.data.batches import Batches
from fer_ray.data.store import Dataset, open_dataset
from fer_ray.errors import UserError
from fer_ray.models.network import Network
from fer_ray.training import feature_cache
from fer_ray.training.feature_cache import FILL_BATCH, FeatureBatches
from fer_ray.training.runtime import Runtime

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, threads=1, precision="float32")
CONFIG = RunConfig()
MIRROR = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
NUM_FEATURES = 24


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the features are, empty at first."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path))
    return tmp_path / "features"


class Backbone(nn.Sequential):
    """Small, with all that behaves otherwise when it is trained; it counts the images that it sees."""

    def __init__(self, stride: int = 2, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=stride),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, NUM_FEATURES, 3, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.num_seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.num_seen += len(images)
        features: torch.Tensor = super().forward(images)
        return features


def network(stride: int = 2, seed: int = 0) -> Network:
    backbone = Backbone(stride, seed)
    return Network(backbone, nn.Linear(NUM_FEATURES, 3), NUM_FEATURES)


def dataset(count: int = 200, seed: int = 0) -> Dataset:
    return Dataset(
        name="random",
        images=random_faces(count, seed, size=24),
        ids=np.arange(count).astype("S"),
        labels=(np.arange(count) % 3).astype(np.int16),
        splits=np.zeros(count, np.int8),
        classes=("happy", "sad", "neutral"),
        valence=None,
        arousal=None,
        digest=f"{seed:016x}",
    )


def batches(*datasets: Dataset, size: int = 24, normalization: str = "half", channels: int = 3) -> Batches:
    return Batches(datasets or (dataset(),), size=size, normalization=normalization, channels=channels, device=CPU)


def features(
    net: Network | None = None,
    images: Batches | None = None,
    config: RunConfig = CONFIG,
    runtime: Runtime = RUNTIME,
) -> FeatureBatches:
    return FeatureBatches(net or network(), images or batches(), config, runtime)


@torch.inference_mode()
def recomputed(net: Network, images: torch.Tensor) -> np.ndarray:
    net.backbone.eval()
    return net.backbone(images).numpy()


Source = Callable[[np.ndarray], torch.Tensor]


def test_features_are_those_of_the_backbone_in_eval_mode() -> None:
    net, images, index = network(), batches(), np.array([3, 199, 0, 3, 77])
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cached = features(net, images)(index)
    assert cached.dtype == torch.float32
    np.testing.assert_allclose(cached.numpy(), recomputed(net, images(index)), rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_features_are_bit_identical_where_the_shape_of_the_batch_agrees() -> None:
    net, images = network(), batches()
    index = np.random.default_rng(1).permutation(200)[:FILL_BATCH]
    cached = features(net, images)
    cached(np.arange(0, 200, 3))  # others were computed before, in other batches
    np.testing.assert_array_equal(cached(index).numpy(), recomputed(net, images(index)))


def test_features_do_not_depend_on_what_was_asked_for_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = []
    for number, requests in enumerate([[np.arange(200)], [np.array([5]), np.arange(30, 190, 7), np.arange(200)[::-1]]]):
        monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / str(number)))
        cached = features()
        for request in requests:
            cached(request)
        found.append(cached(np.arange(200)))
    assert torch.equal(*found)


def test_each_image_is_computed_once_by_all_trials_together() -> None:
    first, second = network(), network()
    nn.init.ones_(second.head.weight)  # type: ignore[arg-type]
    cached = features(first)
    cached.fill(np.arange(100))
    cached(np.arange(100))
    assert first.backbone.num_seen == 2 * FILL_BATCH  # 100, and what fills the last batch
    again = features(second)
    assert torch.equal(again(np.arange(100)), cached(np.arange(100)))
    assert second.backbone.num_seen == 0
    again(np.arange(90, 110))
    assert second.backbone.num_seen == FILL_BATCH


def test_no_more_is_on_the_disk_than_was_computed(folder: Path) -> None:
    features(images=batches(dataset(20_000)))(np.arange(5))
    [file] = folder.iterdir()
    assert file.stat().st_size > 1_900_000
    assert file.stat().st_blocks * 512 < 100_000


def test_several_data_sets_follow_each_other_and_are_shared_one_by_one(folder: Path) -> None:
    net, real, synthetic = network(), dataset(200), dataset(90, seed=1)
    alone = features(net, batches(real))(np.arange(200))
    seen = net.backbone.num_seen
    both = batches(real, synthetic)
    index = np.array([289, 0, 200, 199, 250])
    cached = features(net, both)(index)
    np.testing.assert_allclose(cached.numpy(), recomputed(net, both(index)), rtol=1e-5)
    assert torch.equal(cached[[1, 3]], alone[[0, 199]])
    assert net.backbone.num_seen == seen + FILL_BATCH + len(index)
    assert len(list(folder.iterdir())) == 2


def test_what_is_missing_is_reported(folder: Path) -> None:
    rows: list[tuple[int, int]] = []
    cached = features()
    cached.fill(np.arange(150), report=lambda done, total: rows.append((done, total)))
    assert rows == [(64, 150), (128, 150), (150, 150)]
    cached.fill(np.arange(150), report=lambda done, total: rows.append((done, total)))
    assert len(rows) == 3


def head_trained(net: Network, source: Source, batch_size: int, epochs: int = 8) -> np.ndarray:
    """Probabilities [200, 3] of a head after training; the order is always the same."""
    head, labels = net.head, torch.arange(200) % 3
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0, momentum=0.9)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(200)
        for start in range(0, 200 - batch_size + 1, batch_size):
            index = order[start : start + batch_size]
            loss = functional.cross_entropy(head(source(index)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        return head(source(np.arange(FILL_BATCH))).softmax(1).numpy()


@pytest.mark.parametrize(("batch_size", "tolerance"), [(FILL_BATCH, 0), (48, 1e-5)])
def test_a_linear_head_learns_the_same_as_with_the_backbone_run_each_time(batch_size: int, tolerance: float) -> None:
    images = batches()
    found = []
    for is_cached in (True, False):
        net = network()
        source = features(net, images) if is_cached else lambda index, net=net: frozen(net, images(index))
        found.append(head_trained(net, source, batch_size))
    np.testing.assert_allclose(*found, rtol=0, atol=tolerance)
    assert found[0].std() > 0.01


@torch.no_grad()
def frozen(net: Network, images: torch.Tensor) -> torch.Tensor:
    net.backbone.eval()
    output: torch.Tensor = net.backbone(images)
    return output


def changed_weight(net: Network) -> Network:
    with torch.no_grad():
        net.backbone[0].weight[0, 0, 0, 0] += 1e-6  # type: ignore[index]
    return net


def changed_buffer(net: Network) -> Network:
    net.backbone[1].running_mean[3] += 1e-6  # type: ignore[index]
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


def test_a_view_is_that_of_the_images() -> None:
    net, images = network(), batches()
    config = CONFIG.replace({"augmentation.preset": "standard", "augmentation.views": 3})
    index = np.array([7, 3, 150])
    cached = features(net, images, config)
    mirrored = recomputed(net, images(index).flip(3))
    np.testing.assert_allclose(cached(index, view=MIRROR).numpy(), mirrored, rtol=1e-4, atol=1e-6)
    maps = augment.draw_view(augment.PRESETS["standard"], index, 2, feature_cache.VIEWS_SEED)
    drawn = recomputed(net, images(index, view=maps))
    np.testing.assert_allclose(cached(index, view=2).numpy(), drawn, rtol=1e-5, atol=1e-7)


def test_many_views_do_not_use_up_the_open_files() -> None:
    cached = features(config=CONFIG.replace({"augmentation.preset": "flip", "augmentation.views": 200}))
    first = [cached(np.arange(5), view=view) for view in range(200)]
    assert len(os.listdir("/proc/self/fd")) < 150
    assert all(torch.equal(cached(np.arange(5), view=view), values) for view, values in enumerate(first))


def test_half_precision_features_are_those_of_autocast() -> None:
    net, images, index = network(), batches(), np.arange(FILL_BATCH)
    runtime = replace(RUNTIME, precision="bfloat16")
    cached = features(net, images, runtime=runtime)(index)
    with torch.inference_mode(), runtime.autocast():
        golden = net.backbone.eval()(images(index))
    assert golden.dtype == torch.bfloat16
    assert cached.dtype == torch.float32
    assert torch.equal(cached, golden.float())


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


def trained(module: nn.Module, source: Source, order: np.ndarray, labels: torch.Tensor, rate: float) -> None:
    """Trains on batches of 32 of the images at `order`. Running statistics start as the mean of the batches so far."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    module.train()
    for step, index in enumerate(order.reshape(-1, 32), start=1):
        for norm in norms:
            norm.momentum = max(0.1, 1 / step)
        loss = functional.cross_entropy(module(source(index)), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.slow
def test_a_deeper_head_on_features_is_as_accurate_as_with_the_backbone_run_each_time() -> None:
    from fer_ray.models import zoo

    faces = open_dataset("demo")
    images = Batches([faces], size=48, normalization="image", device=CPU)
    labels = torch.from_numpy(faces.labels.astype(np.int64))
    rng = np.random.default_rng(0)
    everything = faces.in_split("train")
    train, test = (rng.choice(faces.in_split(split), 384, replace=False) for split in ("train", "test"))
    torch.manual_seed(0)
    net = zoo.build(CONFIG.replace({"model.name": "ShuffleNetV2-x1.0"}).model, len(faces.classes))
    trained(net, images, np.concatenate([rng.permutation(everything)[:2080] for _ in range(2)]), labels, 2e-3)
    sources: tuple[Source, Source] = (features(net, images), lambda index: frozen(net, images(index)))
    accuracies = np.zeros((5, 2))
    for seed in range(5):
        for column, source in enumerate(sources):
            torch.manual_seed(seed)
            layers = [nn.Linear(net.num_features, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, len(faces.classes))]
            head = nn.Sequential(*layers)
            order = np.random.default_rng(seed)
            trained(head, source, np.concatenate([order.permutation(train) for _ in range(5)]), labels, 1e-3)
            head.eval()
            with torch.inference_mode():
                answers = torch.cat([head(source(index)).argmax(1) for index in test.reshape(-1, 32)])
            accuracies[seed, column] = (answers == labels[test]).float().mean().item()
    assert accuracies.mean() > 0.4, accuracies  # so that there is something to compare
    seed_noise = accuracies.std(axis=0, ddof=1).mean()
    assert abs((accuracies[:, 0] - accuracies[:, 1]).mean()) <= seed_noise, accuracies
