from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torchvision.models import resnet18

from transfer_learning import load
from transfer_learning.callbacks.ema import EMA, averaged_values
from transfer_learning.callbacks.evaluation import Evaluation
from transfer_learning.engine.checkpoint import read_checkpoint
from transfer_learning.engine.checkpoint_file import BackgroundWriter, CheckpointFile
from transfer_learning.engine.training import train
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.resnet import SmallResNet
from transfer_learning.optim.rmsprop import RMSprop
from transfer_learning.optim.schedules import Cosine
from transfer_learning.reporting.prediction_table import read_predictions
from transfer_learning.utilities.errors import ArgumentError, UserError

SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.fixture
def residual(classifier):
    """residual(**settings): a small residual network with batch norms and dropout."""

    def make(optimizer=SGD, **settings):
        torch.manual_seed(0)
        return classifier(SmallResNet(2, 32, channels=[4, 8], blocks=[1, 1], **settings), optimizer=optimizer)

    return make


@pytest.fixture
def on_resnet18(classifier, tmp_path):
    """on_resnet18(**settings): a head on a ResNet-18 with weights of a file, or with blocks that learn."""

    def make(**settings):
        torch.manual_seed(0)
        torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
        network = Pretrained(2, 32, "resnet18", str(tmp_path / "resnet18.pth"), unfreeze_at_epoch=1, **settings)
        return classifier(network, optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9), schedule=Cosine())

    return make


@pytest.fixture
def run(quiet_trainer):
    """run(folder, data, model, decay, epochs, resume, callbacks) -> the content of metrics.json of a whole run."""

    def make(folder, data, model, decay=0.9, epochs=3, resume=None, callbacks=(), **settings):
        files = dict(dirpath=folder / "checkpoints", enable_version_counter=False)
        best = ModelCheckpoint(filename="best", monitor="val/loss", mode="min", save_weights_only=True, **files)
        last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **files)
        trainer = quiet_trainer(
            max_epochs=epochs,
            default_root_dir=folder,
            enable_checkpointing=True,
            callbacks=[*callbacks, EMA(decay), best, last],
            plugins=[BackgroundWriter(CheckpointFile())],
            **settings,
        )
        return train(data, model, trainer, resume=resume)

    return make


def losses_of(network, data, loader):
    """The mean loss of a loader's images, in plain torch, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch) for batch in loader]
        each = [F.softplus((1 - 2.0 * batch.targets) * network(batch.inputs)[:, 0]) for batch in batches]
    network.train()
    return torch.cat(each).mean().item()


def plain_loop(network, data, epochs, decay, every=1):
    """SGD with the average written out, in plain torch, a step for the mean loss of the images of `every` batches.

    Returns for each epoch the validation loss of the averages, and the state_dict with the averages at the end.
    """
    optimizer, loader = torch.optim.SGD(network.parameters(), 0.1), data.train_dataloader()
    averages, steps, losses = {key: value.clone() for key, value in network.state_dict().items()}, 0, []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        for step in [batches[start : start + every] for start in range(0, len(batches), every)]:
            for batch in map(data.on_after_batch_transfer, step):
                logits, targets = network(batch.inputs)[:, 0], batch.targets.float()
                losses_sum = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
                (losses_sum / sum(len(each.targets) for each in step)).backward()
            optimizer.step()
            optimizer.zero_grad()
            d = min(decay, (1 + steps) / (10 + steps))
            for key, value in network.state_dict().items():
                averages[key] = d * averages[key] + (1 - d) * value if value.is_floating_point() else value.clone()
            steps += 1
        raw = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(averages)
        losses.append(losses_of(network, data, data.val_dataloader()))
        network.load_state_dict(raw)
    return losses, averages


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_averages_are_those_of_a_plain_loop(small_data, residual, quiet_trainer, decay, every):
    """Validated in each epoch, and the model's after the fit; batch norm's statistics are averaged, its counts kept."""
    data, model, reference = small_data(batch_size=7), residual(), residual().network
    trainer = quiet_trainer(max_epochs=3, callbacks=[EMA(decay)], accumulate_grad_batches=every)
    trainer.fit(model, datamodule=data)
    losses, averages = plain_loop(reference, data, 3, decay, every)
    assert [row["val/loss"] for row in model.history.rows] == pytest.approx(losses, rel=1e-5)
    found = model.network.state_dict()
    assert found.keys() == averages.keys()
    for key, value in averages.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=key)
    counts = [value for key, value in found.items() if key.endswith("num_batches_tracked")]
    assert counts and all(value == 3 * 4 and value.dtype == torch.int64 for value in counts)
    average, raw = averages["trainable.0.weight"], reference.state_dict()["trainable.0.weight"]
    assert (average - raw).abs().max() > 1e-4  # more than the tolerance
    again = trainer.validate(model, datamodule=data, verbose=False)[0]
    assert again["val/loss"] == pytest.approx(losses[-1], rel=1e-5)


def test_best_checkpoint_test_and_predictions_are_those_of_the_averages(tmp_path, small_data, residual, run):
    data, model = small_data(augment=True), residual()
    metrics = run(tmp_path, data, model, epochs=4, callbacks=[Evaluation(mistakes=0, explained=0)])
    best, last = (read_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    loaded = load(tmp_path)
    for split, key in {"val": "monitor_best", "test": "test/loss"}.items():
        loader = getattr(data, f"{split}_dataloader")()
        assert losses_of(loaded.network, data, loader) == pytest.approx(metrics[key], rel=1e-5)
    assert all(torch.equal(value, best["state_dict"][key]) for key, value in model.state_dict().items())
    table = read_predictions(tmp_path / "predictions.csv").of("test")
    pixels = list(data.pixels[data.splits["test"]])
    order = np.argsort(data.splits["test"])
    np.testing.assert_allclose(loaded.predict(pixels).probabilities[order], table.probabilities, atol=1e-6)
    state = last["callbacks"]["EMA"]
    assert not any(key.endswith("num_batches_tracked") for key in state["averages"])
    for key, average in state["averages"].items():
        assert torch.equal(last["state_dict"][key], average) and not torch.equal(state["weights"][key], average)
    rows = last["history"]["rows"]
    network = load(tmp_path / "checkpoints" / "last.ckpt").network
    assert losses_of(network, data, data.val_dataloader()) == pytest.approx(rows[-1]["val/loss"], rel=1e-5)


RECIPES = {
    "from scratch": ({"augment": True, "batch_size": 7}, {"accumulate_grad_batches": 2}),
    "fine-tuning on stored features": ({"augment": True, "views": 2}, {}),
    "a head, fresh augmentation": ({"augment": True}, {}),
}


@pytest.mark.parametrize(
    "recipe, decay",
    [
        ("from scratch", 0.9),
        ("from scratch", None),
        pytest.param("fine-tuning on stored features", 0.9, marks=pytest.mark.slow),
        pytest.param("a head, fresh augmentation", 0.9, marks=pytest.mark.slow),
    ],
)
def test_resumed_fit_equals_an_uninterrupted_one_to_the_bit(
    tmp_path, small_data, residual, on_resnet18, run, recipe, decay
):
    """Weights, averages, running statistics, optimizer and curves."""
    data_settings, trainer_settings = RECIPES[recipe]

    def start(folder, stop, resume=None):
        class Stop(pl.Callback):
            def on_train_epoch_start(self, trainer, model):
                if trainer.current_epoch == stop:
                    raise UserError("stopped")

        if recipe == "from scratch":
            model = residual(partial(RMSprop, lr=0.01), dropout=0.3)
        elif recipe == "a head, fresh augmentation":
            model = on_resnet18()
        else:
            model = on_resnet18(unfreeze="block5", batch_norm="train")
        data = small_data(**data_settings)
        metrics = run(folder, data, model, decay, 3, resume, [Stop()], **trainer_settings)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in model.history.rows]
        checkpoints = [read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "best")]
        return metrics["test/loss"], rows, checkpoints

    loss, rows, straight = start(tmp_path / "straight", None)
    with pytest.raises(UserError, match="^stopped"):
        start(tmp_path / "resumed", 1)
    last = tmp_path / "resumed" / "checkpoints" / "last.ckpt"
    resumed_loss, resumed_rows, resumed = start(tmp_path / "resumed", None, last)
    assert (resumed_loss, resumed_rows) == (loss, rows)
    assert ("EMA" in straight[0]["callbacks"]) == (decay is not None)
    for one, other in zip(straight, resumed):
        for key in ("state_dict", "optimizer_states"):
            assert_identical(one.get(key), other.get(key))
        assert_identical(one.get("callbacks", {}).get("EMA"), other.get("callbacks", {}).get("EMA"))


def assert_identical(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert_identical(one, other)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("unfreeze", [None, "block5"])
def test_frozen_weights_are_neither_averaged_nor_saved(tmp_path, small_data, on_resnet18, run, unfreeze):
    model = on_resnet18(unfreeze=unfreeze)
    run(tmp_path, small_data(), model, epochs=2)
    parameters, part = dict(model.named_parameters()), model.network.trainable.state_dict()
    learning = {name for name, each in parameters.items() if each.requires_grad}
    best, last = (read_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    normalization = {"network.frozen.preprocess.mean", "network.frozen.preprocess.std"}
    saved = {f"network.trainable.{key}" for key in part} | normalization
    assert set(best["state_dict"]) == set(last["state_dict"]) == saved
    state = last["callbacks"]["EMA"]
    assert set(state["averages"]) & set(parameters) == set(state["weights"]) & set(parameters) == learning
    size = 4 * sum(parameters[name].numel() for name in learning)
    # Weights, averages and momentum: each average is written once.
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_size < 3 * size + 100_000


def test_no_decay_changes_nothing(tmp_path, small_data, residual, quiet_trainer):
    states = []
    for callbacks in ([], [EMA()]):
        model = residual()
        trainer = quiet_trainer(max_epochs=2, callbacks=callbacks)
        trainer.fit(model, datamodule=small_data())
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("decays", [(0.9, None), (None, 0.9)])
def test_resume_with_another_kind_of_fit_is_refused(tmp_path, small_data, residual, run, decays):
    run(tmp_path, small_data(), residual(), decays[0], epochs=1)
    with pytest.raises(ArgumentError, match=f"^decay={decays[1]}: expected that of the checkpoint's fit: "):
        run(tmp_path, small_data(), residual(), decays[1], 2, tmp_path / "checkpoints" / "last.ckpt")


def test_averages_of_16_bits_are_kept_in_32(tmp_path, small_data, residual, run):
    run(tmp_path, small_data(), residual(), epochs=2, precision="bf16-true")
    last = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert {value.dtype for value in last["callbacks"]["EMA"]["averages"].values()} == {torch.float32}
    dtypes = {value.dtype for key, value in last["state_dict"].items() if not key.endswith("tracked")}
    assert dtypes == {torch.bfloat16}
    for key, average in last["callbacks"]["EMA"]["averages"].items():
        assert torch.equal(last["state_dict"][key], average.bfloat16())


def test_further_fit_begins_anew(small_data, residual, quiet_trainer):
    data, callback, states = small_data(), EMA(0.9), []
    for _ in range(2):
        model = residual()
        quiet_trainer(max_epochs=1, callbacks=[callback]).fit(model, datamodule=data)
        states.append(model.state_dict())
        assert not callback.averages and not callback.weights
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_validation_before_the_fit_and_within_an_epoch(small_data, residual, quiet_trainer):
    """Both leave the weights of the optimizer as they are."""
    states = []
    for settings in ({}, {"num_sanity_val_steps": 1, "val_check_interval": 1}):
        model = residual()
        quiet_trainer(max_epochs=2, callbacks=[EMA(0.9)], **settings).fit(model, datamodule=small_data())
        states.append(averaged_values(model))
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, True, "0.9"])
def test_decay_is_between_0_and_1(decay):
    with pytest.raises(ArgumentError, match=f"^decay={decay!r}: expected "):
        EMA(decay)
