from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.utils.class_weight import compute_class_weight

from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.balance import balanced_draw, balanced_weights
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import Folder
from transfer_learning.utilities.errors import ArgumentError

SIZES = (40, 10, 4)  # images of each class; three quarters train


@pytest.fixture
def unbalanced(tmp_path, write_image):
    """unbalanced(**settings): images of three classes of different sizes."""

    def make(**settings) -> ImageDataModule:
        for code, size in enumerate(SIZES):
            for number in range(size):
                write_image(tmp_path / "photographs" / "abc"[code] / f"{number}.png", 100 * code + number)
        split = {"train": [], "val": [], "test": []}

        def divide(images):
            for code in range(3):
                own = np.flatnonzero(images.labels == code)
                quarters = np.array_split(own, 4)
                split["train"] += [*quarters[0], *quarters[1]]
                split["val"] += [*quarters[2]]
                split["test"] += [*quarters[3]]
            return {name: np.array(rows) for name, rows in split.items()}

        settings = {"batch_size": 6, "cache_dir": tmp_path / "cache"} | settings
        data = ImageDataModule(Folder(tmp_path / "photographs"), divide, Preprocessing(16), **settings)
        data.setup()
        return data

    return make


def shown(data, epoch, **settings):
    """The indices of the images that an epoch shows, in its order, and the batches."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    return torch.cat([batch.indices for batch in batches]).tolist(), batches


def test_each_class_is_drawn_with_the_same_probability_and_so_is_each_of_its_images():
    labels = np.repeat([0, 1, 2], [600, 30, 370])
    draws = np.concatenate([balanced_draw(labels, np.random.default_rng(seed)) for seed in range(20)])
    assert len(draws) == 20_000 and draws.dtype == np.int64
    for count in np.bincount(labels[draws]):
        assert binomtest(int(count), 20_000, 1 / 3).pvalue > 1e-4
    of_class = np.bincount(draws, minlength=1000)[600:630]
    assert all(binomtest(int(count), 20_000, 1 / 90).pvalue > 1e-5 for count in of_class)


def test_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [50, 7, 20])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = balanced_weights(labels, 3)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == np.float32 and weights[labels].mean() == pytest.approx(1)


def test_a_class_without_images_has_no_weight():
    weights = balanced_weights(np.array([0, 0, 0, 2]), 4)
    assert weights.tolist() == pytest.approx([2 / 3, 0, 2, 0])


def test_an_epoch_is_a_function_of_order_seed_and_epoch(unbalanced):
    data = unbalanced(balance="sampler")
    first = shown(data, 0)[0]
    assert len(first) == len(data.splits["train"]) == 28
    assert shown(unbalanced(balance="sampler"), 0)[0] == first
    assert shown(data, 1)[0] != first and shown(unbalanced(balance="sampler", order_seed=1), 0)[0] != first
    assert set(first) <= set(data.splits["train"].tolist()) and max(Counter(first).values()) > 1


def test_batches_are_of_the_images_that_are_drawn(unbalanced):
    data = unbalanced(balance="sampler")
    counts = np.zeros(3)
    for epoch in range(40):
        indices, batches = shown(data, epoch)
        assert sorted(indices) == sorted(data.splits["train"][data.draw(epoch)])
        for batch in batches:
            assert np.array_equal(batch.inputs, data.pixels[batch.indices])
            assert np.array_equal(batch.targets, data.labels[batch.indices])
            counts += np.bincount(batch.targets, minlength=3)
    assert all(binomtest(int(count), 40 * 28, 1 / 3).pvalue > 1e-4 for count in counts)


@pytest.mark.parametrize("views", [0, 3])
def test_an_image_is_augmented_anew_each_time_it_is_drawn(unbalanced, views):
    data = unbalanced(balance="sampler", augment=True, views=views)
    indices, batches = shown(data, 2)
    prepared = torch.cat([data.on_after_batch_transfer(batch).inputs for batch in batches])
    order = list(data.train_dataloader().sampler)
    (parameters,) = data.augmentation_parameters(2)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    order = list(loader.sampler)
    plain = torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2) / 255
    expected, _ = Affine().apply(plain, torch.zeros(28), torch.from_numpy(parameters[order]))
    torch.testing.assert_close(prepared, expected)
    if views:  # the parameters are those of the image's chosen view
        chosen, rows = data.chosen_views(2), data.splits["train"][data.draw(2)]
        assert all(np.array_equal(parameters[n], data.view(chosen[n])[0][rows[n]]) for n in range(28))
    else:
        assert len(np.unique(parameters[:, 0])) == 28


def test_stored_views_of_the_images_that_are_drawn(unbalanced):
    data = unbalanced(balance="sampler", augment=True, views=2)
    part = FrozenPart(lambda images: images.mean(dim=(2, 3)), torch.device("cpu"), {"weights": "mean"})
    fresh = shown(data, 1)
    expected = torch.cat([data.on_after_batch_transfer(batch).inputs.mean(dim=(2, 3)) for batch in fresh[1]])
    data.store_features(part)
    stored = shown(data, 1)
    assert stored[0] == fresh[0] and stored[1][0].is_features
    torch.testing.assert_close(torch.cat([batch.inputs for batch in stored[1]]), expected)


def test_devices_share_what_is_drawn(unbalanced):
    from types import SimpleNamespace

    single = shown(unbalanced(balance="sampler"), 3)[0]
    shares = []
    for rank in range(2):
        data = unbalanced(balance="sampler")
        device = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=device)
        shares.append(shown(data, 3)[0])
    assert [index for pair in zip(*shares) for index in pair] == single


def test_only_training_images_are_drawn_and_only_weights_are_weights(unbalanced):
    data = unbalanced(balance="sampler")
    assert [batch for loader in (data.val_dataloader(), data.test_dataloader()) for batch in loader]
    seen = torch.cat([batch.indices for batch in data.val_dataloader()]).tolist()
    assert seen == data.splits["val"].tolist() and data.class_weights is None
    weighted = unbalanced(balance="weights")
    assert weighted.class_weights == pytest.approx(28 / 3 / np.array([20, 6, 2]), rel=1e-6)
    assert Counter(shown(weighted, 0)[0]) == Counter(weighted.splits["train"].tolist())


def test_another_balance_is_refused(unbalanced):
    with pytest.raises(ArgumentError, match="balance='over': expected 'none', 'sampler' or 'weights'"):
        unbalanced(balance="over")


def test_draws_are_independent_of_every_step_of_the_augmentation(unbalanced):
    """Each step has a generator that is a function of (seed, epoch, step)."""

    class Generators:
        version = 1

        def sample(self, count, generator):
            seen.append(generator.bit_generator.state["state"]["state"])
            return np.zeros((count, 1), np.float32)

        def apply(self, images, targets, parameters):
            return images, targets

    def state(labels, generator):
        seen.append(generator.bit_generator.state["state"]["state"])
        return np.arange(len(labels))

    seen = []
    data = unbalanced(balance="sampler", augment=True, augmentation=[Generators() for _ in range(6)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer_learning.data.datamodule.balanced_draw", state)
        data.augmentation_parameters(3)
    assert len(seen) == len(set(seen)) == 7
