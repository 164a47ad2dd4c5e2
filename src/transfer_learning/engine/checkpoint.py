"""Reads checkpoints, and rebuilds trained models from them.

A checkpoint consists of tensors and plain values (`Classifier.on_save_checkpoint`). Frozen weights that come from a
published name or a file are not in it: it names their source.
"""

import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from transfer_learning import models
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.calibration import read_temperature
from transfer_learning.engine.classifier import Classifier
from transfer_learning.models.network import Network
from transfer_learning.utilities.errors import UserError, first_line

KEYS = {"network", "arguments", "class_names", "preprocessing", "precision", "frozen_weights"}


def load(path: str | Path, weights: str | None = None, networks: Sequence[type[Network]] = ()) -> Classifier:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Args:
        path: the folder of a finished run, or a checkpoint, `best.ckpt` or `last.ckpt`.
        weights: where the frozen weights are now if they have moved: a name, or a file with the same SHA-256.
        networks: your own network classes, which are not in this package.

    Returns:
        A module that maps images (N, 3, H, W) float in [0, 1] to probabilities (N, C). It has `class_names`, and
        `preprocessing`, which maps an image as PIL opens it to pixels (H, W, 3) uint8.

    Raises:
        UserError: no such run or file, a run that has not finished, not a checkpoint of this project, or its network or
            frozen weights are not available.
    """
    path = find_checkpoint(path)
    saved = read_checkpoint(path)
    about, frozen = saved["model"], saved["model"]["frozen_weights"]
    try:
        source = {"weights": weights or frozen["name"], "sha256": frozen["sha256"]} if frozen else {}
        network_class = _network_class(about["network"], networks)
        without_source = {"weights": None} if frozen else {}
        _check_shapes(network_class, {**about["arguments"], **without_source}, saved["state_dict"])
        network = network_class(**{**about["arguments"], **source})
        model = Classifier(network, about["class_names"], Preprocessing(**about["preprocessing"]))
    except Exception as error:  # foreign arguments raise many kinds of errors
        ways = " If its weights have moved, put them, or a link, there. In Python: load(path, weights=...)."
        hint = ways if frozen and not weights else ""
        reason = error if isinstance(error, UserError) else first_line(error)
        raise UserError(f"{path}: its network cannot be built: {reason}{hint}") from error
    _set_weights(model, saved)
    model.trained_precision = about["precision"]
    model.temperature = read_temperature(path)
    return model.eval()


def _check_shapes(network_class: type[Network], arguments: dict, state: dict[str, torch.Tensor]) -> None:
    """Builds the network without memory, and raises UserError if its tensors have other shapes than those of the file.

    So a foreign file's arguments do not fill the memory. A network that cannot be built without memory is not checked.
    """
    try:
        with torch.device("meta"):
            expected = network_class(**arguments).state_dict()
    except Exception:  # of many kinds; building it as usual tells the reason
        return
    for key, value in expected.items():
        found = state.get(f"network.{key}")
        if found is None and key.startswith("frozen."):  # its values have a source, or `_set_weights` misses them
            continue
        if found is None or found.shape != value.shape:
            saved = "absent" if found is None else tuple(found.shape)
            raise UserError(f"its {key} is {saved}, expected {tuple(value.shape)}.")


def read_weights(model: Classifier, path: str | Path) -> None:
    """Gives a model the weights of a checkpoint of the same network. Raises UserError as `load`."""
    _set_weights(model, read_checkpoint(path))


def _set_weights(model: Classifier, saved: dict) -> None:
    model.on_load_checkpoint(saved)
    model.load_state_dict(saved["state_dict"])


def find_checkpoint(run: str | Path) -> Path:
    """The best checkpoint in the folder of a finished run; a file is returned as it is.

    Raises:
        UserError: no such file or folder, not a run, one that has not finished, or one without checkpoints.
    """
    path = Path(run).expanduser()
    if path.is_file():
        return path
    if not any((path / name).exists() for name in ("checkpoints", "metrics.json", "FAILED")):
        if not path.is_dir():
            what = "no such run"
        elif several := next(path.glob("*/checkpoints"), None):
            what = f"a folder of runs, such as {several.parent}"
        else:
            what = "not a run"
        expected = "expected the folder of a run, with metrics.json and checkpoints/, or a checkpoint"
        raise UserError(f"{run}: {what}; {expected}.")
    best = path / "checkpoints" / "best.ckpt"
    if not (path / "metrics.json").is_file():
        failed = path / "FAILED"
        reason = failed.read_text(encoding="utf-8", errors="replace").strip() if failed.is_file() else ""
        state = f"failed ({reason})" if failed.is_file() else "has not finished"
        ways = f", or name one of its checkpoints, such as {best}" if best.is_file() else ""
        again = "Resume it, or correct the cause and start another run" if failed.is_file() else "Resume it"
        raise UserError(f"{run}: this run {state}. {again}{ways}.")
    if not best.is_file():
        raise UserError(f"{run}: this run has no checkpoint {best.relative_to(path)}.")
    return best


def _network_class(saved: dict[str, str], networks: Sequence[type[Network]]) -> type[Network]:
    """The class of that name: one of `networks`, else a subclass of `Network` in `transfer_learning.models`."""
    found: object = next((network for network in networks if network.__qualname__ == saved["class"]), None)
    if not found and saved["module"].startswith(f"{models.__name__}."):
        with suppress(ImportError):
            found = getattr(import_module(saved["module"]), saved["class"], None)
    if isinstance(found, type) and issubclass(found, Network):
        return found
    own = "If it is your own, pass its class: load(path, networks=[...])."
    raise UserError(f"{saved['module']}.{saved['class']} is not a network of {models.__name__}. {own}")


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, on the CPU: tensors and plain values, every byte as it was written.

    Raises:
        UserError: no such file; it is truncated, altered or something else; it contains code.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; expected RUN/checkpoints/best.ckpt or last.ckpt.")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if not any(member.filename.endswith("/data.pkl") for member in members):
                raise ValueError("torch.save has not written it: an exported model is no checkpoint")
            if sum(member.file_size for member in members) > os.path.getsize(path):  # it would fill the memory
                raise ValueError("it is compressed, which torch does not do")
            # torch ignores the checksums that it writes, and reads an entry that is marked as a folder as empty.
            altered = file.testzip()
            if altered or any(member.external_attr for member in members):
                raise ValueError(f"{altered or 'an entry'} is not as it was written")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if missing := KEYS - set(saved["model"]):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if not isinstance(saved.get("state_dict"), dict):
            raise ValueError("it has no state_dict")
    except Exception as error:  # zipfile and torch raise many kinds of errors
        raise UserError(f"{path}: not a checkpoint of this project, or damaged ({first_line(error)}).") from error
    return saved
