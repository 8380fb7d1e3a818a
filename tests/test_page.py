"""The server's page in a real browser, on a phone's width."""

import os
import shutil

import pytest

from tests.conftest import compiled_only, photo
from tests.test_serve import Running, small  # noqa: F401 - a fixture

PHONE = {"width": 375, "height": 667}
MARKS = """() => { // the part of the photograph that is drawn upon, and where: left, top, right, bottom
    const canvas = document.getElementById("marks"), data = canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0, box = [1, 1, 0, 0];
    for (let at = 0; at < data.length / 4; at++) if (data[4 * at + 3]) {
        const x = at % canvas.width / canvas.width, y = Math.floor(at / canvas.width) / canvas.height;
        box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)];
        count++;
    }
    return [4 * count / data.length, box];
}"""
DROP = """content => { // what a person does who drops a file
    const bytes = Uint8Array.from(atob(content), one => one.charCodeAt(0)), data = new DataTransfer();
    data.items.add(new File([bytes], "photo.png"));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no Chromium here: the environment variable CHROMIUM may name one")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """A page of which nothing goes wrong, and that asks nobody but its server."""
    page, wrong, asked = browser.new_page(viewport=PHONE, has_touch=True), [], []
    page.on("pageerror", lambda error: wrong.append(error))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert not wrong
    assert {url.partition("//")[2].partition(":")[0] for url in asked if url.startswith("http")} <= {"127.0.0.1"}


def rows(page):
    """The results, when they are there; and that nothing is wider than the phone."""
    page.wait_for_selector("#found li", timeout=60000)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    return [item.inner_text().split("\n") for item in page.query_selector_all("#found li")]


@compiled_only
def test_labels(page, small):  # noqa: F811
    """Of a file that is dropped; names of classes are text, whatever is in them."""
    server = Running(small)
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        assert "Drop a photograph here" in page.inner_text("#drop")
        page.set_input_files("#file", photo("coffee.png"))
        found = rows(page)
        assert sorted(name for name, _ in found) == ["<b>cat</b>", "dog"]
        assert sum(float(value.rstrip(" %")) for _, value in found) == pytest.approx(100, abs=0.2)
        page.set_input_files("#file", __file__)
        page.wait_for_selector("#say.wrong")
        assert "not an image" in page.inner_text("#say") and not page.query_selector_all("#found li")
    finally:
        server.stop()
    page.set_input_files("#file", photo("coffee.png"))
    page.wait_for_selector("#say.wrong:has-text('The server does not answer')")


@compiled_only
def test_boxes(page):
    import base64

    import npmobilenet

    server = Running("ssdlite_mobilenet_v2_person")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.evaluate(DROP, base64.b64encode(photo("astronaut.png").read_bytes()).decode())
        ((name, value),) = rows(page)
        (found,) = npmobilenet.load("ssdlite_mobilenet_v2_person").detect(photo("astronaut.png"))
        assert (name, value) == (found.label, f"{100 * found.score:.1f} %")
        part, box = page.evaluate(MARKS)
        assert 0 < part < 0.1 and box == pytest.approx([edge / 512 for edge in found.box], abs=0.02)
    finally:
        server.stop()


@compiled_only
def test_masks(page):
    import npmobilenet

    server = Running("selfie_segmentation")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.set_input_files("#file", photo("astronaut.png"))
        ((name, value),) = rows(page)
        share = npmobilenet.load("selfie_segmentation").segment(photo("astronaut.png")).share["person"]
        assert (name, value) == ("person", f"{100 * share:.1f} %")
        assert page.evaluate(MARKS)[0] == pytest.approx(share, abs=1e-6)
    finally:
        server.stop()
