"""The network layer by layer, on the terminal and as text in TensorBoard."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from torch import nn


class LayerTable(pl.Callback):
    """Prints `layer_table` before the first epoch."""

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        table = layer_table(model.network, model.image_size)
        rank_zero_info(table)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(
                    "layers", "\n".join("    " + line for line in table.splitlines())
                )  # indented: monospaced


def layer_table(network: nn.Module, image_size: int) -> str:
    """One line a layer: name and kind, output shape (N is the batch), parameters, frozen or not; then the totals.

    One black image (1, 3, image_size, image_size) passes the network to learn the shapes.
    """
    rows = []

    def record(name: str):
        def hook(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            parameters = list(layer.parameters())
            state = "" if not parameters else "trainable" if any(p.requires_grad for p in parameters) else "frozen"
            shape = "(N, " + ", ".join(str(side) for side in output.shape[1:]) + ")"
            rows.append((f"{name} ({type(layer).__name__})", shape, f"{sum(p.numel() for p in parameters):,}", state))

        return hook

    leaves = [
        (name, layer)
        for name, layer in network.named_modules()
        if not list(layer.children()) and not isinstance(layer, nn.Sequential)
    ]
    hooks = [layer.register_forward_hook(record(name)) for name, layer in leaves]
    was_training = network.training
    like = next(network.parameters())
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # what is compiled would not call the hooks
        network.eval()(torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype))
    network.train(was_training)
    for hook in hooks:
        hook.remove()

    header = ("layer", "output shape", "parameters", "")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in [header, *rows]]
    rule = "-" * max(len(line) for line in lines)
    trainable, frozen = count_parameters(network)
    return "\n".join(
        [rule, lines[0], rule, *lines[1:], rule, f"trainable parameters: {trainable:,}   frozen parameters: {frozen:,}"]
    )


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """(trainable, frozen)."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in network.parameters()) - trainable
