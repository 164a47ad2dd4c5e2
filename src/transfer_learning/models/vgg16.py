"""VGG16's convolutions, frozen, with the preprocessing that their weights expect, and a trainable head."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision.models import VGG16_Weights, vgg16

from transfer_learning.errors import UserError, first_line
from transfer_learning.models.network import Frozen, Network, dense_layers, keras_init, outputs_for

CAFFE = VGG16_Weights.IMAGENET1K_FEATURES  # the weights that Keras ships, and the preprocessing of a weights file
POOLINGS = 5


@dataclass(frozen=True)
class Weights:
    """Where frozen weights come from: a name of torchvision's or a file, and the file's SHA-256 (hex)."""

    name: str
    sha256: str


class Normalise(nn.Module):
    """(images - mean) / std for each channel: images (N, 3, H, W) float in [0, 1] -> the range that the weights expect."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class FrozenVGG16(Network):
    """The tutorial's transfer learning: 13 frozen convolutions -> (N, 512, H // 32, W // 32) -> a trainable head.

    Args:
        num_classes: C >= 2.
        image_size: side of the images in pixels, at least 32.
        weights: a name in `torchvision.models.VGG16_Weights`, or a file that holds a state_dict in torchvision's layout
            (`features.0.weight` …) for the preprocessing of IMAGENET1K_FEATURES, or None for random weights.
        dense: widths of the head's hidden layers.
        dropout: probability, after each hidden layer.
        sha256: what the weights' file must hash to; None takes any.

    Raises:
        UserError: the image is too small; the weights cannot be had, read, or are of another network.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        weights: str | None = CAFFE.name,
        dense: Sequence[int] = (512, 512),
        dropout: float = 0.3,
        sha256: str | None = None,
    ):
        side = image_size // 2**POOLINGS
        if side < 1:
            raise UserError(f"data.image_size={image_size}: too small for VGG16, expected at least {2**POOLINGS}.")
        with torch.device("meta"):  # its classifier, 120 million weights that nobody asked for, is never made
            features = vgg16().features
        features.to_empty(device="cpu")
        if weights is None:
            preset, source = CAFFE.transforms(), None
            features.apply(keras_init)
        else:
            preset, source, state = _read(weights, sha256)
            try:
                features.load_state_dict(state)
            except RuntimeError as error:
                raise UserError(
                    f"model.weights={weights}: not VGG16's convolutions in torchvision's layout ({first_line(error)})."
                ) from error
        head = nn.Sequential(*dense_layers(512 * side * side, list(dense), dropout, outputs_for(num_classes)))
        head.apply(keras_init)
        arguments = dict(num_classes=num_classes, image_size=image_size, weights=source and source.name, dense=list(dense), dropout=dropout)
        super().__init__(Frozen(Normalise(preset.mean, preset.std), features), head, arguments, source)


def _read(weights: str, sha256: str | None) -> tuple[object, Weights, dict[str, torch.Tensor]]:
    """The preprocessing, the provenance and the convolutions' state_dict of weights named or in a file."""
    named = VGG16_Weights[weights] if weights in VGG16_Weights.__members__ else None
    path = _downloaded(named) if named else Path(weights).expanduser().resolve()
    if not path.is_file():
        names = ", ".join(VGG16_Weights.__members__)
        raise UserError(f"model.weights={weights}: no such file; expected a file, one of {names}, or null for random weights.")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        raise UserError(f"{path}: its SHA-256 is {found}, expected {sha256}: not the weights that this model was trained on.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    except Exception as error:  # torch raises many kinds on a file that is cut off, holds code or is something else
        raise UserError(f"model.weights={weights}: {path} is not a state_dict that can be read safely ({first_line(error)}).") from error
    return (named or CAFFE).transforms(), Weights(weights if named else str(path), found), state


def _downloaded(named: VGG16_Weights) -> Path:
    """Where torch keeps the file, after downloading it if it is not there."""
    file_name = named.url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir(), "checkpoints", file_name)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(named.url, str(path), hash_prefix=file_name.rsplit("-", 1)[1].removesuffix(".pth"))
        except (OSError, RuntimeError) as error:  # no connection; the wrong bytes
            raise UserError(
                f"model.weights={named.name}: {path} is not there, and {named.url} cannot be downloaded ({first_line(error)}). "
                "Put it there, or name a file with model.weights=… or the environment variable VGG16_WEIGHTS, "
                "or take random weights: model.weights=null."
            ) from error
    return path
