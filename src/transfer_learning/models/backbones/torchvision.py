"""torchvision's classification networks as backbones."""

import re
from contextlib import nullcontext
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.models import VGG, ConvNeXt, EfficientNet, GoogLeNet, Inception3, ResNet, VGG16_Weights, WeightsEnum
from torchvision.models import SwinTransformer as Swin
from torchvision.models import VisionTransformer as ViT

from transfer_learning.models.backbones import Backbone, InputSpec, no_such_network
from transfer_learning.models.heads import keras_init
from transfer_learning.models.weights import WeightsSource, read_state_dict, weights_sha256
from transfer_learning.utilities.errors import ArgumentError, first_line


def input_spec(name: str, weights: str | None) -> InputSpec:
    """See `backbones.input_spec`."""
    entry = weights_entry(name, weights)
    preset = entry.transforms()
    interpolation = preset.interpolation.value
    return InputSpec(str(entry), preset.crop_size[0], interpolation, tuple(preset.mean), tuple(preset.std))


def create(name: str, weights: str | None, image_size: int, sha256: str | None = None) -> Backbone:
    """See `backbones.create`."""
    spec = input_spec(name, weights)
    source, state = _read(name, weights, sha256) if weights is not None else (None, None)
    network = _network(name, image_size, state, weights)
    blocks, after = _blocks(network)
    named = {f"block{n}": block for n, block in enumerate(blocks, 1)} or {"body": network}
    return Backbone(named, spec, source=source, **after)


def weights_entry(name: str, weights: str | None) -> WeightsEnum:
    """torchvision's entry for the weights, which has their preprocessing.

    A published file is recognized by its SHA-256. Other files and random weights (None) get the entry of the default
    weights or, for VGG16, of IMAGENET1K_FEATURES, the original weights that Keras uses too.

    Raises:
        ArgumentError: no such network.
    """
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise ArgumentError("backbone", name, no_such_network("torchvision", name, known))
    entries = torchvision.models.get_model_weights(name)
    if weights in entries.__members__:
        return entries[weights]
    file = Path(weights).expanduser() if weights else None
    digest = weights_sha256(file) if file and file.is_file() else ""
    default = VGG16_Weights.IMAGENET1K_FEATURES if name == "vgg16" else entries["DEFAULT"]
    return next((entry for entry in entries if digest.startswith(_hash_in_name(entry))), default)


def _read(name: str, weights: str, sha256: str | None) -> tuple[WeightsSource, dict[str, torch.Tensor]]:
    entry = weights_entry(name, weights)
    published = weights in type(entry).__members__
    path = _downloaded(entry) if published else Path(weights).expanduser().absolute()
    if not path.is_file():
        names = ", ".join(type(entry).__members__)
        expected = f"expected a file, one of {names}, or null for random weights."
        raise ArgumentError("weights", weights, f"no such file; {expected}")
    state, found = read_state_dict(path, weights, sha256)
    for key in list(state):  # DenseNet's files are older than its code
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)] = state.pop(key)
    source = entry.name if published else str(path)  # what DEFAULT means may change, the entry's name does not
    return WeightsSource(source, found), state


def _hash_in_name(entry: WeightsEnum) -> str:
    return entry.url.rsplit("-", 1)[1].removesuffix(".pth")


def _downloaded(entry: WeightsEnum) -> Path:
    """The file in torch's cache, which is downloaded if it is missing."""
    path = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/", 1)[1])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=_hash_in_name(entry))
        except (OSError, RuntimeError) as error:  # no connection, or other bytes
            reason = f"{path} is missing, and {entry.url} cannot be downloaded ({first_line(error)})"
            ways = "Put it there, name a file as `weights`, or take random weights (null)."
            raise ArgumentError("weights", entry.name, f"{reason}. {ways}") from error
    return path


def _network(name: str, image_size: int, state: dict[str, torch.Tensor] | None, weights: str | None) -> nn.Module:
    """The network without its last layer (VGG: without all of its dense layers), with the given or random weights."""
    size = {"image_size": image_size} if name.startswith("vit") else {}  # its position embeddings are weights
    try:
        # VGG's dense layers are never allocated.
        with torch.device("meta") if name.startswith("vgg") else nullcontext():
            network = torchvision.models.get_model(name, weights=None, **size)
    except AssertionError as error:
        raise ArgumentError("image_size", image_size, f"{name} does not support it ({error}).") from error
    dense = [layer_name for layer_name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not dense or isinstance(network, (GoogLeNet, Inception3)):
        raise ArgumentError("backbone", name, "it does not end in one dense layer, which a head could replace.")
    last = "classifier" if isinstance(network, VGG) else dense[-1]
    network.set_submodule(last, nn.Identity())
    if isinstance(network, VGG):
        network = network.to_empty(device=torch.empty(0).device)
    if state is None:
        return network.apply(_initialize) if isinstance(network, VGG) else network
    for key in [key for key in state if key.startswith(f"{last}.")]:
        del state[key]  # in place: torch keeps the versions of layers in an attribute of the dict
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        layout = f"not {name} at {image_size} pixels in torchvision's layout ({reason})."
        raise ArgumentError("weights", weights, layout) from error
    return network


def _initialize(layer: nn.Module) -> None:
    getattr(layer, "reset_parameters", lambda: None)()
    keras_init(layer)


class Tokens(nn.Module):
    """What a vision transformer's layers get: images -> class token and patches with their positions, (N, T, C)."""

    def __init__(self, network: ViT):
        super().__init__()
        self.network = network  # its encoder has no layers

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.network._process_input(images)
        return self.network.encoder(torch.cat([self.network.class_token.expand(len(images), -1, -1), patches], dim=1))


class ClassToken(nn.Module):
    """(N, T, C) -> (N, C)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


def _blocks(network: nn.Module) -> tuple[list[nn.Module], dict[str, nn.Module]]:
    """The blocks of a network in order, and a `Backbone`'s `pool` or `norm`; no blocks if it is no chain of them."""
    if isinstance(network, VGG):  # the convolutions up to each pooling
        ends = [index + 1 for index, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
        return [network.features[start:end] for start, end in zip([0, *ends], ends)], {}
    if isinstance(network, ResNet):
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        return [stem, network.layer1, network.layer2, network.layer3, network.layer4], {}
    if isinstance(network, (ConvNeXt, Swin)):  # stem or downsampling, then the stage
        stages = [network.features[start : start + 2] for start in range(0, len(network.features), 2)]
        if isinstance(network, ConvNeXt):
            return stages, {"norm": network.classifier[0]}
        return [*stages[:-1], nn.Sequential(*stages[-1], network.norm, network.permute)], {}
    if isinstance(network, EfficientNet):  # the last convolution belongs to the last stage
        return [*network.features[:-2], network.features[-2:]], {}
    if isinstance(network, ViT):  # patches and positions, then each layer; the last norm with the last
        *layers, last = network.encoder.layers
        last = nn.Sequential(last, network.encoder.ln)
        network.encoder.layers, network.encoder.ln = nn.Sequential(), nn.Identity()
        return [Tokens(network), *layers, last], {"pool": ClassToken()}
    return [], {}
