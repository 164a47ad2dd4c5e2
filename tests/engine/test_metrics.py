from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from sklearn import metrics as independent
from torch import nn
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.metrics import Metrics, Monitor
from transfer_learning.engine.training import train
from transfer_learning.models.cnn import CNN
from transfer_learning.utilities.errors import ArgumentError, UserError

PROJECT = Path(__file__).resolve().parents[2]
F1 = {"f1": partial(MulticlassF1Score, average="macro")}


def macro_f1(predicted, codes, num_classes):
    """The mean of the classes' F1 scores, written out."""
    scores = []
    for code in range(num_classes):
        true_positives = np.sum((predicted == code) & (codes == code))
        wrong = np.sum((predicted == code) != (codes == code))
        scores.append(2 * true_positives / (2 * true_positives + wrong))
    return np.mean(scores)


def test_means_over_images_and_further_metrics_over_batches():
    metrics, generator = Metrics(F1, num_classes=3), torch.Generator().manual_seed(0)
    probabilities, codes = torch.rand(20, 3, generator=generator), torch.randint(3, (20,), generator=generator)
    losses, correct = torch.rand(20, generator=generator), probabilities.argmax(dim=1) == codes
    for batch in (slice(0, 8), slice(8, 16), slice(16, 20)):  # the last batch is smaller
        metrics.add_batch("val", losses[batch], correct[batch], lambda batch=batch: probabilities[batch], codes[batch])
    found = {key: metric.compute().item() for key, metric in metrics.of("val").items()}
    assert found == {
        "val/loss": pytest.approx(losses.mean().item()),
        "val/acc": pytest.approx(correct.double().mean().item()),
        "val/f1": pytest.approx(macro_f1(probabilities.argmax(dim=1).numpy(), codes.numpy(), 3)),
    }
    assert list(metrics.of("train")) == ["train/loss", "train/acc", "train/f1"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_means_of_many_images_are_exact_in_every_precision(dtype):
    """Lightning converts the module so for `bf16-true`; in bfloat16, 8192 + 27 is 8192."""
    metrics = nn.ModuleDict({"metrics": Metrics(F1, 2)}).to(dtype=dtype)["metrics"]
    correct = torch.arange(30) < 27
    probabilities = F.one_hot((~correct).long(), 2).float()
    for _ in range(3000):
        metrics.add_batch("val", torch.ones(30), correct, lambda: probabilities, torch.zeros(30, dtype=torch.int64))
    assert metrics["val/loss"].compute().item() == 1 and metrics["val/acc"].compute().item() == pytest.approx(0.9)
    assert metrics["val/f1"].compute().item() == pytest.approx((2 * 0.9 / 1.9 + 0) / 2)
    metrics.reset("val")
    metrics.add_batch("val", torch.ones(30), correct, lambda: probabilities, torch.zeros(30, dtype=torch.int64))
    assert metrics["val/acc"].compute().dtype in (torch.float32, torch.float64)


def test_probabilities_are_computed_once_for_all_further_metrics_and_for_none_not_at_all():
    codes, calls = torch.tensor([0, 1]), []
    for further, expected in (({}, 0), (F1 | {"auroc": MulticlassAUROC}, 1)):
        calls.clear()
        metrics = Metrics(further, num_classes=2)
        metrics.add_batch("val", torch.zeros(2), codes == 0, lambda: calls.append(1) or torch.eye(2), codes)
        assert len(calls) == expected


def test_loss_that_is_not_finite_shows():
    metrics = Metrics({}, num_classes=2)
    losses, correct, codes = torch.tensor([1.0, torch.nan]), torch.ones(2).bool(), torch.zeros(2)
    metrics.add_batch("val", losses, correct, lambda: torch.ones(2, 2), codes)
    assert metrics.of("val")["val/loss"].compute().isnan() and metrics.of("val")["val/acc"].compute() == 1


@pytest.mark.parametrize("num_classes", [2, 3])
def test_further_metrics_of_a_fit(fit, small_data, num_classes):
    data = small_data()
    data.labels = np.arange(len(data.labels)) % num_classes
    torch.manual_seed(0)
    network = CNN(num_classes, 32, channels=[4], dense=[8])
    optimizer = partial(torch.optim.SGD, lr=0.01)
    model = Classifier(network, ["a", "b", "c"][:num_classes], data.preprocessing, optimizer, metrics=F1)
    trainer = fit(model, data)
    tested = trainer.test(model, datamodule=data, verbose=False)[0]
    for split, found in (("val", model.history.rows[-1]["val/f1"]), ("test", tested["test/f1"])):
        logits, codes = model.predictions[split].logits, data.labels[model.predictions[split].indices]
        predicted = (logits[:, 0] > 0).long() if num_classes == 2 else logits.argmax(dim=1)
        assert found == pytest.approx(macro_f1(predicted.numpy(), codes, num_classes))
    assert all("train/f1" in row for row in model.history.rows)


def configured(name):
    """The metric that `metrics=[NAME]` and `monitor=val/NAME` select."""
    return {name: instantiate(OmegaConf.load(PROJECT / "conf" / "metrics" / f"{name}.yaml"))[name]}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_configured_metrics_of_a_fit_are_those_of_scikit_learn(fit, small_data, num_classes):
    """With classes of different sizes, each predicted now and then."""
    data = small_data(per_class=(12, 15, 15))
    data.labels = np.where(np.arange(len(data.labels)) % 5 < 2, 0, np.arange(len(data.labels)) % num_classes)
    torch.manual_seed(0)
    network = CNN(num_classes, 32, channels=[4], dense=[8])
    metrics = configured("balanced_acc") | configured("macro_f1")
    optimizer = partial(torch.optim.SGD, lr=0.0)
    model = Classifier(network, list("abc")[:num_classes], data.preprocessing, optimizer, metrics=metrics)
    codes = torch.from_numpy(data.labels[data.splits["val"]])
    with torch.no_grad():  # centres the logits
        inputs = torch.cat([data.on_after_batch_transfer(batch).inputs for batch in data.val_dataloader()])
        list(network.parameters())[-1].sub_(network(inputs).median(dim=0).values)
    trainer = fit(model, data, epochs=1)
    predicted = model.objective.predicted(model.predictions["val"].logits).numpy()
    codes = model.predictions["val"].labels.numpy()
    assert len(set(predicted.tolist())) == num_classes
    expected = (
        independent.balanced_accuracy_score(codes, predicted),
        independent.f1_score(codes, predicted, average="macro"),
    )
    found = [trainer.callback_metrics[f"val/{name}"].item() for name in ("balanced_acc", "macro_f1")]
    assert found == pytest.approx(expected) and found[0] != pytest.approx((predicted == codes).mean())


@pytest.mark.parametrize(
    "predicted, balanced_acc, macro_f1",
    [
        ([0, 0, 1, 1, 0], (2 / 3 + 1 / 2) / 2, (4 / 6 + 2 / 4) / 2),  # the third class has no images: left out ...
        ([0, 0, 2, 1, 0], (2 / 3 + 1 / 2) / 3, (4 / 6 + 2 / 3) / 3),  # ... but 0 if it is predicted
    ],
)
def test_class_without_images_counts_if_it_is_predicted(predicted, balanced_acc, macro_f1):
    codes = torch.tensor([0, 0, 0, 1, 1])
    for name, expected in (("balanced_acc", balanced_acc), ("macro_f1", macro_f1)):
        metric = configured(name)[name](num_classes=3)
        assert metric(F.one_hot(torch.tensor(predicted), 3).float(), codes).item() == pytest.approx(expected), name
    found = independent.f1_score(codes, predicted, average="macro")
    assert found == pytest.approx(macro_f1)  # scikit-learn's balanced accuracy leaves the class out in both cases


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"f1": partial(MulticlassF1Score, average="none")}, "metric f1: expected one number, .*shape"),
        ({"sum": lambda num_classes: SumMetric()}, "metric sum: cannot be computed"),
        ({"acc": partial(MulticlassF1Score)}, "metric acc: expected a name without dots, and not acc or loss"),
        ({"top.1": partial(MulticlassF1Score)}, "metric top.1: expected a name without dots"),
    ],
)
def test_metrics_that_cannot_be_logged(further, message, num_classes):
    with pytest.raises(UserError, match=f"^{message}"):
        Metrics(further, num_classes).check()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_check_of_a_metric_leaves_nothing_in_it(num_classes):
    metrics = Metrics({"f1": MulticlassF1Score}, num_classes)
    metrics.check()
    assert metrics["train/f1"]._update_count == 0


def test_metric_of_probabilities(fit, small_data, small_model):
    data, model = small_data(), small_model(metrics={"auroc": MulticlassAUROC})
    fit(model, data, epochs=1)
    scores, codes = model.predictions["val"].logits[:, 0].numpy(), model.predictions["val"].labels.numpy()
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[codes == 1] for b in scores[codes == 0]]
    assert model.history.rows[-1]["val/auroc"] == pytest.approx(np.mean(pairs), abs=1e-6)


def test_monitor_is_that_of_the_first_checkpoint_callback_that_monitors(tmp_path, quiet_trainer):
    last = ModelCheckpoint(tmp_path, filename="last")
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/f1", mode="max")
    other = ModelCheckpoint(tmp_path, filename="other", monitor="val/loss", mode="min")
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=[last, best, other])
    assert Monitor.of(trainer, "val/acc") == Monitor("val/f1", "max")


@pytest.mark.parametrize(
    "name, expected",
    [(None, ("val/acc", "max")), ("val/loss", ("val/loss", "min")), ("train/f1", ("train/f1", "max"))],
)
def test_monitor_without_a_checkpoint_callback(quiet_trainer, name, expected):
    assert Monitor.of(quiet_trainer(), name) == Monitor(*expected)


def test_check_of_a_monitor(quiet_trainer):
    logged = ["train/loss", "val/loss", "val/acc"]
    Monitor("val/acc", "max").check(logged, quiet_trainer(callbacks=[EarlyStopping("val/loss")]))
    with pytest.raises(ArgumentError, match="^monitor='val/f1': no such metric; expected one of train/loss, val/loss"):
        Monitor("val/f1", "max").check(logged, quiet_trainer())
    with pytest.raises(ArgumentError, match="^monitor='val/auc': no such metric"):
        Monitor("val/acc", "max").check(logged, quiet_trainer(callbacks=[EarlyStopping("val/auc")]))


def test_a_callback_without_a_mode_is_not_said_to_choose_the_worst_epoch(quiet_trainer, caplog):
    class Monitors(pl.Callback):
        monitor = "val/loss"

    with caplog.at_level("INFO"):
        Monitor("val/acc", "max").check(["val/acc", "val/loss"], quiet_trainer(callbacks=[Monitors()]))
    assert "worst" not in caplog.text


@pytest.mark.parametrize(
    "monitor, callbacks",
    [
        ("val/f2", []),
        ("acc", []),
        ("test/acc", []),
        (None, [lambda folder: ModelCheckpoint(folder, monitor="val/f2")]),
        (None, [lambda folder: EarlyStopping(monitor="val/f2")]),
    ],
)
def test_unknown_monitor_is_refused_before_the_first_step(
    tmp_path, small_data, small_model, quiet_trainer, monitor, callbacks
):
    made = [make(tmp_path) for make in callbacks]
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=made)
    model = small_model(metrics=F1)
    before = [parameter.clone() for parameter in model.parameters()]
    message = f"^monitor='{monitor or 'val/f2'}': no such metric; expected one of .*val/f1"
    with pytest.raises(ArgumentError, match=message):
        train(small_data(), model, trainer, monitor=monitor)
    assert trainer.global_step == 0 and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


@pytest.mark.parametrize(
    "name, mode, refused",
    [
        ("val/acc", "min", True),
        ("val/loss", "max", True),
        ("val/acc", "max", False),
        ("val/loss", "min", False),
        ("val/f1", "min", False),  # which values of it are better is not known
        ("val/f1", "max", False),
    ],
)
def test_a_mode_that_chooses_the_worst_epoch_is_refused(tmp_path, quiet_trainer, caplog, name, mode, refused):
    logged = [name, "val/acc", "val/other"]
    for callback in (ModelCheckpoint(tmp_path, monitor=name, mode=mode), EarlyStopping(name, mode=mode)):
        trainer = quiet_trainer(enable_checkpointing=True, callbacks=[callback])
        Monitor.of(trainer).check(logged, trainer, chosen=name)
        with pytest.raises(ArgumentError, match=f"^mode='{mode}': {name} is better") if refused else nullcontext():
            Monitor.of(trainer).check(logged, trainer, chosen="val/other")
        with caplog.at_level("INFO"):
            caplog.clear()
            Monitor.of(trainer).check(logged, trainer)
        assert ("takes the worst epoch for the best" in caplog.text) == refused


@pytest.mark.parametrize("monitor, mode", [("val/f1", "max"), ("train/loss", "min")])
def test_any_logged_metric_may_be_monitored(tmp_path, small_data, small_model, quiet_trainer, monitor, mode):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    model = small_model(metrics=F1)
    metrics = train(small_data(), model, trainer, monitor=monitor)
    assert (metrics["monitor"], metrics["monitor_mode"]) == (monitor, mode)
    assert metrics["monitor_best"] == model.history.rows[-1][monitor]


@pytest.mark.parametrize("settings", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}])
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_a_training_metric_with_other_validations_than_one_each_epoch_is_refused(quiet_trainer, settings, kind):
    """Both callbacks act at the end of a validation then, when the metric is that of the epoch before."""
    trainer = quiet_trainer(max_epochs=4, enable_checkpointing=True, callbacks=[kind(monitor="train/loss")], **settings)
    with pytest.raises(ArgumentError, match="^monitor='train/loss': without one validation for each epoch"):
        Monitor("train/loss", "min").check(["train/loss"], trainer)
    trainer = quiet_trainer(max_epochs=4, enable_checkpointing=True, callbacks=[kind(monitor="train/loss")])
    Monitor("train/loss", "min").check(["train/loss"], trainer)
