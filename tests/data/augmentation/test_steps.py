"""What holds for each step of the project."""

import json

import numpy as np
import pytest
import torch

from transfer_learning.data.augmentation import Augmentation, Step
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.color_jitter import ColorJitter
from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.features import FrozenPart

STEPS = [Affine(), RandomResizedCrop(), HorizontalFlip(), ColorJitter(hue=0.2), RandAugment()]


def applied(step, images, targets, seed=0):
    augmentation = Augmentation([step])
    parameters = [torch.from_numpy(each) for each in augmentation.sample(len(images), seed, 0)]
    return augmentation.apply(images, targets, parameters)


def name_of(step):
    return type(step).__name__


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_steps_follow_the_protocol_and_their_key_is_json(step):
    assert isinstance(step, Step)
    key = Augmentation([step]).key
    assert json.loads(json.dumps(key)) == key and vars(step).items() <= key[0].items()


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_parameters_are_float32_and_each_image_has_its_own(step):
    parameters = step.sample(50, np.random.default_rng(0))
    assert parameters.dtype == np.float32 and len(parameters) == 50 and parameters.ndim == 2
    assert len(np.unique(parameters, axis=0)) >= (2 if isinstance(step, HorizontalFlip) else 10)


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_parameters_of_an_image_do_not_depend_on_the_number_of_images(step):
    """So the stored views of images stay when others are added after them."""
    few, many = (step.sample(count, np.random.default_rng(0)) for count in (5, 9))
    assert np.array_equal(few, many[:5])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_results_stay_in_range_and_the_given_batch_is_not_changed(step, channels_last):
    images = torch.rand(16, 3, 12, 12).round()  # 0 and 1
    images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    targets = torch.arange(16) % 3
    before = images.clone(), targets.clone()
    result, same = applied(step, images, targets)
    assert result.min() >= 0 and result.max() <= 1 and result.dtype == images.dtype and not torch.equal(result, images)
    assert torch.equal(images, before[0]) and torch.equal(targets, before[1])
    torch.testing.assert_close(applied(step, images.contiguous(), targets)[0], result)
    assert same is targets


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_a_result_depends_on_its_image_alone(step):
    images, targets = torch.rand(6, 3, 10, 10), torch.arange(6) % 3
    result, _ = applied(step, images, targets)
    others = images.flip(0)
    others[3] = images[3]
    expected, _ = applied(step, others, targets)
    torch.testing.assert_close(result[3], expected[3])


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_all_tensors_of_a_step_are_on_the_device_of_the_images(step):
    """ "meta" is a device without numbers: an operation with a tensor of another device raises."""
    parameters = torch.from_numpy(step.sample(4, np.random.default_rng(0))).to("meta")
    images, targets = torch.rand(4, 3, 8, 8, device="meta"), torch.zeros(4, device="meta")
    result, _ = step.apply(images, targets, parameters)
    assert result.shape == images.shape and result.device.type == "meta"


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_features_of_views_are_those_of_the_augmented_images(folder_data, inputs_of, step):
    data = folder_data(augment=True, views=2, augmentation=step)
    data.store_features(FrozenPart(lambda images: images.mean(dim=(2, 3)), torch.device("cpu"), {}))
    train = data.splits["train"]
    plain, views = torch.from_numpy(data.pixels[train]).permute(0, 3, 1, 2) / 255, []
    for view in range(2):
        parameters = step.sample(len(data.pixels), np.random.default_rng((data.view_seed, view)))[train]
        augmented, _ = step.apply(plain, torch.zeros(len(train)), torch.from_numpy(parameters))
        views.append(augmented.mean(dim=(2, 3)))
    expected = torch.stack(views)[data.chosen_views(1), torch.arange(len(train))]
    torch.testing.assert_close(inputs_of(data, "train", epoch=1), expected)


# For each step its version and, of this version, sums of parameters and of a result, weighted by position.
STORED = {
    "RandomResizedCrop": [1, 3.213, 3.003],
    "HorizontalFlip": [1, -0.866, 2.538],
    "ColorJitter": [1, -0.256, 2.104],
    "RandAugment": [1, 0.348, 3.436],
}


@pytest.mark.parametrize("step", [step for step in STEPS if not isinstance(step, Affine)], ids=name_of)
def test_outputs_of_a_step_stay_what_they_are_or_its_version_is_raised(step):
    sampled = step.sample(8, np.random.default_rng(0)).astype(float)
    images = (torch.arange(8 * 3 * 6 * 6) * 37 % 101 / 100).reshape(8, 3, 6, 6)
    result, _ = applied(step, images, torch.arange(8) % 3)
    sums = [(each.ravel() * np.cos(np.arange(each.size))).sum() for each in (sampled, result.double().numpy())]
    found = [step.version, *(round(float(each), 3) for each in sums)]
    assert found == pytest.approx(STORED[name_of(step)], abs=2e-3), (
        "The outputs are others than those that this test stores. If that is meant, raise the step's version, so that "
        "stored features of augmented images are computed anew, and store the new version and sums here."
    )
