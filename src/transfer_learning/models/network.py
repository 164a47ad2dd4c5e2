"""The base class of networks: a frozen part, then a trainable part."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from transfer_learning.models.weights import WeightsSource
from transfer_learning.utilities.errors import UserError


class Frozen(nn.Sequential):
    """Layers that training never changes: they get no gradients and stay in evaluation mode."""

    def __init__(self, *layers: Any):
        super().__init__(*layers)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the trainable part keeps this output for its backward pass
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)

    @property
    def key(self) -> str | None:
        """SHA-256 (hex) of the layers' representation, parameters and buffers; None if there are no parameters.

        And of the attribute `version` of the layers that have one: raise it when their `forward` gives other results,
        so that stored features are computed anew.
        """
        if not list(self.parameters()):
            return None
        digest = hashlib.sha256(repr(self).encode())
        for name, layer in self.named_modules():
            if hasattr(layer, "version"):
                digest.update(f"{name} version {layer.version}".encode())
        for name, value in [*self.named_parameters(), *self.named_buffers()]:
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate."""

    name: str
    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0  # multiplies the learning rate
    weight_decay: float | None = None  # None takes the optimizer's
    from_epoch: int = 0  # counted from 0; they learn nothing before


class Network(nn.Module):
    """A frozen part, then a trainable part: images (N, 3, H, W) float in [0, 1] -> logits (N, 1) or (N, C).

    A checkpoint rebuilds a network by calling its class with `arguments`. So a subclass has a constructor that accepts
    `num_classes`, `image_size` and its own arguments, all plain values, and passes them on as `arguments`. With a
    `frozen_source` it also accepts `weights` and `sha256`, the source's name and checksum.

    Args:
        frozen: computes the same for an image in every epoch; empty if everything is trained.
        trainable: the rest.
        arguments: plain keyword arguments of the constructor.
        frozen_source: where frozen weights come from, so that checkpoints need not hold them; None if they do.
    """

    def __init__(
        self, frozen: Frozen, trainable: nn.Sequential, arguments: dict, frozen_source: WeightsSource | None = None
    ):
        super().__init__()
        self.frozen, self.trainable = frozen, trainable
        self.arguments, self.frozen_source = arguments, frozen_source

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trainable(self.frozen(images))

    def keys_of_source(self) -> set[str]:
        """The keys of the state_dict whose values `frozen_source` has: all of `frozen` but its normalization."""
        frozen = {key for key in self.state_dict() if key.startswith("frozen.")} if self.frozen_source else set()
        return {key for key in frozen if not key.startswith("frozen.preprocess.")}

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimizer gets; the first group has the learning rate as configured."""
        return [ParameterGroup("all", [parameter for parameter in self.parameters() if parameter.requires_grad])]


def num_logits(num_classes: int) -> int:
    """One for two classes (that of the second class), else one for each class."""
    return 1 if num_classes == 2 else num_classes


def checked_logits(logits: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Returns the logits. Raises UserError unless they are (N, C), or (N, 1) for two classes.

    Other shapes could train without an error, but uselessly.
    """
    allowed = sorted({num_logits(num_classes), num_classes})
    if logits.ndim != 2 or logits.shape[1] not in allowed:
        expected = f"expected (N, {' or '.join(map(str, allowed))}) for {num_classes} classes"
        raise UserError(f"the network's output is {tuple(logits.shape)}, {expected}.")
    return logits


def pass_black_image(network: nn.Module, image_size: int) -> torch.Tensor:
    """The output for one black image, (1, 3, image_size, image_size), in evaluation mode; hooks are called.

    No gradients are recorded and no statistics change. Afterwards the network is in the mode of before.
    """
    was_training, like = network.training, next(network.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiled layers would not call the hooks
            return network.eval()(image)
    finally:
        network.train(was_training)


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of frozen parameters."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in network.parameters()) - trainable
