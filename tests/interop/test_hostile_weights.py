"""Foreign models that are hostile, broken or of another kind: nothing of them is run, and each ends
in one sentence with nothing left behind, or is imported as diffusers computes it."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ddpm
from ddpm.cli import main
from ddpm.errors import DdpmError
from ddpm.interop.source import read_foreign
from ddpm.interop.weights_file import read_weights
from evaluation.stand_ins import save_script
from interop.makers import (
    LAYOUTS,
    PICKLED,
    SAFE,
    UNET,
    random_unet,
    same_network,
    weights,
    write_flat,
    write_json,
    write_nested,
    write_unet,
)

CONFIGS = ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "ddpm.json")


# -- pickles with code in them -------------------------------------------------------------------


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture
def marker(tmp_path):
    """The file that a trap writes."""
    return tmp_path / "marker"


def zipped(what, path):
    torch.save(what, path)


def legacy(what, path):
    torch.save(what, path, _use_new_zipfile_serialization=False)


def pickled(what, path):
    path.write_bytes(pickle.dumps(what))


def array(what, path):
    with path.open("wb") as file:
        np.save(file, np.array([what, None], dtype=object), allow_pickle=True)


def arrays(what, path):
    with path.open("wb") as file:
        np.savez(file, weights=np.array([what, None], dtype=object))


def tarred(what, path):
    content = pickle.dumps(what)
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))


FORMS = [zipped, legacy, pickled, array, arrays, tarred]
CONTENTS = {
    "alone": lambda trap: trap,
    "among weights": lambda trap: weights() | {"conv_in.bias": trap},
    "as the average": lambda trap: {"ema": trap, "model": weights()},
    "beside the weights": lambda trap: {"model": weights(), "optimizer": trap},
    "deep below": lambda trap: {"model": weights(), "args": {"a": [(1, trap)]}},
    "in a list": lambda trap: [weights(), trap, 3, 9000, weights()],
    "as a key": lambda trap: {("a", 1): trap},
}


def below_unet(folder):
    write_nested(folder, pickled=True)
    return folder, folder / "unet" / PICKLED


def flat(folder):
    write_flat(folder, pickled=True)
    return folder, folder / PICKLED


def unet_alone(folder):
    write_unet(folder, pickled=True)
    return folder, folder / PICKLED


def averaged_folder(folder):
    write_unet(folder / "unet")
    write_unet(folder / "unet_ema", pickled=True)
    return folder, folder / "unet_ema" / PICKLED


def averaged_file(folder):
    write_flat(folder)
    return folder, folder / "diffusion_pytorch_model.ema.bin"


def variant(folder):
    write_flat(folder)
    (folder / SAFE).unlink()
    return folder, folder / "diffusion_pytorch_model.fp16.bin"


def called_safe(folder):
    write_nested(folder)
    return folder, folder / "unet" / SAFE


FOLDERS = [below_unet, flat, unet_alone, averaged_folder, averaged_file, variant, called_safe]
FILES = ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.pkl", "w.safetensors", "w.tar", "w.npz", "w"]


@pytest.mark.parametrize("write", FORMS)
def test_the_trap_works_where_pickles_are_read_as_such(write, marker, tmp_path):
    write(Trap(marker), tmp_path / "file")
    if write in (pickled, tarred):
        pickle.loads(pickle.dumps(Trap(marker)))
    elif write in (array, arrays):
        found = np.load(tmp_path / "file", allow_pickle=True)
        assert found is not None
        if write is arrays:
            assert found["weights"] is not None
    else:
        torch.load(tmp_path / "file", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("place", FOLDERS)
def test_no_code_of_a_folder_is_run(write, place, marker, tmp_path, no_import):
    folder, path = place(tmp_path / "source")
    write(weights() | {"conv_in.bias": Trap(marker)}, path)
    no_import(folder, path)
    with pytest.raises(DdpmError, match=path.name):
        ddpm.load(folder)
    assert not marker.exists()


@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("content", CONTENTS)
def test_no_code_is_run_wherever_in_a_file_it_is(write, content, marker, tmp_path, no_import):
    folder, path = flat(tmp_path / "source")
    for place, source in ((path, folder), (tmp_path / "w.pt", tmp_path / "w.pt")):
        write(CONTENTS[content](Trap(marker)), place)
        sentence = no_import(source, place)
        if write in (zipped, legacy):
            assert "exec" in sentence
            assert "could run code" in sentence
    assert not marker.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("write", FORMS)
def test_no_code_is_run_whatever_a_file_is_called(write, name, marker, tmp_path, no_import):
    write({"state_dict": Trap(marker)}, tmp_path / name)
    no_import(tmp_path / name, tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_no_code_is_run_in_place_of_settings(write, name, marker, tmp_path, no_import):
    folder = write_nested(tmp_path / "source")
    write({"_class_name": Trap(marker)}, folder / name)
    no_import(folder, folder / name)
    with pytest.raises(DdpmError):
        ddpm.load(folder)
    assert not marker.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trap_beside_good_weights_is_not_touched(layout, marker, tmp_path):
    folder = LAYOUTS[layout](tmp_path / "source")
    unet = folder / "unet" if layout == "nested" else folder
    zipped(Trap(marker), unet / PICKLED)
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert not marker.exists()
    model = ddpm.load(tmp_path / "run", "cpu")
    same_network(random_unet(), model)


def test_the_environment_cannot_make_torch_run_code(marker, tmp_path, no_import, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, path = flat(tmp_path / "source")
    zipped(Trap(marker), path)
    no_import(folder, path)
    assert not marker.exists()


def test_modules_and_scripts_are_refused(tmp_path, no_import):
    script = save_script(nn.Conv2d(3, 3, 1), tmp_path / "script.pt")
    no_import(script, script, "TorchScript", "could run code")
    zipped(nn.Conv2d(3, 3, 1), tmp_path / "module.pt")
    no_import(tmp_path / "module.pt", "torch.nn.modules.conv.Conv2d", "save the state_dict alone")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        file.writestr("a/b.txt", "no weights")
    no_import(tmp_path / "zip.pt", tmp_path / "zip.pt", "torch.save")


# -- weights that are broken or of something else ------------------------------------------------


def without(name):
    return {key: value for key, value in weights().items() if name not in key}


def with_first(change):
    return weights() | {"conv_in.weight": change(weights()["conv_in.weight"])}


def with_one(value):
    def change(first):
        first[0, 0, 0, 0] = value
        return first

    return with_first(change)


BAD = {
    "a missing tensor": (lambda: without("conv_in.bias"), "lacks 1 tensor ('conv_in.bias')"),
    "missing tensors": (lambda: without("mid_block"), "lacks 30 tensors"),
    "a surplus tensor": (lambda: weights() | {"x.y": torch.zeros(1)}, "has 1 tensor ('x.y')"),
    "an unprintable name": (lambda: weights() | {"\x1b[2J\n": torch.zeros(1)}, r"\x1b[2J"),
    "an endless name": (lambda: weights() | {"x" * 10**5: torch.zeros(1)}, "has 1 tensor"),
    "fewer channels": (lambda: with_first(lambda w: w[:4].clone()), "(4, 3, 3, 3)"),
    "a scalar": (lambda: with_first(lambda w: torch.zeros(())), "the shape ()"),
    "nothing in it": (lambda: with_first(lambda w: torch.zeros(0, 3, 3, 3)), "(0, 3, 3, 3)"),
    "whole numbers": (lambda: with_first(lambda w: w.int()), "torch.int32"),
    "truths": (lambda: with_first(lambda w: w > 0), "torch.bool"),
    "a NaN": (lambda: with_one(torch.nan), "no finite numbers"),
    "an infinity": (lambda: with_one(torch.inf), "no finite numbers"),
    "more than float32": (lambda: with_first(lambda w: w.double() * 1e300), "no finite numbers"),
    "no tensors": (dict, "holds nothing"),
}
BAD_PICKLED = {
    "sparse": (lambda: with_first(lambda w: w.to_sparse()), "'conv_in.weight'"),
    "without values": (lambda: with_first(lambda w: w.to("meta")), "'conv_in.weight'"),
    "complex": (lambda: with_first(lambda w: w + 0j), "torch.complex64"),
    "a number": (lambda: weights() | {"conv_in.weight": 3.0}, "'conv_in.weight'"),
    "numbers as names": (lambda: weights() | {3: torch.zeros(1)}, "holds no weights by name"),
    "a tensor": (lambda: torch.zeros(3), "holds no weights by name"),
    "a list": (lambda: [1, 2], "a list of 2 things"),
    "nothing": (lambda: (), "a list of 0 things"),
    "two networks": (
        lambda: {"model": weights(), "ema": weights()},
        "more than the weights of one",
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_PICKLED])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_do_not_fit_are_named(name, layout, tmp_path, no_import):
    make, words = (BAD | BAD_PICKLED)[name]
    forms = (False, True) if name in BAD else (True,)
    for number, pickle_them in enumerate(forms):
        folder = LAYOUTS[layout](tmp_path / str(number), make(), pickled=pickle_them)
        no_import(folder, PICKLED if pickle_them else SAFE, words)
        with pytest.raises(DdpmError):
            ddpm.load(folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_numbers_are_read(kind, tmp_path):
    rounded = {name: value.to(kind) for name, value in weights().items()}
    model = ddpm.load(write_flat(tmp_path / "source", rounded), "cpu")
    theirs = random_unet()
    theirs.load_state_dict({name: value.float() for name, value in rounded.items()})
    same_network(theirs, model)


INSTEAD = {
    "half": (lambda whole: whole[: len(whole) // 2], "damaged"),
    "most": (lambda whole: whole[:-1], "damaged"),
    "nine bytes": (lambda whole: whole[:9], "damaged"),
    "zeros": (lambda whole: bytes(len(whole)), "damaged"),
    "noise": (lambda whole: np.random.default_rng(0).bytes(3000), "damaged"),
    "a header without end": (lambda whole: b"\xff" * 7 + b"\x7f{}", "damaged"),
    "nothing": (lambda whole: b"", "an empty file"),
    "a pointer": (
        lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git-LFS pointer",
    ),
    "a page": (lambda whole: b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
}


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize("pickle_them", [False, True])
def test_something_else_in_place_of_weights_is_told(instead, pickle_them, tmp_path, no_import):
    make, words = INSTEAD[instead]
    folder = write_flat(tmp_path / "source", pickled=pickle_them)
    path = folder / (PICKLED if pickle_them else SAFE)
    path.write_bytes(make(path.read_bytes()))
    no_import(folder, path, words)
    alone = tmp_path / ("w.ckpt" if pickle_them else "w.safetensors")
    alone.write_bytes(path.read_bytes())
    no_import(alone, alone, words)


def test_a_pickle_in_the_old_format_that_is_cut_short_is_told(tmp_path, no_import):
    legacy(weights(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    for share in (0.01, 0.1, 0.5, 0.9, 0.999):
        (tmp_path / "w.pt").write_bytes(whole[: int(share * len(whole))])
        no_import(tmp_path / "w.pt", "damaged")


@pytest.mark.parametrize("pickle_them", [False, True])
def test_damage_anywhere_ends_in_a_sentence_or_in_weights(pickle_them, tmp_path):
    """Bytes of a file, most of them in its header, are changed at random."""
    folder = write_flat(tmp_path / "source", pickled=pickle_them)
    path = folder / (PICKLED if pickle_them else SAFE)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    ends = {"told": 0, "read": 0}
    for trial in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, 4000 if trial % 2 else len(whole), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_foreign(str(folder))
            ends["read"] += 1
        except DdpmError:
            ends["told"] += 1
    assert ends["told"] > 20


def sharded(folder, parts):
    for part in range(1, parts + 1):
        save_file(weights(), folder / f"diffusion_pytorch_model-0000{part}-of-00002.safetensors")
    write_json(folder / f"{SAFE}.index.json", {"weight_map": {}})


def two_variants(folder):
    for name in ("fp16", "non_ema"):
        save_file(weights(), folder / f"diffusion_pytorch_model.{name}.safetensors")


OTHERWISE = {
    "in two files": (lambda folder: sharded(folder, 2), "in several files"),
    "in two files of which one is there": (lambda folder: sharded(folder, 1), "in several files"),
    "in files that are not there": (lambda folder: sharded(folder, 0), "in several files"),
    "of two kinds": (two_variants, "several weights"),
    "not there": (lambda folder: None, "holds no weights"),
    "a folder": (lambda folder: (folder / SAFE).mkdir(), "there is no file"),
    "a link to nowhere": (lambda folder: (folder / SAFE).symlink_to("x"), "is a link to x"),
    "of Flax": (
        lambda folder: (folder / "diffusion_flax_model.msgpack").write_bytes(b"x"),
        "holds no weights",
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_are_not_where_one_file_is_expected(name, layout, tmp_path, no_import):
    folder = LAYOUTS[layout](tmp_path / "source")
    unet = folder / "unet" if layout == "nested" else folder
    (unet / SAFE).unlink()
    make, words = OTHERWISE[name]
    make(unet)
    no_import(folder, unet, words)


def test_one_variant_is_taken_and_said(tmp_path, capsys):
    folder = write_flat(tmp_path / "source")
    (folder / SAFE).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    assert "diffusion_pytorch_model.fp16.safetensors" in capsys.readouterr().out


def endless():
    found = {}
    found["model"] = found
    return found


def nested(depth):
    found = weights()
    for _ in range(depth):
        found = {"model": found}
    return found


NOT_MEANT = {
    "a mapping in itself": (endless, "without end"),
    "hundreds of mappings": (lambda: nested(300), "without end"),
    "an average of another name": (
        lambda: {"model": weights(), "ema_weights": weights()},
        "'ema_weights'",
    ),
    "an average as a list": (
        lambda: {"model": weights(), "model_EMA": {"shadow_params": [torch.zeros(1)]}},
        "'model_EMA'",
    ),
    "averages by their decay": (
        lambda: {"state_dict": weights(), "averaged_model": weights()},
        "'averaged_model'",
    ),
    "two that could be meant": (lambda: {"model": weights(), "net": weights()}, "'model', 'net'"),
    "an endless name": (lambda: {"x" * 10**5: {}, "\x1b[2J": {}}, "only weights can stand"),
    "two averages": (lambda: {"ema": weights(), "model_ema": weights()}, "'ema' and 'model_ema'"),
    "no average after all": (lambda: {"model": weights(), "ema": 0.9999}, "'ema'"),
}


@pytest.mark.parametrize("name", NOT_MEANT)
def test_files_of_which_it_cannot_be_told_what_is_meant(name, tmp_path, no_import):
    make, words = NOT_MEANT[name]
    zipped(make(), tmp_path / "w.pt")
    no_import(tmp_path / "w.pt", tmp_path / "w.pt", words)


def test_a_few_mappings_are_unwrapped(tmp_path):
    zipped({"state_dict": nested(5), "ema_decay": 0.9999, "epoch": 3}, tmp_path / "w.pt")
    tensors, _, chosen = read_weights(tmp_path / "w.pt")
    assert chosen == "the weights 'state_dict'"
    assert all(torch.equal(value, weights()[name]) for name, value in tensors.items())
    assert tensors.keys() == weights().keys()


def test_names_of_diffusers_without_their_settings_are_told(tmp_path, no_import):
    save_file(weights(), tmp_path / SAFE)
    no_import(tmp_path / SAFE, "those of diffusers", "config.json")
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    no_import(tmp_path / "w.safetensors", "no network that is known")


@pytest.mark.parametrize("ask", [{"layers_per_block": 10**6}, {"block_out_channels": [10**6] * 2}])
def test_settings_of_a_giant_cost_neither_time_nor_memory(ask, tmp_path, no_import):
    folder = write_flat(tmp_path / "source", settings=UNET | ask)
    no_import(folder, folder / SAFE)
