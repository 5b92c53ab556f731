from pathlib import Path

import pytest

pytest.importorskip("scipy")

from benchmarks.markdown import image, link, replace_block, table


def test_links_and_pictures_are_relative_to_the_page():
    page = Path("docs/a.md")
    assert link(Path("results/b.json"), page) == "[results/b.json](../results/b.json)"
    assert link(Path("results/b.json"), page, "json") == "[json](../results/b.json)"
    assert image(Path("docs/images/c.png"), page) == "![c](images/c.png)"
    assert image(Path("docs/images/c.png"), page, "a curve") == "![a curve](images/c.png)"


def test_a_table():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_a_block_is_replaced_and_all_around_it_stays():
    page = "a\n<!-- x: begin -->\nold\n\n<!-- y: begin -->\n<!-- x: end -->\nb\n"
    replaced = replace_block(page, "x", ["new", "lines"])
    assert replaced == "a\n<!-- x: begin -->\n\nnew\nlines\n\n<!-- x: end -->\nb\n"
    assert replace_block(replaced, "x", ["new", "lines"]) == replaced


@pytest.mark.parametrize(
    "page",
    [
        "<!-- x: end -->\n<!-- x: begin -->\n",
        "<!-- x: begin -->\n",
        "<!-- x: begin -->\n<!-- x: end -->\n<!-- x: end -->\n",
        "<!-- y: begin -->\n<!-- y: end -->\n",
    ],
)
def test_a_block_that_is_not_there_once(page):
    with pytest.raises(ValueError, match=r"must hold a line <!-- x: begin --> and after it a line <!-- x: end -->, each once"):
        replace_block(page, "x", [])
