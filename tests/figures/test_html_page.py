"""The report: one page that needs nothing but itself."""

import base64
import io
import re

import pytest
from PIL import Image

from ddpm.errors import DdpmError
from ddpm.figures.html_page import HtmlPage


@pytest.fixture
def page(tmp_path):
    """A page with one of everything."""
    report = HtmlPage("A <title> & more")
    report.section("Samples")
    report.text("1 < 2")
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    report.picture(picture, 'A "caption"')
    report.table(["", "value"], [["a & b", "1"], ["c", "2"]])
    report.write(tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_words_are_escaped(page):
    assert page.count("A &lt;title&gt; &amp; more") == 2  # the tab's title and the heading
    assert "<p>1 &lt; 2</p>" in page
    assert 'alt="A &quot;caption&quot;"' in page
    assert "<td>a &amp; b</td>" in page


def test_pictures_are_inside_the_page_pixel_for_pixel(page):
    (source,) = re.findall(r'src="([^"]*)"', page)
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (picture.format, picture.size, picture.getpixel((2, 1))) == ("PNG", (3, 2), (10, 20, 30))


def test_nothing_is_fetched_from_elsewhere(page):
    assert not re.search(r"https?:|<script|<link|url\(|@import", page)


def test_parts_come_in_the_order_they_were_added(page):
    places = [page.index(part) for part in ("<h1>", "<h2>Samples", "<p>1", "<img", "<table>")]
    assert places == sorted(places)
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", page) == ["", "value", "a &amp; b", "1", "c", "2"]


def test_a_page_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DdpmError, match="cannot write"):
        HtmlPage("x").write(tmp_path / "file" / "report.html")
