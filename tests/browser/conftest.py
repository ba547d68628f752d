"""The report in a real Chromium, offline: a request but for the page itself, or a complaint, is a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtpbench_analysis.compare import Comparison
from mtpbench_analysis.report.overview import LonePoints
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.traces import SweepTrace

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:  # pragma: no cover
    pytest.exit("playwright is missing: run `make test-browser`, which sets it up", returncode=3)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is missing: run `make test-browser`, which installs it")
    # Chromium refuses its own sandbox to root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a report as a file; at the end of the test nothing may have been asked for or complained of."""
    contexts: list[Any] = []
    seen: list[str] = []

    def open_report(
        comparisons: Sequence[Comparison],
        fragment: str = "",
        *,
        title: str = "report",
        traces: Sequence[SweepTrace] = (),
        alone: LonePoints | None = None,
        **context: Any,
    ) -> Page:
        path = tmp_path / f"report{len(contexts)}.html"
        path.write_text(render_page(title, comparisons, ["left out"], ["provenance"], traces, alone), "utf-8")
        made = chromium.new_context(accept_downloads=True, **context)
        contexts.append(made)
        page = made.new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.split("#")[0] == path.as_uri() or request.url.startswith(("data:", "blob:"))
                else seen.append(f"request: {request.url}")
            ),
        )
        page.goto(path.as_uri() + fragment)
        return page

    yield open_report
    for made in contexts:
        made.close()
    assert seen == []
