"""Pretrained weights, by a name of torchvision's or from a file, with the preprocessing and the image size that they expect."""

import hashlib
import re
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
    """The side of the images, in pixels, at which the weights were evaluated; raises as `entry` does."""
    return entry(backbone, weights).transforms().crop_size[0]


def entry(backbone: str, weights: str | None) -> WeightsEnum:
    """Torchvision's entry, with the preprocessing, for weights named so, or for a file.

    A published file is known by its SHA-256, whatever it is called. Other files, and random weights (None), are taken for the default
    weights, or, for VGG16, for IMAGENET1K_FEATURES: the original weights, which Keras ships too.

    Raises:
        UserError: no such network.
    """
    if backbone not in torchvision.models.list_models(torchvision.models):
        raise UserError(
            f"model.backbone={backbone}: expected one of torchvision's classification networks, such as resnet50 or vgg16."
        )
    known = torchvision.models.get_model_weights(backbone)
    if weights in known.__members__:
        return known[weights]
    digest = _sha256(Path(weights).expanduser()) if weights and Path(weights).expanduser().is_file() else ""
    otherwise = VGG16_Weights.IMAGENET1K_FEATURES if backbone == "vgg16" else known["DEFAULT"]
    return next((each for each in known if digest.startswith(_hash_in_name(each))), otherwise)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(
    backbone: str, weights: str, sha256: str | None = None
) -> tuple[WeightsEnum, Source, dict[str, torch.Tensor]]:
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
    known = entry(backbone, weights)
    named = weights in type(known).__members__
    path = _downloaded(known) if named else Path(weights).expanduser().resolve()
    if not path.is_file():
        names = ", ".join(type(known).__members__)
        raise UserError(
            f"model.weights={weights}: no such file; expected a file, one of {names}, or null for random weights."
        )
    found = _sha256(path)
    if sha256 and found != sha256:
        raise UserError(
            f"{path}: its SHA-256 is {found}, expected {sha256}: not the weights that this model was trained on."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = list(state.keys())
    except Exception as error:  # torch raises many kinds on a file that is cut off, holds code or is something else
        raise UserError(
            f"model.weights={weights}: {path} is not a state_dict that can be read safely ({first_line(error)})."
        ) from error
    for name in names:  # DenseNet's files are older than its code
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)] = state.pop(name)
    return known, Source(known.name if named else str(path), found), state  # the name behind DEFAULT, which may change


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
