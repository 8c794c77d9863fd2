"""The page: self-contained, escaped, and drawn without a script."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.plots import Bars, Lines, svg

VOID = {"meta", "rect", "line", "polyline", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, _tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        """Closed in itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page() -> str:
    bars = Bars("Bytes", ("float", "<int8>"), (4.0, 1.0), ("4", "1"))
    lines = Lines("Loss", "epoch", (("train", ((1, 3.0), (2, 2.0))), ("valid", ((1, 3.5), (2, math.nan)))))
    table = Table(("step", "bytes"), (("a & b", 1), ("c", None)))
    return render_page(
        "Sizes & <more>", [Section("One", ("Text <b>",), (table, bars)), Section("Two", blocks=(lines,))]
    )


def test_the_page_needs_nothing_from_outside_and_runs_nothing() -> None:
    assert not re.search(r"<script|<link|<img|@import|url\(|src=|href=|https?:", page())


def test_the_page_is_well_formed() -> None:
    parser = Balance()
    parser.feed(page())
    assert parser.open == []


def test_every_text_is_escaped() -> None:
    text = page()
    assert "Sizes &amp; &lt;more&gt;" in text
    assert "Text &lt;b&gt;" in text
    assert "a &amp; b" in text
    assert "&lt;int8&gt;" in text


def test_the_page_has_dark_light_and_print_colours() -> None:
    text = page()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert not re.search(r'(fill|stroke)="', text), "colours belong into the style, where dark mode can change them"


@pytest.mark.parametrize(
    "plot",
    [
        Bars("Nothing", (), (), ()),
        Bars("Zero", ("a",), (0.0,), ("0",)),
        Bars("Unknown", ("a", "b"), (math.nan, 1.0), ("–", "1")),
        Lines("Nothing", "x", ()),
        Lines("One point", "x", (("a", ((1.0, 1.0),)),)),
        Lines("Flat", "x", (("a", ((1.0, 2.0), (2.0, 2.0))),)),
        Lines("Unknown", "x", (("a", ((1.0, math.nan), (math.inf, 1.0))),)),
    ],
    ids=lambda plot: f"{type(plot).__name__}-{plot.title}",
)
def test_plots_of_odd_data_are_valid_svg_without_nan(plot: Bars | Lines) -> None:
    drawn = svg(plot)
    ElementTree.fromstring(drawn)
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_bars_are_in_proportion() -> None:
    widths = [
        float(width)
        for width in re.findall(r'width="([\d.]+)" height="16"', svg(Bars("t", ("a", "b"), (4, 1), ("", ""))))
    ]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.2)


def test_a_screen_reader_is_told_what_a_plot_shows() -> None:
    assert 'role="img" aria-label="Loss &quot;x&quot;"' in svg(Lines('Loss "x"', "epoch", ()))
