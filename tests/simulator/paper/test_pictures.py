"""Figures as SVG: the same bytes each time, and names of their parts that nothing was drawn by lot for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest

from simulator.figure_style import Panel, style
from simulator.paper.pictures import draw, with_stable_names

CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def panel(name: str, height: int) -> Panel:
    """A figure with clips, gradients, patterns and two legend entries."""
    line = go.Scatter(x=[1, 2, 3], y=[1, 4, 2], name="ours", fill="tozeroy")
    bars = go.Bar(x=[1, 2], y=[1, 2], name="théirs", marker={"pattern": {"shape": "/"}})
    heat = go.Heatmap(x=[1, 2, 3], y=[4, 5], z=[[1, 2, 3], [3, 4, 5]], name="heat")
    figure = style(go.Figure([line, bars, heat]), height=height)
    return Panel(name=name, title="", caption="", figure=figure)


@pytest.fixture
def browser() -> None:
    pytest.importorskip("kaleido", reason="kaleido, which has figures drawn, is not installed")
    if not any(map(shutil.which, CHROMES)):
        pytest.skip("there is no Chrome or Chromium to draw figures")


@pytest.mark.usefixtures("browser")
def test_equal_figures_are_drawn_to_equal_bytes() -> None:
    first = draw([panel("one", 480), panel("two", 300)])
    second = draw([panel("one", 480), panel("two", 300)])
    assert first.missing == ""
    assert first == second
    assert set(first.drawings) == {"one", "two"}
    sizes = {}
    for name, drawing in first.drawings.items():
        root = ElementTree.fromstring(drawing)
        sizes[name] = root.get("width"), root.get("height")
        named = set(re.findall(r'\bid="([^"]+)"', drawing))
        used = set(re.findall(r"""url\((?:['"]|&quot;)?#([^'")&]+)""", drawing))
        assert used
        assert used <= named
    assert sizes == {"one": ("900", "480"), "two": ("900", "300")}
    assert "théirs" in first.drawings["one"]


def test_only_names_are_renamed() -> None:
    drawn = '<defs id="defs-123456"/><clipPath id="clip123456xy"/><g clip-path="url(#clip123456xy)" d="M0.123456,7"/>'
    stable = with_stable_names(drawn, "speed")
    assert (
        stable
        == '<defs id="defs-speed-"/><clipPath id="clipspeed-xy"/><g clip-path="url(#clipspeed-xy)" d="M0.123456,7"/>'
    )
    assert "url('#gspeed--cb')" in with_stable_names(drawn + "<g style=\"fill: url('#g123456-cb')\"/>", "speed")
    with pytest.raises(ValueError, match="plotly"):
        with_stable_names("<svg/>", "speed")


@pytest.mark.usefixtures("browser")
@pytest.mark.parametrize(
    ("path", "why"), [("/nowhere/chromium", "no browser was found"), ("/bin/false", "the browser failed")]
)
def test_without_a_browser_nothing_is_drawn_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, why: str
) -> None:
    monkeypatch.setenv("BROWSER_PATH", path)
    pictures = draw([panel("one", 480)])
    assert not pictures.drawings
    assert why in pictures.missing


def test_without_kaleido_nothing_is_drawn_and_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kaleido.py").write_text("raise ModuleNotFoundError('gone', name='kaleido')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pictures = draw([panel("one", 480)])
    assert not pictures.drawings
    assert "kaleido is not installed" in pictures.missing
