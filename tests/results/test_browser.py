"""The page in a real browser: figures, tables, accessibility, and names that are no markup."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import unperturbed as un
from support.shares import first
from unperturbed.reports.document import data_table

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
PATIENCE = 180_000
"""Milliseconds: a busy machine takes long to start a browser."""

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium was found: apt-get install chromium")


@dataclass
class Opened:
    """A page in the browser, and everything that it did which it must not do."""

    page: playwright.Page
    report: un.Report
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def opened(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Yield the page of two runs."""
    report = un.report([made / "a", made / "b"], tmp_path_factory.mktemp("browser") / "report.html")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        opened = Opened(page, report)
        page.on("console", lambda message: opened.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (opened.complaints.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                opened.complaints.append(request.url)
                if not request.url.startswith((report.page.as_uri(), "data:", "blob:"))
                else None
            ),
        )
        page.goto(report.page.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield opened
        browser.close()


@pytest.mark.long
@pytest.mark.slow
def test_every_figure_is_drawn_and_has_words_and_a_table(opened: Opened) -> None:
    page, charts = opened.page, [chart for _, chart in opened.report.document.charts()]
    page.evaluate("document.querySelectorAll('main details').forEach(fold => { fold.open = true; })")
    plots = page.locator(".plot")
    assert plots.count() == len(charts) > 10
    for number, chart in enumerate(charts):
        plot = plots.nth(number)
        plot.scroll_into_view_if_needed()
        page.wait_for_selector(f"#figure-{number} .main-svg")
        assert chart.text in (plot.get_attribute("aria-label") or "")
        rows = plot.locator("xpath=ancestor::figure").locator("details tbody tr")
        assert rows.count() == len(data_table(chart).rows) > 0
    names = page.evaluate("[...document.querySelectorAll('.ytick text')].map(each => each.textContent)")
    assert any("<img src=x onerror=alert(1)>" in name for name in names)


def test_a_table_is_sorted_by_the_keyboard(opened: Opened) -> None:
    page = opened.page
    table = page.locator("table.sortable", has_text="difference (points)").last
    header = table.locator("thead th", has_text="difference")
    header.locator("button").focus()
    orders = []
    for expected in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == expected
        orders.append([float(text) for text in table.locator("tbody tr td:nth-child(3)").all_inner_texts()])
    assert orders[0] == sorted(orders[0]) and orders[1] == sorted(orders[0], reverse=True)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("scheme", first(1, ["light", "dark"]))
def test_there_is_no_serious_accessibility_fault(opened: Opened, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    opened.page.emulate_media(color_scheme=scheme)
    opened.page.wait_for_timeout(300)
    found = axe.Axe().run(opened.page).response["violations"]
    serious = [
        (fault["id"], fault["nodes"][0]["html"][:200]) for fault in found if fault["impact"] in ("serious", "critical")
    ]
    assert not serious


def test_a_phone_scrolls_in_one_direction(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.wait_for_function("document.documentElement.scrollWidth <= 390")
    opened.page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.long
@pytest.mark.slow
def test_the_page_complained_of_nothing_and_asked_for_nothing(opened: Opened) -> None:
    """The last test: what the page did in all the others counts."""
    opened.page.emulate_media(media="print")
    assert len(opened.page.pdf()) > 10_000
    assert opened.complaints == []
    assert opened.page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
