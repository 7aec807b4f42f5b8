"""Muon: against torch's own, and what it holds and keeps."""

import copy

import pytest
import torch
from torch import nn

from ddpm.config import TrainingConfig, UNetConfig
from ddpm.training.muon import Muon, orthogonalised
from ddpm.training.optimizers import Optimizers, inner_matrices


def small_network(**settings):
    torch.manual_seed(0)
    config = UNetConfig(ch=8, ch_mult=(1, 2), num_res_blocks=1, norm_groups=4, **settings)
    return config.build((3, 8, 8), 3)


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 7), (7, 1)])
def test_all_singular_values_become_about_1(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    found = torch.linalg.svdvals(orthogonalised(matrices))
    # A tiny one may still be below; of random matrices none is.
    assert found.max() < 1.3
    assert found.median() > 0.6
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    cosine = (orthogonalised(matrices) * (u @ vt)).sum((1, 2)) / min(shape)
    assert (cosine > 0.6).all()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has none")
@pytest.mark.parametrize("kernel", [(), (3, 3), (1, 1)])
def test_steps_are_those_of_torch_on_flattened_kernels(kernel):
    generator = torch.Generator().manual_seed(0)
    shape = (6, 10, *kernel)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    mine = Muon([ours], lr=0.1)
    peer = torch.optim.Muon(
        [theirs], lr=0.1, weight_decay=0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient, gradient.flatten(1).clone()
        before = ours.detach().clone()
        mine.step()
        peer.step()
        # Torch iterates in bfloat16.
        moved = (ours - before).norm()
        assert (ours.flatten(1) - theirs).norm() < 0.05 * moved
        ours.data.copy_(theirs.reshape(shape))


def test_the_step_of_a_kernel_is_as_large_as_that_of_adam():
    weight = nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimizer = Muon([weight], lr=1e-2)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    # A matrix [16, 72] of singular values 1 has elements of size 1 / sqrt(72): times 0.2 sqrt(72).
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2e-2, rel=0.15)


def test_kernels_inside_go_to_muon_and_everything_else_to_adam():
    network = small_network(classes=3, attn_resolutions=(4,))
    held = inner_matrices(network, 3, 3)
    assert "conv_in.weight" not in held
    assert "conv_out.weight" not in held
    assert "class_rows.weight" not in held
    for name, weight in network.named_parameters():
        inside = weight.ndim >= 2 and not name.startswith(("conv_in", "conv_out", "class_rows"))
        assert (name in held) == inside, name


def test_what_each_holds_is_counted():
    network = small_network()
    total = sum(weight.numel() for weight in network.parameters())
    held = inner_matrices(network, 3, 3)
    inside = sum(w.numel() for n, w in network.named_parameters() if n in held)
    both = Optimizers(network, TrainingConfig(optimizer="muon"), 3, 3)
    assert str(both).startswith(f"Muon {len(held)} tensors ({inside:,} numbers), Adam ")
    assert f"({total - inside:,} numbers)" in str(both)
    assert str(Optimizers(network, TrainingConfig(), 3, 3)).startswith("Adam ")


def test_a_network_of_matrices_only_or_of_none_has_one_optimiser():
    training = TrainingConfig(optimizer="muon")
    lone = nn.Sequential(nn.Linear(3, 3, bias=False))
    assert str(Optimizers(lone, training, 3, 3)) == "Muon 1 tensors (9 numbers)"
    assert str(Optimizers(nn.GroupNorm(1, 3), training, 3, 3)) == "Adam 2 tensors (6 numbers)"


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_what_is_restored_goes_on_bit_for_bit(name):
    network = small_network()
    twin = copy.deepcopy(network)
    training = TrainingConfig(optimizer=name)
    first = Optimizers(network, training, 3, 3)

    def go_on(some, optimizers, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for weight in some.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizers.step(1e-3)

    go_on(network, first, range(3))
    kept = {name: value.clone() for name, value in first.tensors().items()}
    assert all(value.dtype == torch.float32 for value in kept.values())
    twin.load_state_dict(network.state_dict())
    second = Optimizers(twin, training, 3, 3)
    second.restore(kept, 3)
    go_on(network, first, range(3, 6))
    go_on(twin, second, range(3, 6))
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_weight_without_a_gradient_stays():
    weight = nn.Parameter(torch.ones(3, 3))
    Muon([weight], 1.0).step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))
