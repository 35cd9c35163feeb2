"""MixUp and CutMix: what is mixed, in which shares, and from which generator."""

import pytest
import torch

from fer_ray.config import AugmentationConfig
from fer_ray.data.mixed_samples import Mixer

COUNT, SIZE = 8, 16


def batch(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is i throughout; its class is i, its valence i / 10, its arousal unknown for image 2."""
    numbers = torch.arange(count).float()
    images = numbers.view(-1, 1, 1, 1).expand(count, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    target = torch.cat([torch.eye(count), numbers[:, None] / 10, numbers[:, None]], dim=1)
    target[2:3, -1] = torch.nan
    return images, target


def mixed(count: int = COUNT, seed: int = 0, **alphas: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return Mixer(AugmentationConfig(**alphas))(*batch(count))


def test_with_neither_a_batch_stays_and_nothing_is_drawn() -> None:
    images, target = batch()
    before = torch.get_rng_state()
    same_images, same_target = Mixer(AugmentationConfig())(images, target)
    assert same_images is images
    assert same_target is target
    assert torch.equal(before, torch.get_rng_state())


def test_mixup_mixes_pixels_and_targets_in_one_share() -> None:
    images, target = mixed(mixup_alpha=1.0)
    share = target[1, 1].item()
    assert 0.01 < share < 0.99
    own, other = torch.arange(COUNT).float(), torch.arange(COUNT).roll(1).float()
    expected = share * own + (1 - share) * other
    torch.testing.assert_close(images, expected.view(-1, 1, 1, 1).expand_as(images))
    torch.testing.assert_close(target[:, COUNT], expected / 10)
    torch.testing.assert_close(target[:, :COUNT].sum(1), torch.ones(COUNT))


def test_cutmix_takes_a_box_whose_area_is_the_share_of_the_target() -> None:
    images, target = mixed(seed=3, cutmix_alpha=1.0)
    assert set(images[3].unique().tolist()) == {2.0, 3.0}
    is_own = (images[3, 0] == 3).float()
    assert target[3, 3].item() == pytest.approx(is_own.mean().item())
    assert target[3, 2].item() == pytest.approx(1 - is_own.mean().item())
    rows, columns = (is_own == 0).any(1), (is_own == 0).any(0)
    assert torch.equal(is_own == 0, rows[:, None] & columns)  # a box


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_what_is_unknown_in_either_image_is_unknown_in_their_mixture(alphas: dict[str, float]) -> None:
    _, target = mixed(**alphas)
    assert target[:, -1].isnan().nonzero().flatten().tolist() == [2, 3]
    assert not target[:, :-1].isnan().any()


def test_with_both_each_batch_takes_one_and_both_get_their_turn() -> None:
    mixer = Mixer(AugmentationConfig(mixup_alpha=1.0, cutmix_alpha=1.0))
    torch.manual_seed(0)
    is_cut = [bool((mixer(*batch())[0] % 1 == 0).all()) for _ in range(200)]
    assert 70 < sum(is_cut) < 130


def test_shares_follow_the_beta_distribution() -> None:
    mixer = Mixer(AugmentationConfig(mixup_alpha=0.2))
    torch.manual_seed(0)
    shares = torch.tensor([mixer(*batch(2))[1][0, 0].item() for _ in range(2000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.04)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.015)  # of Beta(a, a)


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}])
def test_draws_come_back_with_the_state_of_torchs_generator(alphas: dict[str, float]) -> None:
    mixer = Mixer(AugmentationConfig(**alphas))
    state = torch.get_rng_state()
    first = mixer(*batch())
    torch.set_rng_state(state)
    again = mixer(*batch())
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], mixer(*batch())[0])


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}])
def test_images_stay_channels_last_and_the_batch_given_stays_as_it_is(alphas: dict[str, float]) -> None:
    images, target = batch()
    out, _ = Mixer(AugmentationConfig(**alphas))(images, target)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, batch()[0])


def test_a_batch_of_one_is_mixed_with_itself() -> None:
    images, target = mixed(1, mixup_alpha=1.0)
    torch.testing.assert_close(images, batch(1)[0])
    torch.testing.assert_close(target, batch(1)[1])
