"""Pretrained weights, by a name of torchvision's or from a file, with the preprocessing and the image size that they expect."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torchvision.models import VGG16_Weights, WeightsEnum

from transfer_learning.errors import UserError, first_line


@dataclass(frozen=True)
class Source:
    """Where weights come from: a name of torchvision's or a file, and the file's SHA-256 (hex)."""

    name: str
    sha256: str


def input_size(backbone: str, weights: str | None = "DEFAULT") -> int:
    """The side of the images, in pixels, at which the weights were evaluated."""
    return entry(backbone, weights).transforms().crop_size[0]


def entry(backbone: str, weights: str | None, sha256: str = "") -> WeightsEnum:
    """Torchvision's entry, with the preprocessing, for weights named so, or for a file.

    A file is told by its SHA-256, with which its published name ends. Unknown files and random weights (None) are taken for the default
    weights, or, for VGG16, for IMAGENET1K_FEATURES: the original weights, which Keras ships too.

    Raises:
        UserError: no such network.
    """
    if backbone not in torchvision.models.list_models(torchvision.models):
        raise UserError(f"model.backbone={backbone}: expected one of torchvision's classification networks, such as resnet50 or vgg16.")
    known = torchvision.models.get_model_weights(backbone)
    if weights in known.__members__:
        return known[weights]
    published = [each for each in known if sha256.startswith(_hash_in_name(each)[:8]) and sha256]
    return published[0] if published else VGG16_Weights.IMAGENET1K_FEATURES if backbone == "vgg16" else known["DEFAULT"]


def read_weights(backbone: str, weights: str, sha256: str | None = None) -> tuple[WeightsEnum, Source, dict[str, torch.Tensor]]:
    """Reads weights named or in a file.

    Args:
        backbone: a name of torchvision's.
        weights: a name in torchvision's weights of it, or a file that holds a state_dict in torchvision's layout.
        sha256: what the file must hash to; None takes any.

    Returns:
        (torchvision's entry, which has the preprocessing; where they come from; the state_dict).

    Raises:
        UserError: no such network or file; not there and no connection; another SHA-256; not a state_dict.
    """
    named = entry(backbone, weights)
    named = named if weights in type(named).__members__ else None
    path = _downloaded(named) if named else Path(weights).expanduser().resolve()
    if not path.is_file():
        names = ", ".join(torchvision.models.get_model_weights(backbone).__members__)
        raise UserError(f"model.weights={weights}: no such file; expected a file, one of {names}, or null for random weights.")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        raise UserError(f"{path}: its SHA-256 is {found}, expected {sha256}: not the weights that this model was trained on.")
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True).items())
    except Exception as error:  # torch raises many kinds on a file that is cut off, holds code or is something else
        raise UserError(f"model.weights={weights}: {path} is not a state_dict that can be read safely ({first_line(error)}).") from error
    source = Source(named.name if named else str(path), found)  # the name behind DEFAULT, which may change
    return named or entry(backbone, weights, found), source, state


def _hash_in_name(named: WeightsEnum) -> str:
    return named.url.rsplit("-", 1)[1].removesuffix(".pth")


def _downloaded(named: WeightsEnum) -> Path:
    """Where torch keeps the file, after downloading it if it is not there."""
    path = Path(torch.hub.get_dir(), "checkpoints", named.url.rsplit("/", 1)[1])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(named.url, str(path), hash_prefix=_hash_in_name(named))
        except (OSError, RuntimeError) as error:  # no connection; the wrong bytes
            raise UserError(
                f"model.weights={named.name}: {path} is not there, and {named.url} cannot be downloaded ({first_line(error)}). "
                "Put it there, or name a file with model.weights=…, or take random weights: model.weights=null."
            ) from error
    return path
