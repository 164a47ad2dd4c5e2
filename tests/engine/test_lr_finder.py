import json
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from transfer_learning.callbacks.layer_table import LayerTable
from transfer_learning.engine.checkpoint_file import BackgroundWriter, CheckpointFile
from transfer_learning.engine.lr_finder import find_learning_rate
from transfer_learning.engine.training import train
from transfer_learning.models.network import Frozen, Network, ParameterGroup
from transfer_learning.models.resnet import SmallResNet
from transfer_learning.optim.schedules import Cosine
from transfer_learning.utilities.errors import ArgumentError, UserError


class Groups(Network):
    """Groups of parameters that learn at different rates; `stem` from the second epoch on."""

    def __init__(self):
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        super().__init__(Frozen(), nn.Sequential(*layers, nn.Linear(16, 1)), {})

    def parameter_groups(self):
        layers = {"head": (5, 1.0, 0), "middle": (2, 0.25, 0), "stem": (0, 0.5, 1)}
        parameters = {name: list(self.trainable[place].parameters()) for name, (place, _, _) in layers.items()}
        return [ParameterGroup(name, parameters[name], scale, None, at) for name, (_, scale, at) in layers.items()]


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("schedule", [None, Cosine()])
def test_losses_are_those_of_a_plain_loop_with_the_scales_of_the_groups(
    tmp_path, small_data, classifier, quiet_trainer, window, schedule
):
    """24 images in batches of 7, and steps of one or two of them; 24 steps are more than the trainer's one epoch."""
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(Groups())
    data = small_data(batch_size=7, augment=True)
    model = classifier(networks[0], optimizer=partial(torch.optim.SGD, lr=3.0, momentum=0.9), schedule=schedule)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, accumulate_grad_batches=window)
    curve = find_learning_rate(data, model, trainer, min_lr=1e-3, max_lr=0.5, steps=24)
    assert curve.rates[0] == 1e-3 and curve.rates[-1] == pytest.approx(0.5) and len(curve.rates) == 24
    ratios = torch.tensor(curve.rates[2:]) / torch.tensor(curve.rates[1:-1])
    torch.testing.assert_close(ratios, torch.full((22,), 500 ** (1 / 24)), rtol=1e-4, atol=0)  # Lightning skips one

    layers, losses, loader = networks[1].trainable, [], data.train_dataloader()
    optimizer = torch.optim.SGD([{"params": layers[place].parameters()} for place in (5, 2)], 0.0, momentum=0.9)
    while len(losses) < 24:
        loader.sampler.set_epoch(math.ceil(len(losses) / (4 // window)))
        batches = [data.on_after_batch_transfer(batch) for batch in loader]
        for first in range(0, 4, window):
            inputs, codes = (torch.cat([batch[n] for batch in batches[first : first + window]]) for n in (0, 1))
            loss = F.binary_cross_entropy_with_logits(networks[1](inputs)[:, 0], codes.float())
            optimizer.zero_grad()
            loss.backward()
            for group, scale in zip(optimizer.param_groups, (1.0, 0.25)):
                group["lr"] = scale * curve.rates[len(losses)]
            optimizer.step()
            losses.append(loss.item())
    assert curve.losses == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    "trainer_settings, message",
    [({"limit_train_batches": 0}, "^limit_train_batches=0: expected more than 0"), ({}, "^batch_size=7: expected")],
)
def test_what_stops_a_training_stops_the_search(
    tmp_path, small_data, classifier, quiet_trainer, trainer_settings, message
):
    model = classifier(SmallResNet(2, 32, channels=[4] * 4, blocks=[1] * 4), optimizer=torch.optim.SGD)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, **trainer_settings)
    with pytest.raises(ArgumentError, match=message):
        find_learning_rate(small_data((11, 5, 5), batch_size=7), model, trainer)


@pytest.mark.parametrize("plugins", [[], [BackgroundWriter(CheckpointFile())]])
def test_training_after_the_search_is_as_without_it(tmp_path, small_data, small_model, quiet_trainer, plugins):
    """The search also repeats itself, and neither callbacks nor loggers take part in it."""
    curves, results = [], []
    for number, searches in enumerate((0, 1, 2)):
        folder = tmp_path / str(number)
        model, data = small_model(dropout=0.5, class_weights=[0.5, 2.0]), small_data(augment=True)
        callbacks = [LayerTable(), ModelCheckpoint(folder / "checkpoints", "best", monitor="val/loss")]
        settings = dict(enable_checkpointing=True, callbacks=callbacks, logger=CSVLogger(folder, "", ""))
        trainer = quiet_trainer(max_epochs=2, default_root_dir=folder, plugins=plugins, **settings)
        before = list(trainer.callbacks)
        for _ in range(searches):
            curves.append(find_learning_rate(data, model, trainer, steps=20))
            assert {path.name for path in folder.iterdir()} == {"lr_find.png", "lr_find.json"}
            assert trainer.callbacks == before and trainer.max_epochs == 2 and not model.history.rows
        metrics = train(data, model, trainer)
        assert metrics["epochs"] == 2
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in model.history.rows]
        results.append((rows, torch.cat([value.flatten() for value in model.state_dict().values()]).tolist()))
    assert results[0] == results[1] == results[2]
    assert curves[0].losses == curves[1].losses == curves[2].losses
    saved = json.loads((tmp_path / "1" / "lr_find.json").read_text())
    assert saved == {"suggestion": curves[0].suggestion, "rates": curves[0].rates, "losses": curves[0].losses}


def test_frozen_part_computes_each_training_image_once(tmp_path, small_data, pretrained, quiet_trainer, monkeypatch):
    passed, forward = [], Frozen.forward

    def record(self, images):
        passed.extend(image.numpy().tobytes() for image in images)
        return forward(self, images)

    monkeypatch.setattr(Frozen, "forward", record)
    data = small_data()
    find_learning_rate(data, pretrained(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path), steps=20)
    assert len(set(passed)) == 24 and not data.features


def test_loss_that_is_not_finite_ends_the_search(tmp_path, small_data, small_model, quiet_trainer, monkeypatch):
    model, trainer = small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    losses, factors = model.objective.losses, iter([1.0] * 30 + [torch.nan] * 30)
    monkeypatch.setattr(model.objective, "losses", lambda *inputs: losses(*inputs) * next(factors))
    curve = find_learning_rate(small_data(), model, trainer, steps=60)
    assert len(curve.losses) == 31 and math.isnan(curve.losses[-1]) and len(curve.smoothed) == 30


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"min_lr": 0.0}, "min_lr=0.0: expected more than 0 and less than max_lr"),
        ({"min_lr": 0.1, "max_lr": 0.01}, "min_lr=0.1: expected more than 0 and less than max_lr=0.01"),
        ({"steps": 19}, "steps=19: expected 20 or more"),
    ],
)
def test_wrong_range_is_refused(tmp_path, small_data, small_model, quiet_trainer, settings, message):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(ArgumentError, match=f"^{message}"):
        find_learning_rate(small_data(), small_model(), trainer, **settings)


def test_loss_that_explodes_at_once_and_a_trainer_of_one_batch_are_refused(
    tmp_path, small_data, small_model, quiet_trainer
):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(UserError, match=r"^the loss explodes within \d+ steps, .*: no suggestion is possible"):
        find_learning_rate(small_data(), small_model(), trainer, min_lr=1e8, max_lr=1e9)
    trainer = quiet_trainer(fast_dev_run=True, default_root_dir=tmp_path)
    with pytest.raises(ArgumentError, match="^fast_dev_run=True: "):
        find_learning_rate(small_data(), small_model(), trainer)
    assert not list(tmp_path.glob("lr_find.*"))
