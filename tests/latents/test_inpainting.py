"""A part of an image filled in: what is kept, what is refused, what it depends on."""

import numpy as np
import pytest
import torch

from ddpm.errors import DdpmError
from ddpm.latents import inpaint
from ddpm.latents.inpainting import checked_jump, planned
from ddpm.likelihood.plan import Plan
from ddpm.sampling.repaint import calls
from full_range import full_range_model
from helpers import measured_model, tiny_images, tiny_model
from typecheck import unchecked

PLAN = Plan(6)


def right_half():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 4:] = True
    return mask


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [17, 256])
def test_what_is_kept_is_kept_bit_for_bit_and_the_rest_is_not(channels, levels):
    model = full_range_model(channels) if levels == 256 else tiny_model(channels=channels)
    images = tiny_images(5, levels, channels).images
    masks = torch.rand(5, 1, 8, 8) < 0.4
    filled = inpaint(model, images, masks, plan=PLAN, repeats=2, jump=2)
    everywhere = masks.expand_as(images)
    assert torch.equal(filled[~everywhere], images[~everywhere])
    assert (filled != images)[everywhere].float().mean() > 0.5
    assert int(filled.max()) < levels


def test_what_lies_under_the_mask_makes_no_difference():
    model, images = tiny_model(), tiny_images(3).images
    other = torch.where(right_half(), 16 - images, images)
    found = inpaint(model, images, right_half(), plan=PLAN, repeats=2, jump=2)
    again = inpaint(model, other, right_half(), plan=PLAN, repeats=2, jump=2)
    assert torch.equal(found, again)


def test_the_ith_filling_of_a_seed_is_the_same_in_any_batch():
    model, images = tiny_model(), tiny_images(1).images.expand(5, 1, 8, 8)
    options = {"plan": PLAN, "repeats": 2, "jump": 2, "seed": 3}
    found = inpaint(model, images, right_half(), **options)
    assert len(found.unique(dim=0)) == 5
    assert torch.equal(inpaint(model, images, right_half(), batch_size=2, **options), found)
    assert torch.equal(inpaint(model, images[:2], right_half(), **options), found[:2])
    other = inpaint(model, images, right_half(), **{**options, "seed": 4})
    assert not torch.equal(other, found)


def test_one_mask_serves_all_images_or_each_has_its_own():
    model, images = tiny_model(), tiny_images(3).images
    found = inpaint(model, images, right_half(), plan=PLAN, repeats=1)
    each = right_half().expand(3, 1, 8, 8)
    assert torch.equal(inpaint(model, images, each, plan=PLAN, repeats=1), found)
    each = each.clone()
    each[1] = False  # nothing of this one
    found = inpaint(model, images, each, plan=PLAN, repeats=1)
    assert torch.equal(found[1], images[1])
    assert not torch.equal(found[0], images[0])


def test_where_everything_is_filled_in_the_image_makes_no_difference():
    model, images = tiny_model(), tiny_images(3).images
    everything = torch.ones(8, 8, dtype=torch.bool)
    found = inpaint(model, images, everything, plan=PLAN, repeats=1)
    assert torch.equal(inpaint(model, 16 - images, everything, plan=PLAN, repeats=1), found)


def test_progress_counts_every_call_of_the_network():
    model, told, asked = tiny_model(), [], []
    model.network.register_forward_hook(lambda *_: asked.append(1))
    images = tiny_images(3).images
    options = {"plan": PLAN, "repeats": 3, "jump": 2, "batch_size": 2}
    inpaint(model, images, right_half(), progress=lambda d, n, _: told.append((d, n)), **options)
    total = 2 * calls(6, 3, 2)
    assert len(asked) == total
    assert told == [(i, total) for i in range(total + 1)]


def test_a_plan_that_says_nothing_has_250_steps():
    large, small = tiny_model(timesteps=400), tiny_model()
    for plan in (None, Plan()):
        assert planned(large, plan).steps == 250
        assert small.chain(planned(small, plan)).num_timesteps == 20
    assert planned(large, Plan(variance="fixed_large")) == Plan(250, "quadratic", "fixed_large")
    assert large.chain(planned(large, Plan(400))).num_timesteps == 400
    assert planned(large, Plan(None, (3, 399))).trajectory == (3, 399)
    assert planned(measured_model(timesteps=60), Plan(50)) == Plan(50, "optimal", "analytic")


def test_a_stretch_must_fit_into_the_chain():
    assert [checked_jump(k, 10, None) for k in (250, 11, 10, 2, 1)] == [10, 10, 9, 1, 1]
    assert checked_jump(6, 10, 5) == 5
    assert checked_jump(6, 1, 50) == 50  # there is nothing to repeat
    with pytest.raises(DdpmError, match="6 steps does not fit into a chain of 6"):
        checked_jump(6, 2, 6)
    for steps in range(2, 30):  # by default something is always repeated
        assert calls(steps, 2, checked_jump(steps, 2, None)) > steps


def test_wrong_use_gives_a_sentence():
    model, images = tiny_model(), tiny_images(3).images
    with pytest.raises(DdpmError, match="nothing to fill in"):
        inpaint(model, images, torch.zeros(8, 8, dtype=torch.bool))
    for shape in ((8, 7), (4, 8), (2, 1, 8, 8), (3, 8, 8), (3, 3, 8, 8), (1, 8, 8)):
        with pytest.raises(DdpmError, match=r"must be \[8, 8\] or \[3, 1, 8, 8\].*got"):
            inpaint(model, images, torch.ones(shape, dtype=torch.bool))
    with unchecked(), pytest.raises(DdpmError, match="type bool"):
        inpaint(model, images, right_half().to(torch.uint8))
    with pytest.raises(DdpmError, match="expects images of shape"):
        inpaint(model, images[..., :4], right_half())
    with pytest.raises(DdpmError, match="grey levels"):
        inpaint(model, images + 1, right_half())
    for options, words in (
        ({"seed": -1}, "seed must be at least 0"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"jump": 0}, "jump must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"plan": Plan(21)}, r"must lie in 1\.\.20"),
        ({"plan": Plan(5, "optimal")}, "denoising error has not been measured"),
    ):
        with pytest.raises(DdpmError, match=words):
            inpaint(model, images, right_half(), **options)


def test_no_images_are_no_images():
    none = tiny_images(1).images[:0]
    assert inpaint(tiny_model(), none, right_half(), plan=PLAN).shape == (0, 1, 8, 8)


def test_a_mask_from_numpy_is_taken():
    model, images = tiny_model(), tiny_images(1).images
    mask = torch.from_numpy(np.arange(64).reshape(8, 8) % 2 == 0)
    found = inpaint(model, images, mask, plan=PLAN, repeats=1)
    assert torch.equal(found[0, 0][~mask], images[0, 0][~mask])
