import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from transfer_learning import load
from transfer_learning.engine.predictions import Predictions
from transfer_learning.engine.training import train


def loss_and_accuracy(predictions):
    """In closed form, of one logit for two classes."""
    second = 1 / (1 + (-predictions.logits[:, 0].double()).exp())
    of_label = torch.where(predictions.labels == 1, second, 1 - second)
    correct = (second > 0.5) == (predictions.labels == 1)
    return -of_label.log().mean().item(), correct.double().mean().item()


@pytest.mark.parametrize("frozen", [False, True])
def test_predictions_reproduce_the_metrics(tmp_path, small_data, small_model, pretrained, quiet_trainer, frozen):
    """Of images, and of stored features."""
    data, model = small_data(batch_size=4), pretrained() if frozen else small_model()
    metrics = train(data, model, quiet_trainer(max_epochs=2, default_root_dir=tmp_path))
    assert set(model.predictions) == {"val", "test"}
    for split, predictions in model.predictions.items():
        assert predictions.indices.tolist() == sorted(data.splits[split].tolist())
        assert np.array_equal(predictions.labels.numpy(), data.labels[predictions.indices])
        assert predictions.logits.shape == (10, 1) and predictions.logits.dtype == torch.float32
        assert predictions.indices.dtype == predictions.labels.dtype == torch.int64
    loss, accuracy = loss_and_accuracy(model.predictions["val"])
    assert model.history.rows[-1]["val/loss"] == pytest.approx(loss, abs=1e-6)
    assert metrics["val/acc_last"] == metrics["val/acc_best"] == pytest.approx(accuracy, abs=1e-6)
    loss, accuracy = loss_and_accuracy(model.predictions["test"])
    assert metrics["test/loss"] == pytest.approx(loss, abs=1e-6)
    assert metrics["test/acc"] == pytest.approx(accuracy, abs=1e-6)


def test_predictions_of_the_test_are_those_of_the_best_checkpoint(tmp_path, small_data, small_model, quiet_trainer):
    data, model = small_data(), small_model()
    best = ModelCheckpoint(tmp_path, "best", monitor="val/loss", mode="max")  # not the last epoch
    trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[best])
    metrics = train(data, model, trainer)
    predictions, loaded = model.predictions["test"], load(best.best_model_path)
    pixels = torch.from_numpy(data.pixels[predictions.indices]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        torch.testing.assert_close(predictions.logits, loaded.network(pixels))
    loss, accuracy = loss_and_accuracy(predictions)
    assert metrics["epoch_best"] < 3 and metrics["test/loss"] == pytest.approx(loss, abs=1e-6)
    assert metrics["test/acc"] == pytest.approx(accuracy, abs=1e-6)


def test_images_of_limited_batches(fit, small_data, small_model):
    data, model = small_data(batch_size=4), small_model()
    trainer = fit(model, data, epochs=2, limit_val_batches=2, num_sanity_val_steps=1)
    assert model.predictions["val"].indices.tolist() == sorted(data.splits["val"][:8].tolist())
    loss, accuracy = loss_and_accuracy(model.predictions["val"])
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, abs=1e-6)
    assert trainer.callback_metrics["val/acc"].item() == pytest.approx(accuracy, abs=1e-6)


def test_batches_are_joined_in_the_order_of_the_indices():
    batches = [
        (torch.tensor([7, 2]), torch.tensor([[0.7], [0.2]]), torch.tensor([1, 0])),
        (torch.tensor([5]), torch.tensor([[0.5]]), torch.tensor([1])),
    ]
    predictions = Predictions.gather(batches)
    assert predictions.indices.tolist() == [2, 5, 7] and predictions.labels.tolist() == [0, 1, 1]
    torch.testing.assert_close(predictions.logits, torch.tensor([[0.2], [0.5], [0.7]]))
