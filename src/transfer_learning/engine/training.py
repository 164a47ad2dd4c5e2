"""Training: fits a model, tests its best epoch and writes the report."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.callbacks.history import History
from transfer_learning.callbacks.loggers import adapters
from transfer_learning.callbacks.run_end import RunEndCallback, monitoring_checkpoint, validate
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart
from transfer_learning.engine.batch_norm import check_last_batch
from transfer_learning.engine.checkpoint import read_checkpoint, read_weights
from transfer_learning.engine.checks import EPOCH_WITH_VALIDATION, check_not_empty, check_training
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.inference import TRUE_PRECISIONS
from transfer_learning.engine.metrics import Monitor
from transfer_learning.models.network import Network, count_parameters
from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.reporting.run_summary import summary, write_results
from transfer_learning.utilities.cores import usable_cores
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.hardware import configure_process, device_name, memory_format

Function = TypeVar("Function", bound=Callable)


def keeps_generator(function: Function) -> Function:
    """Makes a function of data, model, trainer ... leave torch's global generator as it was, and images in the data."""

    @wraps(function)
    def wrapped(data: ImageDataModule, model: Classifier, trainer: pl.Trainer, *further: Any, **named: Any) -> Any:
        device = trainer.strategy.root_device
        with torch.random.fork_rng([device] if device.type == "cuda" and torch.cuda.is_initialized() else []):
            try:
                return function(data, model, trainer, *further, **named)
            finally:
                data.features = {}  # after an error too: they are those of this network

    return cast(Function, wrapped)


@keeps_generator
def train(
    data: ImageDataModule,
    model: Classifier,
    trainer: pl.Trainer,
    settings: Mapping[str, Any] | None = None,
    compile: bool = False,
    started: float | None = None,
    resume: str | Path | None = None,
    monitor: str | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Fits the model and tests its best epoch, whose weights the model has then.

    Writes `metrics.json`, `epochs.csv` and `curves.png` to `trainer.default_root_dir`. Each training needs a
    Trainer and a ModelCheckpoint of its own. torch's global generator is left as it was.

    Args:
        trainer: its first ModelCheckpoint that monitors something chooses the best epoch; without one it is the last.
        settings: plain values that loggers show beside the results.
        compile: whether torch compiles the frozen part and, on a GPU, the trainable part (slower on a CPU).
        started: `time.perf_counter()` at the start of the program; None is now.
        resume: a checkpoint of the whole training, which goes on as if it had not stopped; None starts anew.
        monitor: the metric to report without a ModelCheckpoint; None is `val/acc`.
        test: whether the best epoch is tested; if not, results of the test are None.

    Returns:
        The content of `metrics.json`: accuracies in [0, 1], counts, seconds of the fit and of the features ...

    Raises:
        UserError: nothing to train, validate or test; an unknown monitor; no compiler; a GPU that this torch has
            no code for; a last batch of one image that stops a batch norm; a loss that is not finite; other classes or
            preprocessing in the data than in the model; a further metric that is not one number; a checkpoint that is
            missing, unreadable, of another network or from within an epoch; a ModelCheckpoint with another folder than
            that of the checkpoint; a Trainer or callback of another training.
    """
    start = time.perf_counter() if started is None else started
    check_training(data, model, trainer, compile, resume, monitor, test)
    splits = ("train", "val", "test") if test else ("train", "val")
    prepare(data, model, trainer, splits)
    model.trained_precision = str(trainer.precision)
    model.temperature = 1.0  # an earlier calibration was of other weights ...
    model.predictions.clear()  # ... and so were earlier predictions
    undo_compilation(model.network)
    if compile:
        compile_network(model.network, trainer.strategy.root_device)
    before_features = time.perf_counter()
    data.store_features(frozen_part(model, trainer, compile), splits)
    before_fit = time.perf_counter()
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.strategy.barrier()  # the first process has written its checkpoints
    after_fit = time.perf_counter()
    monitored = Monitor.of(trainer, monitor)
    best, path = _best_epoch(data, model, trainer, monitored)
    if test:
        best |= trainer.test(model, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)[0]
    elif path:
        read_weights(model, path)
    data.store_features(None)
    model.eval()
    measured: dict[str, float] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunEndCallback):
            measured |= callback.on_run_end(trainer, model, best["epoch"]) or {}
    seconds = _seconds(model.history, start, before_features, before_fit, after_fit)
    metrics = _metrics(data, model, trainer, monitored, best, seconds) | measured
    results = {key: metrics[key] for key in ("val/acc_best", "test/acc") if metrics[key] is not None}
    for adapter in adapters(trainer):
        adapter.results(settings or {}, results, epochs=metrics["epochs"])
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        rank_zero_info("fast_dev_run: everything works; the results of single batches are not kept")
        return metrics
    if trainer.is_global_zero:
        write_results(trainer.default_root_dir, metrics, model.history.rows)
    rank_zero_info(summary(trainer.default_root_dir, metrics))
    return metrics


def prepare(data: ImageDataModule, model: Classifier, trainer: pl.Trainer, splits: Sequence[str]) -> None:
    """Decodes the images, and gives the model the class weights of the data.

    Raises UserError as `data.setup` and `check_last_batch`, and if one of the splits has no readable images.
    """
    configure_process()
    Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)
    cores = f"threads: {torch.get_num_threads()}, usable cores: {usable_cores()}"
    rank_zero_info(f"{device_name(trainer.strategy.root_device)}, precision {trainer.precision}; {cores}")
    data.setup()
    check_not_empty(data, splits)  # there may be fewer images than were listed
    check_last_batch(data, model.network, trainer)
    model.train()  # a loaded model is in evaluation mode
    if str(trainer.precision) not in TRUE_PRECISIONS:
        model.float()  # after a training in `bf16-true` it is in 16 bits
    model.set_class_weights(data.class_weights or model.own_class_weights)  # not those of earlier data


def undo_compilation(network: Network) -> None:
    """Undoes what `compile_network` did for an earlier training."""
    for part in (network.frozen, network.trainable):
        part._compiled_call_impl = None


def compile_network(network: Network, device: torch.device) -> None:
    """Compiles in place, so that checkpoints keep their keys.

    What this process compiled before is forgotten: torch counts the variants of all modules together (batch sizes,
    training or not ...), and beyond its limit, by default 8, it compiles nothing more.
    """
    torch.compiler.reset()
    torch._dynamo.config.cache_size_limit = 64  # the name of `recompile_limit` in torch 2.6, still valid
    for part in [network.frozen] if device.type == "cpu" else [network.frozen, network.trainable]:
        if list(part.parameters()):
            part.compile()


def frozen_part(model: Classifier, trainer: pl.Trainer, compiled: bool = False) -> FrozenPart | None:
    """The frozen part of the model's network, on the device and in the precision of the fit; None if there is none."""
    device, precision, weights = trainer.strategy.root_device, trainer.precision_plugin, model.network.frozen.key
    if weights is None:
        return None
    frozen = precision.convert_module(model.network.frozen.to(device).to(memory_format=memory_format(device)))

    def forward(images: torch.Tensor) -> torch.Tensor:
        with precision.forward_context():
            return frozen(precision.convert_input(images))

    key = {"weights": weights, "precision": str(trainer.precision), "device": device.type, "compiled": compiled}
    texts = [f"{name}={value}" for name, value in model.network.arguments.items() if isinstance(value, str)]
    about = f"{type(model.network).__name__} at {model.preprocessing.image_size} pixels, {trainer.precision}: "
    return FrozenPart(forward, device, key, about + ", ".join(texts))


def _best_epoch(
    data: ImageDataModule, model: Classifier, trainer: pl.Trainer, monitor: Monitor
) -> tuple[dict[str, Any], str | None]:
    """The history's row of the best epoch, and its checkpoint."""
    rows = {row["epoch"]: dict(row) for row in model.history.rows if "val/acc" in row}
    if not rows:
        raise ArgumentError("max_epochs", trainer.max_epochs, EPOCH_WITH_VALIDATION)
    callback = monitoring_checkpoint(trainer)
    if not callback or not callback.best_model_path:
        best = dict(model.history.rows[-1])  # the model has the weights of its end
        return best if "val/acc" in best else best | dict(validate(trainer, model, datamodule=data)), None
    path, score = callback.best_model_path, callback.best_model_score
    epoch = read_checkpoint(path)["epoch"] + 1
    best = rows.get(epoch, {"epoch": epoch, monitor.name: score.item()})
    if "val/acc" not in best or best.get(monitor.name, score) != score:
        # The epoch had no validation; or it was interrupted after the checkpoint was saved, and then repeated with
        # slightly different results.
        best |= validate(trainer, model, datamodule=data, ckpt_path=path, weights_only=True)
    return best, path


def _seconds(
    history: History, start: float, before_features: float, before_fit: float, after_fit: float
) -> dict[str, float | None]:
    """The durations in `metrics.json`, from `time.perf_counter()` at four moments of the program."""
    rows = history.rows
    return {
        "seconds": after_fit - before_fit + sum(row["seconds"] for row in rows[: history.resumed]),
        "seconds_features": before_fit - before_features,
        "seconds_to_first_step": (history.first_step or after_fit) - start,
        "seconds_per_epoch": statistics.median(row["seconds"] for row in rows[1:]) if len(rows) > 1 else None,
    }


def _metrics(
    data: ImageDataModule, model: Classifier, trainer: pl.Trainer, monitor: Monitor, best: dict, seconds: dict
) -> dict[str, Any]:
    """The content of `metrics.json`, from the row of the `best` epoch and the `seconds` of the run."""
    history, rows, tested = model.history, model.history.rows, "test/acc" in best
    # Images that were used: fewer than the split has if the trainer limits the batches.
    batches = {**dict(zip(("train", "val"), history.batches)), "test": trainer.num_test_batches[0] if tested else 0}
    sizes = {split: data.batch_size * (1 if split == "train" else trainer.world_size) for split in batches}
    images = {split: int(min(len(data.splits[split]), batches[split] * sizes[split])) for split in batches}
    interval = wilson_interval(round(best["test/acc"] * images["test"]), images["test"]) if tested else (None, None)
    trainable, frozen = count_parameters(model.network)
    return {
        "val/acc_best": best["val/acc"],
        "epoch_best": best["epoch"],
        "monitor": monitor.name,
        "monitor_mode": monitor.mode,
        "monitor_best": best[monitor.name],
        "val/acc_last": [row["val/acc"] for row in rows if "val/acc" in row][-1],
        "train/acc_last": rows[-1]["train/acc"],
        "test/acc": best.get("test/acc"),
        "test/acc_low": interval[0],
        "test/acc_high": interval[1],
        "test/loss": best.get("test/loss"),
        **{key: value for key, value in best.items() if key.startswith("test/")},  # of further metrics
        "parameters_trainable": trainable,
        "parameters_frozen": frozen,
        "images_train": images["train"],
        "images_val": images["val"],
        "images_test": images["test"] if tested else None,
        "epochs": len(rows),
        **seconds,
        "device": device_name(trainer.strategy.root_device),
        "precision": str(trainer.precision),
    }
