"""A trained model as one file that needs nothing of this project: pixels in, probabilities out, in float32."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from transfer_learning.data.images import Images
from transfer_learning.data.preprocessing import decode
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.inference import BATCH_SIZE, Inference, report_narrow
from transfer_learning.utilities.errors import UserError, first_line, needs
from transfer_learning.utilities.files import atomic_write

TOLERANCE = 1e-3  # the largest difference of a probability to the model in float32
METADATA = "metadata.json"  # the extra file in a torch-export file
_DYNAMIC = {
    "images": {0: torch.export.Dim("N", min=1, max=2**31 - 1)}
}  # torch 2.6 exports no transformer without a maximum
Classify = Callable[[np.ndarray], np.ndarray]  # (N, H, W, 3) uint8 -> (N, C) float32


class Check(NamedTuple):
    """A file's probabilities compared with those of the model that it was made of."""

    images: int  # that could be read and were compared
    unreadable: dict[str, str]  # name of each other image -> the reason
    difference: float  # the largest one to the model in float32
    trained_difference: float  # the largest one to the model in the precision of its training
    accuracy: float  # of the file
    trained_accuracy: float  # of the model in the precision of its training


class PixelsToProbabilities(nn.Module):
    """(N, H, W, 3) uint8 -> (N, C) float32."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.network, self.probabilities = model.network, model.probabilities

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Not `as_floats`, which divides in place: torch 2.6 cannot export that to ONNX.
        return self.probabilities(self.network(images.permute(0, 3, 1, 2).float() / 255))


class Format(NamedTuple):
    """A kind of file."""

    suffix: str
    modules: tuple[str, ...]  # that it needs, of the extra `export`
    to_bytes: Callable[[torch.export.ExportedProgram, dict[str, str]], bytes]  # program and metadata -> the file
    open: Callable[[str], Classify]


def export(model: Classifier, path: str | Path, file_format: str, images: Images) -> Check:
    """Writes a model to a file, which appears only after it has classified the images as the model does.

    Args:
        model: as `load` returns it; it is moved to the GPU if there is one.
        path: the file; an existing one is replaced.
        file_format: a key of `FORMATS`.
        images: for the check. Without labels, the accuracies mean nothing.

    Raises:
        UserError: a module is not installed, the network cannot be exported, or the probabilities differ by more than
            `TOLERANCE`.
    """
    form = FORMATS[file_format]
    for module in form.modules:
        needs(module, "export")
    exact = deepcopy(model).float()
    exact.trained_precision = "32-true"
    try:
        with _quiet():
            content = form.to_bytes(_program(exact), metadata(model))
    except Exception as error:  # torch and onnxscript raise many kinds of errors
        cause: BaseException = error
        while cause.__cause__:  # the outer ones only name the step
            cause = cause.__cause__
        reason = f"torch {torch.__version__} cannot export this network as {file_format} ({first_line(cause)})"
        raise UserError(f"{path}: {reason}. Try a newer torch, or the other format.") from error
    with atomic_write(path) as file:
        file.write(content)
        file.flush()
        check = compare(form.open(file.name), exact, model, images)
        if not check.difference <= TOLERANCE:  # NaN too
            reason = f"it would differ from the model by {check.difference:.2g}, more than {TOLERANCE:g}"
            raise UserError(f"{path}: not written, since in a probability {reason}.")
    return check


def metadata(model: Classifier) -> dict[str, str]:
    """What a program needs to know to use the file."""
    size, count = model.preprocessing.image_size, len(model.class_names)
    return {
        "class_names": json.dumps(model.class_names, ensure_ascii=False),
        "input": f"images: (N, {size}, {size}, 3) uint8, RGB, upright as EXIF says, resized with Pillow",
        "output": f"probabilities: (N, {count}) float32 in [0, 1], of the logits divided by the temperature",
        "temperature": repr(model.temperature),
        **{key: str(value) for key, value in asdict(model.preprocessing).items()},
    }


def compare(classify: Classify, exact: Classifier, model: Classifier, images: Images) -> Check:
    """Compares a file with its model in float32 and in the precision of the training."""
    references = Inference(exact, "cpu"), Inference(model)
    unreadable, ranges = dict[str, str](), dict[str, Sequence[float]]()
    differences, correct, count = np.zeros(2), np.zeros(2), 0
    starts = [0, 1, 3, *range(8, len(images.names), BATCH_SIZE)]  # batches of 1, 2, 5 and more images
    stops = [*starts[1:], len(images.names)]
    for start, stop in tqdm(list(zip(starts, stops)), desc="check", unit="batch", leave=False, disable=None):
        pixels, remarks = decode(images, model.preprocessing, range(start, min(stop, len(images.names))))
        reasons = remarks["unreadable"]
        ranges |= {images.names[start + n]: each for n, each in remarks["range"].items() if n not in reasons}
        unreadable |= {images.names[start + position]: reason for position, reason in reasons.items()}
        read = [position for position in range(len(pixels)) if position not in reasons]
        if read:
            found, labels = classify(pixels[read]), images.labels[start:][read]
            expected = [reference.probabilities(pixels[read]) for reference in references]
            differences = np.maximum(differences, [np.abs(found - each).max() for each in expected])
            correct += [np.sum(each.argmax(axis=1) == labels) for each in (found, expected[1])]
            count += len(read)
    report_narrow(ranges, [model.preprocessing])
    if not count:
        raise UserError("none of the images for the check can be read.")
    return Check(count, unreadable, *differences.tolist(), *(correct / count).tolist())


def _program(model: Classifier) -> torch.export.ExportedProgram:
    """The graph for any number of images."""
    size = model.preprocessing.image_size
    images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(PixelsToProbabilities(model), (images,), dynamic_shapes=_DYNAMIC, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _onnx_bytes(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    import onnx

    names: Any = dict(input_names=["images"], output_names=["probabilities"], dynamic_shapes=_DYNAMIC)
    exported = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    proto = exported.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, about)
    return proto.SerializeToString()


def _open_onnx(path: str) -> Classify:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"images": pixels})[0]


def _torch_export_bytes(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(about, ensure_ascii=False)})
    return file.getvalue()


def _open_torch_export(path: str) -> Classify:
    with open(path, "rb") as file:
        module: Any = torch.export.load(io.BytesIO(file.read())).module()
    return lambda pixels: module(torch.from_numpy(pixels)).detach().numpy()


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx_bytes, _open_onnx),
    "torch-export": Format(".pt2", (), _torch_export_bytes, _open_torch_export),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch and onnxscript print, log and warn of while they export; errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
