from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from simulator.figures import panels
from simulator.report import write_report
from simulator.timeline_figure import worst_window
from traces.errors import InputError
from traces.goodput import parse_goodput
from traces.metrics import measure
from traces.stalls import find_stalls

FOUR = ("faster-transformer", "orca", "vllm", "sarathi-serve")
PANELS = {"latency", "tbt", "timeline", "time-share", "composition", "queue"}


class Page(HTMLParser):
    """What a page holds, as a browser would see it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self._open = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "hr", "link", "img"):
            self._open.append(tag)
        self.scripts += tag == "script"

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def runs(played):
    rule = parse_goodput("ttft:2000 tpot:50")
    return {name: (run, measure(run, rule)) for name, run in played(*FOUR).items()}


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report") / "r.html", runs, command="compare <x> & y")


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


def test_it_needs_nothing_else(page, file):
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe"), attributes
        assert "src" not in attributes
        assert "href" not in attributes
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert file.stat().st_size < 6e6


def test_plotly_is_there_once_and_every_figure_has_its_own_name(page):
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("figure-")} == {f"figure-{name}" for name in PANELS}
    assert page.scripts == 1 + len(PANELS)


def test_what_was_run_is_said(page):
    for words in (
        "plain-7b",
        "1 x plain-gpu",
        "TP 1, PP 1",
        "2,500 KV blocks of 16 (40,000 tokens)",
        "312 TFLOP/s",
        "nothing was measured on plain-gpu",
        "measurements of other-gpu",
        "compare <x> & y",
        "max_num_batched_tokens = 512",
        "Requests within TTFT ≤ 2000 ms, TPOT ≤ 50 ms",
    ):
        assert words in page.words, words


def test_a_transfer_is_shown_as_a_caution(page):
    assert ("p", {"class": "note caution"}) in page.tags


def test_names_from_files_are_text(page):
    assert "chat <script>alert(1)</script>" in page.words


def test_the_winner_of_a_metric_is_marked(runs, file):
    rows = re.findall(r"<tr><td>TBT P99 \(ms\)</td>(.*?)</tr>", file.read_text(encoding="utf-8"))
    assert len(rows) == 1
    cells = re.findall(r'<td(?: class="(best)")?>([\d.,]+)</td>', rows[0])
    values = [metrics.tbt_s.p99 for _, metrics in runs.values()]
    assert [float(text.replace(",", "")) for _, text in cells] == pytest.approx([1e3 * v for v in values], rel=0.01)
    assert [bool(best) for best, _ in cells] == [value == min(values) for value in values]


def test_equal_runs_give_equal_bytes(runs, file, tmp_path):
    again = write_report(tmp_path / "again.html", runs, command="compare <x> & y")
    assert again.read_bytes() == file.read_bytes()


def test_every_figure_has_titles_units_and_a_caption(runs):
    for panel in panels(runs):
        assert panel.title
        assert panel.caption.endswith(".")
        axes = panel.figure.to_dict()["layout"]
        titles = [axes[name].get("title", {}).get("text") for name in axes if name.startswith("xaxis")]
        assert any(titles), panel.name


def test_figures_stay_small_however_long_the_run(runs):
    for panel in panels(runs):
        points = [len(trace["x"]) for trace in panel.figure.to_dict()["data"] if trace.get("x") is not None]
        assert max(points) <= 4 * 160 + 1, panel.name


def test_a_latency_curve_goes_from_the_fastest_to_the_slowest(runs):
    (latency,) = [panel for panel in panels(runs) if panel.name == "latency"]
    curves = [t for t in latency.figure.data if t.name == "vllm"]
    assert len(curves) == 4
    gaps = runs["vllm"][0].iterations.gap_s
    np.testing.assert_allclose([curves[1].x[0], curves[1].x[-1]], [gaps.min(), gaps.max()], rtol=1e-6)


def test_the_timeline_shows_the_stall_that_cost_the_most(runs):
    records = {name: run for name, (run, _) in runs.items()}
    window = worst_window(records)
    costs = {name: float(find_stalls(run).cost_s.max(initial=0.0)) for name, run in records.items()}
    assert window.label == max(costs, key=costs.get)
    start_s, end_s = window.stall_s
    assert window.start_s < start_s < end_s < window.end_s
    assert (end_s - start_s) * window.sequences == pytest.approx(costs[window.label])


def test_with_pipeline_parallelism_every_stage_has_a_row(played, tmp_path):
    staged = {name: (run, measure(run)) for name, run in played("vllm", "sarathi-serve", stages=2).items()}
    (timeline,) = [panel for panel in panels(staged) if panel.name == "timeline"]
    rows = {name for trace in timeline.figure.data for name in trace.y}
    assert rows == {f"{name} · stage {stage}" for name in staged for stage in (0, 1)}
    assert "bubble" in timeline.caption
    assert "TP 1, PP 2" in Page(write_report(tmp_path / "r.html", staged).read_text()).words


def test_without_stalls_the_middle_of_the_iterations_is_shown(played):
    runs = played("sarathi-serve")
    window, ends_s = worst_window(runs), runs["sarathi-serve"].iterations.end_s
    assert window.stall_s is None
    assert window.start_s < ends_s[len(ends_s) // 2] - runs["sarathi-serve"].start_s < window.end_s


def test_without_stalls_a_replica_that_runs_something_is_shown(played):
    """Here the first one has nothing to do but an iteration at the beginning."""
    run = played("sarathi-serve")["sarathi-serve"]
    (group,) = run.meta.groups
    replica = np.ones(len(run.iterations), np.int32)
    replica[0] = 0
    two = replace(
        run,
        meta=replace(run.meta, groups=(replace(group, count=2),)),
        iterations=replace(run.iterations.in_memory(), replica=replica),
    )
    assert worst_window({"two": two}).replica == 1
    (timeline,) = [panel for panel in panels({"two": (two, measure(two))}) if panel.name == "timeline"]
    assert sum(len(trace.x) for trace in timeline.figure.data) > 10


def test_one_run_has_a_report_too(runs, tmp_path):
    page = Page(write_report(tmp_path / "r.html", {"vllm": runs["vllm"]}).read_text())
    assert "vllm serves" in page.words
    assert ("td", {"class": "best"}) not in page.tags


def test_a_run_without_any_gap_has_a_report_too(played, tmp_path):
    run = played("vllm", requests=1)["vllm"]
    none = np.zeros(len(run.iterations) + 1, np.int64)
    short = replace(run.iterations.in_memory(), gap_offsets=none, gap_s=none[:0] / 1.0, gap_count=none[:0])
    silent = replace(run, iterations=short)
    assert write_report(tmp_path / "r.html", {"a": (silent, measure(silent))}).stat().st_size > 1e6


def test_nothing_is_written_where_it_cannot_be(runs, tmp_path):
    with pytest.raises(InputError, match="expected the path of a file"):
        write_report(tmp_path, runs)
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path / "r.html", {})
    assert list(tmp_path.iterdir()) == []


def test_a_browser_draws_every_figure(file, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here to open the report in")
    switches = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "dump-dom")
    switches += ("disable-background-networking", "disable-component-update", "disable-sync")
    command = [browser, *(f"--{switch}" for switch in switches), f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1280,6000", "--virtual-time-budget=10000", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for name in PANELS:
        drawn = dom.split(f'id="figure-{name}"', 1)[1].split("</figure>", 1)[0]
        assert 'class="main-svg"' in drawn, name
