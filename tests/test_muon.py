"""Muon agrees with its definition, and leaves to SGD what is not a filter."""

import torch
from torch import nn

from fer_ray.config import RunConfig
from fer_ray.training import optim
from fer_ray.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalised


def textbook(matrix: torch.Tensor) -> torch.Tensor:
    """The iteration as Jordan (2024) writes it, on the matrix itself."""
    a, b, c = COEFFICIENTS
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(ITERATIONS):
        x = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    return x


def test_directions_are_those_of_the_newton_schulz_iteration() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 30), (30, 8), (16, 16)):
        matrix = torch.randn(shape, generator=generator)
        torch.testing.assert_close(orthogonalised(matrix).double(), textbook(matrix), rtol=1e-3, atol=1e-4)


def test_singular_values_move_towards_one_and_vectors_stay() -> None:
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    turned = u.T @ orthogonalised(matrix) @ v.T
    assert (turned - torch.diag(torch.diag(turned))).abs().max() < 1e-3


def test_filters_keep_their_norm_and_all_else_is_sgd() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    settings = {"optimizer.name": "muon", "optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.01}
    optimizer = optim.build(network, RunConfig.from_flat(settings).optimizer)
    assert isinstance(optimizer, Muon)
    others = [p for p in network.parameters() if p.ndim != 4]
    twins = [p.detach().clone().requires_grad_() for p in others]
    groups = [{"params": [p], "weight_decay": 0.01 if p.ndim == 2 else 0.0} for p in twins]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        for p, twin in zip(others, twins, strict=True):
            twin.grad = p.grad.clone()
        before = network[0].weight.detach().clone()
        optimizer.step()
        sgd.step()
        moved = network[0].weight.detach() - before * 8**0.5 / before.norm()
        step = (moved / -0.1).reshape(8, -1)
        assert 0.4 < torch.linalg.svdvals(step).mean() < 1.3
    for p, twin in zip(others, twins, strict=True):
        torch.testing.assert_close(p, twin)
