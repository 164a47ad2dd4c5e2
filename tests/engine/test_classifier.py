import numpy as np
import pytest
import torch
import torch.nn.functional as F

from transfer_learning.errors import UserError
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.cnn import CNN
from transfer_learning.models.pretrained import Pretrained


@pytest.fixture
def fit(quiet_trainer):
    """fit(model, data, epochs) -> the trainer that did."""

    def run(model, data, epochs=2):
        trainer = quiet_trainer(max_epochs=epochs)
        trainer.fit(model, datamodule=data)
        return trainer

    return run


def plain_loop(model, data, epochs, learning_rate):
    """The same training in plain torch, with the losses written out. Returns the last epoch's means over its images."""
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        losses, correct = [], []
        for batch in loader:
            batch = data.on_after_batch_transfer(batch)
            p = torch.sigmoid(model.network(batch.x)[:, 0].double())
            each = torch.where(batch.labels == 1, -p.log(), -(1 - p).log())
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
            losses += each.tolist()
            correct += ((p > 0.5) == (batch.labels == 1)).tolist()
    return np.mean(losses), np.mean(correct)


def evaluate(model, data, loader):
    """Loss and accuracy over a loader's images, in plain torch, from the probabilities."""
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch) for batch in loader]
        probabilities = torch.cat([model(batch.x) for batch in batches]).double()
        labels = torch.cat([batch.labels for batch in batches])
    loss = -probabilities[torch.arange(len(labels)), labels].log().mean()
    return loss.item(), (probabilities.argmax(1) == labels).double().mean().item()


@pytest.mark.parametrize("augment", [False, True])
def test_trains_as_a_plain_loop_does_and_reports_its_means(fit, small_data, small_model, augment):
    data, model, reference = (
        small_data(augment=augment, batch_size=7),
        small_model(),
        small_model(),
    )  # 24 images: a last batch of 3
    trainer = fit(model, data)
    loss, accuracy = plain_loop(reference, data, epochs=2, learning_rate=0.01)
    for (name, trained), expected in zip(model.named_parameters(), reference.parameters()):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss, rel=1e-4)
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(accuracy)
    loss, accuracy = evaluate(model.eval(), data, data.val_dataloader())
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-4)
    assert trainer.callback_metrics["val/acc"].item() == pytest.approx(accuracy)


def test_three_classes_have_three_logits_and_cross_entropy(fit, small_data):
    data = small_data()
    data.labels = np.arange(len(data.labels)) % 3
    model = Classifier(
        CNN(3, 32, channels=[4], dense=[8]), "abc", 32, lambda parameters: torch.optim.SGD(parameters, 0.01)
    )
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
def test_images_that_a_model_does_not_take(small_model, images):
    with pytest.raises(UserError, match=r"expected \(N, 3, 32, 32\) float"):
        small_model()(images)


def test_frozen_bytes_are_unchanged_after_a_fit_and_out_of_the_optimiser(fit, small_data):
    torch.manual_seed(0)
    network = Pretrained(2, 32, weights=None, pool="none", dense=[8])
    model = Classifier(network, ("cat", "dog"), 32, lambda parameters: torch.optim.SGD(parameters, 0.01))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = fit(model, small_data(), epochs=1)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) == key.startswith("frozen.") for key in before)
    optimised = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
    assert len(optimised) == 4 and all(parameter.requires_grad for parameter in optimised)


def test_dropout_is_a_function_of_seed_epoch_and_batch(quiet_trainer, small_model):
    def mask(seed, epoch, batch_index):
        model = small_model(seed=seed)
        model.trainer = quiet_trainer()
        model.trainer.fit_loop.epoch_progress.current.completed = (
            model.trainer.fit_loop.epoch_progress.current.processed
        ) = epoch
        torch.rand(batch_index + 1)  # whatever was drawn before does not matter
        model.on_train_batch_start(None, batch_index)
        return F.dropout(torch.ones(64), 0.5)

    first = mask(0, 0, 0)
    assert torch.equal(first, mask(0, 0, 0))
    for other in (mask(1, 0, 0), mask(0, 1, 0), mask(0, 0, 1)):
        assert not torch.equal(first, other)


def test_a_fit_repeats_bit_for_bit_with_dropout_and_augmentation(fit, small_data, small_model):
    weights = []
    for disturbance in range(2):
        torch.manual_seed(disturbance)
        model = small_model(dropout=0.5)
        fit(model, small_data(augment=True))
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)
