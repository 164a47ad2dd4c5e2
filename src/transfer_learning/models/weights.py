"""Files of pretrained weights."""

from dataclasses import dataclass
from functools import cache
from glob import escape
from itertools import product
from pathlib import Path

import torch

from transfer_learning.utilities.errors import ArgumentError, UserError, first_line, needs
from transfer_learning.utilities.files import file_sha256

SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from: a published name or a file, and the file's SHA-256 (hex)."""

    name: str
    sha256: str


def resolve_weights_file(network: str, weights: str | None) -> str | None:
    """`weights`; but if they are a folder, the file in it that is named after the network.

    That is NAME.pth, else NAME-….pth (torchvision's files), else NAME_….pth; `.pt` and `.safetensors` too. For
    NAME.TAG it may be a file of NAME. Raises ArgumentError if there is none, or more than one.
    """
    folder = Path(weights or "").expanduser()
    if not weights or not folder.is_dir():
        return weights
    for name, end in product(dict.fromkeys([network, network.partition(".")[0]]), ("", "-*", "_*")):
        files = (file for suffix in SUFFIXES for file in folder.glob(f"{escape(name)}{end}{suffix}"))
        found = sorted(file for file in files if file.is_file())
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise ArgumentError("weights", weights, f"has several files for {network} ({names}); name one of them.")
        if found:
            return str(found[0])
    expected = f"expected {network}.pth in it, or {network}-….pth."
    raise ArgumentError("weights", weights, f"this folder has no weights of {network}; {expected}")


def weights_sha256(path: Path) -> str:
    """The file's SHA-256 (hex), which is computed once in a process as long as the file does not change."""
    about = path.stat()
    return _sha256(path, about.st_mtime_ns, about.st_size)


@cache
def _sha256(path: Path, modified: int, size: int) -> str:
    return file_sha256(path)


def read_state_dict(path: str | Path, weights: str, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """Reads a state_dict and its file's SHA-256, without running any code that the file may contain.

    Args:
        weights: the argument that named the file, for messages.
        sha256: what the file must hash to; None accepts any.

    Raises:
        UserError: another SHA-256, not a state_dict, or safetensors is not installed.
    """
    path = Path(path)
    found = weights_sha256(path)
    if sha256 and found != sha256:
        raise UserError(f"{path}: its SHA-256 is {found}, expected {sha256}: not the weights of the training.")
    try:
        if path.suffix == ".safetensors":
            needs("safetensors", "timm")
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            inside = [str(key) for key, value in state.items() if isinstance(value, dict) and value]
            way = f"; are the weights in {' or '.join(inside)}? Save that alone with torch.save" if inside else ""
            raise ValueError(f"not all of its values are tensors{way}")
        if all(key.startswith("module.") for key in state):  # of DataParallel
            for key in list(state):  # in place: torch keeps the versions of layers in an attribute of the dict
                state[key.removeprefix("module.")] = state.pop(key)
    except UserError as error:
        raise ArgumentError("weights", weights, str(error)) from error
    except Exception as error:  # torch raises many kinds of errors for damaged and foreign files
        reason = f"{path} is not a state_dict that can be read safely ({first_line(error)})."
        raise ArgumentError("weights", weights, reason) from error
    return state, found
