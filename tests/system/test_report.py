"""The report: every figure or the reason why not, on one page that needs nothing but itself."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.data.digits import digits
from ddpm.evaluation import paper, pixel_frechet_distance
from ddpm.figures.named import FIGURES
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import KEY, Provenance, fingerprint
from full_range import one_thread
from helpers import checkpoint_path, measured_model, tiny_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # a whole report

NAME = "a run <b> & größer"
FEW = ["--samples", "4", "--images", "2", "--steps", "3"]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page says, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.rows, self.words = [], [], [], []
        self.sources, self.links, self.wrong = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.sources += [known["src"]] if "src" in known else []
        self.links += [known["href"]] if "href" in known else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "h2":
            self.headings.append(data)
        elif inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif inside in ("p", "h1", "title"):
            self.words.append(data)


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run of a measured model of digits, with a result of `ddpm evaluate`, and its report."""
    folder = tmp_path_factory.mktemp("report") / NAME
    with one_thread():
        measured_model(timesteps=4).save(checkpoint_path(folder, 3))
        (folder / "stats.jsonl").write_text(
            "".join(json.dumps({"step": i, "loss": 1 / (i + 1)}) + "\n" for i in range(9))
        )
        assert main(["evaluate", str(folder), "--bpd", "--images", "3"]) == 0
        assert main(["report", str(folder), *FEW]) == 0
    return folder


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


def reasons(page):
    """What is not on the page, and why."""
    if "What is not on this page" not in page.headings:
        return {}
    start = page.rows.index(["", "why"])
    return dict(page.rows[start + 1 :])


def heading(name):
    return name.replace("-", " ").capitalize()


def test_the_page_is_well_formed(page):
    assert page.wrong == []
    assert page.open == []


def test_every_figure_is_there_or_the_reason_why_not(page):
    missing = reasons(page)
    for name in set(FIGURES) - {"rate-distortion"}:
        assert (heading(name) in page.headings) != (f"figure {name}" in missing), name
    assert missing.keys() == {"figure classes"}
    assert "knows no classes" in missing["figure classes"]
    assert any("Figure 5" in words for words in page.words)  # rate-distortion


def test_every_measure_is_there(page):
    for name in ("Likelihood", "Compression", "Training", "Samples beside real images"):
        assert name in page.headings
    for title in ("Table 1: CIFAR-10", "Table 4: progressive coding"):
        assert title in page.headings
    firsts = [row[0] for row in page.rows]
    assert "recognised by a classifier with probability over 0.9" in firsts
    assert "this model, 4 optimal steps" in firsts
    assert "this codec, one archive" in firsts


def test_the_papers_numbers_stand_beside_ours(page):
    (ours,) = [row for row in page.rows if row[0] == "this model" and len(row) == 6]
    assert ours[1:4] == ["", "", ""]  # no FID and no Inception score
    assert ours[4].startswith("≤ ")  # as measured before
    assert ours[5] == ""
    for row in paper.TABLE1:
        assert [f"{row.inception_score:.2f}", f"{row.fid:.2f}"] in [r[1:3] for r in page.rows]
    said = " ".join(page.words)
    assert "Inception takes RGB" in said
    assert "ddpm reproduce table1" in said


def test_what_was_measured_before_is_shown(run, page):
    (path,) = (run / "evaluation").glob("bpd-*.json")
    value = json.loads(path.read_text())["bits_per_dim"]
    (row,) = [row for row in page.rows if row[0] == path.stem]
    assert row[2].startswith(f"{value:.4f} ± ")
    assert path.stem in page.words  # its picture


def test_bits_per_dim_are_those_of_the_model(run, page):
    (row,) = [row for row in page.rows if row[0] == "this model, 4 even steps"]
    model = load(run)
    bound = model.bound(digits("test").images[:2], plan=Plan(4, "even", "analytic"))
    assert row[1] == f"{bound.mean:.3f} ± {bound.standard_error:.3f} (standard error)"


def test_distances_beside_each_other_are_of_sets_as_large(page):
    (row,) = [row for row in page.rows if row[0].startswith("Frechet distance to held-out")]
    training, held_out = digits("train").images[:4], digits("test")
    expected = pixel_frechet_distance(training, held_out.images, held_out.format)
    assert row[2] == f"{expected:.3f} (4 training digits)"


def test_nothing_is_fetched_from_elsewhere(run, page):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert page.links == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    without = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"https?:|<script|<link|url\(|@import|<iframe", without)


def test_every_picture_opens_and_says_where_it_comes_from(run, page):
    assert len(page.sources) >= len(FIGURES)
    known = fingerprint(load(run))
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            picture.load()
            assert min(picture.size) > 8
            found = Provenance.parse(picture.text[KEY])
        assert (found.model, found.command[0], found.synthetic) == (known, "report", True)
        assert str(run.parent) not in picture.text[KEY]


def test_names_are_escaped(run, page):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert NAME in page.words[0]
    assert "<b>" not in text
    assert fingerprint(load(run)) in text


def test_the_page_names_no_folder_of_this_machine(run, page):
    assert str(run.parent) not in (run / "report.html").read_text(encoding="utf-8")


def test_a_second_report_is_another_file(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report-1.html").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpm.cli.report.fill", lambda work: None)
        assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == before
    assert (run / "report-1.html").read_text() == "mine"
    assert str(run / "report-2.html") in capsys.readouterr().out


def test_the_report_of_a_file_or_of_a_name_lies_where_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddpm.cli.report.fill", lambda work: None)
    tiny_model().save(tmp_path / "of mine.safetensors")
    assert main(["report", "of mine.safetensors"]) == 0
    assert main(["report", "cifar10-small"]) == 0
    assert (tmp_path / "of mine-report.html").is_file()
    assert (tmp_path / "cifar10-small-report.html").is_file()


def test_what_cannot_be_made_is_said_with_its_reason(tmp_path, capsys):
    """A model without images, without its error measured and without a run."""
    model = tiny_model(timesteps=4)
    config = replace(model.config, data=replace(model.config.data, path=None))
    Ddpm(config, model.format, model.network, history=model.history).save(
        tmp_path / "m.safetensors"
    )
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "m.safetensors"), *FEW, "--out", str(out)]) == 0
    page, said = Page(out.read_text(encoding="utf-8")), capsys.readouterr().out
    missing = reasons(page)
    shown = {name for name, kind in FIGURES.items() if kind.split is None} - {"classes"}
    for name in shown:
        assert heading(name) in page.headings
    parts = ("measures of samples", "likelihood and figure rate-distortion", "compression")
    absent = {f"figure {name}" for name in FIGURES if name not in shown} - {
        "figure rate-distortion"
    }
    assert missing.keys() == {*absent, *parts, "training curve"}
    for name in {*absent, *parts} - {"figure classes"}:
        assert "set --data" in missing[name], missing[name]
    assert f"{len(missing)} parts left out" in said


def test_an_interrupted_report_leaves_nothing(run, capsys, monkeypatch):
    before = everything_below(run)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddpm.cli.report.codec_section", interrupt)
    monkeypatch.setattr("ddpm.cli.report.figure_section", lambda *_: None)
    assert main(["report", str(run), *FEW]) == 130
    assert everything_below(run) == before


MISTAKES = {
    "no run": (["report"], "needs a run"),
    "no such run": (["report", "none"], "does not exist"),
    "no such data": (["report", "RUN", "--data", "none"], "does not exist"),
    "another kind of file": (["report", "RUN", "--out", "x.png"], ".html"),
    "no ending": (["report", "RUN", "--out", "x"], ".html"),
    "there already": (["report", "RUN", "--out", "RUN/report.html"], "not overwritten"),
    "a file for a folder": (["report", "RUN", "--out", "RUN/stats.jsonl/x.html"], "stats.jsonl"),
    "the home of nobody": (["report", "RUN", "--out", "~no-such-user/x.html"], "~no-such-user"),
    "too many steps": (["report", "RUN", "--steps", "5"], "4"),
    "no steps": (["report", "RUN", "--steps", "0"], "steps"),
    "one sample": (["report", "RUN", "--samples", "1"], "--samples"),
    "no images": (["report", "RUN", "--images", "0"], "--images"),
    "two runs": (["report", "RUN", "RUN"], "Unrecognized"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_and_leaves_nothing(run, name, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    argv, words = MISTAKES[name]
    before = everything_below(run.parent)
    refused([part.replace("RUN", run.name) for part in argv], capsys, words)
    assert everything_below(run.parent) == before
