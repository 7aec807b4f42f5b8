"""A file of the CPU decodes on a GPU, and the reverse. Runs where there is a GPU."""

import pytest
import torch

from ddpm.loading import load
from ddpm.runtime.device import exact_arithmetic

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def devices(run):
    """The same model on both."""
    return load(run, device="cpu"), load(run, device="cuda")


@pytest.mark.parametrize("tf32", [False, True])
def test_files_decode_on_the_other_device(devices, held_out, tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    for writer, reader in (devices, devices[::-1]):
        for images in (list(held_out), list(held_out[:1])):
            result = reader.decompress(writer.compress(images))
            assert result.exact
            assert all(map(torch.equal, result.images, images))


def test_the_drift_between_them_is_a_tenth_of_the_margin(devices, held_out):
    found = []
    for model in devices:
        noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0))
        t = torch.full((len(held_out),), model.coding.route.last)
        x = model.diffusion.q_sample(model.format.to_unit(held_out), t, noise)
        denoiser, places = model.denoiser("fp32"), (x.to(model.device), t.to(model.device))
        with torch.inference_mode(), exact_arithmetic():
            p = model.diffusion.p_mean_variance(denoiser, *places)
        found.append(p.pred_xstart.cpu())
    assert 127.5 * float((found[0] - found[1]).abs().max()) < devices[0].coding.margin / 10
