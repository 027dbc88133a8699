"""Take a picture of a report page, report.png next to this file: python docs/images/report.py.

It trains two networks on the digits, evaluates them, and opens their page in chromium (Playwright drives it).
"""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from unperturbed.cli.main import main

PICTURE = Path(__file__).with_name("report.png")
WIDTH, HEIGHT = 1280, 1010
FLAGS = ("--no-sandbox", "--disable-gpu")
COMMANDS = (
    *(f"train --data digits --method {method} --epochs 8 --out runs/{method}" for method in ("at", "trades")),
    *(f"evaluate runs/{method} --suite standard --examples 200" for method in ("at", "trades")),
    *(f"curve runs/{method} --threat Linf:0.2 --examples 100" for method in ("at", "trades")),
    "report runs/at runs/trades --out report.html",
)


def take_picture(page: Path) -> None:
    """Open the page, and write what the first screen shows."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(page.as_uri(), timeout=200_000)
        view.wait_for_selector(".plot .main-svg")
        view.wait_for_timeout(1000)
        view.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for command in COMMANDS:
            if (code := main(command.split())) != 0:
                raise SystemExit(code)
        take_picture(Path("report.html").resolve())
        os.chdir(PICTURE.parent)
