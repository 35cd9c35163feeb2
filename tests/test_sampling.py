"""The order of the training images: complete, balanced where asked, and resumable."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fer_ray.training.sampling import Order

LABELS = np.repeat([0, 1, 2], [700, 200, 100])
INDEX = np.random.default_rng(5).permutation(1000)[:900]


def order(sampling: str = "natural", batch_size: int = 32, seed: int = 0, index: np.ndarray = INDEX) -> Order:
    return Order(index, LABELS, batch_size, sampling, seed)


def taken(some: Order, batches: int) -> np.ndarray:
    return np.concatenate([some.next() for _ in range(batches)])


def first_release(index: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The order of fer_ray 0.1, whose trials keep their numbers."""
    pending = np.empty(0, np.int64)
    while True:
        while len(pending) < batch_size:
            pending = np.concatenate([pending, rng.permutation(index)])
        yield pending[:batch_size]
        pending = pending[batch_size:]


@pytest.mark.parametrize("count", [5, 900])
def test_natural_order_is_that_of_earlier_trials(count: int) -> None:
    golden = first_release(INDEX[:count], 32, np.random.default_rng(7))
    mine = order(seed=7, index=INDEX[:count])
    for _ in range(100):
        batch = mine.next()
        assert batch.dtype == np.int64
        assert np.array_equal(batch, next(golden))


def test_every_image_is_seen_once_before_any_is_seen_twice() -> None:
    seen = taken(order(batch_size=300), 6)
    assert np.array_equal(np.sort(seen[:900]), np.sort(INDEX))
    assert np.array_equal(np.sort(seen[900:]), np.sort(INDEX))
    assert not np.array_equal(seen[:900], seen[900:])


def test_balanced_passes_have_every_class_equally_often() -> None:
    balanced = order("balanced", batch_size=300)
    for _ in range(3):
        seen = taken(balanced, 3)
        assert np.bincount(LABELS[seen]).tolist() == [300, 300, 300]
        counts = np.bincount(seen, minlength=1000)[INDEX]
        assert counts[LABELS[INDEX] == 0].max() == 1
        for c in (1, 2):  # each image of a small class as often as the others, give or take one
            assert np.ptp(counts[LABELS[INDEX] == c]) <= 1


def test_balanced_batches_are_mixed_and_all_images_get_their_turn() -> None:
    seen = taken(order("balanced", batch_size=30), 300)
    shares = np.stack([np.bincount(LABELS[batch], minlength=3) for batch in seen.reshape(300, 30)])
    assert abs(shares[:, 0].std() - np.sqrt(30 * 2 / 9)) < 0.4  # as a random draw has it
    assert np.array_equal(np.unique(seen), np.sort(INDEX))


def test_a_class_without_training_images_is_left_out() -> None:
    seen = taken(order("balanced", index=np.arange(650, 750)), 25)
    assert np.bincount(LABELS[seen]).tolist() == [400, 400]


def test_seeds_differ_and_repeat() -> None:
    for sampling in ("natural", "balanced"):
        assert np.array_equal(taken(order(sampling), 40), taken(order(sampling), 40))
        assert not np.array_equal(taken(order(sampling), 40), taken(order(sampling, seed=1), 40))


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
@pytest.mark.parametrize("batches", [0, 3, 50])
def test_an_order_goes_on_from_a_checkpoint(sampling: str, batches: int) -> None:
    one = order(sampling)
    for _ in range(batches):
        one.next()
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    golden = taken(one, 60)
    other = order(sampling, seed=99)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(taken(other, 60), golden)
