"""The page in a real browser: headless Chromium, driven over the DevTools protocol through a pipe (no client library needed)."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report_study_data import StudyWriter, write_full_study

from unlearn_lightning.report import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `apt-get install chromium` to run the browser tests")


class Browser:
    """One Chromium with one tab. `events` collects everything the tab reported."""

    def __init__(self, profile: Path):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                 "--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-pipe"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *flags], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._last, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int = 1200, height: int = 900, **media: str) -> None:
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call(
            "Emulation.setEmulatedMedia", features=[{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        )
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete' && 'Plotly' in window")

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never became true: {condition}"
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if kind != "mouseMoved" else "none", clickCount=1)

    def center(self, selector: str, right: float = 0.5) -> tuple[float, float]:
        box = self.run(f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}}); "
                       "const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; })()")  # fmt: skip
        return box[0] + right * box[2], box[1] + box[3] / 2

    def click(self, selector: str) -> None:
        x, y = self.center(selector)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def of(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def errors(self) -> list[Any]:
        """Uncaught exceptions, console.error / console.warn calls and the browser's own complaints (blocked content, failed loads)."""
        self.run("1")
        told = [call for call in self.of("Runtime.consoleAPICalled") if call["type"] in ("error", "warning", "assert")]
        return (
            self.of("Runtime.exceptionThrown")
            + told
            + [entry for entry in self.of("Log.entryAdded") if entry["entry"]["level"] != "verbose"]
        )

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium closed the pipe"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    report = build(write_full_study(tmp_path_factory.mktemp("browser"), seeds=(1, 2)))
    return report.folder / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def draw_all(browser: Browser) -> None:
    """Printing draws what has not come into view yet."""
    for moment in ("beforeprint", "afterprint"):
        browser.run(f"window.dispatchEvent(new Event('{moment}'))")
    browser.wait("document.querySelectorAll('.plot:not([data-drawn])').length === 0")


def test_no_errors_and_no_requests(browser, page):
    browser.open(page)
    draw_all(browser)
    assert browser.errors() == []
    asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


def test_every_chart_has_its_lines(browser, page):
    browser.open(page)
    draw_all(browser)
    lines = browser.run("Object.fromEntries([...document.querySelectorAll('.plot')].map(p => [p.dataset.chart + p.dataset.panel, "
                        "p.querySelectorAll('.js-line').length]))")  # fmt: skip
    assert len(lines) == 9 * 3
    assert lines["label0"] >= 4
    assert lines["paths2"] >= 6
    assert lines["frontier1"] >= 4


def test_hovering_shows_the_values_at_a_step(browser, page):
    browser.open(page)
    draw_all(browser)
    x, y = browser.center('[data-chart="label"] .nsewdrag')
    browser.mouse("mouseMoved", x - 3, y)
    browser.mouse("mouseMoved", x, y)
    browser.wait("document.querySelector('[data-chart=\"label\"] .hoverlayer').textContent.includes('step 8')")
    text = browser.run("document.querySelector('[data-chart=\"label\"] .hoverlayer').textContent")
    assert all(f"p={p}" in text for p in (1, 2, 3, 4))
    assert re.search(r"to", text)  # the interval over seeds


def test_the_legend_hides_and_shows_a_path_everywhere(browser, page):
    browser.open(page)
    draw_all(browser)
    hidden = "[...document.querySelectorAll('.plot')].every(p => p.data.every(t => t.visible === !t.meta.includes(3)))"
    everything = "[...document.querySelectorAll('.plot')].every(p => p.data.every(t => t.visible === true))"
    assert browser.run(everything)
    browser.click('#legend [data-path="3"]')
    browser.wait(hidden)
    assert browser.run("document.querySelector('#legend [data-path=\"3\"]').getAttribute('aria-pressed')") == "false"
    browser.click('#legend [data-path="3"]')
    browser.wait(everything)


def test_the_explorer_follows_the_choice(browser, page):
    browser.open(page)
    assert browser.run("document.querySelectorAll('#examples article').length") > 0
    browser.run(
        "(() => { const m = document.querySelector('select[name=view]'); m.value = 'math'; m.dispatchEvent(new Event('change')); })()"
    )
    browser.run("(() => { const m = document.querySelector('select[name=a]'); m.value = 0; m.dispatchEvent(new Event('change')); })()")
    text = browser.run("document.querySelector('#examples').textContent")
    assert "solved in p=1: 0%, p=4: 100%" in text
    assert "It is p=4." in text
    browser.run("(() => { const m = document.querySelector('select[name=b]'); m.value = 0; m.dispatchEvent(new Event('change')); })()")
    assert "two different paths" in browser.run("document.querySelector('#examples').textContent")


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_sticks_out_sideways(browser, page, width):
    browser.open(page, width=width, height=800)
    draw_all(browser)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("Math.max(...[...document.querySelectorAll('.plot .main-svg')].map(s => s.getBoundingClientRect().right))") <= width


def test_on_a_phone_wide_tables_scroll_inside_and_keep_their_first_column(browser, tmp_path):
    mine, theirs = (write_full_study(tmp_path / name, seeds=(1, 2)) for name in ("mine", "theirs"))
    browser.open(build(mine, against=theirs).folder / "index.html", width=360, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    box = "document.querySelector('#comparison .scroll')"
    assert browser.run(f"{box}.scrollWidth > {box}.clientWidth")
    browser.run(f"{box}.scrollLeft = 200")
    assert browser.run(f"{box}.querySelector('td').getBoundingClientRect().left") == 0
    assert browser.errors() == []


def test_dark_and_light_have_their_own_colours(browser, page):
    colours = []
    for scheme in ("light", "dark"):
        browser.open(page, prefers_color_scheme=scheme)
        draw_all(browser)
        colours.append(
            browser.run("[getComputedStyle(document.body).backgroundColor, document.querySelector('.plot').data.at(-1).line.color]")
        )
    assert colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]


def test_print_is_light_and_draws_every_chart_at_paper_size(browser, page):
    browser.open(page, prefers_color_scheme="dark")
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('.plot:not([data-drawn])').length") == 0
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("Math.max(...[...document.querySelectorAll('.main-svg')].map(s => s.getBoundingClientRect().width))") < 230
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_text_from_the_probes_does_not_run(browser, tmp_path):
    evil = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=1</script>"
    writer = StudyWriter(tmp_path, name=evil)
    for p in (1, 4):
        writer.unlearn(1, p, f"npo{evil}", label={0: 0.0, 2: -1.0 * p}, vectors={0: {"a": [p]}, 2: {"a": [p]}}, text=evil)
    browser.open(build(writer.write()).folder / "index.html")
    draw_all(browser)
    assert evil in browser.run("document.querySelector('#examples').textContent")
    assert browser.run("window.pwned") is None
    assert browser.errors() == []


def test_response_families_have_a_panel_per_order_and_colours_of_their_own(browser, tmp_path):
    from test_report_depth import write

    browser.open(build(write(tmp_path, [("UCR", "URC")])).folder / "index.html")
    draw_all(browser)
    assert browser.run("document.querySelectorAll('#depth .plot[data-drawn]').length") == 6
    assert browser.run("document.querySelector('#depth .plot').data.map(line => line.name)") == ["R", "C", "U"]
    colours = browser.run("document.querySelector('#depth .plot').data.map(line => line.line.color)")
    assert len(set(colours)) == 3
    assert browser.run("getComputedStyle(document.querySelector('#depth .axis .c3')).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert browser.run("document.querySelector('#depth .plot').layout.xaxis.title.text") == "unlearning epoch"
    assert browser.run("getComputedStyle(document.querySelector('#legend')).display") == "none", "there is no line of a path to hide"
    assert browser.errors() == []


def test_an_open_page_follows_a_running_study_and_keeps_what_the_reader_did(browser, tmp_path):
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [-1.0]})
    folders = {p: writer.unlearn(1, p, "npo", label={0: -0.1, 2: -1.0 * p}, tofu={0: -1.0, 2: -1.1}, accuracy={0: 0.5},
                                 vectors={0: {"a": [p]}, 2: {"a": [p + 1.0]}}) for p in (1, 2, 4)}  # fmt: skip
    finished = (folders[4] / "run.json").read_text()
    (folders[4] / "run.json").write_text(finished.replace('"finished"', '"running"'))
    study = writer.write()
    browser.open(build(study, live=True).folder / "index.html", height=500)
    assert "3 of 4 runs are finished" in browser.run("document.querySelector('.live').textContent")
    browser.click('#legend [data-path="1"]')
    browser.run("document.querySelector('#closing details').open = true")
    browser.run("(() => { const m = document.querySelector('select[name=b]'); m.value = 1; m.dispatchEvent(new Event('change')); })()")
    browser.run("window.scrollTo(0, document.querySelector('#explorer').offsetTop - 30); window.old = true")
    place = "document.querySelector('#explorer').getBoundingClientRect().top"
    before = browser.run(place)

    (folders[4] / "run.json").write_text(finished)
    build(study, live=True)
    browser.wait("!window.old && document.readyState === 'complete' && document.querySelector('.live')?.textContent.includes('4 of 4')")
    assert abs(browser.run(place) - before) <= 2, "the reader is where they were"
    assert browser.run("document.querySelector('#legend [data-path=\"1\"]').getAttribute('aria-pressed')") == "false"
    assert browser.run("document.querySelector('#legend [data-path=\"0\"]').getAttribute('aria-pressed')") == "true"
    assert browser.run("document.querySelector('#closing details').open") is True
    assert browser.run("document.querySelector('select[name=b]').value") == "1"
    assert [entry for entry in browser.errors() if "version.svg" not in str(entry)] == []

    browser.run("window.old = true")
    build(study)
    browser.wait("!window.old && document.readyState === 'complete' && !document.querySelector('.live')")
    asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert all(url.startswith(("file:", "data:")) for url in asked)
