"""Settings of other code bases: every one acts, or is refused by name."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

import ddpm
from ddpm.cli import main
from ddpm.errors import DdpmError
from ddpm.interop.foreign import Told
from ddpm.interop.source import read_foreign
from interop.makers import (
    INDEX,
    LAYOUTS,
    SAFE,
    SCHEDULER,
    UNET,
    close,
    random_unet,
    same_network,
    weights,
    write_flat,
    write_json,
    write_nested,
    write_unet,
)

CONFIGS = ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "ddpm.json")


# -- every setting acts, or is refused by name ---------------------------------------------------

# What diffusers has by default, where the settings of the paper are unusual.
OPENAI = UNET | {
    "down_block_types": ["AttnDownBlock2D"] * 2,
    "up_block_types": ["AttnUpBlock2D"] * 2,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
SENSELESS = [
    *(None, True, "true", [], [1], [[1]], [None] * 2, {}, -1, 0, 1.5, 10**400),
    *(float("nan"), -1e400, "x" * 10**4, [True, True], [-8, -8]),
]
UNREAD = ("num_train_timesteps", "dynamic_thresholding_ratio", "sample_max_value")
OTHER_UNET = {
    "sample_size": [16, [8, 16], 9],
    "in_channels": [1, 4],
    "out_channels": [1, 6],
    "center_input_sample": [True],
    "time_embedding_type": ["fourier", "learned"],
    "time_embedding_dim": [16, 32],
    "freq_shift": [0, 1, 2, 0.5],
    "flip_sin_to_cos": [True, False],
    "down_block_types": [
        ["AttnDownBlock2D", "DownBlock2D"],
        ["DownBlock2D", "DownBlock2D"],
        ["DownBlock2D", "ResnetDownsampleBlock2D"],
        ["DownBlock2D", "SkipDownBlock2D"],
    ],
    "mid_block_type": [None, "UNetMidBlock2DCrossAttn"],
    "up_block_types": [["UpBlock2D", "AttnUpBlock2D"], ["AttnUpBlock2D", "SkipUpBlock2D"]],
    "block_out_channels": [[8, 16], [16, 16], [8, 12], [16, 8], [12, 12], [8]],
    "layers_per_block": [2, 3],
    "mid_block_scale_factor": [2, 1.4142],
    "downsample_padding": [0, 1],
    "downsample_type": ["resnet"],
    "upsample_type": ["resnet"],
    "dropout": [0.5],
    "act_fn": ["swish", "mish", "relu", "gelu"],
    "attention_head_dim": [1, 2, 3, 4, 8, 16],
    "norm_num_groups": [2, 3, 8, 16],
    "attn_norm_num_groups": [2, 4],
    "norm_eps": [1e-6, 1e-5, 1e-3],
    "resnet_time_scale_shift": ["scale_shift", "spatial"],
    "add_attention": [False],
    "class_embed_type": ["timestep", "identity"],
    "num_class_embeds": [2, 11],
    "num_train_timesteps": [77],
}
BETAS = [0.02 + 0.001 * i for i in range(10)]
OTHER_SCHEDULER = {
    "num_train_timesteps": [1, 7, 25],
    "beta_start": [0.0001, 0.05],
    "beta_end": [0.02, 0.5, 1.0],
    "beta_schedule": ["scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"],
    "trained_betas": [BETAS, BETAS[:-1], [1.0, *BETAS[1:]], [2.0] * 10, [*BETAS[:-1], "0.1"]],
    "variance_type": [
        *("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
        *("learned", "learned_range"),
    ],
    "clip_sample": [False],
    "set_alpha_to_one": [False],
    "prediction_type": ["sample", "v_prediction", "previous_mean"],
    "thresholding": [True],
    "dynamic_thresholding_ratio": [0.5],
    "clip_sample_range": [2.0, 0.5],
    "sample_max_value": [3.0],
    "timestep_spacing": ["trailing", "linspace"],
    "steps_offset": [1],
    "rescale_betas_zero_snr": [True],
}


def settings_of(kind):
    """All settings that a class of diffusers knows."""
    return [name for name in inspect.signature(kind.__init__).parameters if name != "self"]


def test_the_narrow_model_of_these_tests_is_one_that_diffusers_takes():
    """So that what is refused here is refused for the reason that is tested."""
    UNet2DModel.from_config(UNET).load_state_dict(weights())
    assert len(DDPMScheduler.from_config(SCHEDULER).betas) == 10


def test_every_setting_of_diffusers_has_other_values_here():
    assert set(settings_of(UNet2DModel)) == set(OTHER_UNET)
    both = {*settings_of(DDPMScheduler), *settings_of(DDIMScheduler)}
    assert both == set(OTHER_SCHEDULER)


def made(make, settings):
    """What diffusers makes of settings; None where it can make nothing."""
    try:
        return make(json.loads(json.dumps(settings)))
    except Exception:
        return None


def found_or_refused(folder, key, **told):
    """The model of a folder; None where it is refused by the name of the setting."""
    try:
        return read_foreign(str(folder), Told(**told)).model
    except DdpmError as error:
        sentence = str(error)
    assert re.search(rf"\b{key}\b", sentence), sentence
    return None


def decide_unet(folder, settings, key):
    """Whether a network's settings are taken; then diffusers must compute the same."""
    theirs = made(random_unet, settings)
    tensors = weights() if theirs is None else dict(theirs.state_dict())
    write_flat(folder, tensors, settings)
    model = found_or_refused(folder, key)
    if model is not None:
        assert theirs is not None
        same_network(theirs, model)
    return model is not None


@pytest.mark.parametrize("base", ["paper", "openai"])
@pytest.mark.parametrize("key", OTHER_UNET)
def test_a_setting_of_the_network_acts_or_is_refused(base, key, tmp_path):
    whole = UNET if base == "paper" else OPENAI
    for number, value in enumerate(OTHER_UNET[key]):
        changed = whole | {key: value}
        decide_unet(tmp_path / str(number), changed, key)


TOGETHER = {
    "the defaults of diffusers": OPENAI,
    "grey": UNET | {"in_channels": 1, "out_channels": 1},
    "attention above": UNET
    | {
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
    },
    "no attention but in the middle": UNET
    | {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2},
    "wider below": UNET | {"block_out_channels": [8, 16], "attention_head_dim": 4},
    "one level": UNET
    | {
        "block_out_channels": [16],
        "down_block_types": ["AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D"],
    },
    "many": OPENAI
    | {"layers_per_block": 2, "norm_num_groups": 2, "attention_head_dim": 2, "sample_size": 16},
    "nothing said that has a default": {
        key: value for key, value in OPENAI.items() if key in ("sample_size", "_class_name")
    }
    | {"block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1}
    | {key: UNET[key] for key in ("down_block_types", "up_block_types")},
}


@pytest.mark.parametrize("name", TOGETHER)
def test_settings_that_go_together_are_taken(name, tmp_path):
    """So that what is refused is not simply everything."""
    assert decide_unet(tmp_path / "source", TOGETHER[name], "")


@pytest.mark.parametrize("key", OTHER_UNET)
def test_values_without_a_meaning_are_refused_or_mean_nothing(key, tmp_path):
    folder = write_flat(tmp_path / "source")
    for value in SENSELESS:
        settings = UNET | {key: value}
        write_json(folder / "config.json", settings)
        model = found_or_refused(folder, key)
        if model is not None and key not in UNREAD:
            same_network(random_unet(json.loads(json.dumps(settings))), model)


def in_float64(theirs):
    """A scheduler with its betas, but without its rounding of what is computed from them."""
    theirs.alphas = 1 - theirs.betas.double()
    theirs.alphas_cumprod = theirs.alphas.cumprod(0)
    if isinstance(theirs, DDIMScheduler) and not theirs.config.set_alpha_to_one:
        theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    return theirs


def our_step(diffusion, output, x, t, generator):
    """One step of `DDPMScheduler`."""
    p = diffusion.p_mean_variance_from_output(output, x, torch.full((2,), t))
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return p.mean + (t > 0) * (0.5 * p.log_variance).exp() * noise


def our_ddim_step(diffusion, output, x, t):
    """One step of `DDIMScheduler` without noise, for a clipped x_0."""
    times, before = torch.full((2,), t), float(diffusion.schedule.alphas_cumprod_prev[t])
    x_0 = diffusion.p_mean_variance_from_output(output, x, times).pred_xstart
    noise = diffusion.epsilon_from_xstart(x_0, x, times)
    return before**0.5 * x_0 + (1 - before) ** 0.5 * noise


def same_steps(theirs, model, channels=3):
    """Both take the same steps, and diffusers has no other times than by default."""
    theirs = in_float64(theirs)
    diffusion, total = model.diffusion, theirs.config.num_train_timesteps
    assert diffusion.num_timesteps == total
    for count in {total, min(total, 2)}:
        usual = DDPMScheduler(num_train_timesteps=total)
        usual.set_timesteps(count)
        theirs.set_timesteps(count)
        assert torch.equal(theirs.timesteps, usual.timesteps)
    theirs.set_timesteps(total)
    x = 2 * torch.randn(2, 3, 8, 8, dtype=torch.float64)
    output = torch.randn(2, channels, 8, 8, dtype=torch.float64)
    for t in range(total):
        if isinstance(theirs, DDIMScheduler):
            expected = theirs.step(output, t, x, use_clipped_model_output=True).prev_sample
            close(our_ddim_step(diffusion, output, x, t), expected, t)
        else:
            same, again = (torch.Generator().manual_seed(t) for _ in range(2))
            expected = theirs.step(output, t, x, generator=same).prev_sample
            close(our_step(diffusion, output, x, t, again), expected, t)
    if isinstance(theirs, DDIMScheduler):
        assert diffusion.variance_type == "fixed_small"


def scheduler_settings(kind, **changes):
    """A scheduler_config.json of one of the two kinds."""
    whole = SCHEDULER | {"_class_name": kind.__name__} | changes
    if kind is DDIMScheduler and "variance_type" not in changes:
        del whole["variance_type"]
    return whole


def decide_scheduler(folder, kind, key, **changes):
    """Whether a scheduler's settings are taken; then diffusers must take the same steps."""
    settings = scheduler_settings(kind, **changes)
    write_json(folder / "scheduler_config.json", settings)
    model = found_or_refused(folder, key)
    if model is None:
        return False
    theirs = made(kind.from_config, settings)
    if theirs is not None:
        same_steps(theirs, model)
    return True


KINDS = pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])


@KINDS
@pytest.mark.parametrize("key", OTHER_SCHEDULER)
def test_a_setting_of_the_scheduler_acts_or_is_refused(kind, key, tmp_path):
    folder = write_flat(tmp_path / "source")
    for value in OTHER_SCHEDULER[key]:
        also = {"sample_max_value": 3.0} if key == "thresholding" else {}  # else it only clips
        decide_scheduler(folder, kind, key, **{key: value}, **also)


@KINDS
@pytest.mark.parametrize("key", OTHER_SCHEDULER)
def test_values_without_a_meaning_in_a_scheduler_are_refused(kind, key, tmp_path):
    folder = write_flat(tmp_path / "source")
    for value in SENSELESS:
        taken = decide_scheduler(folder, kind, key, **{key: value})
        known = not taken or made(kind.from_config, scheduler_settings(kind, **{key: value}))
        assert known or key in UNREAD, value


TAKEN_SCHEDULERS = {
    "nothing changed": {},
    "of velocity": {"prediction_type": "v_prediction"},
    "of x_0": {"prediction_type": "sample", "clip_sample": False},
    "without clipping, whatever its range": {"clip_sample": False, "clip_sample_range": 2.0},
    "betas by value": {"trained_betas": BETAS, "beta_schedule": "none that is known"},
    "without signal at the end": {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
    },
    "betas by value, without signal": {
        "trained_betas": BETAS,
        "rescale_betas_zero_snr": True,
        "prediction_type": "sample",
    },
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
}


@KINDS
@pytest.mark.parametrize("name", TAKEN_SCHEDULERS)
def test_schedulers_that_are_taken(kind, name, tmp_path):
    """So that what is refused is not simply everything."""
    folder, changes = write_flat(tmp_path / "source"), TAKEN_SCHEDULERS[name]
    assert decide_scheduler(folder, kind, "", **changes)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_fixed_variances_are_taken(variance, tmp_path):
    folder = write_flat(tmp_path / "source")
    assert decide_scheduler(folder, DDPMScheduler, "", variance_type=variance)


def test_a_learned_variance_is_taken_with_its_channels(tmp_path):
    settings = UNET | {"out_channels": 6}
    theirs = random_unet(settings)
    scheduler = SCHEDULER | {"variance_type": "learned_range"}
    folder = write_flat(tmp_path / "source", dict(theirs.state_dict()), settings, scheduler)
    model = read_foreign(str(folder)).model
    same_network(theirs, model)
    same_steps(DDPMScheduler.from_config(scheduler), model, channels=6)


@pytest.mark.parametrize("key", ["thresholding", "clip_sample_range", "timestep_spacing"])
def test_what_is_left_out_is_what_was_named(key, tmp_path, no_import):
    """The step is then that of the same scheduler without the setting."""
    value = OTHER_SCHEDULER[key][0]
    folder = write_flat(tmp_path / "source", scheduler=SCHEDULER | {key: value})
    no_import(folder, f"'{key}'", f"--ignore {key}")
    model = found_or_refused(folder, "", ignore=(key,))
    same_steps(DDPMScheduler.from_config(SCHEDULER), model)


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_settings_are_refused_by_name_and_private_ones_are_not(name, tmp_path, no_import):
    folder = write_nested(tmp_path / "source")
    before = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    for value in (1, "x", {"a": 1}, True, 0, False, ""):
        write_json(folder / name, before | {"unheard_of": value})
        no_import(folder, "'unheard_of'", folder / name)
    write_json(folder / name, before | {"_unheard_of": 1, "_name_or_path": "google/ddpm"})
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0


# -- schedulers, pipelines and files of another kind ---------------------------------------------

OTHER_KINDS = [
    *("PNDMScheduler", "ScoreSdeVeScheduler", "DDPMParallelScheduler", ""),
    *(None, 3, ["DDPMScheduler"], {"DDPMScheduler": 1}),
]


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_scheduler_of_another_kind_is_refused(kind, layout, tmp_path, no_import):
    scheduler = SCHEDULER | {"_class_name": kind}
    folder = LAYOUTS[layout](tmp_path / "source", scheduler=scheduler)
    no_import(folder, "scheduler_config.json", json.dumps(kind), "DDPMScheduler")


@pytest.mark.parametrize(
    ("betas", "words"),
    [
        (BETAS[:-1], "9 entries"),
        ([*BETAS, 0.1], "11 entries"),
        (["0.1"] * 10, "numbers"),
        ([None] * 10, "numbers"),
        ([[0.1]] * 10, "numbers"),
        ([True] * 10, "numbers"),
        ([*BETAS[:-1], float("nan")], "no meaning"),
        ([*BETAS[:-1], float("inf")], "no meaning"),
        ([*BETAS[:-1], 10**400], "no meaning"),
        ([-0.1, *BETAS[1:]], "-0.1"),
        ([0.0, *BETAS[1:]], "betas[0] is 0"),
        ([*BETAS[:-1], 1.5], "betas[9] is 1.5"),
        ("linear", '"linear"'),
        (0.1, "0.1"),
    ],
)
def test_betas_that_are_none_are_refused(betas, words, tmp_path, no_import):
    folder = write_flat(tmp_path / "source", scheduler=SCHEDULER | {"trained_betas": betas})
    no_import(folder, "'trained_betas'", words)


OTHER_INDEXES = {
    "a vae": ({"vae": ["diffusers", "AutoencoderKL"]}, "'vae'"),
    "a safety checker": ({"safety_checker": ["x", "Y"], "vae": ["x", "Y"]}, "'safety_checker'"),
    "no unet": ({"unet": [None, None]}, "no unet"),
    "an empty unet": ({"unet": []}, "no unet"),
    "a unet by one name": ({"unet": "UNet2DModel"}, "'unet'"),
    "a conditional unet": (
        {"unet": ["diffusers", "UNet2DConditionModel"]},
        "UNet2DConditionModel",
    ),
    "a unet of its own": ({"unet": ["my_module", "UNet2DModel"]}, "my_module"),
    "no scheduler": ({"scheduler": None}, "no scheduler"),
    "another scheduler": ({"scheduler": ["diffusers", "PNDMScheduler"]}, "PNDMScheduler"),
    "a scheduler of its own": ({"scheduler": ["my_module", "DDPMScheduler"]}, "my_module"),
}


@pytest.mark.parametrize("name", OTHER_INDEXES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pipeline_of_other_parts_is_refused(name, layout, tmp_path, no_import):
    changes, words = OTHER_INDEXES[name]
    folder = LAYOUTS[layout](tmp_path / "source")
    write_json(folder / "model_index.json", INDEX | changes)
    no_import(folder, folder / "model_index.json", words)
    with pytest.raises(DdpmError, match=r"model_index\.json"):
        ddpm.load(folder)


def test_a_pipeline_without_a_part_that_it_names_is_told(tmp_path, no_import):
    folder = write_nested(tmp_path / "source")
    scheduler, unet = (
        folder / "scheduler" / "scheduler_config.json",
        folder / "unet" / "config.json",
    )
    kept = scheduler.read_text()
    scheduler.unlink()
    no_import(folder, scheduler)
    scheduler.parent.rmdir()
    no_import(folder, "scheduler_config.json")
    write_json(scheduler, kept)
    unet.unlink()
    no_import(folder, unet)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"_class_name": None}, "null"),
        ({"_class_name": ["UNet2DModel"]}, '["UNet2DModel"]'),
    ],
)
def test_a_network_of_another_kind_is_refused(settings, words, tmp_path, no_import):
    folder = write_nested(tmp_path / "source", settings=UNET | settings)
    no_import(folder, folder / "unet" / "config.json", words)


TEXTS = {
    "a list": "[1]",
    "a number": "5",
    "null": "null",
    "half": '{"_class_name": "UNet2DModel", "act_fn',
    "two": "{}{}",
    "nothing": "",
    "too deep": '{"_class_name": ' + "[" * 10**5 + "]" * 10**5 + "}",
    "deep": '{"_class_name": ' + '{"a":' * 900 + "1" + "}" * 900 + ', "x": 1}',
    "too long a number": '{"sample_size": ' + "9" * 5000 + ', "x": 1}',
    "another alphabet": '{"é": 1}'.encode("latin1"),
    "UTF-16": '{"a": 1}'.encode("utf16"),
    "a mark of byte order": b'\xef\xbb\xbf{"a": 1}',
    "bytes": bytes(range(256)),
    "a pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a page": "<html></html>",
    "a terminal's commands": '{"_class_name": "\\u001b[2J", "\\u001b[31m": 1}',
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("text", TEXTS)
def test_settings_that_are_none_are_told(name, text, tmp_path, no_import):
    content = TEXTS[text]
    nested, flat = write_nested(tmp_path / "nested"), write_flat(tmp_path / "flat")
    for folder, path in ((nested, nested / name), (flat, flat / Path(name).name)):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        no_import(folder, path)
        with pytest.raises(DdpmError):
            ddpm.load(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_a_network_alone_whose_settings_are_none_is_told(text, tmp_path, no_import):
    folder, content = write_unet(tmp_path / "source"), TEXTS[text]
    (folder / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    no_import(folder, folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grey_levels": 0}, "grey levels"),
        ({"grey_levels": 300}, "grey levels"),
        ({"grey_levels": "17"}, "'grey_levels'"),
        ({"class_names": ["a", "b"]}, "class-names"),
        ({"class_names": [1, 2]}, "'class_names'"),
        ({"class_names": [["a"]]}, "'class_names'"),
        ({"class_names": "ab"}, "'class_names'"),
        ({"null_class": True}, "no classes"),
        ({"null_class": "yes"}, "'null_class'"),
    ],
)
def test_our_own_settings_beside_a_pipeline_are_checked_too(settings, words, tmp_path, no_import):
    folder = write_flat(tmp_path / "source")
    write_json(folder / "ddpm.json", settings)
    no_import(folder, words)


def test_folders_of_something_else_are_told(tmp_path, no_import):
    (tmp_path / "empty").mkdir()
    no_import(tmp_path / "empty", "diffusers' layout", "model_index.json")
    folder = write_unet(tmp_path / "transformer", settings={"model_type": "bert"})
    (folder / SAFE).rename(folder / "model.safetensors")
    no_import(folder, "diffusers' layout")
