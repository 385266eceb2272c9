"""The page: what is missed comes first, headline figures before others, and its text survives Markdown and HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.paper.blocks import Grid, Heading, Paragraph, line
from simulator.paper.cells import amount, change_rows, published, seconds, share
from simulator.paper.experiment import BEYOND, SARATHI, SARATHI_SERVE, Change, Experiment, Finding, Findings, Table
from simulator.paper.html_page import body
from simulator.paper.markdown import markdown
from simulator.paper.page import TITLE, blocks
from simulator.paper.result import Result, misses, tally
from simulator.trials.plan import Plan


def never(_: object) -> Plan[Findings]:
    raise AssertionError("is not carried out")


def finding(name: str, ours: float, **more: object) -> Finding:
    return Finding(**{"name": name, "published": 2.0, "ours": ours, "unit": "x", "source": "table 4", **more})  # type: ignore[arg-type]


def result(name: str, paper: str, *findings: Finding, **more: object) -> Result:
    experiment = Experiment(name=name, title=name.title(), paper=paper, shows=f"{name}!", about_s=5, plan=never)
    found = Findings(**{"findings": findings, "panels": (), "stands_on": ("an A100.",), **more})  # type: ignore[arg-type]
    return Result(experiment=experiment, found=found)


RESULTS = (
    result("first", SARATHI, finding("a", 2.1), finding("b", 3.0), finding("c", 9.0, limit=None)),
    result(
        "second",
        SARATHI_SERVE,
        finding("d", 1.0, headline=True, cause="an engine", reason="graphs."),
        finding("e", 2.0, headline=True),
        changes=(Change(finding="d", what="no graphs", ours=1.8), Change(finding="e", what="other", ours=1.0)),
    ),
    result("third", BEYOND, tables=(Table(title="Today", head=("device", "gain"), rows=(("H100", "1.2x"),)),)),
)


def text_of(results: tuple[Result, ...]) -> str:
    return "".join(markdown(TITLE, blocks(results, "python -m simulator paper --all"), ()))


def test_headline_misses_come_first_and_what_is_not_judged_is_none() -> None:
    assert [missed.name for _, missed in misses(RESULTS)] == ["d", "b"]
    assert tally(RESULTS) == "2 of 4 judged figures lie within their limits; of the headline figures 1 of 2."
    assert tally(RESULTS[:1]) == "1 of 2 judged figures lie within their limits."
    assert tally(RESULTS[2:]) == "No figure is judged."


def test_a_figure_without_a_value_is_missed() -> None:
    lost = finding("nan", float("nan"))
    assert lost.missed
    assert tally((result("lost", SARATHI, lost),)) == "0 of 1 judged figures lie within their limits."
    assert "| nan | table 4 | 2x | –x | – | 15 % | **missed** |" in text_of((result("lost", SARATHI, lost),))


def test_the_page_begins_with_the_tally_and_what_is_missed() -> None:
    text = text_of(RESULTS)
    assert text.startswith(f"# {TITLE}\n\n**{tally(RESULTS)}**\n")
    assert [line.lstrip("# ") for line in text.splitlines() if line.startswith("## ")] == [
        "What is missed", "Headline figures within their limits", "The experiments", SARATHI, SARATHI_SERVE, BEYOND,
    ]  # fmt: skip
    first, rest = text.split("## Headline figures within their limits")
    rows = [line for line in first.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| **d** | [second](#second) | 2x | 1x | -50.0 % | 15 % | an engine |",
        "| b | [first](#first) | 2x | 3x | +50.0 % | 15 % | not explained |",
    ]
    headlines, rest = rest.split("## The experiments")
    assert "| **e** | [second](#second) | 2x | 2x | +0.0 % | 15 % |" in headlines
    assert "**d**" not in headlines
    assert "- **d**: graphs.\n" in rest
    assert "- **b**: No reason has been found.\n" in rest
    anchors = set(re.findall(r'<a id="([^"]+)">', text))
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    assert "| device | gain |\n| :-- | --: |\n| H100 | 1.2x |\n" in text


def test_reasons_and_changes_are_told_once() -> None:
    low, high = finding("low", 1.0, reason="graphs."), finding("high", 3.0, reason="graphs.")
    text = text_of((result("one", SARATHI, low, high, changes=(Change(finding="low", what="more", ours=1.5),)),))
    assert text.count("graphs.") == 1
    assert "- **low; high**: graphs.\n" in text
    assert text.count("more") == 1


def test_changes_are_rows_where_there_are_more_of_them_than_findings() -> None:
    one, two = finding("one", 3.0), finding("two", 1.0)
    few = result("few", SARATHI, one, two, changes=(Change(finding="two", what="all else", ours=1.8),))
    assert change_rows(few.found) == (
        ("figure", "published", "ours", "all else"),
        [("two", "2x", "1x", "1.80x (-10.0 %)")],
    )
    changes = tuple(Change(finding="one", what=what, ours=5.0) for what in ("this", "that"))
    head, rows = change_rows(result("many", SARATHI, one, two, changes=changes).found)
    assert head == ("what is changed", "one")
    assert rows == [("published", "2x"), ("ours", "3x"), ("this", "5x (2.5 times)"), ("that", "5x (2.5 times)")]
    both = (*changes, Change(finding="two", what="this", ours=2.0))
    _, rows = change_rows(result("gap", SARATHI, one, two, changes=both).found)
    assert rows == [("one", "2x", "3x", "5x (2.5 times)", "5x (2.5 times)"), ("two", "2x", "1x", "2x (+0.0 %)", "")]


def test_what_experiments_of_a_paper_share_is_told_before_them() -> None:
    shared, own = "Requests are drawn.", "One draw."
    results = (
        result("one", SARATHI, notes=(shared, own)),
        result("two", SARATHI, notes=(shared,)),
        result("three", SARATHI_SERVE, notes=(shared,)),
    )
    text = text_of(results)
    chapter = text[text.index("## SARATHI") : text.index("### One")]
    assert f"- {shared} ([one](#one), [two](#two))\n" in chapter
    assert "- an A100. ([one](#one), [two](#two))\n" in chapter
    assert text.count(shared) == 2
    assert text.index(own) > text.index("### One")
    assert text.rindex(shared) > text.index("### Three")


def test_a_page_without_misses_says_so() -> None:
    text = text_of((result("second", SARATHI_SERVE, finding("e", 2.0)),))
    assert "**1 of 1 judged figures lie within their limits.**" in text
    assert "## What is missed\n\nNothing.\n" in text
    assert "With one thing changed" not in text


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tag = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tag = tag
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def handle_data(self, data: str) -> None:
        if self.tag == "td":
            self.cells[-1] += data


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_any_text_survives(text: str) -> None:
    grid = Grid(("what",), ((line(text),),))
    _, _, head, rule, row = "".join(markdown(TITLE, [grid], ())).split("\n", 4)
    assert (head, rule) == ("| what |", "| :-- |")
    inside = row.removeprefix("| ").removesuffix(" |\n")
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", inside)
    assert re.sub(r"\\(.)", r"\1", inside) == text
    parser = Texts()
    parser.feed("".join(body([grid])))
    assert parser.cells == [text]


def test_a_line_does_not_become_an_item_of_a_list() -> None:
    text = "".join(
        markdown("t", [Paragraph(line("- 3. of"), soft=True), Paragraph(line("4. of")), Heading(2, "a_b", "a-b")], ())
    )
    assert "\n\\- 3. of\n" in text
    assert "\n4\\. of\n" in text
    assert '<a id="a-b"></a>\n\n## a\\_b\n' in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (published(finding("a", 1.0, published=4.25)), "4.25x"),
        (published(finding("a", 1.0, published=10)), "10x"),
        (published(finding("a", 1.0, published=1234.5, unit="ms")), "1,234.5 ms"),
        (amount(26.0, "sequences"), "26 sequences"),
        (amount(6.2871, "x"), "6.29x"),
        (amount(0.0, "s"), "0 s"),
        (share(0.1234), "+12.3 %"),
        (share(float("nan")), "–"),
        (share(0.877), "+87.7 %"),
        (share(5.781), "6.8 times"),
        (seconds(20), "20 s"),
        (seconds(150), "2 min"),
    ],
)
def test_figures_read_as_people_say_them(text: str, expected: str) -> None:
    assert text == expected
