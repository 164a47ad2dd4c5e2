"""A pretrained backbone with a head: what comes before the cut is frozen, the rest learns."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer_learning.models import backbones
from transfer_learning.models.folding import fold_batch_norms
from transfer_learning.models.heads import dense_layers, keras_init
from transfer_learning.models.network import Frozen, Network, ParameterGroup, num_logits
from transfer_learning.utilities.errors import ArgumentError, first_line
from transfer_learning.utilities.validation import NameOrPath, validated

TUTORIAL_WEIGHTS = "VGG16_Weights.IMAGENET1K_FEATURES"


class Normalize(nn.Module):
    """(images - mean) / std for each channel: images (N, 3, H, W) float in [0, 1] -> the range that weights expect."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class TutorialPreprocessing(nn.Module):
    """The tutorial's mistake: images stay in [0, 1], and red is where the kernels expect blue."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flip(1)


class FineTuned(nn.Sequential):
    """Pretrained blocks that learn. Batch norms may stay frozen: the statistics of few images would spoil them."""

    def __init__(self, layers: OrderedDict[str, nn.Module], batch_norm: str):
        super().__init__(layers)
        self.batch_norm = batch_norm
        self.train()

    def train(self, mode: bool = True) -> "FineTuned":
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm) and self.batch_norm == "frozen":
                layer.eval().requires_grad_(False)
        return self


@validated
class Pretrained(Network):
    """Normalization, a backbone's blocks, pooling and a head.

    The blocks are `block1`, `block2` ... VGG's are the convolutions up to each pooling, ResNet's the stem and the four
    layers, ConvNeXt's and Swin's the four stages, EfficientNet's the stem and the stages, ViT's the embedding of
    patches and positions, then each layer. Other networks of torchvision's are one piece. For timm's, see
    `backbones/timm.py`. Batch norms before the cut are folded into convolutions.

    Args:
        num_classes, image_size: C >= 2; side of the images in pixels.
        backbone: a classification network of torchvision's, or `provider/NAME` (see `backbones`).
        weights: a published name, a file with a state_dict in the provider's layout, a folder with such a file that is
            named after the backbone, or None for random weights.
        unfreeze: the cut. None trains the head; a block's name also that block and those after it; "all" everything.
        preprocess: "weights" normalizes as the weights expect; "tutorial" feeds VGG16 as the tutorial does.
        pool: "average" pools maps globally; "none" keeps them.
        layer_norm, dense, dropout: of the head: whether it begins with a layer norm, widths of its hidden layers, and
            the probability after each of them, or on the features if there is none.
        batch_norm: "frozen" or "train", in blocks that learn.
        unfreeze_at_epoch: the number of epochs in which the learning rate of unfrozen blocks is 0. They are in training
            mode already: with batch_norm="train", their running statistics change.
        backbone_lr_scale: multiplies the learning rate of unfrozen blocks.
        layer_decay: the learning rate of the n-th block from the end is also multiplied by layer_decay ** n (Bao et al.
            2021, BEiT, with backbone_lr_scale=1; 0.65 to 0.9 are usual for transformers). None is 1 for all blocks.
        sha256: what the weights' file must hash to; None accepts any.

    Raises:
        UserError: no such block; an image that is too small; as `backbones.create`.
    """

    def __init__(
        self,
        num_classes: Annotated[int, Field(ge=2)],
        image_size: Annotated[int, Field(ge=1)],
        backbone: str = "resnet50",
        weights: NameOrPath | None = "DEFAULT",
        unfreeze: str | None = None,
        preprocess: Literal["weights", "tutorial"] = "weights",
        pool: Literal["average", "none"] = "average",
        layer_norm: bool = True,
        dense: Sequence[Annotated[int, Field(ge=1)]] = (),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        batch_norm: Literal["frozen", "train"] = "frozen",
        unfreeze_at_epoch: NonNegativeInt = 2,
        backbone_lr_scale: NonNegativeFloat = 0.1,
        layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None,
        sha256: str | None = None,
    ):
        built = backbones.create(backbone, None if weights is None else str(weights), image_size, sha256)
        if layer_decay is not None and "body" in built.blocks:
            raise ArgumentError("layer_decay", layer_decay, f"{backbone} is no chain of blocks; expected null.")
        if layer_decay is not None and unfreeze is None:
            raise ArgumentError("layer_decay", layer_decay, "without unfreeze, no block learns; expected null.")
        layers = _layers(built, backbone, preprocess, pool)
        cut = _cut(list(layers), backbone, unfreeze)
        features = _features_of(nn.Sequential(layers), image_size, backbone)
        if pool == "none" and features.ndim != 4:
            raise ArgumentError("pool", pool, f"{backbone} passes no map to its last layer; expected average.")
        head = nn.Sequential(*dense_layers(features.numel(), dense, dropout, num_logits(num_classes), layer_norm))
        head.apply(keras_init)
        learning = OrderedDict((name, layers.pop(name)) for name in list(layers)[cut:])
        source = built.source if cut > 1 else None  # if everything learns, checkpoints hold all weights
        arguments = dict(
            num_classes=num_classes, image_size=image_size, backbone=backbone, weights=source.name if source else None,
            unfreeze=unfreeze, preprocess=preprocess, pool=pool, layer_norm=layer_norm, dense=list(dense),
            dropout=dropout, batch_norm=batch_norm, unfreeze_at_epoch=unfreeze_at_epoch,
            backbone_lr_scale=backbone_lr_scale, layer_decay=layer_decay,
        )  # fmt: skip
        trainable = nn.Sequential(OrderedDict(backbone=FineTuned(learning, batch_norm), head=head))
        folded = fold_batch_norms(nn.Sequential(layers), image_size)
        super().__init__(Frozen(OrderedDict(folded.named_children())), trainable, arguments, source)
        self.unfreeze_at_epoch, self.backbone_lr_scale = unfreeze_at_epoch, backbone_lr_scale
        self.layer_decay = layer_decay

    def parameter_groups(self) -> list[ParameterGroup]:
        """The head, and what learns of the backbone: one group, or with `layer_decay` one for each block."""
        groups: list[ParameterGroup] = []
        learning: dict[str, list[nn.Parameter]] = {}
        name = "backbone"
        for layer_name, layer in self.trainable.get_submodule("backbone").named_children():
            if self.layer_decay is not None and layer_name.startswith("block"):  # others belong to the last block
                name = layer_name
            learning.setdefault(name, []).extend(p for p in layer.parameters() if p.requires_grad)
        for distance, (name, parameters) in enumerate(reversed(learning.items()), 1):
            scale = self.backbone_lr_scale * (self.layer_decay or 1.0) ** distance
            groups.append(ParameterGroup(name, parameters, scale, from_epoch=self.unfreeze_at_epoch))
        head = ParameterGroup("head", list(self.trainable.get_submodule("head").parameters()))
        return [head, *(group for group in groups if group.parameters)]


def _layers(built: backbones.Backbone, backbone: str, preprocess: str, pool: str) -> OrderedDict[str, nn.Module]:
    """Everything before the head, by name, in order."""
    spec, is_chain = built.input_spec, "body" not in built.blocks
    if preprocess == "tutorial" and spec.weights != TUTORIAL_WEIGHTS:
        raise ArgumentError("preprocess", preprocess, "it is for VGG16's original weights; for others, leave it out.")
    normalize = TutorialPreprocessing() if preprocess == "tutorial" else Normalize(spec.mean, spec.std)
    is_pooled = is_chain and pool == "average"
    after: dict[str, nn.Module] = {"pool": built.pool or nn.AdaptiveAvgPool2d(1)} if is_pooled else {}
    after |= {"norm": built.norm} if built.norm is not None else {}
    return OrderedDict(preprocess=normalize, **built.blocks, **after)


def _cut(names: list[str], backbone: str, unfreeze: str | None) -> int:
    """The position of the first layer that learns."""
    cuts: dict[str | None, int] = {None: len(names), "all": 1}
    cuts |= {name: n for n, name in enumerate(names) if name.startswith("block")}
    if unfreeze not in cuts:
        known = ", ".join(map(str, list(cuts)[2:])) or f"no block, since {backbone} is no chain of blocks"
        raise ArgumentError("unfreeze", unfreeze, f"expected null, all or {known}.")
    return cuts[unfreeze]


def _features_of(layers: nn.Module, image_size: int, backbone: str) -> torch.Tensor:
    """What the head gets for a black image, (1, ...). The layers are in training mode afterwards."""
    try:
        with torch.no_grad():
            return layers.eval()(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:  # a kernel or a pooling window that is larger than its map
        reason = f"{backbone} does not support it ({first_line(error)})."
        raise ArgumentError("image_size", image_size, reason) from error
    finally:
        layers.train()  # some networks, such as LeViT, keep values of evaluation mode, also if other weights are loaded
