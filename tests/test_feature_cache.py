"""Cached features are those of the backbone, are computed once, and train a head as the backbone itself does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import CONFIG, CPU, MIRROR, RUNTIME, batches, dataset, features, network, recomputed
from torch import nn
from torch.nn import functional

from fer_ray.data import augment
from fer_ray.data.batches import Batches
from fer_ray.data.store import open_dataset
from fer_ray.models.network import Network
from fer_ray.training import feature_cache
from fer_ray.training.feature_cache import FILL_BATCH


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the features are, empty at first."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path))
    return tmp_path / "features"


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
    nn.init.ones_(second.head.weight)
    cached = features(first)
    cached.fill(np.arange(100))
    cached(np.arange(100))
    assert first.backbone.num_seen == 2 * FILL_BATCH  # 100, and what fills the last batch
    again = features(second)
    assert torch.equal(again(np.arange(100)), cached(np.arange(100)))
    assert second.backbone.num_seen == 0
    again(np.arange(90, 110))
    assert second.backbone.num_seen == FILL_BATCH


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


def test_half_precision_features_are_those_of_autocast() -> None:
    net, images, index = network(), batches(), np.arange(FILL_BATCH)
    runtime = replace(RUNTIME, precision="bfloat16")
    cached = features(net, images, runtime=runtime)(index)
    with torch.inference_mode(), runtime.autocast():
        golden = net.backbone.eval()(images(index))
    assert golden.dtype == torch.bfloat16
    assert cached.dtype == torch.float32
    assert torch.equal(cached, golden.float())


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
