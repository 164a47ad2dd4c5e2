from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import labelled_images
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.evaluation import calibrate, evaluate_images
from transfer_learning.engine.inference import Inference
from transfer_learning.engine.training import train
from transfer_learning.models.cnn import CNN
from transfer_learning.utilities.errors import UserError


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_of_a_runs_own_split_are_those_of_the_run(tmp_path, small_data, small_model, quiet_trainer, split):
    data, model = small_data(), small_model()
    metrics = train(data, model, quiet_trainer(max_epochs=2, default_root_dir=tmp_path))
    model.trained_precision = "32-true"
    found = evaluate_images(Inference(model), data.images.take(data.splits[split]))
    assert found.unreadable == {} and len(found.images.names) == 10
    expected = metrics["test/acc"] if split == "test" else metrics["val/acc_last"]
    assert found.metrics(model)["accuracy"] == pytest.approx(expected)
    loss = metrics["test/loss"] if split == "test" else model.history.rows[-1]["val/loss"]
    assert found.metrics(model)["loss"] == pytest.approx(loss, abs=1e-6)
    table = found.table(model, split)
    order = np.argsort(data.splits[split])
    np.testing.assert_allclose(
        table.probabilities[order], model.probabilities(model.predictions[split].logits).numpy(), atol=1e-5
    )


def test_calibration_lowers_the_loss_and_keeps_the_accuracy(tmp_path, write_image):
    for seed in range(60):
        write_image(tmp_path / "abc"[seed % 3] / f"{seed}.png", seed)
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    torch.manual_seed(0)
    model = Classifier(CNN(3, 16, [4], []), ("a", "b", "c"), Preprocessing(16))
    listed = labelled_images(tmp_path, model.class_names)
    found = evaluate_images(Inference(model), listed)
    shares = (10 * found.logits).softmax(dim=1).numpy().cumsum(axis=1)
    labels = (shares < np.random.default_rng(0).random((60, 1))).sum(axis=1)  # drawn as the logits times 10 say
    with torch.no_grad():
        model.network.trainable[-1].weight *= 120  # far too certain
        model.network.trainable[-1].bias *= 120
    found = evaluate_images(Inference(model), listed)
    found = found._replace(images=replace(found.images, labels=labels))
    assert list(found.unreadable) == [str(tmp_path / "a" / "broken.png")] and len(found.logits) == 60
    before = found.metrics(model)
    calibrate(model, found)
    after, temperature = found.metrics(model), model.temperature
    assert model.temperature > 1 and after["loss"] < before["loss"] and after["accuracy"] == before["accuracy"]
    assert after["calibration_error"] < before["calibration_error"]
    expected = (found.logits / model.temperature).softmax(dim=1)
    torch.testing.assert_close(torch.from_numpy(found.table(model, "x").probabilities), expected)
    assert found.metrics(model) == after
    calibrate(model, found)  # a calibrated model begins anew
    assert model.temperature == temperature


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_flip_averages_the_calibrated_probabilities(tmp_path, write_image, names):
    for seed in range(12):
        write_image(tmp_path / names[seed % len(names)] / f"{seed}.png", seed)
    torch.manual_seed(0)
    model = Classifier(CNN(len(names), 16, [4], []), tuple(names), Preprocessing(16))
    listed = labelled_images(tmp_path, model.class_names)
    found, plain = (evaluate_images(Inference(model, "cpu", tta), listed) for tta in ("flip", None))
    assert torch.equal(found.logits, plain.logits)  # what a calibration is fitted to
    model.temperature = 0.05
    expected = model.predict(listed.names, tta="flip").probabilities
    np.testing.assert_allclose(found.table(model, "x").probabilities, expected, atol=1e-6)
    loss = -np.log(expected[np.arange(12), listed.labels].astype(np.float64)).mean()
    assert found.metrics(model)["loss"] == pytest.approx(loss, rel=1e-5)
    assert found.metrics(model)["loss"] != pytest.approx(plain.metrics(model)["loss"], rel=1e-3)


def test_without_mistakes_or_without_any_signal_nothing_is_calibrated(tmp_path, write_image):
    for seed in range(20):
        write_image(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed)
    model = Classifier(CNN(2, 16, [4], []), ("a", "b"), Preprocessing(16))
    found = evaluate_images(Inference(model), labelled_images(tmp_path, model.class_names))
    for labels in ((found.logits[:, 0] > 0), (found.logits[:, 0] < 0)):  # all right, all wrong
        with pytest.raises(UserError, match="^no temperature fits"):
            calibrate(model, found._replace(images=replace(found.images, labels=labels.long().numpy())))
    assert model.temperature == 1.0
