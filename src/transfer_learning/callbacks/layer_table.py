"""The network layer by layer, on the terminal and in the loggers."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from transfer_learning.callbacks.loggers import adapters
from transfer_learning.data.summary import log_details
from transfer_learning.models.hooks import forward_hooks
from transfer_learning.models.network import count_parameters, pass_black_image

shown: set[str] = set()  # the tables of this process, such as that of a sweep's first job


class LayerTable(pl.Callback):
    """Shows `layer_table` before the first epoch; of a table that this process has shown, only the totals."""

    def on_fit_start(self, trainer: Any, model: Any) -> None:
        if trainer.is_global_zero:
            table = layer_table(model.network, model.preprocessing.image_size)
            if table in shown:
                rank_zero_info(f"layers as above; {table.splitlines()[-1]}")
                log_details(table)
            else:
                rank_zero_info(table)
                shown.add(table)
            for adapter in adapters(trainer):
                adapter.text("layers", table)


def layer_table(network: nn.Module, image_size: int) -> str:
    """One line per layer: name and type, output shape (N is the batch), parameters, trainable or frozen; then totals.

    One black image, (1, 3, image_size, image_size), passes the network to find the shapes.
    """
    rows = []

    def record(name: str):
        def hook(layer: nn.Module, inputs: tuple, output: Any) -> None:
            parameters = list(layer.parameters())
            if not parameters:
                state = ""
            elif any(p.requires_grad for p in parameters):
                state = "trainable"
            else:
                state = "frozen"
            is_tensor = isinstance(output, torch.Tensor)
            shape = f"(N, {', '.join(map(str, output.shape[1:]))})" if is_tensor else type(output).__name__
            rows.append((f"{name} ({type(layer).__name__})", shape, f"{sum(p.numel() for p in parameters):,}", state))

        return hook

    leaves = {name: layer for name, layer in network.named_modules() if not list(layer.children())}
    layers = {name: layer for name, layer in leaves.items() if not isinstance(layer, nn.Sequential)}
    with forward_hooks((layer, record(name)) for name, layer in layers.items()):
        pass_black_image(network, image_size)

    header = ("layer", "output shape", "parameters", "")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in [header, *rows]]
    rule = "-" * max(len(line) for line in lines)
    trainable, frozen = count_parameters(network)
    totals = f"trainable parameters: {trainable:,}   frozen parameters: {frozen:,}"
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, totals])
