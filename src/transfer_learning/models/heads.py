"""Dense layers, and Keras's initialization."""

from collections.abc import Sequence

from torch import nn


def dense_layers(
    inputs: int, dense: Sequence[int], dropout: float, outputs: int, layer_norm: bool = False
) -> list[nn.Module]:
    """Flatten, layer norm if wanted, hidden layers with ReLU and dropout (else dropout on the inputs), logits."""
    layers: list[nn.Module] = [nn.Flatten(), nn.LayerNorm(inputs)] if layer_norm else [nn.Flatten()]
    for width in dense:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    if dropout and not dense:
        layers += [nn.Dropout(dropout)]
    return [*layers, nn.Linear(inputs, outputs)]


def keras_init(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, as Keras initializes; for `Module.apply`."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
