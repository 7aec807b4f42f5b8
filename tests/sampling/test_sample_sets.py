"""Sets of samples that many processes share, as folders and as .npz files."""

import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.cli import main, sample_set
from ddpm.cli.drawing import Drawing
from ddpm.cli.sample_set import SampleSet
from ddpm.data.images import ImageFormat
from ddpm.data.open import open_data
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.networks.unet import UNet
from helpers import checkpoint_path, tiny_model
from mistakes import everything_below, refused


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of grey 8x8 images with 17 grey levels, T = 20."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    tiny_model().save(checkpoint_path(folder, 3))
    return folder


@pytest.fixture
def sample(run, tmp_path, monkeypatch):
    """A function that runs `ddpm sample` in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def command(out, *options, n=6, size=2, seed=4):
        words = ["sample", run, "-n", n, "--batch-size", size, "--steps", 5, "--seed", seed]
        return [str(word) for word in [*words, "--out", out, *options]]

    return command


def images_of(folder):
    """All pixels of a folder of PNGs, [n, h, w, c]."""
    arrays = [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    return np.stack(arrays).reshape(len(arrays), *arrays[0].shape[:2], -1)


# -- the array -----------------------------------------------------------------------------------


def test_an_npz_is_the_fields_and_holds_the_images_of_the_folder(sample, tmp_path):
    assert main(sample("set")) == 0
    assert main(sample("set.npz", size=4)) == 0
    with np.load("set.npz") as file:
        assert file.files[0] == "arr_0"
        array = file["arr_0"]
    assert array.dtype == np.uint8
    assert array.shape == (6, 8, 8, 1)
    assert np.array_equal(array, images_of(tmp_path / "set"))
    assert array.max() > 16  # grey levels as files have them, not this model's 17
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "set.npz"]
    assert open_data("set.npz", image_size=8, channels=1).images.shape == (6, 1, 8, 8)


def test_an_npz_can_be_mapped_into_memory(sample):
    """It is stored, not compressed."""
    assert main(sample("set.npz")) == 0
    with zipfile.ZipFile("set.npz") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("calls", [0, 3, 5, 11])
def test_an_interrupted_npz_is_gone_on_with_and_ends_the_same(sample, calls, monkeypatch, capsys):
    assert main(sample("whole.npz")) == 0
    made, forward = [], UNet.forward

    def stop(self, x, t):
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(len(x))
        return forward(self, x, t)

    with monkeypatch.context() as patch:
        patch.setattr(UNet, "forward", stop)
        assert main(sample("set.npz")) == 130
    assert "set.npz.parts" in capsys.readouterr().out
    monkeypatch.setattr(UNet, "forward", lambda self, x, t: made.append(0) or forward(self, x, t))
    assert main(sample("set.npz", size=3)) == 0
    with open("set.npz", "rb") as ours, open("whole.npz", "rb") as theirs:
        assert ours.read() == theirs.read()
    assert not any("parts" in path.name for path in sample_set.Path().iterdir())


def test_a_finished_npz_is_left_alone_and_another_is_not_overwritten(sample, capsys, monkeypatch):
    assert main(sample("set.npz")) == 0
    before = everything_below(sample_set.Path())
    monkeypatch.setattr(UNet, "forward", lambda *_: pytest.fail("drawn in vain"))
    assert main(sample("set.npz")) == 0
    assert "6 of which were there" in capsys.readouterr().out
    for options in (["--sampler", "ddim"], ["--no-provenance"], ["--first", 1]):
        refused(sample("set.npz", *options), capsys, "set.npz", "not overwritten")
    refused(sample("set.npz", n=7), capsys, "not overwritten")
    refused(sample("set.npz", seed=5), capsys, "not overwritten")
    assert everything_below(sample_set.Path()) == before


def test_parts_of_another_set_are_not_mixed_in(sample, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SampleSet, "pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert main(sample("set.npz")) == 130
    refused(sample("set.npz", seed=5), capsys, "set.npz.parts", "seed")


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_no_png_can_hold_go_into_an_npz(channels, tmp_path):
    model = tiny_model(channels=1)
    model.format = ImageFormat(channels, 8, 8)
    model.network = UNet(
        in_channels=channels, out_channels=channels, image_size=(8, 8), ch=8, ch_mult=(1,),
        num_res_blocks=1, attn_resolutions=(), dropout=0, norm_groups=4,
    )  # fmt: skip
    drawing = Drawing(model.__class__(**{**vars_of(model)}), "model", plan=Plan(3))
    samples = SampleSet(tmp_path / "parts", drawing, arrays=True)
    samples.fill(range(3))
    samples.pack(range(3), tmp_path / "set.npz")
    expected = drawing.model.sample(3, plan=Plan(3)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.load(tmp_path / "set.npz")["arr_0"], expected)


def vars_of(model):
    """The fields of a model."""
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


# -- one set, many processes ---------------------------------------------------------------------

PROCESS = """
import sys, time
from ddpm.cli import main
from ddpm.cli.sample_set import SampleSet
write = SampleSet._write
def slowly(self, numbers, images):
    time.sleep(0.05)
    print("drew", len(numbers), flush=True)
    write(self, numbers, images)
SampleSet._write = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("out", ["set", "set.npz"])
def test_processes_that_know_nothing_of_each_other_share_a_set(sample, out, tmp_path):
    n, processes = 96, 3
    assert main(sample(f"alone-{out}", n=n, size=4)) == 0
    command = [sys.executable, "-c", PROCESS, *sample(out, n=n, size=4)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    together, alone = everything_below(tmp_path), {}
    for path in list(together):
        if f"alone-{out}" in str(path):
            alone[str(path).replace("alone-", "")] = together.pop(path)
    assert {str(path): data for path, data in together.items()} == alone
    drawn = sum(
        int(line.split()[1]) for text in said for line in text.splitlines() if line[:4] == "drew"
    )
    assert n <= drawn < 2 * n  # not every process drew everything


def test_another_process_at_work_makes_this_one_begin_elsewhere(run, tmp_path):
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)))
    assert samples.missing(range(8)) == (list(range(8)), 0)
    sign = tmp_path / "set" / f".{os.getppid()}@{sample_set.socket.gethostname()}.working"
    sign.touch()
    missing, key = samples.missing(range(8))
    sign.unlink()
    assert missing == list(range(8))
    assert key > 0
    assert samples.missing(range(8))[1] == 0  # it has ended


def test_the_sign_of_a_process_that_was_killed_goes(run, tmp_path):
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)))
    samples.missing(range(2))
    dead = tmp_path / "set" / f".99999999@{sample_set.socket.gethostname()}.working"
    dead.touch()
    assert samples.missing(range(2))[1] == 0
    assert not dead.exists()


def test_an_image_that_another_process_draws_meanwhile_is_not_drawn_again(
    run, tmp_path, monkeypatch
):
    drawing = Drawing(load(run), str(run), plan=Plan(2), batch_size=2)
    samples, others = (SampleSet(tmp_path / name, drawing) for name in ("set", "other"))
    others.fill(range(6))
    written, write = [], SampleSet._write

    def and_others(self, numbers, images):
        written.extend(numbers)
        write(self, numbers, images)
        for number in (2, 5):  # somebody else's
            shutil.copy(others.path(number), samples.path(number))

    monkeypatch.setattr(SampleSet, "_write", and_others)
    samples.fill(range(6))
    assert written == [0, 1, 3, 4]
    assert images_of(tmp_path / "set").tolist() == images_of(tmp_path / "other").tolist()


def test_of_two_processes_that_begin_together_one_sees_the_other(run, tmp_path, monkeypatch):
    """Nothing is drawn between the two, so only what is left before looking can be seen."""
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)))
    assert samples.missing(range(4))[1] == 0
    other = os.getppid()
    monkeypatch.setattr(sample_set.os, "getpid", lambda: other)
    assert samples.missing(range(4))[1] == other


def test_a_process_leaves_no_sign_behind(run, tmp_path, monkeypatch):
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)))
    samples.fill(range(2))
    monkeypatch.setattr(SampleSet, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        samples.fill(range(4))
    assert not list((tmp_path / "set").glob(".*"))


@pytest.mark.parametrize("name", ["missing", "_write", "_is_there", "pack"])
def test_an_npz_that_another_process_ends_is_drawn_no_further(sample, name, tmp_path, monkeypatch):
    """Its parts are then removed, whatever this process is at: nothing fails, nothing is left."""
    assert main(sample("set.npz")) == 0
    shutil.move("set.npz", "ended")
    written, write, patched = [], SampleSet._write, getattr(SampleSet, name)

    def counted(self, numbers, images):
        written.extend(numbers)
        write(self, numbers, images)

    def ended(self, *arguments):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copy("ended", "set.npz")
        return (counted if name == "_write" else patched)(self, *arguments)

    monkeypatch.setattr(SampleSet, "_write", counted)
    monkeypatch.setattr(SampleSet, name, ended)
    assert main(sample("set.npz")) == 0
    assert len(written) == {"_write": 2, "pack": 6}.get(name, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "set.npz"]
    assert (tmp_path / "ended").read_bytes() == (tmp_path / "set.npz").read_bytes()


def test_a_strip_beside_other_processes_is_the_strip_of_one(sample, tmp_path):
    assert main(sample("alone", "--progressive")) == 0
    (tmp_path / "set").mkdir()
    sign = f".{os.getppid()}@{sample_set.socket.gethostname()}.working"
    (tmp_path / "set" / sign).touch()
    assert main(sample("set", "--progressive")) == 0
    alone, beside = (tmp_path / f"{name}-progressive.png" for name in ("alone", "set"))
    assert np.array_equal(np.array(Image.open(alone)), np.array(Image.open(beside)))


# -- what is finished, and what is not -----------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 20, 100, -1, -12])
@pytest.mark.parametrize("options", [[], ["--no-provenance"]], ids=["marked", "unmarked"])
def test_an_image_that_was_cut_off_is_drawn_again(sample, left, options, tmp_path):
    assert main(sample("set", *options)) == 0
    before = everything_below(tmp_path)
    path = tmp_path / "set" / "000003.png"
    path.write_bytes(path.read_bytes()[:left])
    assert main(sample("set", *options)) == 0
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("left", [0, 10, 128, 150])
def test_a_part_that_was_cut_off_is_drawn_again(run, left, tmp_path):
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)), arrays=True)
    samples.fill(range(4))
    before = everything_below(tmp_path)
    path = samples.path(2)
    path.write_bytes(path.read_bytes()[:left])
    assert samples.fill(range(4)) == 1
    assert everything_below(tmp_path) == before


def test_an_image_under_anothers_number_is_refused(sample, capsys, tmp_path):
    assert main(sample("set")) == 0
    shutil.copy(tmp_path / "set" / "000001.png", tmp_path / "set" / "000003.png")
    before = everything_below(tmp_path)
    refused(sample("set"), capsys, "000003.png")
    assert everything_below(tmp_path) == before


def test_a_set_keeps_the_precision_that_it_began_with(sample, capsys, tmp_path):
    assert main(sample("half", "--precision", "bf16", n=4)) == 0
    assert main(sample("half")) == 0  # the model's own is fp32
    assert main(sample("whole", "--precision", "bf16")) == 0
    assert images_of(tmp_path / "half").tolist() == images_of(tmp_path / "whole").tolist()
    refused(sample("half", "--precision", "fp32"), capsys, "precision")


def test_a_set_may_begin_at_any_number(sample, tmp_path):
    assert main(sample("set", n=6)) == 0
    assert main(sample("two", "--first", 2, n=3)) == 0
    assert sorted(p.name for p in (tmp_path / "two").glob("*.png")) == [
        f"{i:06d}.png" for i in (2, 3, 4)
    ]
    for path in (tmp_path / "two").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "set" / path.name).read_bytes()
    assert main(sample("two", n=6)) == 0
    assert images_of(tmp_path / "two").tolist() == images_of(tmp_path / "set").tolist()


def test_the_first_image_of_a_picture_may_have_any_number(run):
    model = load(run)
    some = model.sample(3, first=4, seed=1, plan=Plan(5))
    assert torch.equal(some, model.sample(7, seed=1, plan=Plan(5), batch_size=3)[4:])


@pytest.mark.parametrize("first", [-1, "x", 1.5])
def test_a_first_number_that_is_none_is_refused(sample, first, capsys):
    refused(sample("set", "--first", first), capsys, "--first")
    assert not sample_set.Path("set").exists()


@pytest.mark.slow
def test_a_set_of_a_real_network_is_the_same_however_it_was_gone_on_with(tmp_path, monkeypatch):
    """Kernels round otherwise at another batch size, so a set keeps its own."""
    monkeypatch.chdir(tmp_path)
    command = ["sample", "cifar10-small", "-n", "5", "--steps", "6", "--out"]
    assert main([*command, "whole"]) == 0
    shutil.copytree("whole", "again")
    for number in (1, 3):
        (tmp_path / "again" / f"{number:06d}.png").unlink()
    assert main([*command, "again"]) == 0
    assert main([*command[:3], "7", *command[4:], "again"]) == 0
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_set_keeps_the_batch_size_that_it_began_with(sample, caplog, tmp_path):
    assert main(sample("set", size=2)) == 0
    with caplog.at_level("INFO", "ddpm"):
        assert main(sample("set", size=5, n=8)) == 0
    assert "2 images at a time" in caplog.text
    assert main(sample("other", size=2, n=8)) == 0
    for path in (tmp_path / "set").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_a_strip_of_a_finished_npz_is_refused(sample, capsys, tmp_path):
    assert main(sample("set.npz")) == 0
    refused(sample("set.npz", "--progressive"), capsys, "--progressive")
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


def test_parts_of_a_larger_npz_are_not_thrown_away(sample, capsys, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SampleSet, "pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert main(sample("set.npz")) == 130
    before = everything_below(tmp_path)
    refused(sample("set.npz", n=4), capsys, "larger set")
    assert everything_below(tmp_path) == before
    assert main(sample("set.npz")) == 0


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_half_written_files_of_other_machines_stay(run, host, tmp_path):
    samples = SampleSet(tmp_path / "set", Drawing(load(run), str(run), plan=Plan(2)))
    samples.missing(range(2))
    partial = tmp_path / "set" / ".000001.png.99999999.partial"
    partial.touch()
    if host:
        (tmp_path / "set" / f".7@{host}.working").touch()
    samples.missing(range(2))
    assert partial.exists() == (host is not None)


def test_what_a_killed_packing_left_is_cleared_away(sample, tmp_path):
    assert main(sample("set.npz")) == 0
    (tmp_path / "set.npz.parts").mkdir()
    (tmp_path / "set.npz.parts" / "000001.npy").touch()
    assert main(sample("set.npz")) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.parametrize("name", ["guidance-1.5", "v1.0", "SET.NPZ", "A.PNG"])
def test_names_with_a_dot(sample, name, tmp_path):
    assert main(sample(name, n=2)) == 0
    assert (tmp_path / name).is_dir() == (name[0] in "gv")


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x.TIF"])
def test_other_forms_are_refused(sample, name, capsys):
    refused(sample(name), capsys, name)


def test_hidden_files_of_a_system_do_not_stand_in_the_way(sample, tmp_path):
    assert main(sample("set", n=2)) == 0
    (tmp_path / "set" / ".DS_Store").touch()
    assert main(sample("set")) == 0
