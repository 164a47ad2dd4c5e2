"""Try a run's model in the browser: drop a photograph, see its class, probabilities and Grad-CAM.

RUN is the folder of a run or a checkpoint. The page is served to this computer only, at 127.0.0.1; it loads nothing
from other hosts and sends nothing to them. Photographs are deleted when the program ends. Ctrl-C ends it.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from transfer_learning.utilities.text import printable

EXAMPLES = ("outputs/runs/RUN", "outputs/runs/RUN --port 8000")
ADDRESS = "127.0.0.1"
FIRST_PORT, PORTS = 7860, 100  # among which Gradio chooses without --port
SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
SETTINGS |= {"GRADIO_SERVER_PORT": str(FIRST_PORT), "GRADIO_NUM_PORTS": str(PORTS)}
# The browser asks no other host, whatever the page's parts would load.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
SHOWN = 10  # classes with their probability
CSS = ".image-frame img {width: 100%; height: 100%; object-fit: contain}"  # small images fill their frame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_path", type="path", metavar="RUN", help="a run or a checkpoint")
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (the first free one from 7860 on)")
    parser.add_argument("--accelerator", default="auto", help="auto (a GPU if there is one), cpu, gpu or mps")


def run(options: argparse.Namespace) -> int:
    from transfer_learning.engine.checkpoint import find_checkpoint, load
    from transfer_learning.engine.inference import Inference
    from transfer_learning.utilities.errors import ArgumentError, UserError, needs
    from transfer_learning.utilities.hardware import configure_process

    if options.port is not None and not 1 <= options.port <= 65535:
        raise ArgumentError("port", options.port, "expected 1 to 65535.")
    needs("gradio", "demo")
    checkpoint = find_checkpoint(options.run_path)
    configure_process()
    inference = Inference(load(checkpoint), options.accelerator)
    no_proxy = ",".join(filter(None, [os.environ.get("no_proxy"), ADDRESS]))  # Gradio asks its own server
    for name in ("SIGTERM", "SIGHUP"):  # so that the photographs are deleted then too; Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {**SETTINGS, "GRADIO_TEMP_DIR": folder, "no_proxy": no_proxy}  # before Gradio is imported
        page = build_page(inference, printable(Path(options.run_path).resolve().name))
        try:
            address = serve(page, options.port)
        except OSError as error:
            if options.port is None:
                reason = f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}. Choose one with --port."
            else:
                reason = f"--port {options.port}: it cannot be used. Choose another, or leave it out."
            raise UserError(reason) from error
        print(f"{address} shows the page; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
    return 0


def classify(inference: Any, file: str) -> tuple[dict[str, float], np.ndarray | None]:
    """Classifies a photograph.

    Returns:
        the probability of each class, and the photograph, resized as in training, under the Grad-CAM of the most
        probable one, (H, W, 3) uint8; None if the network has no maps.

    Raises:
        UserError: the file cannot be read as an image, or would be nearly black.
    """
    from transfer_learning.callbacks.evaluation import overlays_if_maps
    from transfer_learning.data.depth import narrow
    from transfer_learning.data.formats import missing_plugin
    from transfer_learning.data.images import unlabelled
    from transfer_learning.data.preprocessing import decode
    from transfer_learning.utilities.errors import UserError

    pixels, remarks = decode(unlabelled([file]), inference.model.preprocessing, [0])
    if remarks["unreadable"]:
        reason = f"not readable as an image ({remarks['unreadable'][0]})"
        raise UserError(f"{Path(file).name}: {missing_plugin(file) or reason}")
    dark = narrow({Path(file).name: remarks["range"][0]}, together=False) if remarks["range"] else None
    if dark and inference.model.preprocessing.depth is None:
        raise UserError(f"{dark}: too dark or of too little contrast for this model")
    probabilities = inference.probabilities(pixels)
    named = dict(zip(inference.model.class_names, probabilities[0].tolist()))
    overlays = overlays_if_maps(inference.model, pixels, probabilities.argmax(axis=1))
    return named, overlays[0] if overlays else None


def build_page(inference: Any, name: str) -> Any:
    """The page as Gradio's Blocks."""
    import gradio

    from transfer_learning.callbacks.evaluation import overlays_if_maps
    from transfer_learning.utilities.errors import UserError

    model = inference.model
    size = model.preprocessing.image_size
    black = np.zeros((1, size, size, 3), np.uint8)
    has_maps = overlays_if_maps(model, black, np.zeros(1, np.int64)) is not None

    def update(file: str | None) -> dict[Any, Any]:
        if file is None:
            return dict.fromkeys(outputs)
        try:
            return dict(zip(outputs, classify(inference, file)))
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    with gradio.Blocks(title=name, analytics_enabled=False) as page:
        gradio.Markdown(f"## {name}")
        with gradio.Row():
            look: Any = dict(height=400, min_width=300, buttons=["fullscreen"])
            source: Any = dict(type="filepath", image_mode=None, sources=["upload", "clipboard"])
            photograph: Any = gradio.Image(label="Photograph", **source, **look)
            photograph.preprocess = lambda file: file.path if file else None  # `classify` reads it, as in training
            shown = min(len(model.class_names), SHOWN)
            outputs: list[Any] = [gradio.Label(label="Class", num_top_classes=shown, min_width=300)]
            if has_maps:
                outputs.append(gradio.Image(label="Grad-CAM", interactive=False, **look))
        if not has_maps:
            gradio.Markdown("This network has no maps for Grad-CAM: it is a transformer, or its last map is one pixel.")
        photograph.change(update, photograph, outputs, api_name=False, show_progress="minimal")
    return page


def serve(page: Any, port: int | None) -> str:
    """Serves the page in the background, until `page.close()`. Returns its address. Raises OSError: no such port."""
    import gradio
    from starlette.middleware import Middleware

    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, address, _ = page.launch(
        server_name=ADDRESS, server_port=port, share=False, prevent_thread_lock=True, quiet=True, ssr_mode=False,
        inbrowser=False, theme=theme, css=CSS, footer_links=[], pwa=False, mcp_server=False, enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(ContentSecurityPolicy)]},
    )  # fmt: skip
    return address


class ContentSecurityPolicy:
    """ASGI middleware that adds `POLICY` to the headers of every response."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, send_with_policy)
