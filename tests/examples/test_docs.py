"""Every snippet of the documentation runs, and prints what it is said to print."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.database import Server
from tests.examples import page as pages
from tests.examples import reader
from tests.examples.page import ROOT
from tests.examples.reader import Reader
from tests.nursery import Nursery

_LINK = re.compile(r"\]\(([^)#\"]*)(#[\w-]+)?\)")


@pytest.mark.parametrize("page", [page for page in pages.pages() if pages.blocks(page)])
def test_page_does_what_it_says(page: str, nursery: Nursery, project: Path, server: Server, template: str) -> None:
    blocks = pages.blocks(page)
    with ExitStack() as databases, ExitStack() as stack:
        dsn = None if reader.makes_project(blocks) else databases.enter_context(server.new_database(template))
        reading = Reader(nursery, project, dsn, lambda: databases.enter_context(server.new_database()))
        stack.callback(reading.close)
        if dsn is not None and reader.needs_worker(blocks):
            reading.save_all(blocks)
            reading.serve()
            blocks = [block for block in blocks if block.file is None]
        for block in blocks:
            reading.read(block)
        assert not reading.tasks_never_run(), f"{page} shows these tasks, and triggers none of them"


@pytest.mark.parametrize("page", pages.pages())
def test_block_of_a_page_has_a_language_that_is_checked(page: str) -> None:
    assert {block.language for block in pages.blocks(page)} <= {"python", "console", "mermaid"}


@pytest.mark.parametrize("page", pages.pages())
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    for target, heading in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if heading:
            assert heading[1:] in _headings(file), f"{page} links to {target}{heading}"


def _headings(file: Path) -> set[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
