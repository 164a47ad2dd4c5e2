import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from transfer_learning.data.augmentation.color_jitter import ColorJitter
from transfer_learning.utilities.errors import ArgumentError


def torchvisions(image, brightness, contrast, saturation, hue):
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    return functional.adjust_hue(functional.adjust_saturation(image, saturation), hue)


@pytest.mark.parametrize("hue", [0.0, 0.5])
def test_each_image_is_changed_as_torchvision_does_with_its_factors(hue):
    images, targets = torch.rand(6, 3, 7, 9), torch.arange(6)
    images[0, :, :3] = 0.5  # gray pixels have no hue
    images[1, :2] = images[1, 2]
    images[2, 0, :, :4] = 0
    step = ColorJitter(brightness=0.9, contrast=0.8, saturation=1.5, hue=hue)
    parameters = torch.from_numpy(step.sample(6, np.random.default_rng(0)))
    result, same = step.apply(images.clone().contiguous(memory_format=torch.channels_last), targets, parameters)
    expected = torch.stack([torchvisions(image, *row.tolist()) for image, row in zip(images, parameters)])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert same is targets and result.min() >= 0 and result.max() <= 1


def test_without_changes_images_stay_as_they_are():
    images = torch.rand(4, 3, 5, 5)
    parameters = torch.tensor([[1.0, 1, 1, 0]]).repeat(4, 1)
    torch.testing.assert_close(ColorJitter(hue=0.1).apply(images, torch.zeros(4), parameters)[0], images)
    assert torch.equal(ColorJitter().apply(images, torch.zeros(4), parameters)[0], images)


def test_the_given_images_are_not_changed():
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    ColorJitter(hue=0.1).apply(images, torch.zeros(2), torch.tensor([[0.5, 1.5, 0.5, 0.1]] * 2))
    assert torch.equal(images, before)


def test_factors_are_sampled_as_torchvision_samples_them():
    step = ColorJitter(brightness=0.25, contrast=1.5, saturation=0.0, hue=0.1)
    parameters = step.sample(20_000, np.random.default_rng(0))
    assert parameters.shape == (20_000, 4) and parameters.dtype == np.float32
    expected = [np.linspace(*limits, 5) for limits in [(0.75, 1.25), (0, 2.5), (1, 1), (-0.1, 0.1)]]
    np.testing.assert_allclose(np.quantile(parameters, [0, 0.25, 0.5, 0.75, 1], axis=0).T, expected, atol=0.03)
    assert np.abs(np.corrcoef(parameters[:, [0, 1, 3]].T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("settings", [{"brightness": -0.1}, {"contrast": "much"}, {"hue": 0.6}, {"saturation": None}])
def test_ranges_without_a_meaning_are_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        ColorJitter(**settings)
