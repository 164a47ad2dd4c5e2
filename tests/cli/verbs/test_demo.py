import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_learning import load
from transfer_learning.cli.main import main
from transfer_learning.cli.verbs import demo
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.inference import Inference
from transfer_learning.models.network import Frozen, Network
from transfer_learning.utilities import errors
from transfer_learning.utilities.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def photograph(tmp_path):
    """A drawn cat that the camera turned."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    cartoon(0, "demo").crop((0, 0, 400, 250)).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


class WithoutMaps(Network):
    def __init__(self, num_classes):
        super().__init__(Frozen(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 1)), {})


def test_a_photograph_gets_its_probabilities_and_an_explanation(small_run, photograph):
    model = load(small_run)
    probabilities, overlay = demo.classify(Inference(model, "cpu"), str(photograph))
    expected = load(small_run).predict([photograph], "cpu").probabilities[0]
    assert list(probabilities) == ["cat", "dog"] and list(probabilities.values()) == pytest.approx(expected)
    assert overlay.shape == (32, 32, 3) and overlay.dtype == np.uint8


def test_a_network_without_maps_has_no_explanation(photograph):
    model = Classifier(WithoutMaps(2), ("cat", "dog"), Preprocessing(8))
    probabilities, overlay = demo.classify(Inference(model, "cpu"), str(photograph))
    assert sum(probabilities.values()) == pytest.approx(1) and overlay is None


@pytest.mark.parametrize("depth", [None, "dtype"])
def test_a_photograph_that_would_be_black_is_refused_unless_that_was_chosen(tmp_path, depth):
    Image.fromarray(np.random.default_rng(0).integers(0, 4096, (9, 9)).astype(np.uint16)).save(tmp_path / "deep.png")
    inference = Inference(Classifier(WithoutMaps(2), ("cat", "dog"), Preprocessing(8, depth=depth)), "cpu")
    if depth:
        assert demo.classify(inference, str(tmp_path / "deep.png"))[1] is None
    else:
        with pytest.raises(UserError, match=r"^deep\.png: values from \d+ to 4,0\d+, .* 0 to 65,535: too dark"):
            demo.classify(inference, str(tmp_path / "deep.png"))


def test_a_file_that_needs_a_plugin_is_named(tmp_path, monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.EXTENSION, ".avif", raising=False)
    (tmp_path / "a.avif").write_bytes(b"a photograph")
    inference = Inference(Classifier(WithoutMaps(2), ("cat", "dog"), Preprocessing(8)), "cpu")
    with pytest.raises(UserError, match=r"^a\.avif: needs a Pillow with AVIF"):
        demo.classify(inference, str(tmp_path / "a.avif"))


def test_a_file_that_is_no_image_is_named(small_run, tmp_path):
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"^notes\.jpg: not readable as an image \(.+\)$"):
        demo.classify(Inference(load(small_run), "cpu"), str(tmp_path / "notes.jpg"))


@pytest.mark.parametrize("port", [99999, 65536, 0, -1])
def test_a_port_that_cannot_be_is_refused(small_run, port):
    with pytest.raises(SystemExit) as raised:
        main(["demo", str(small_run), "--port", str(port)])
    assert raised.value.code == f"transfer-learning: --port {port}: expected 1 to 65535."


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no free port from 7860 to 7959. Choose one with --port."),
        (["--port", "8000"], "--port 8000: it cannot be used. Choose another, or leave it out."),
    ],
)
def test_a_port_that_is_not_free_is_one_line(small_run, monkeypatch, arguments, message):
    def no_port(*_):
        raise OSError("Cannot find empty port")

    monkeypatch.setattr(errors, "find_spec", lambda name: True)
    monkeypatch.setattr(demo, "build_page", lambda *_: None)
    monkeypatch.setattr(demo, "serve", no_port)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name in (*demo.SETTINGS, "GRADIO_TEMP_DIR", "no_proxy"):
        monkeypatch.setenv(name, "")  # is as before when the test ends
    with pytest.raises(SystemExit) as raised:
        main(["demo", str(small_run), *arguments])
    assert raised.value.code == f"transfer-learning: {message}"


def test_without_gradio_the_command_is_one_line(small_run, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as raised:
        main(["demo", str(small_run)])
    assert raised.value.code == (
        "transfer-learning: this needs gradio, which is not installed: pip install -e '.[demo]'"
    )


@pytest.fixture
def server(small_run, tmp_path):
    """The program, its address, and a file with the addresses that it connected to."""
    pytest.importorskip("gradio")
    connected = tmp_path / "connected"
    code = f"""
import sys
def note(event, arguments):
    if event == "socket.connect":
        open({str(connected)!r}, "a").write(f"{{arguments[1]}}\\n")
sys.addaudithook(note)
from transfer_learning.cli.main import main
main(["demo", {str(small_run)!r}])
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"http_proxy": "http://127.0.0.1:9", "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, process.stdout.readline().split()[0], connected
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_page_in_a_browser(server, photograph, small_run, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    process, address, connected = server
    expected = load(small_run).predict([photograph], "cpu")
    asked = []
    (tmp_path / "notes.jpg").write_text("no image")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            chooser = page.locator("input[type=file]")
            chooser.wait_for(state="attached", timeout=60_000)
            chooser.set_input_files(photograph)
            label = page.locator("[data-testid=label-output-value]")
            label.wait_for(timeout=60_000)
            assert label.inner_text().strip() == expected.classes[0]
            for probability in expected.probabilities[0]:
                assert f"{round(100 * probability)}%" in page.inner_text("body")
            shown = page.locator(".image-frame img").last  # the Grad-CAM
            assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.locator("button[aria-label='Remove Image']").click()
            label.wait_for(state="detached")
            chooser.set_input_files(tmp_path / "notes.jpg")
            page.get_by_text("notes.jpg: not readable as an image").wait_for(timeout=60_000)
        browser.close()
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    assert connected.read_text() and all("127.0.0.1" in line for line in connected.read_text().splitlines())
    uploads = [path for path in Path(tmp_path).rglob("photo.jpg") if path != photograph]
    assert uploads
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not any(path.exists() for path in uploads)


def test_the_page_is_for_this_computer_only(small_run):
    pytest.importorskip("gradio")
    import httpx

    page = demo.build_page(Inference(load(small_run), "cpu"), "run")
    assert page.analytics_enabled is False
    try:
        address = demo.serve(page, None)
        assert urlsplit(address).hostname == "127.0.0.1" and page.share_url is None
        answer = httpx.get(address, trust_env=False)
        assert answer.headers["content-security-policy"].startswith("default-src 'self' ")
        with pytest.raises(OSError):
            demo.serve(demo.build_page(Inference(load(small_run), "cpu"), "run"), urlsplit(address).port)
    finally:
        page.close(verbose=False)
