"""Muon: directions alike, convolutions as matrices, and the same steps as torch's own takes for matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skelfit.learning.backbones.muon import Muon, orthogonal
from skelfit.learning.training.trainer import optimizers_of
from skelfit.learning.training.training_config import OptimizerConfig


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_singular_values_come_to_about_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.1, 1, len(s))) @ v
    made = u.T @ orthogonal(1000 * matrix) @ v.T
    assert ((made.diagonal() > 0.6) & (made.diagonal() < 1.3)).all()
    torch.testing.assert_close(made - torch.diag(made.diagonal()), torch.zeros_like(made), atol=1e-3, rtol=0)
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    mine = Muon([ours], 0.1)
    oracle = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        oracle.step()
    assert (theirs - start).abs().max() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)  # theirs are rounded to bfloat16


def test_convolutions_are_matrices_of_their_outputs() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 8, 3, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    flat = conv.weight.detach().flatten(1).clone().requires_grad_()
    optimizers = Muon([conv.weight], 0.1), Muon([flat], 0.1)
    for _ in range(3):
        conv.weight.grad = torch.randn_like(conv.weight)
        flat.grad = conv.weight.grad.flatten(1).clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(conv.weight.flatten(1), flat)


def test_which_optimizer_updates_which_weight() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network[3].bias.requires_grad_(False)
    adam, muon = optimizers_of(network, OptimizerConfig(learning_rate=0.1, muon=0.2))
    assert [group["peak"] for group in (*adam.param_groups, *muon.param_groups)] == [0.1, 0.2]
    assert [p is network[0].weight for p in muon.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 6 and len(list(network.parameters())) == 8
    (alone,) = optimizers_of(network, OptimizerConfig(learning_rate=0.1))
    assert len(alone.param_groups[0]["params"]) == 7
