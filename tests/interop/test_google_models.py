"""The models of google, and others of their kind: as diffusers computes them, in and out again."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

import ddpm
from ddpm.cli import main
from ddpm.config import Config, DiffusionConfig
from ddpm.sampling import Ddim
from helpers import checkpoints
from interop.google_forms import (
    SCHEDULER,
    SCHEDULER_LATER,
    SMALL,
    UNET_256,
    UNET_CIFAR10_LATER,
    UNETS,
    narrow,
    random_unet,
    write_json,
    write_pipeline,
)


def outputs(theirs, model, size=None, batch=2):
    """What both networks say of the same images at the same times."""
    size = size or theirs.config.sample_size
    x = torch.randn(batch, theirs.config.in_channels, size, size)
    t = torch.linspace(3, 970, batch).long()
    with torch.no_grad():
        return theirs(x, t).sample, model.denoiser()(x, t)


def agree(expected, found, tolerance=1e-5):
    assert float((expected - found).abs().max() / expected.abs().max()) < tolerance


def unet_files(folder):
    """Settings and tensors of a network's folder."""
    file = folder / "diffusion_pytorch_model.safetensors"
    return json.loads((folder / "config.json").read_text()), file.read_bytes()


@pytest.mark.parametrize("name", UNETS)
def test_a_google_model_is_imported_computes_the_same_and_goes_out_byte_for_byte(name, tmp_path):
    settings = narrow(UNETS[name])
    theirs = random_unet(settings)
    source = write_pipeline(tmp_path / "theirs", theirs, settings)
    run, out = tmp_path / "run", tmp_path / "ours"
    assert main(["import", str(source), "--out", str(run)]) == 0
    model = ddpm.load(run, "cpu")
    agree(*outputs(theirs, model, size=min(settings["sample_size"], 64)))
    assert main(["export", str(run), "--out", str(out)]) == 0
    # What diffusers itself writes for this network today.
    UNet2DModel.from_pretrained(source / "unet").save_pretrained(tmp_path / "again")
    expected, weights = unet_files(tmp_path / "again")
    written, exported = unet_files(out / "unet")
    assert exported == weights
    for key in expected.keys() - {"_name_or_path", "_diffusers_version"}:
        assert written[key] == expected[key], key
    assert {key: written[key] for key in settings if not key.startswith("_")} == {
        key: value for key, value in settings.items() if not key.startswith("_")
    }


def test_the_whole_cifar10_network_too(tmp_path):
    settings = UNETS["cifar10, one head"]
    theirs = random_unet(settings)
    assert sum(p.numel() for p in theirs.parameters()) == 35_746_307
    model = ddpm.load(write_pipeline(tmp_path / "theirs", theirs, settings), "cpu")
    assert model.config.network == ddpm.UNetConfig(dropout=0.0)
    agree(*outputs(theirs, model, batch=1))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_every_form_of_the_folder(flat, pickled, old, tmp_path):
    settings = narrow(UNET_CIFAR10_LATER)
    theirs = random_unet(settings)
    source = write_pipeline(tmp_path / "theirs", theirs, settings, flat=flat, pickled=pickled)
    if old:
        rename_attention(source if flat else source / "unet", pickled)
    agree(*outputs(theirs, ddpm.load(source, "cpu")))


def rename_attention(folder, pickled):
    """The names that attention had before version 0.15."""
    from safetensors.torch import load_file, save_file

    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = folder / f"diffusion_pytorch_model.{'bin' if pickled else 'safetensors'}"
    tensors = torch.load(file, weights_only=True) if pickled else load_file(file)
    renamed = {}
    for name, value in tensors.items():
        for new, before in names.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = value
    assert renamed.keys() != tensors.keys()
    torch.save(renamed, file) if pickled else save_file(renamed, file, {"format": "pt"})


def test_a_network_alone_is_given_the_papers_diffusion_which_is_said(tmp_path, capsys):
    settings = narrow(UNET_CIFAR10_LATER)
    theirs = random_unet(settings)
    theirs.save_pretrained(tmp_path / "unet")
    arguments = ["import", str(tmp_path / "unet"), "--out"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    assert "does not say its diffusion" in capsys.readouterr().out
    model = ddpm.load(tmp_path / "a", "cpu")
    assert model.config.diffusion == DiffusionConfig()
    agree(*outputs(theirs, model))
    told = ["--diffusion.schedule", "cosine", "--diffusion.prediction-type", "v_prediction"]
    assert main([*arguments, str(tmp_path / "b"), *told]) == 0
    assert "v_prediction, fixed_large" in capsys.readouterr().out
    diffusion = ddpm.load(tmp_path / "b", "cpu").config.diffusion
    assert diffusion == DiffusionConfig(schedule="cosine", prediction_type="v_prediction")


def test_the_unet_of_a_pipeline_named_alone_has_the_pipelines_scheduler(tmp_path, capsys):
    settings = narrow(UNET_CIFAR10_LATER)
    scheduler = SCHEDULER | {"beta_schedule": "squaredcos_cap_v2"}
    source = write_pipeline(tmp_path / "theirs", random_unet(settings), settings, scheduler)
    assert main(["import", str(source / "unet"), "--out", str(tmp_path / "run")]) == 0
    assert "the pipeline around it" in capsys.readouterr().out
    assert ddpm.load(tmp_path / "run", "cpu").config.diffusion.schedule == "cosine"


def test_a_checkpoint_with_raw_and_averaged_weights_gives_the_averaged(tmp_path, capsys):
    settings = narrow(UNET_CIFAR10_LATER)
    raw, averaged = random_unet(settings, 1), random_unet(settings, 2)
    raw.save_pretrained(tmp_path / "checkpoint" / "unet")
    averaged.save_pretrained(tmp_path / "checkpoint" / "unet_ema")
    config = tmp_path / "checkpoint" / "unet_ema" / "config.json"
    write_json(config, json.loads(config.read_text()) | {"decay": 0.9999, "optimization_step": 7})
    run = tmp_path / "run"
    assert main(["import", str(tmp_path / "checkpoint"), "--out", str(run)]) == 0
    assert "averaged ones (unet_ema)" in capsys.readouterr().out
    model = ddpm.load(run, "cpu")
    agree(*outputs(averaged, model))
    expected, found = outputs(raw, model)
    assert not torch.allclose(expected, found, rtol=1e-2)


# -- the scheduler -------------------------------------------------------------------------------

DIFFUSIONS = {
    "google": {},
    "later": SCHEDULER_LATER,
    "small": {"variance_type": "fixed_small"},
    "small by logarithm": {"variance_type": "fixed_small_log"},
    "no clipping": {"clip_sample": False},
    "sample": {"prediction_type": "sample"},
    "v": {"prediction_type": "v_prediction"},
    "quadratic": {"beta_schedule": "scaled_linear", "beta_end": 0.012, "beta_start": 0.00085},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "fewer steps": {"num_train_timesteps": 100, "beta_end": 0.1},
    "by value": {"trained_betas": [0.01 + 0.002 * i for i in range(50)], "num_train_timesteps": 50},
    "without signal": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A pipeline of the smallest network, to which a test gives its own scheduler."""
    network = random_unet(SMALL)
    return write_pipeline(tmp_path_factory.mktemp("small") / "theirs", network, SMALL), network


def exactly(scheduler):
    """diffusers' scheduler with products of its betas that are not rounded to float32."""
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    return scheduler


def with_scheduler(small, scheduler):
    source, _ = small
    write_json(source / "scheduler" / "scheduler_config.json", scheduler)
    return source


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_a_step_of_ddpm_is_diffusers_and_goes_out_as_it_came(name, small, tmp_path):
    scheduler = SCHEDULER | DIFFUSIONS[name]
    model = ddpm.load(with_scheduler(small, scheduler), "cpu")
    theirs = exactly(DDPMScheduler.from_config(scheduler))
    total = scheduler["num_train_timesteps"]
    assert model.diffusion.num_timesteps == total
    expected = theirs.betas.double().numpy()
    rescaled = "rescale_betas_zero_snr" in scheduler  # which theirs does in float32
    assert abs(model.diffusion.schedule.betas - expected).max() < (1e-5 if rescaled else 1e-6)
    x, output = torch.randn(2, 2, 3, 8, 8)
    for t in (1, total // 3, total - 2):
        noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(t))
        step = theirs.step(output, t, x, generator=torch.Generator().manual_seed(t))
        p = model.diffusion.p_mean_variance_from_output(output, x, torch.tensor([t, t]))
        found = p.mean + (0.5 * p.log_variance).exp() * noise
        agree(step.prev_sample, found, 1e-3 if rescaled else 1e-5)
    p = model.diffusion.p_mean_variance_from_output(output, x, torch.tensor([0, 0]))
    agree(theirs.step(output, 0, x).prev_sample, p.mean)
    goes_out_as_it_came(model, scheduler, theirs, tmp_path)


def goes_out_as_it_came(model, scheduler, theirs, tmp_path):
    """The exported settings say the same of the diffusion, and give diffusers the same betas."""
    model.save(tmp_path / "model.safetensors")
    main(["export", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    again = DDPMScheduler.from_config(written)
    if scheduler.get("rescale_betas_zero_snr"):
        assert torch.allclose(again.betas, theirs.betas, atol=1e-6)
        return
    assert torch.equal(again.betas, theirs.betas)
    expected = {key: value for key, value in scheduler.items() if not key.startswith("_")}
    if expected["variance_type"] == "fixed_small_log":
        expected["variance_type"] = "fixed_small"
    assert {key: written[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["google", "v", "cosine", "no clipping"])
def test_a_step_of_ddim_is_diffusers(name, small):
    scheduler = SCHEDULER | DIFFUSIONS[name]
    model = ddpm.load(with_scheduler(small, scheduler), "cpu")
    theirs = exactly(DDIMScheduler.from_config(scheduler))
    theirs.set_timesteps(50)
    chain = model.diffusion.respace(sorted(theirs.timesteps.tolist()))
    x, output = torch.randn(2, 2, 3, 8, 8)
    for index in (1, 20, 49):
        taken = []
        Ddim()(chain, lambda x, t: output, x, lambda i: x, start=index, callback=taken.append)
        t = int(chain.schedule.timesteps[index])
        expected = theirs.step(output, t, x, use_clipped_model_output=True).prev_sample
        agree(expected, taken[1].x_t)


def test_a_scheduler_of_ddim_has_the_variance_that_ddim_has_with_eta_one(small, capsys):
    scheduler = SCHEDULER | {"_class_name": "DDIMScheduler", "set_alpha_to_one": True}
    del scheduler["variance_type"]
    source = with_scheduler(small, scheduler)
    out = source.parent / "of-ddim"
    assert main(["import", str(source), "--out", str(out)]) == 0
    assert "fixed_small is taken" in capsys.readouterr().out
    assert ddpm.load(out, "cpu").diffusion.variance_type == "fixed_small"


def test_what_a_file_does_not_say_is_diffusers_default_and_not_ours(small):
    model = ddpm.load(with_scheduler(small, {"_class_name": "DDPMScheduler"}), "cpu")
    theirs = DDPMScheduler()
    assert model.diffusion.variance_type == theirs.config.variance_type == "fixed_small"
    assert model.diffusion.num_timesteps == theirs.config.num_train_timesteps


def test_settings_of_sampling_are_refused_or_left_out_by_name(small, tmp_path, capsys):
    source = with_scheduler(small, SCHEDULER | {"timestep_spacing": "trailing", "steps_offset": 1})
    arguments = ["import", str(source), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "--ignore timestep_spacing leaves it out" in capsys.readouterr().err
    assert main([*arguments, "--ignore", "timestep_spacing"]) == 2
    assert "'steps_offset'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--ignore", "timestep_spacing", "steps_offset"]) == 0
    said = capsys.readouterr().out
    assert "'timestep_spacing'" in said
    assert "'steps_offset'" in said


# -- out -----------------------------------------------------------------------------------------


def test_the_export_is_made_from_our_settings_and_carries_nothing_along(small, tmp_path):
    """Change a beta or a width of ours, and the settings that are written follow."""
    model = ddpm.load(with_scheduler(small, SCHEDULER), "cpu")
    betas = model.diffusion.schedule.betas.copy()
    betas[500] *= 1.5
    config = ddpm.Config(
        data=model.config.data,
        network=ddpm.UNetConfig(
            ch=16, ch_mult=(1, 3), num_res_blocks=2, attn_resolutions=(4,), norm_groups=8
        ),
        diffusion=DiffusionConfig(betas=tuple(betas), variance_type="fixed_small"),
    )
    network = config.build_network(model.format.shape)
    ddpm.Ddpm(config, model.format, network).save(tmp_path / "model.safetensors")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "model.safetensors"), "--out", str(out)]) == 0
    unet = json.loads((out / "unet" / "config.json").read_text())
    assert unet["block_out_channels"] == [16, 48]
    assert (unet["layers_per_block"], unet["norm_num_groups"], unet["dropout"]) == (2, 8, 0.1)
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["trained_betas"] == betas.tolist()
    assert scheduler["variance_type"] == "fixed_small"
    pipeline = DDPMPipeline.from_pretrained(out)
    assert torch.equal(pipeline.scheduler.betas, torch.tensor(betas, dtype=torch.float32))
    agree(*outputs(pipeline.unet.eval(), ddpm.load(tmp_path / "model.safetensors", "cpu")))


def test_the_betas_of_the_model_count_where_its_settings_say_others(small, tmp_path):
    from dataclasses import replace

    from ddpm.diffusion.schedule import schedule_from_betas
    from ddpm.interop.export import export_diffusers

    model = ddpm.load(with_scheduler(small, SCHEDULER), "cpu")
    betas = model.diffusion.schedule.betas * 0.5
    other = replace(model.diffusion, schedule=schedule_from_betas(betas))
    export_diffusers(replace(model, diffusion=other), tmp_path / "out", "test")
    found = DDPMPipeline.from_pretrained(tmp_path / "out").scheduler.betas
    assert torch.equal(found, torch.from_numpy(betas).float())


def test_loading_a_folder_says_that_it_was_converted(small, caplog):
    ddpm.load(with_scheduler(small, SCHEDULER), "cpu")
    assert "was converted in memory" in caplog.text


def test_a_conditional_model_goes_out_with_its_null_class_and_comes_back(tmp_path, capsys):
    config = ddpm.Config(
        data=ddpm.DataConfig(image_size=8, class_names=("cat", "dog")),
        network=ddpm.UNetConfig(
            ch=8, ch_mult=(1, 2), norm_groups=4, attn_resolutions=(4,), classes=2
        ),
    )
    image_format = ddpm.ImageFormat(3, 8, 8, levels=17)
    model = ddpm.Ddpm(config, image_format, config.build_network(image_format.shape))
    model.save(tmp_path / "model.safetensors")
    out, run = tmp_path / "out", tmp_path / "run"
    assert main(["export", str(tmp_path / "model.safetensors"), "--out", str(out)]) == 0
    theirs = UNet2DModel.from_pretrained(out / "unet").eval()
    x, t, labels = torch.randn(3, 3, 8, 8), torch.tensor([1, 500, 900]), torch.tensor([0, 1, 2])
    with torch.no_grad():
        agree(theirs(x, t, labels).sample, model.network(x, t, labels))
    assert main(["import", str(out), "--out", str(run)]) == 0
    back = ddpm.load(run, "cpu")
    assert back.config.network == model.config.network
    assert back.class_names == ("cat", "dog")
    assert back.format == image_format
    (out / "ddpm.json").unlink()  # then nothing says that there is a null class
    capsys.readouterr()
    assert main(["import", str(out), "--out", str(tmp_path / "b")]) == 2
    assert "--null-class" in capsys.readouterr().err
    assert main(["import", str(out), "--out", str(tmp_path / "b"), "--null-class"]) == 0


def test_an_imported_run_is_a_run_of_no_steps(small, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", str(with_scheduler(small, SCHEDULER)), "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"in {run}" in said
    assert f"ddpm measure {run} --data" in said
    assert [path.name for path in checkpoints(run)] == ["step-00000000.safetensors"]
    model = ddpm.load(run, "cpu")
    assert model.history.origin == "theirs"
    assert Config.from_dict(json.loads((run / "config.json").read_text())) == model.config
    assert main(["info", str(run)]) == 0
    assert "theirs" in capsys.readouterr().out
    assert main(["train", "--resume", str(run)]) == 2
    assert "--training.start-from" in capsys.readouterr().err


def test_the_names_of_the_256_network_are_those_of_diffusers():
    """All of them, with the widths of the paper; only shapes, no weights."""
    from ddpm.interop.diffusers_unet import NAMING, read_unet
    from ddpm.interop.naming import names
    from ddpm.interop.settings import Settings

    settings = UNET_256 | {"attention_head_dim": None}
    network, image_format, channels = read_unet(Settings(settings, "test"), False)
    with torch.device("meta"):
        ours = network.build(image_format.shape, channels)
        theirs = UNet2DModel.from_config(settings)
    assert sum(p.numel() for p in ours.parameters()) == 113_673_219
    table = names(ours, NAMING)
    assert set(table.values()) == set(theirs.state_dict())
    sizes = {name: value.numel() for name, value in theirs.state_dict().items()}
    assert all(sizes[table[name]] == value.numel() for name, value in ours.state_dict().items())
