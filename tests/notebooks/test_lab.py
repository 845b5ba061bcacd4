"""JupyterLab for real: a browser opens each notebook, runs all cells, moves a slider; `pytest -m slow` on this file.

It needs a browser and playwright, and takes some minutes on two idle cores. CRESCENT_BROWSER names a browser that is
not found by itself, CRESCENT_SCREENSHOTS a folder for the pictures, which are for looking at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import nbformat
import pytest
from shared import ROOT

from crescent_utils import runs
from crescent_utils.figures import interactive
from crescent_utils.runs import params

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
MINUTES = 60_000  # milliseconds
LONGEST = 25 * MINUTES  # one notebook, on a machine that is busy with something else
# The state of all cells, from JupyterLab's own model: it draws only the cells that are in view.
CELLS = """() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells)
    .filter(cell => cell.type === 'code')
    .map(cell => [cell.executionCount, cell.executionState, cell.toJSON().outputs.some(o => o.output_type === 'error')])
"""
ALL_RAN = f"""() => {{
    const cells = ({CELLS})();
    return cells.some(cell => cell[2]) || cells.every(cell => cell[0] && cell[1] !== 'running');
}}"""
SHOW_CELL = """id => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const place = Array.from(notebook.model.cells).findIndex(cell => cell.id === id);
    notebook.activeCellIndex = place;
    return notebook.scrollToItem(place, 'start');
}"""


def installed_browser() -> str:
    """Return where the browser is, or skip the test and say what to install."""
    browser = os.environ.get("CRESCENT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}, or name one in CRESCENT_BROWSER")
    return browser


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository whose cells have not been run, so that nothing here is written to."""
    folder = tmp_path_factory.mktemp("lab") / "clone"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for path in (folder / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.execution_count = None
        nbformat.write(notebook, path)
    return folder


@pytest.fixture(scope="module")
def lab(clone):
    """What `make lab` starts: its address, and the token that it asks for."""
    home = clone.parent / "jupyter"
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    folders = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    environment = {**os.environ, **folders, "PYTHONPATH": str(clone), "LAB": "--no-browser --expose-app-in-browser"}
    with (clone.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(
            ["make", "-o", "setup", "lab"], cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield address_of(server, home / "runtime", clone.parent / "lab.log")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def address_of(server, runtime: Path, log: Path) -> dict:
    """Wait until the server has written where it listens, and answers."""
    for _ in range(1200):
        assert server.poll() is None, log.read_text()
        for path in runtime.glob("jpserver-*.json"):
            address = json.loads(path.read_text())
            try:
                httpx.get(f"{address['url']}api/status", params={"token": address["token"]}).raise_for_status()
            except httpx.TransportError:
                continue
            return address
        time.sleep(0.5)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="module")
def page():
    """A page of a browser without a window, large enough for the figures."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: `make setup` installs it")
    executable = installed_browser()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, timeout=5 * MINUTES, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(10 * MINUTES)
        yield page
        browser.close()


@pytest.fixture
def notebook(page, lab, clone, stage):
    """The notebook of a stage, opened, and run by the menu; its kernel ends with the test."""
    name = f"{runs.NOTEBOOKS[stage]}.ipynb"
    page.goto(f"{lab['url']}lab/tree/notebooks/{name}?token={lab['token']}&reset")
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    picture(page, clone, f"{stage}-opened")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RAN, timeout=LONGEST)
    yield clone / "notebooks" / name
    for session in httpx.get(f"{lab['url']}api/sessions", params={"token": lab["token"]}, timeout=60).json():
        httpx.delete(f"{lab['url']}api/sessions/{session['id']}", params={"token": lab["token"]}, timeout=60)


def picture(page, clone, name: str) -> None:
    """Keep a screenshot for somebody to look at."""
    folder = Path(os.environ.get("CRESCENT_SCREENSHOTS") or clone.parent / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def saved(page, path: Path) -> nbformat.NotebookNode:
    """Save the notebook by its shortcut, and read it once it is written."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(600):
        if path.stat().st_mtime_ns != before and path.stat().st_size:
            return nbformat.read(path, as_version=4)
        time.sleep(0.1)
    raise TimeoutError(f"{path} was not saved")


def move(page, cell: str, to: float) -> None:
    """Show a cell, and drag the handle of its slider to a share of the way."""
    page.evaluate(SHOW_CELL, cell)
    slider = page.locator(".jp-OutputArea .widget-slider .noUi-target").first
    slider.wait_for()
    track, handle = slider.bounding_box(), slider.locator(".noUi-handle").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + to * track["width"], track["y"] + track["height"] / 2, steps=12)
    page.mouse.up()


def card(page) -> str:
    """The text of what the slider that was moved points at."""
    return page.locator(".jp-OutputArea .widget-html-content").first.inner_text()


def moved_card(page, before: str) -> str:
    """The card once the kernel has answered."""
    page.wait_for_function(
        "before => document.querySelector('.jp-OutputArea .widget-html-content').innerText !== before", arg=before
    )
    return card(page)


@pytest.mark.parametrize("stage", params.STAGES)
def test_run_all_in_jupyterlab(page, stage, notebook, clone):
    ran = saved(page, notebook)
    picture(page, clone, f"{stage}-ran")
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    errors = ["\n".join(output.traceback) for cell in code for output in cell.outputs if output.output_type == "error"]
    assert errors == []
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    widgets = {
        cell["id"]: cell.outputs
        for cell in code
        for output in cell.outputs
        if interactive.WIDGET in output.get("data", {})
    }
    assert set(widgets) == {"dedup": {"dedup-34b"}, "vote": {"vote-18b"}, "evaluate": {"evaluate-42"}}.get(stage, set())
    for cell, (stream, shown) in widgets.items():
        assert "<table>" in shown.data["text/html"], "the static form is saved beside the widget"
        page.evaluate(SHOW_CELL, cell)
        page.locator(".jp-OutputArea .widget-html-content").first.wait_for()
        MOVED[stage](page, cell, stream.text, lambda: picture(page, clone, f"{stage}-moved"))


def drag_the_threshold(page, cell, text, keep):
    kept = dict(re.findall(r"(\d\.\d\d): (\d+(?:,\d{3})*)", text))
    total = re.match(r"kept of (\S+)", text)[1]
    for share, level in ((0.0, "0.70"), (1.0, "1.00")):
        move(page, cell, share)
        # On the way the kernel answers for thresholds in between.
        page.wait_for_function(
            "text => document.querySelector('.jp-OutputArea .widget-html-content').innerText.includes(text)",
            arg=f"{kept[level]} of {total} questions stay",
        )
        keep()


def leaf_and_search(page, cell, text, keep):
    before = card(page)
    move(page, cell, 0.5)
    assert moved_card(page, before) != before
    keep()
    menu = page.locator(".jp-OutputArea .widget-dropdown select").first
    group, count = text.strip().split("; ")[-1].rsplit(": ", 1)
    before = card(page)
    menu.select_option(label=f"{group} ({count})")
    moved_card(page, before)
    before = card(page)
    page.locator(".jp-OutputArea .widget-text input").first.fill("nothing has these words")
    assert moved_card(page, before) == "none matches"


MOVED = {"dedup": drag_the_threshold, "vote": leaf_and_search, "evaluate": leaf_and_search}
