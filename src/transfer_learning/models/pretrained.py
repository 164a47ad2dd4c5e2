"""A network of torchvision's, pretrained, cut in a frozen and a trained part, with a head of its own."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import VGG, ConvNeXt, EfficientNet, GoogLeNet, Inception3, ResNet, VGG16_Weights

from transfer_learning.errors import UserError, first_line
from transfer_learning.models.network import Frozen, Network, dense_layers, keras_init, outputs_for
from transfer_learning.models.weights import entry, read_weights


class Normalise(nn.Module):
    """(images - mean) / std for each channel: images (N, 3, H, W) float in [0, 1] -> the range that the weights expect."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class Rescale(nn.Module):
    """The tutorial's mistake: [0, 1], and red where the kernels expect blue."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flip(1)


class TrainedOn(nn.Sequential):
    """Pretrained layers that go on learning, except for batch norms: the statistics of few images would spoil them."""

    def __init__(self, *layers: nn.Module, batch_norm: str):
        super().__init__(*layers)
        self.batch_norm = batch_norm
        self.train()

    def train(self, mode: bool = True) -> "TrainedOn":
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm) and self.batch_norm == "frozen":
                layer.eval().requires_grad_(False)
        return self


class Pretrained(Network):
    """Transfer learning: preprocessing, a pretrained network's blocks and a head. What lies before the cut is frozen, the rest learns.

    The blocks are `block1`, `block2` … as papers count them: VGG's are the convolutions up to each pooling; ResNet's the stem and its four
    layers; ConvNeXt's its four stages; EfficientNet's the stem and its stages. Other networks are one piece.

    Args:
        num_classes: C >= 2.
        image_size: side of the images in pixels.
        backbone: the name of a classification network in `torchvision.models`.
        weights: a name in torchvision's weights of it, a file that holds a state_dict in torchvision's layout, or None for random weights.
        unfreeze: the cut. None trains the head alone; the name of a block that block, those after it and the head; "all" everything.
        preprocess: "weights", the mean and deviation that they expect (images are stretched, however their publishers cropped theirs), or
            "rescale", as the tutorial feeds VGG16.
        pool: "average" over a map's places, or "none", which keeps them.
        layer_norm: whether the head begins with a layer norm.
        dense: widths of the head's hidden layers.
        dropout: probability, after each hidden layer; without them, on the features.
        batch_norm: "frozen" or "train", in blocks that learn.
        head_epochs: epochs in which the head learns alone, before the blocks that are not frozen do.
        lr_share: those blocks' share of the learning rate.
        sha256: what the weights' file must hash to; None takes any.

    Raises:
        UserError: no such network, block or choice; the image is too small; the weights cannot be had, read, or are of another network.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        backbone: str = "vgg16",
        weights: str | None = "DEFAULT",
        unfreeze: str | None = None,
        preprocess: str = "weights",
        pool: str = "average",
        layer_norm: bool = False,
        dense: Sequence[int] = (),
        dropout: float = 0.0,
        batch_norm: str = "frozen",
        head_epochs: int = 0,
        lr_share: float = 1.0,
        sha256: str | None = None,
    ):
        arguments = {key: value for key, value in locals().items() if key not in ("self", "sha256", "__class__")}
        for key, choices in {
            "preprocess": ("weights", "rescale"),
            "pool": ("average", "none"),
            "batch_norm": ("frozen", "train"),
        }.items():
            if arguments[key] not in choices:
                raise UserError(f"model.{key}={arguments[key]}: expected {' or '.join(choices)}.")
        if type(head_epochs) is not int or head_epochs < 0:
            raise UserError(f"model.head_epochs={head_epochs}: expected a whole number of at least 0.")
        if type(lr_share) not in (int, float) or lr_share < 0:
            raise UserError(f"model.lr_share={lr_share}: expected a number of at least 0.")
        if weights is None:
            known, source, state = entry(backbone, None), None, None
        else:
            known, source, state = read_weights(backbone, weights, sha256)
        if preprocess == "rescale" and known is not VGG16_Weights.IMAGENET1K_FEATURES:
            raise UserError(
                "model.preprocess=rescale: shows what the tutorial does to VGG16's original weights; for others leave it out."
            )
        preset = known.transforms()
        layers = OrderedDict(preprocess=Rescale() if preprocess == "rescale" else Normalise(preset.mean, preset.std))
        layers |= _blocks(_built(backbone, image_size, state, weights), pool == "average")
        if "body" in layers and pool == "none":
            raise UserError(f"model.pool=none: {backbone} hands no map to its last layer; leave it average.")
        names = list(layers)
        blocks = [name for name in names if name.startswith("block")]
        if unfreeze not in (None, "all", *blocks):
            known_blocks = ", ".join(blocks) or f"no block, for {backbone} is no chain of them"
            raise UserError(f"model.unfreeze={unfreeze}: expected null, all or {known_blocks}.")
        cut = {None: len(names), "all": 1}.get(unfreeze) or names.index(unfreeze)

        features = _features(nn.Sequential(layers), image_size, backbone)
        head = nn.Sequential(*dense_layers(features, list(dense), dropout, outputs_for(num_classes), layer_norm)).apply(
            keras_init
        )
        learning = TrainedOn(OrderedDict((name, layers.pop(name)) for name in names[cut:]), batch_norm=batch_norm)
        if cut == 1:  # every checkpoint has all pretrained weights, and need not look for them
            source = None
        arguments |= {"dense": list(dense), "weights": source and source.name}
        super().__init__(Frozen(layers), nn.Sequential(OrderedDict(pretrained=learning, head=head)), arguments, source)
        self.head_epochs, self.lr_share = head_epochs, lr_share

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        head, pretrained = self.trainable.head.parameters(), self.trainable.pretrained.parameters()
        return list(head), [parameter for parameter in pretrained if parameter.requires_grad]


def _built(backbone: str, image_size: int, state: dict | None, weights: str | None) -> nn.Module:
    """Torchvision's network without its last layer (VGG: without any dense layer), with the weights of `state` or random ones."""
    size = {"image_size": image_size} if backbone.startswith("vit") else {}  # its position embeddings are weights
    try:
        with torch.device(
            "meta" if backbone.startswith("vgg") else "cpu"
        ):  # its dense layers, 120 million weights, are never made
            network = torchvision.models.get_model(backbone, weights=None, **size)
    except AssertionError as error:  # torchvision's
        raise UserError(f"data.image_size={image_size}: {backbone} cannot take it ({error}).") from error
    dense = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not dense or isinstance(network, (GoogLeNet, Inception3)):
        raise UserError(
            f"model.backbone={backbone}: it does not end in one dense layer, in whose place a head could stand."
        )
    last = "classifier" if isinstance(network, VGG) else dense[-1]
    network.set_submodule(last, nn.Identity())
    if isinstance(network, VGG):
        network = network.to_empty(device="cpu")
    if state is None:
        return network.apply(_random) if isinstance(network, VGG) else network
    for key in [key for key in state if key.startswith(last + ".")]:
        del state[key]
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model.weights={weights}: not {backbone} at {image_size} pixels in torchvision's layout ({reason})."
        ) from error
    return network


def _random(layer: nn.Module) -> None:
    if hasattr(layer, "reset_parameters"):
        layer.reset_parameters()
    keras_init(layer)


def _blocks(network: nn.Module, pool: bool) -> dict[str, nn.Module]:
    """A network's blocks in order, by name, and what follows them; its one `body`, where it is no chain."""
    after = {"pool": nn.AdaptiveAvgPool2d(1)} if pool else {}
    match network:
        case VGG():
            ends = [index + 1 for index, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
            blocks = [network.features[start:end] for start, end in zip([0, *ends], ends)]
        case ResNet():
            stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
            blocks = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
        case ConvNeXt():  # stem or downsampling, then the stage
            blocks = [network.features[start : start + 2] for start in range(0, len(network.features), 2)]
            after["norm"] = network.classifier[0]
        case EfficientNet():  # the last convolution is part of the last stage
            blocks = [*network.features[:-2], network.features[-2:]]
        case _:
            return {"body": network}
    return {f"block{number}": block for number, block in enumerate(blocks, start=1)} | after


def _features(layers: nn.Module, image_size: int, backbone: str) -> int:
    """How many numbers the head gets for an image."""
    try:
        with torch.no_grad():
            return layers.eval()(torch.zeros(1, 3, image_size, image_size)).numel()
    except RuntimeError as error:  # torch's, of a kernel or a pooling larger than its map
        raise UserError(f"data.image_size={image_size}: {backbone} cannot take it ({first_line(error)}).") from error
