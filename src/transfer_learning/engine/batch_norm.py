"""Batch norms: batches that they cannot learn from, and their statistics in several processes."""

import math
from functools import partial

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer_learning.data.batch import used_batches
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.models.network import Network, pass_black_image
from transfer_learning.utilities.errors import ArgumentError


def check_last_batch(data: ImageDataModule, network: Network, trainer: pl.Trainer) -> None:
    """Raises ArgumentError if a training batch of one image would stop the fit; the message names a size that works.

    torch refuses a batch in which a batch norm that learns gets one value per channel. The data are set up.
    """
    count, devices = len(data.splits["train"]), trainer.world_size
    images, size = math.ceil(count / devices), max(1, data.batch_size // devices)  # of each device
    batches = math.ceil(images / size)
    is_complete = used_batches(batches, trainer.limit_train_batches) == batches
    smallest = images - (batches - 1) * size if is_complete else size
    name = single_valued_batch_norm(network, data.training_size) if smallest == 1 else None
    if name:
        sizes = [each for each in range(2, images + 1) if images % each != 1 and each * devices <= count]
        nearest = min(sizes, key=lambda each: abs(each - size), default=None)
        way = f"expected another size, such as {nearest * devices}" if nearest else "more images are needed"
        reason = "a training batch would have one image, and one value per channel"
        raise ArgumentError("batch_size", data.batch_size, f"{way}: {reason} in the batch norm {name}.")


def single_valued_batch_norm(network: Network, image_size: int) -> str | None:
    """The first batch norm that gets one value per channel of one image in training; None if there is none.

    One black image, (1, 3, image_size, image_size), passes the network in evaluation mode, which changes no statistics.
    Afterwards the network is in the mode of before.
    """
    found: list[str] = []
    was_training = network.training

    def record(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found.append(name)

    network.train()  # frozen batch norms stay in evaluation mode
    norms = {name: each for name, each in network.named_modules() if isinstance(each, _BatchNorm) and each.training}
    network.train(was_training)
    hooks = [layer.register_forward_pre_hook(partial(record, name)) for name, layer in norms.items()]
    pass_black_image(network, image_size)
    for hook in hooks:
        hook.remove()
    return found[0] if found else None


def check_synchronized(network: Network, trainer: pl.Trainer) -> None:
    """Raises ArgumentError if synchronizing the batch norms of several devices would change what the network computes.

    torch replaces each by a plain `SyncBatchNorm`. Many of timm's norms have an activation, which would be lost.
    """
    if getattr(trainer.strategy, "_layer_sync", None) is None:
        return
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    for name, layer in network.named_modules():
        if isinstance(layer, _BatchNorm) and type(layer) not in plain:
            reason = f"torch would replace {name}, a {type(layer).__name__}, by a batch norm that does less"
            raise ArgumentError("sync_batchnorm", True, f"{reason}; expected false.")


def share_running_statistics(layers: nn.Module, trainer: pl.Trainer) -> None:
    """Broadcasts the running statistics of the first process, which checkpoints hold, so that all validate the same.

    In training, DDP does so before each batch only.
    """
    if trainer.world_size > 1:
        for norm in [layer for layer in layers.modules() if isinstance(layer, _BatchNorm)]:
            for statistic in norm.buffers(recurse=False):
                torch.distributed.broadcast(statistic, src=0)
