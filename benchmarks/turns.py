"""Variants of a training, each a process that waits for its turn, so that all run under the same conditions.

A process is stopped as a whole while it waits: a checkpoint that it still writes in the background counts in its own
next turn.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple


class Variant(NamedTuple):
    """A function of a module, called as `run(folder=FOLDER, **arguments)`; it calls `turn()` before each epoch."""

    run: Callable[..., None]
    arguments: Mapping[str, Any]


_parent: Connection  # in the process of a variant


def turn() -> None:
    """Ends this process's turn, and returns when its next one begins."""
    _parent.send("done")
    if _parent.recv() != "go":
        os._exit(0)


def turn_each_epoch():
    """A callback of Lightning's that gives each epoch a turn."""
    import pytorch_lightning as pl

    class TurnEachEpoch(pl.Callback):
        def on_train_epoch_start(self, trainer, model) -> None:
            turn()

    return TurnEachEpoch()


def measured(variants: Mapping[str, Variant], rounds: int, folder: str) -> dict[str, list[float]]:
    """The seconds of each variant's turns, without the first, which warms up. Exits if a variant fails."""
    context, running, ends, seconds = multiprocessing.get_context("spawn"), {}, {}, {}
    for name, variant in variants.items():
        here, there = context.Pipe()
        running[name] = here, context.Process(target=_run, args=(variant, folder, there))
        ends[name], seconds[name] = there, list[float]()
    try:
        for name, (here, process) in running.items():  # one after the other: the first fills the cache
            process.start()
            ends[name].close()
            here.recv()
            os.killpg(process.pid, signal.SIGSTOP)
        for _ in range(rounds + 1):
            for name, (here, process) in running.items():
                start = time.perf_counter()
                os.killpg(process.pid, signal.SIGCONT)
                here.send("go")
                here.recv()
                seconds[name].append(time.perf_counter() - start)
                os.killpg(process.pid, signal.SIGSTOP)
    except EOFError:
        sys.exit(f"{name} failed:\n{Path(folder, 'log.txt').read_text(encoding='utf-8')[-3000:]}")
    finally:
        for _, process in running.values():
            if process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)
                process.join()
    return {name: values[1:] for name, values in seconds.items()}


def _run(variant: Variant, folder: str, parent: Connection) -> None:
    global _parent
    _parent = parent
    os.setpgrp()  # workers of this process stop with it
    log = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    multiprocessing.set_start_method(None, force=True)  # a DataLoader's workers are started as by default, not spawned
    variant.run(folder=folder, **variant.arguments)


def machine() -> str:
    """The processor, its cores, the GPU and torch's version."""
    import torch

    from transfer_learning.utilities.cores import usable_cores
    from transfer_learning.utilities.hardware import processor

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {usable_cores()} cores{gpu}, torch {torch.__version__}"
