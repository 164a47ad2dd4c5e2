import numpy as np
import pytest
import torch

from transfer_learning.data.augmentation import Augmentation, Step
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.batch import Batch, prepare
from transfer_learning.utilities.errors import ArgumentError


class Shift:
    """Adds a random constant to each image."""

    version = 3

    def __init__(self, largest: float = 0.5):
        self.largest = largest

    def sample(self, count, generator):
        return (self.largest * generator.random((count, 1))).astype(np.float32)

    def apply(self, images, targets, parameters):
        return images + parameters[:, :, None, None], targets


class Mixup:
    """Mixes each image, and the probabilities of its classes, with the image before it in the batch."""

    version = 1
    mixes_targets = True

    def sample(self, count, generator):
        return generator.random((count, 1)).astype(np.float32)

    def apply(self, images, targets, parameters):
        weight = parameters[:, :, None, None]
        mixed = weight * images + (1 - weight) * images.roll(1, 0)
        return mixed, parameters * targets + (1 - parameters) * targets.roll(1, 0)


def test_parameters_are_a_function_of_seed_epoch_and_image():
    augmentation = Augmentation([Affine()])
    (parameters,) = augmentation.sample(5, seed=0, epoch=0)
    assert np.array_equal(parameters, augmentation.sample(5, seed=0, epoch=0)[0])
    assert len(np.unique(parameters[:, 0])) == 5  # each image has its own
    angles = [augmentation.sample(5, seed, epoch)[0][:, 0] for seed in (0, 1) for epoch in (0, 1)]
    assert len(np.unique(angles)) == 20  # (0, 1) and (1, 0) too have nothing in common


@pytest.mark.parametrize("seed, epoch", [(0, 0), (0, 3), (5, 1)])
def test_a_second_step_leaves_the_parameters_of_the_first_as_they_are(seed, epoch):
    expected = Affine().sample(6, np.random.default_rng((seed, epoch)))
    assert np.array_equal(Augmentation([Affine()]).sample(6, seed, epoch)[0], expected)
    first, second = Augmentation([Affine(), Mixup()]).sample(6, seed, epoch)
    assert np.array_equal(first, expected) and second.shape == (6, 1)


def test_two_equal_steps_have_different_parameters():
    sampled = [Augmentation([Affine()] * 3).sample(4, seed, epoch) for seed in range(3) for epoch in range(4)]
    angles = np.array([step[:, 0] for steps in sampled for step in steps])
    assert len(np.unique(angles)) == angles.size == 3 * 4 * 3 * 4


def test_the_parameters_of_a_step_do_not_depend_on_other_steps():
    two, three = (Augmentation(steps).sample(4, 1, 2) for steps in ([Shift(), Shift()], [Affine(), Shift(), Mixup()]))
    assert np.array_equal(two[1], three[1])


def test_steps_are_applied_one_after_the_other():
    images, targets = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 0])
    augmentation = Augmentation([Affine(), Shift()])
    parameters = [torch.from_numpy(each) for each in augmentation.sample(3, 0, 0)]
    result, unchanged = augmentation.apply(images, targets, parameters)
    expected = Affine().apply(images, targets, parameters[0])[0] + parameters[1][:, :, None, None]
    assert torch.equal(result, expected) and unchanged is targets


def test_each_step_needs_its_parameters():
    with pytest.raises(ValueError, match="zip"):
        Augmentation([Affine(), Shift()]).apply(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), (torch.zeros(2, 7),))


def test_without_steps_images_stay_as_they_are():
    images, targets = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 0])
    assert Augmentation([]).sample(3, 0, 0) == ()
    result, unchanged = Augmentation([]).apply(images, targets, ())
    assert result is images and unchanged is targets


def test_steps_follow_the_protocol_and_anything_else_does_not():
    assert isinstance(Shift(), Step) and isinstance(Mixup(), Step) and not isinstance(torch.nn.ReLU(), Step)


def test_the_key_has_name_version_and_attributes_of_each_step():
    assert Augmentation([Affine(rotation=10), Shift(0.25)]).key == [
        {"step": f"{Affine.__module__}.Affine", "version": Affine.version}
        | {"rotation": 10, "shift": 0.2, "shear": 0.2, "zoom": 0.3, "flip": 0.5},
        {"step": f"{__name__}.Shift", "version": 3, "largest": 0.25},
    ]


def test_targets_that_a_step_mixes_are_the_targets_of_the_prepared_batch():
    images = torch.randint(0, 256, (3, 4, 4, 3), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([0, 1, 1]), torch.tensor([8, 5, 6]), (torch.tensor([[0.25], [0.5], [1.0]]),))
    prepared = prepare(batch, Augmentation([Mixup()], num_classes=2))
    torch.testing.assert_close(prepared.targets, torch.tensor([[0.25, 0.75], [0.5, 0.5], [0, 1]]))
    floats = images.permute(0, 3, 1, 2).float() / 255
    expected = torch.stack(
        [0.25 * floats[0] + 0.75 * floats[2], 0.5 * floats[1] + 0.5 * floats[0], floats[2]],
    )
    torch.testing.assert_close(prepared.inputs, expected)
    assert prepared.inputs.is_contiguous(memory_format=torch.channels_last)
    assert prepared.indices.tolist() == [8, 5, 6]


def test_the_data_module_hands_out_the_mixed_targets_of_training_images_only(folder_data):
    data = folder_data(augment=True, augmentation=[Affine(), Mixup()])
    affine, mixup = data.augmentation_parameters(2)
    assert affine.shape == (12, 7) and mixup.shape == (12, 1)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    order, seen = list(loader.sampler), 0
    for batch in loader:
        prepared = data.on_after_batch_transfer(batch)
        positions = order[seen : seen + len(batch.targets)]
        weights = torch.from_numpy(mixup[positions])
        one_hot = torch.eye(2)[batch.targets]
        torch.testing.assert_close(prepared.targets, weights * one_hot + (1 - weights) * one_hot.roll(1, 0))
        assert batch.targets.dtype == torch.int64 and prepared.indices.tolist() == batch.indices.tolist()
        seen += len(positions)
    assert seen == 12
    for batch in data.val_dataloader():
        assert data.on_after_batch_transfer(batch).targets.dtype == torch.int64


def test_one_step_and_a_list_of_one_step_are_the_same(folder_data):
    one, several = folder_data(augment=True, augmentation=Shift()), folder_data(augment=True, augmentation=[Shift()])
    assert np.array_equal(one.augmentation_parameters(1), several.augmentation_parameters(1))
    (default,), (affine,) = (
        folder_data(augment=True, augmentation=step).augmentation_parameters(1) for step in (None, Affine())
    )
    assert np.array_equal(default, affine)


def test_two_mixing_steps_mix_the_mixed_images():
    images, codes = torch.rand(5, 3, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    augmentation = Augmentation([Mixup(), Mixup()], num_classes=3)
    first, second = (torch.from_numpy(each) for each in augmentation.sample(5, 0, 0))
    result, targets = augmentation.apply(images, codes, (first, second))
    expected = Mixup().apply(*Mixup().apply(images, torch.eye(3)[codes], first), second)
    assert torch.equal(result, expected[0]) and torch.equal(targets, expected[1])
    assert targets.shape == (5, 3) and targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(5))


def test_the_step_before_mixup_gets_codes_and_the_one_after_it_probabilities():
    seen = []

    class Watch(Shift):
        def apply(self, images, targets, parameters):
            seen.append(targets)
            return images, targets

    augmentation = Augmentation([Watch(), Mixup(), Watch()], num_classes=2)
    codes = torch.tensor([1, 0, 1])
    parameters = [torch.from_numpy(each) for each in augmentation.sample(3, 0, 0)]
    augmentation.apply(torch.rand(3, 3, 4, 4), codes, parameters)
    assert seen[0] is codes and seen[1].shape == (3, 2)


def test_mixing_codes_needs_the_number_of_classes():
    images, parameters = torch.rand(2, 3, 4, 4), [torch.ones(2, 1)]
    with pytest.raises(ArgumentError, match="^num_classes=None: Mixup needs the number of classes"):
        Augmentation([Mixup()]).apply(images, torch.tensor([0, 1]), parameters)
    _, targets = Augmentation([Mixup()]).apply(images, torch.eye(4)[:2], parameters)
    assert torch.equal(targets, torch.eye(4)[:2])


def test_the_data_module_knows_the_number_of_classes(folder_data):
    data = folder_data(augment=True, augmentation=[Mixup()])
    batch = next(iter(data.train_dataloader()))
    targets = data.on_after_batch_transfer(batch).targets
    weights, one_hot = batch.parameters[0], torch.eye(2)[batch.targets]
    torch.testing.assert_close(targets, weights * one_hot + (1 - weights) * one_hot.roll(1, 0))


@pytest.mark.parametrize("steps, size", [([], 16), ([Affine(), Mixup()], 16), ([RandomResizedCrop(size=24)], 24)])
def test_the_size_of_augmented_images(steps, size):
    assert Augmentation(steps, num_classes=2).image_size(16) == size


def test_augmentation_without_a_step_is_refused(folder_data):
    with pytest.raises(ArgumentError, match="^augment=True: there is no augmentation step"):
        folder_data(augment=True, augmentation=[])
