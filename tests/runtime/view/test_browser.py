"""The page in a real browser: Debian's Chromium, headless. Each test waits for what it expects."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import read_events
from mpsl_runtime.live.replay import replay
from mpsl_runtime.view.composer import Composer
from mpsl_runtime.view.session import Session

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not there: `make peers`")
pytest.importorskip("uvicorn", reason="the extra `view` is not installed")

from mpsl_runtime.view.server import Server  # noqa: E402

Make = Callable[..., Session]
Until = Callable[..., Any]
DV_SERVER = Path(__file__).parents[1] / "live" / "dv_server.py"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
LABEL = "article .label strong"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all tests of this file."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver: `make browser`")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.add_argument("--window-size=1280,800")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


class Tab:
    """The page of a session, in the browser."""

    def __init__(self, browser: Any, until: Until) -> None:
        self.browser, self._until = browser, until

    def text(self, selector: str) -> str:
        found = self.script("return document.querySelector(arguments[0])?.textContent", selector)
        return str(found or "")

    def script(self, code: str, *values: object) -> Any:
        return self.browser.execute_script(code, *values)

    def state(self) -> str:
        return str(self.script("return document.body.dataset.state"))

    def reads(self, selector: str, text: str) -> None:
        self._until(lambda: self.text(selector) == text, f"for {text!r} in {selector}")

    def is_in(self, state: str) -> None:
        self._until(lambda: self.state() == state, f"for {state}")

    def press(self, key: str) -> None:
        self.script(
            "document.body.dispatchEvent(new KeyboardEvent('keydown',"
            " {key: arguments[0], bubbles: true}))",
            key,
        )

    def change(self, name: str, value: object) -> None:
        """Sets a control, as a hand would."""
        self.script(
            "const c = document.getElementById(arguments[0]);"
            "if (c.type === 'checkbox') c.checked = arguments[1]; else c.value = arguments[1];"
            "c.dispatchEvent(new Event('input')); c.dispatchEvent(new Event('change'));",
            name,
            value,
        )


@pytest.fixture
def shown(browser: Any, until: Until) -> Callable[..., Any]:
    """`shown(session)`: a tab with its page, while the `with` lasts."""

    @contextmanager
    def show(session: Session) -> Iterator[Tab]:
        said: list[str] = []
        server = Server(session, "127.0.0.1", 0, say=said.append)
        composer = Composer(session, server.see, lambda: server.is_watched)
        session.start()
        server.start()
        composer.start()
        try:
            browser.get_log("browser")
            browser.get(server.url)
            tab = Tab(browser, until)
            tab.server = server  # type: ignore[attr-defined]
            until(lambda: tab.text("article h2"), "for the page")
            yield tab
            wrong = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
            assert wrong == []
            assert said == []
        finally:
            browser.get("about:blank")
            composer.stop()
            server.stop()

    return show


def test_a_recording_plays_and_the_label_becomes_its_digit(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    with shown(session_of(digit)) as tab:
        tab.is_in("over")
        tab.reads(LABEL, "3")
        until(lambda: "answered" in tab.text(".label small"))
        tab.reads("#clock", "0.315 / 0.315 s")
        tab.reads("dd.answers", "1")
        # Something was drawn: the camera's picture, the network's input, its scores.
        for canvas in ("#events", ".given", ".scores", "#timeline"):
            colours = tab.script(
                "const c = document.querySelector(arguments[0]);"
                "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "return new Set(new Uint32Array(d.buffer)).size",
                canvas,
            )
            assert colours > 2, canvas


def test_keys_pause_step_wind_and_change_the_speed(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    with shown(session_of(digit, speed=1 / 16)) as tab:
        tab.is_in("playing")
        tab.press(" ")
        tab.is_in("paused")
        before = tab.text("dd.steps")
        tab.press("ArrowRight")
        until(lambda: tab.text("dd.steps") != before, "for a step")
        tab.press("+")
        tab.reads("#speed", "1/8×")
        tab.press("-")
        tab.press("-")
        tab.reads("#speed", "1/32×")
        tab.script(
            "const bar = document.getElementById('seek'), box = bar.getBoundingClientRect();"
            "bar.setPointerCapture = () => {};"
            "bar.dispatchEvent(new PointerEvent('pointerdown',"
            " {clientX: box.left + box.width * 0.9, clientY: box.top + 5}))"
        )
        until(lambda: tab.text("#clock").startswith("0.28"), "for the place")
        tab.reads(LABEL, "3")
        tab.press("ArrowLeft")
        until(lambda: tab.text("#clock").startswith("0.24"), "for one step back")
        tab.is_in("paused")


def test_policy_and_filters_are_switched_while_it_runs(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    session = session_of(digit, speed=1 / 4)
    with shown(session) as tab:
        tab.reads("#out", "0")
        for name, value in (("background_ms", 1), ("background", True)):
            tab.change(name, value)
        until(lambda: tab.text("#out") not in ("0", "–"), "for the filter")
        assert session.settings.background_us == 1000
        tab.change("policy", "continuous")
        until(lambda: session.settings.policy == "continuous")
        tab.change("policy", "sliding")
        until(lambda: tab.script("return !document.getElementById('every-label').hidden"))
        tab.change("every", 99)  # more than the window has
        until(lambda: "windows cannot begin so often" in tab.text("#banner"))
        assert session.settings.every == 1
        tab.change("fade", 75)
        tab.reads("#fade_ms", "1.0 s")


def test_datagrams_appear_and_silence_is_said(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    session = session_of("udp://127.0.0.1:0", options={"serve": True})
    with shown(session) as tab:
        tab.is_in("silent")
        until(lambda: tab.text("#silence").startswith("No events for "))
        tab.reads(".label small", "nothing to answer")
        assert session.source is not None
        replay([digit], session.source.address, speed=2.0)
        until(lambda: session.channels[0].stream.totals.answers["3"] == 1)
        tab.is_in("silent")
        tab.reads(LABEL, "none")
        tab.reads(".label small", "last answer: 3")
        tab.reads("dd.answers", "1")
        tab.press(" ")
        tab.is_in("frozen")


def test_the_stream_of_dv_appears(
    digit: Path, tmp_path: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    pytest.importorskip("dv_processing", reason="dv-processing is not there: `make peers`")
    e = read_events(digit)
    columns = {"t": e.t + 10**15, "x": e.x, "y": e.y, "p": e.p, "size": np.array([34, 34])}
    np.savez(tmp_path / "digit.npz", **columns)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, str(DV_SERVER), str(port), str(tmp_path / "digit.npz"), "lz4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        session = session_of(f"dv://127.0.0.1:{port}")
        with shown(session) as tab:
            until(lambda: tab.text("dd.answers") == "1", "for its answer")
            until(lambda: session.channels[0].stream.totals.answers["3"] == 1)
            tab.reads("#camera", "34×34 pixels")


def test_a_closed_tab_and_ten_reconnects_leave_no_thread(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until
) -> None:
    with shown(session_of(digit)) as tab:
        tab.is_in("over")
        before = threading.active_count()
        for _ in range(10):
            tab.browser.refresh()
            tab.is_in("over")
        tab.browser.switch_to.new_window("tab")
        second = tab.browser.current_window_handle
        tab.browser.get(tab.server.url)
        tab.is_in("over")
        tab.browser.close()
        (first,) = [each for each in tab.browser.window_handles if each != second]
        tab.browser.switch_to.window(first)
        until(lambda: len(tab.server._watchers) == 1, "for one page alone")
        assert threading.active_count() == before


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_models_stand_beside_each_other_and_nothing_is_too_wide_for_a_phone(
    digit: Path, session_of: Make, shown: Callable[..., Any], until: Until, theme: str
) -> None:
    session = session_of(digit, "dvs-digits", "nmnist8-small", "nmnist-small", speed=4.0)
    with shown(session) as tab:
        tab.is_in("over")
        if tab.script("return document.documentElement.dataset.theme") != theme:
            tab.script("document.getElementById('theme').click()")
        assert tab.script("return document.querySelectorAll('article').length") == 3
        for width, height, mobile in ((390, 844, True), (1280, 800, False)):
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
            tab.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            until(lambda width=width: tab.script("return innerWidth") == width)
            wide = "return document.documentElement.scrollWidth"
            until(lambda width=width, wide=wide: tab.script(wide) <= width, f"for {width} pixels")
        tab.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert tab.script("return document.documentElement.dataset.theme") == theme
