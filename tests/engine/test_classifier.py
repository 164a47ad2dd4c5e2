from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.models.cnn import CNN
from transfer_learning.models.network import Frozen, Network, ParameterGroup
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.optim.schedules import Cosine, OneCycle
from transfer_learning.utilities.errors import ArgumentError, UserError


def plain_loop(model, data, epochs, optimizer, before_step=lambda step: None, weights=(1.0, 1.0), smoothing=0.0):
    """The same training in plain torch, with the losses written out. Returns the last epoch's means over its images.

    `weights` are factors of the losses of each class; `smoothing` is the share of a target that both classes get.
    """
    loader, step = data.train_dataloader(), 0
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        losses, correct = [], []
        for batch in loader:
            batch = data.on_after_batch_transfer(batch)
            second = torch.sigmoid(model.network(batch.inputs)[:, 0].double())
            p = torch.stack([1 - second, second], dim=1)
            targets = F.one_hot(batch.targets, 2) if batch.targets.ndim == 1 else batch.targets
            weighted = targets * torch.tensor(weights)
            smoothed = (1 - smoothing) * weighted + smoothing * weighted.mean(dim=1, keepdim=True)
            each = -(smoothed * p.log()).sum(dim=1)
            optimizer.zero_grad()
            each.mean().backward()
            before_step(step)
            optimizer.step()
            step += 1
            losses += each.tolist()
            correct += (p.argmax(dim=1) == targets.argmax(dim=1)).tolist()
    return np.mean(losses), np.mean(correct)


def evaluate(model, data, loader):
    """Loss and accuracy over a loader's images, in plain torch, from the probabilities."""
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch) for batch in loader]
        probabilities = torch.cat([model(batch.inputs) for batch in batches]).double()
        labels = torch.cat([batch.targets for batch in batches])
    loss = -probabilities[torch.arange(len(labels)), labels].log().mean()
    return loss.item(), (probabilities.argmax(1) == labels).double().mean().item()


def assert_same_parameters(model, reference):
    for (name, trained), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6, msg=name)


class SmoothedTargets:
    """An augmentation step that turns class codes into probabilities."""

    version = 1

    def sample(self, count, generator):
        return generator.random((count, 1)).astype(np.float32)

    def apply(self, images, targets, parameters):
        return images, (1 - 0.4 * parameters) * F.one_hot(targets, 2) + 0.2 * parameters


@pytest.mark.parametrize("settings", [{}, {"augment": True}, {"augment": True, "augmentation": SmoothedTargets()}])
def test_trains_like_a_plain_loop_and_reports_its_means(fit, small_data, small_model, settings):
    data = small_data(**settings, batch_size=7)  # 24 images: a last batch of 3
    model, reference = small_model(), small_model()
    trainer = fit(model, data)
    optimizer = torch.optim.SGD(reference.parameters(), 0.01)
    loss, accuracy = plain_loop(reference, data, epochs=2, optimizer=optimizer)
    assert_same_parameters(model, reference)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss, rel=1e-4)
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(accuracy)
    loss, accuracy = evaluate(model.eval(), data, data.val_dataloader())
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-4)
    assert trainer.callback_metrics["val/acc"].item() == pytest.approx(accuracy)


@pytest.mark.parametrize("limit, window", [(None, 3), (None, 2), (3, 2), (None, 9)])
@pytest.mark.parametrize("weights", [None, [0.5, 3.0]])
def test_accumulated_batches_are_one_step_of_all_their_images(fit, small_data, small_model, limit, window, weights):
    """24 images in batches of 7, 7, 7 and 3; the plain loop takes their images as whole steps."""
    data, settings = small_data(batch_size=7), {"limit_train_batches": limit, "accumulate_grad_batches": window}
    model, reference, clipped = small_model(class_weights=weights), small_model(), RecordRates()
    trainer = fit(model, data, gradient_clip_val=0.1, callbacks=[clipped], **settings)
    optimizer = torch.optim.SGD(reference.parameters(), 0.01)
    loader, steps, batches = data.train_dataloader(), 0, limit or 4
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        images = [data.on_after_batch_transfer(batch) for batch in loader][:batches]
        for first in range(0, batches, window):
            inputs, codes = (torch.cat([batch[n] for batch in images[first : first + window]]) for n in (0, 1))
            losses = F.binary_cross_entropy_with_logits(
                reference.network(inputs)[:, 0], codes.float(), reduction="none"
            )
            optimizer.zero_grad()
            (losses * torch.tensor(weights or [1.0, 1.0])[codes]).mean().backward()
            torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
            optimizer.step()
            steps += 1
    assert trainer.global_step == len(clipped.rates) == steps
    assert_same_parameters(model, reference)


@pytest.mark.parametrize("settings", [{}, {"augment": True, "augmentation": SmoothedTargets()}])
def test_class_weights_multiply_the_losses_of_training_alone(fit, small_data, small_model, settings):
    data = small_data(**settings, batch_size=7)
    model, reference = small_model(class_weights=[0.5, 3.0]), small_model()
    fit(model, data)
    optimizer = torch.optim.SGD(reference.parameters(), 0.01)
    loss, accuracy = plain_loop(reference, data, epochs=2, optimizer=optimizer, weights=(0.5, 3.0))
    assert_same_parameters(model, reference)
    row = model.history.rows[-1]
    assert (row["train/loss"], row["train/acc"]) == (pytest.approx(loss, rel=1e-4), pytest.approx(accuracy))
    loss, _ = evaluate(reference, data, data.val_dataloader())
    assert row["val/loss"] == pytest.approx(loss, rel=1e-4)
    assert not any("class_weights" in key for key in model.state_dict())


class InterruptAfterOneBatch(pl.Callback):
    def __init__(self, split):
        setattr(self, f"on_{'validation' if split == 'val' else split}_batch_end", self._interrupt)

    def _interrupt(self, *arguments):
        raise InterruptedError


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_nothing_of_an_interrupted_epoch_is_in_the_next_one(fit, quiet_trainer, small_data, small_model, split):
    data, model = small_data(), small_model(learning_rate=0.0)
    interrupted = quiet_trainer(max_epochs=1, callbacks=[InterruptAfterOneBatch(split)])
    with pytest.raises(InterruptedError):
        (interrupted.test if split == "test" else interrupted.fit)(model, datamodule=data)
    trainer = fit(model, data, epochs=1)
    found = {**trainer.callback_metrics, **trainer.test(model, datamodule=data, verbose=False)[0]}
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    for name, loader in loaders.items():
        loss, accuracy = evaluate(model.eval(), data, loader)
        assert float(found[f"{name}/loss"]) == pytest.approx(loss, rel=1e-4)
        assert float(found[f"{name}/acc"]) == pytest.approx(accuracy)
    for name in ("val", "test"):
        assert model.predictions[name].indices.tolist() == sorted(data.splits[name])


@pytest.mark.parametrize("settings", [{}, {"augment": True, "augmentation": SmoothedTargets()}])
def test_label_smoothing_changes_the_losses_of_training_alone(fit, small_data, small_model, settings):
    data = small_data(**settings, batch_size=7)
    model, reference = small_model(objective=CrossEntropy(label_smoothing=0.2)), small_model()
    fit(model, data)
    optimizer = torch.optim.SGD(reference.parameters(), 0.01)
    loss, accuracy = plain_loop(reference, data, epochs=2, optimizer=optimizer, smoothing=0.2)
    assert_same_parameters(model, reference)
    row = model.history.rows[-1]
    assert (row["train/loss"], row["train/acc"]) == (pytest.approx(loss, rel=1e-4), pytest.approx(accuracy))
    loss, _ = evaluate(reference, data, data.val_dataloader())
    assert row["val/loss"] == pytest.approx(loss, rel=1e-4)


def test_class_weights_of_three_classes_are_those_of_torch(fit, small_data):
    data = small_data()
    data.labels = np.arange(len(data.labels)) % 3
    torch.manual_seed(0)
    network, weights = CNN(3, 32, channels=[4], dense=[8]), [0.2, 1.0, 2.5]
    optimizer = partial(torch.optim.SGD, lr=0.0)
    model = Classifier(network, list("abc"), data.preprocessing, optimizer, class_weights=weights)
    fit(model, data, epochs=1)
    batches = [data.on_after_batch_transfer(batch) for batch in data.train_dataloader()]
    logits = torch.cat([network(batch.inputs) for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    expected = F.cross_entropy(logits, targets, torch.tensor(weights), reduction="sum") / len(targets)
    assert model.history.rows[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("settings", [{}, {"augment": True, "augmentation": SmoothedTargets()}])
def test_class_weights_in_any_precision(fit, small_data, small_model, precision, settings):
    """Equal weights are a factor of the whole loss. bf16-true rounds the mean too."""
    rows = []
    for weights in (None, [3.0, 3.0]):
        model = small_model(learning_rate=0.0, class_weights=weights)
        fit(model, small_data(**settings), epochs=1, precision=precision)
        rows.append(model.history.rows[0])
    assert rows[1]["train/loss"] == pytest.approx(3 * rows[0]["train/loss"], rel=1e-2 if "true" in precision else 1e-5)
    assert rows[1]["val/loss"] == rows[0]["val/loss"]


def test_class_weights_multiply_the_losses_of_any_objective(fit, small_data, small_model):
    data, model = small_data(), small_model(learning_rate=0.0, objective=SquaredError(), class_weights=[0.5, 3.0])
    fit(model, data, epochs=1)
    batches = [data.on_after_batch_transfer(batch) for batch in data.train_dataloader()]
    second = torch.cat([model.network(batch.inputs)[:, 0].sigmoid() for batch in batches])
    codes = torch.cat([batch.targets for batch in batches])
    expected = (torch.where(codes == 1, 3.0, 0.5) * (second - codes) ** 2).mean().item()
    assert model.history.rows[0]["train/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], [1.0, -1.0], [1.0, float("nan")], ["a", "b"]])
def test_wrong_class_weights_are_refused(small_model, weights):
    with pytest.raises(ArgumentError, match="^class_weights=.*expected "):
        small_model(class_weights=weights)


def test_three_classes_have_three_logits_and_cross_entropy(fit, small_data):
    data = small_data()
    data.labels = np.arange(len(data.labels)) % 3
    network = CNN(3, 32, channels=[4], dense=[8])
    model = Classifier(network, ["a", "b", "c"], data.preprocessing, partial(torch.optim.SGD, lr=0.01))
    trainer = fit(model, data)
    loss, accuracy = evaluate(model.eval(), data, data.val_dataloader())
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-4)
    assert trainer.callback_metrics["val/acc"].item() == pytest.approx(accuracy)


def test_probabilities_of_two_classes_sum_to_one(small_model):
    model = small_model().eval()
    images = torch.rand(3, 3, 32, 32)
    probabilities = model(images)
    assert probabilities.shape == (3, 2)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    torch.testing.assert_close(probabilities[:, 1], torch.sigmoid(model.network(images)[:, 0]))


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 31, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32)]
)
def test_images_of_another_shape_or_type_are_refused(small_model, images):
    with pytest.raises(UserError, match=r"expected \(N, 3, 32, 32\) float"):
        small_model()(images)


def test_frozen_layers_are_unchanged_by_a_fit_and_not_in_the_optimizer(fit, small_data, classifier):
    torch.manual_seed(0)
    network = Pretrained(2, 32, "vgg16", weights=None, pool="none", layer_norm=False, dense=[8], dropout=0.0)
    model = classifier(network, optimizer=partial(torch.optim.SGD, lr=0.01))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = fit(model, small_data(), epochs=1)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) == key.startswith("frozen.") for key in before)
    optimized = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
    assert len(optimized) == 4 and all(parameter.requires_grad for parameter in optimized)


def test_dropout_is_a_function_of_seed_epoch_and_batch(quiet_trainer, small_model):
    def mask(seed, epoch, batch_index):
        model = small_model(seed=seed)
        model.trainer = quiet_trainer()
        progress = model.trainer.fit_loop.epoch_progress.current
        progress.completed = progress.processed = epoch
        torch.rand(batch_index + 1)  # earlier random numbers have no influence
        model.on_train_batch_start(None, batch_index)
        return F.dropout(torch.ones(64), 0.5)

    first = mask(0, 0, 0)
    assert torch.equal(first, mask(0, 0, 0))
    for other in (mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1)):
        assert not torch.equal(first, other)


def test_fit_repeats_bit_for_bit_with_dropout_and_augmentation(fit, small_data, small_model):
    weights = []
    for disturbance in range(2):
        torch.manual_seed(disturbance)
        model = small_model(dropout=0.5)
        fit(model, small_data(augment=True))
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


class ThreeGroups(Network):
    """A small network whose layers learn at different rates; `stem` from the second epoch on."""

    def __init__(self, groups=("head", "middle", "stem")):
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        super().__init__(Frozen(), nn.Sequential(*layers, nn.Linear(16, 1)), {})
        self.names = groups

    def parameter_groups(self):
        layers = {"head": self.trainable[5], "middle": self.trainable[2], "stem": self.trainable[0]}
        scales, decays = {"head": 1.0, "middle": 0.5, "stem": 0.2}, {"head": None, "middle": 0.3, "stem": 0.0}
        return [
            ParameterGroup(name, list(layer.parameters()) if name in self.names else [], scales[name], decays[name], at)
            for (name, layer), at in zip(layers.items(), (0, 0, 1))
        ]


class RecordRates(pl.Callback):
    """The learning rates of every step."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, model, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("schedule", [None, Cosine(0.2), lambda progress: 1 - progress])
def test_parameter_groups_have_their_own_rates_and_weight_decay(fit, small_data, classifier, schedule):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        optimizer = partial(torch.optim.SGD, lr=0.5, weight_decay=0.1)
        models.append(classifier(ThreeGroups(), optimizer=optimizer, schedule=schedule))
    (model, reference), data, record = models, small_data(), RecordRates()
    trainer = fit(model, data, epochs=3, callbacks=[record])

    factors = [schedule((step + 0.5) / 9) if schedule else 1.0 for step in range(9)]  # 3 steps per epoch
    expected = [
        [0.5 * factor, 0.25 * factor, 0.1 * factor if step >= 3 else 0.0] for step, factor in enumerate(factors)
    ]
    assert record.rates == [pytest.approx(rates) for rates in expected]
    assert [group["weight_decay"] for group in trainer.optimizers[0].param_groups] == [0.1, 0.3, 0.0]

    layers = reference.network.trainable
    decays = [(layers[5], 0.1), (layers[2], 0.3), (layers[0], 0.0)]
    optimizer = torch.optim.SGD(
        [{"params": layer.parameters(), "weight_decay": decay, "lr": 0.0} for layer, decay in decays]
    )

    def set_rates(step):
        for group, rate in zip(optimizer.param_groups, expected[step]):
            group["lr"] = rate

    plain_loop(reference, data, epochs=3, optimizer=optimizer, before_step=set_rates)
    assert_same_parameters(model, reference)


@pytest.mark.parametrize("schedule", [Cosine(), OneCycle(), None])
def test_resumed_fit_of_accumulated_batches(tmp_path, fit, small_data, classifier, schedule):
    """24 images in batches of 5, so three steps an epoch, of 10, 10 and 4 images; `stem` learns from epoch 2 on.

    A resumed fit equals an uninterrupted one; if its length is another, it has the rates of that length at once.
    """

    def run(epochs, resume=None):
        torch.manual_seed(0)
        model = classifier(ThreeGroups(), optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9), schedule=schedule)
        checkpoints = ModelCheckpoint(tmp_path, filename=f"{epochs}-{{epoch}}", save_top_k=-1)
        callbacks = [checkpoints, record := RecordRates()]
        settings = dict(accumulate_grad_batches=2, enable_checkpointing=True, callbacks=callbacks)
        fit(model, small_data(batch_size=5, augment=True), epochs, resume, **settings)
        return record.rates, torch.cat([value.flatten() for value in model.state_dict().values()])

    rates, straight = run(4)
    factors = [schedule((step + 0.5) / 12) if schedule else 1.0 for step in range(12)]
    assert rates == [pytest.approx([0.5 * f, 0.25 * f, 0.1 * f * (step >= 3)]) for step, f in enumerate(factors)]
    resumed_rates, resumed = run(4, resume=tmp_path / "4-epoch=1.ckpt")
    assert torch.equal(straight, resumed) and resumed_rates == rates[6:]
    run(3)
    extended_rates, _ = run(4, resume=tmp_path / "3-epoch=2.ckpt")
    assert extended_rates == rates[9:]


def test_learning_rates_of_the_last_step_are_logged_by_group(fit, small_data, classifier):
    torch.manual_seed(0)
    model = classifier(ThreeGroups(), optimizer=partial(torch.optim.SGD, lr=0.5), schedule=Cosine(0.0))
    record = RecordRates()
    trainer = fit(model, small_data(), epochs=2, callbacks=[record])
    names = ["lr", "lr_middle", "lr_stem"]
    for row, last_step in zip(model.history.rows, (2, 5), strict=True):
        assert [row[name] for name in names] == record.rates[last_step]
    assert [trainer.logged_metrics[name].item() for name in names] == pytest.approx(record.rates[-1])
    assert model.learning_rates == dict(zip(names, record.rates[-1]))


def test_group_without_parameters_is_left_out(fit, small_data, classifier):
    torch.manual_seed(0)
    model = classifier(ThreeGroups(groups=("head", "stem")), optimizer=partial(torch.optim.SGD, lr=0.5))
    trainer = fit(model, small_data(), epochs=2)
    assert [len(group["params"]) for group in trainer.optimizers[0].param_groups] == [2, 2]
    assert model.learning_rates == {"lr": 0.5, "lr_stem": 0.1}


@pytest.mark.parametrize("schedule", [None, Cosine(0.2)])
def test_scale_and_first_epoch_of_a_single_group(fit, small_data, classifier, schedule):
    class OneGroup(ThreeGroups):
        def parameter_groups(self):
            return [ParameterGroup("all", list(self.parameters()), lr_scale=0.5, from_epoch=1)]

    record = RecordRates()
    model = classifier(OneGroup(), optimizer=partial(torch.optim.SGD, lr=0.2), schedule=schedule)
    fit(model, small_data(), epochs=2, callbacks=[record])
    factors = [schedule((step + 0.5) / 6) if schedule else 1.0 for step in range(6)]
    assert record.rates == [pytest.approx([0.1 * factor if step >= 3 else 0.0]) for step, factor in enumerate(factors)]


class SquaredError(CrossEntropy):
    """Brier score: the squared error of the second class's probability."""

    def losses(self, logits, targets):
        return (self.probabilities(logits)[:, 1] - targets) ** 2


def test_another_objective(fit, small_data, small_model):
    data, model = small_data(), small_model(objective=SquaredError())
    trainer = fit(model, data)
    predictions = model.predictions["val"]
    second = 1 / (1 + (-predictions.logits[:, 0].double()).exp())
    expected = ((second - predictions.labels) ** 2).mean().item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, abs=1e-6)
    assert not torch.equal(small_model().network.trainable[0].weight, model.network.trainable[0].weight)


def test_model_without_an_optimizer_predicts_but_does_not_train(fit, small_data, classifier):
    model = classifier(CNN(2, 32, channels=[4], dense=[8]))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
    with pytest.raises(UserError, match="without an optimizer, so it predicts but does not train"):
        fit(model, small_data())


@pytest.mark.parametrize(
    "argument, value",
    [("seed", -1), ("seed", 2**32), ("class_names", "cat"), ("optimizer", "sgd"), ("objective", "bce"), ("network", 3)],
)
def test_invalid_arguments(small_data, argument, value):
    arguments = dict(network=CNN(2, 32, channels=[4]), class_names=["a", "b"], preprocessing=small_data().preprocessing)
    with pytest.raises(ArgumentError, match=f"^{argument}={value!r}: expected"):
        Classifier(**arguments | {argument: value})
