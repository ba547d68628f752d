"""Markdown: what a user named is read as it was written, by a reader of CommonMark as GitHub is one."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from mtpbench_analysis.document import Document, List, Table, Text
from mtpbench_analysis.render.markup import escape_markdown, to_markdown

NASTY = (
    "_leading and trailing_",
    "__init__ and __name__",
    "max_num_seqs, dp_size=8",
    "a _b c_ d",
    "(_x_), “_y_”, -_z_-",
    "*star* **stars** a*b",
    "`code` [link](address) ![image](address)",
    "<b>bold</b> and <script>",
    "back\\slash \\_ \\*",
    "a|b",
)


TAGS = re.compile(r"</?(?:p|li|ul|td|th|tr|table|tbody|thead|h[23])[^>]*>")


def plain(rendered: str) -> str:
    return html.unescape(TAGS.sub("", rendered)).strip()


@pytest.mark.parametrize("text", NASTY)
def test_a_name_comes_out_as_it_was_written(text: str) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    assert plain(reader.render(escape_markdown(text))) == text
    table = to_markdown([Document(title="t", simulated=False, blocks=(one_cell(text),))])
    assert plain(reader.render(table)).splitlines()[-1] == text


def one_cell(text: str) -> Table:
    return Table(title="table", headers=("head",), rows=((text,),))


def test_an_underscore_within_a_word_stays_readable() -> None:
    assert escape_markdown("max_num_seqs, off_1xTP8_c4, β_1") == "max_num_seqs, off_1xTP8_c4, β_1"
    assert escape_markdown("_x_ costs $1") == r"\_x\_ costs \$1"


def test_a_document_is_a_heading_and_its_blocks_in_their_order() -> None:
    blocks = (Text(lines=("first", "second")), one_cell("x"), List(id="l", title="Careful", items=("a", "b")))
    text = to_markdown([Document(title="what", simulated=True, blocks=blocks)], ["left"])
    assert text == (
        "## SIMULATED: what\n\n"
        "> **SIMULATED: these figures come from a model of the engine, not from hardware.**\n\n"
        "- first\n- second\n\n### table (SIMULATED)\n\n| head |\n|---|\n| x |\n\n"
        "### Careful\n\n- a\n- b\n\n## Not used\n\n- left\n"
    )
