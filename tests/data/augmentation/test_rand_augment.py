import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms import RandAugment as TorchvisionRandAugment

from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.utilities.errors import ArgumentError

SHEAR_X, SHEAR_Y, RIGHT, DOWN, ANGLE = range(5)


def torchvisions(image, kind, value):
    """One transformation of an image (3, H, W); see `torchvision.transforms.autoaugment._apply_op`."""
    height, width = image.shape[1:]
    settings = dict(angle=0.0, translate=[0, 0], scale=1.0, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR)
    if kind in (SHEAR_X, SHEAR_Y):
        settings["shear"] = [math.degrees(math.atan(value)) * (kind == each) for each in (SHEAR_X, SHEAR_Y)]
    elif kind in (RIGHT, DOWN):
        settings["translate"] = [
            round(value * size) * (kind == each) for each, size in ((RIGHT, width), (DOWN, height))
        ]
    else:
        return functional.rotate(image, math.degrees(value), InterpolationMode.BILINEAR)
    return functional.affine(image, **settings)


def ramp(height, width):
    """Channels that are linear functions of the position, which bilinear interpolation reproduces."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


@pytest.mark.parametrize("height, width", [(40, 40), (40, 60)])
@pytest.mark.parametrize(
    "kind, value", [(SHEAR_X, 0.3), (SHEAR_Y, -0.2), (RIGHT, 0.1), (DOWN, -0.2), (ANGLE, math.radians(25))]
)
def test_one_transformation_is_torchvisions(height, width, kind, value):
    image, targets = torch.rand(3, height, width), torch.tensor([1])
    parameters = torch.zeros(1, 5)
    parameters[0, kind] = value
    (result,), same = RandAugment(num_ops=1).apply(image[None], targets, parameters)
    inside = torchvisions(torch.ones(1, height, width), kind, value)[0] == 1  # torchvision fills with black
    assert same is targets and inside.float().mean() > 0.5
    torch.testing.assert_close(result[:, inside], torchvisions(image, kind, value)[:, inside], atol=1e-3, rtol=0)


@pytest.mark.parametrize("first", [(SHEAR_X, 0.3), (RIGHT, 0.2), (ANGLE, 0.5)])
@pytest.mark.parametrize("second", [(SHEAR_Y, -0.3), (DOWN, 0.1), (ANGLE, -0.3)])
def test_several_transformations_are_applied_one_after_the_other(first, second):
    image, parameters = ramp(40, 60), torch.zeros(1, 10)
    parameters[0, first[0]], parameters[0, 5 + second[0]] = first[1], second[1]
    (result,), _ = RandAugment().apply(image[None], torch.zeros(1), parameters)
    expected = torchvisions(torchvisions(image, *first), *second)
    inside = torchvisions(torchvisions(torch.ones(1, 40, 60), *first), *second)[0] == 1
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(result[:, inside], expected[:, inside], atol=2e-3, rtol=0)


def test_magnitudes_are_torchvisions():
    limits = TorchvisionRandAugment()._augmentation_space(31, (331, 331))
    names = {SHEAR_X: "ShearX", SHEAR_Y: "ShearY", RIGHT: "TranslateX", DOWN: "TranslateY", ANGLE: "Rotate"}
    for magnitude in (0, 9, 30):
        sampled = np.abs(RandAugment(1, magnitude).sample(500, np.random.default_rng(0))).max(axis=0)
        expected = np.array([float(limits[name][0][magnitude]) for name in names.values()])
        expected[[RIGHT, DOWN]] /= 331
        expected[ANGLE] = np.radians(expected[ANGLE])
        np.testing.assert_allclose(sampled, expected, atol=1e-6)


def test_the_six_transformations_and_both_directions_are_equally_likely():
    parameters = RandAugment(num_ops=3).sample(10_000, np.random.default_rng(0))
    assert parameters.shape == (10_000, 15) and parameters.dtype == np.float32
    each = parameters.reshape(-1, 5)
    assert (np.count_nonzero(each, axis=1) <= 1).all()
    np.testing.assert_allclose([(each > 0).mean(axis=0), (each < 0).mean(axis=0)], 1 / 12, atol=0.005)
    kinds = [np.abs(parameters[:, 5 * n : 5 * n + 5]).argmax(axis=1) for n in range(3)]
    assert abs(np.corrcoef(kinds)[0, 1]) < 0.03 and abs(np.corrcoef(kinds)[1, 2]) < 0.03


def test_without_magnitude_images_stay_as_they_are_and_results_stay_in_range():
    images = torch.rand(4, 3, 17, 17)
    for magnitude, tolerance in ((0, 1e-5), (30, 1)):
        parameters = torch.from_numpy(RandAugment(4, magnitude).sample(4, np.random.default_rng(0)))
        result, _ = RandAugment().apply(images, torch.zeros(4), parameters)
        torch.testing.assert_close(result, images, atol=tolerance, rtol=0)
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("settings", [{"num_ops": 0}, {"num_ops": 1.5}, {"magnitude": 31}, {"magnitude": -1}])
def test_ranges_without_a_meaning_are_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        RandAugment(**settings)
