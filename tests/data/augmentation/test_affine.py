import json

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from transfer_learning.data.augmentation import Augmentation, Step
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.utilities.errors import ArgumentError, UserError


def parameters_of(count, seed=0, **settings):
    return torch.from_numpy(Affine(**settings).sample(count, np.random.default_rng((seed, 0))))


def transform(images, parameters):
    targets = torch.arange(len(images))
    transformed, same = Affine().apply(images, targets, parameters)
    assert same is targets
    return transformed


def keras_transform(image, parameters):
    """Keras 2's ImageDataGenerator on one (H, W, 3) image, written with its matrices and SciPy."""
    theta, shear, down, right, zoom_y, zoom_x, flip = parameters.astype(float)
    height, width = image.shape[:2]
    rotation = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    shift = [[1, 0, down * height], [0, 1, right * width], [0, 0, 1]]
    shearing = [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    zoom = [[zoom_y, 0, 0], [0, zoom_x, 0], [0, 0, 1]]
    centre = [[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]]
    matrix = np.array(centre) @ rotation @ shift @ shearing @ zoom @ np.linalg.inv(centre)
    result = np.stack(
        [affine_transform(image[..., c], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest") for c in range(3)],
        axis=-1,
    )
    return result[:, ::-1] if flip else result


@pytest.mark.parametrize("height, width", [(32, 32), (31, 31), (20, 36)])
def test_same_as_keras_on_scipy(height, width):
    images = np.random.default_rng(0).random((16, height, width, 3))
    parameters = parameters_of(16, seed=1, shear=20)  # more shear than the tutorial's, so that a mistake would show
    expected = np.stack([keras_transform(image, row) for image, row in zip(images, parameters.numpy())])
    result = transform(torch.from_numpy(images).permute(0, 3, 1, 2), parameters)
    np.testing.assert_allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-4)


def test_ranges_of_zero_change_nothing():
    images = torch.rand(3, 3, 17, 17)
    parameters = parameters_of(3, rotation=0, shift=0, shear=0, zoom=0, flip=0)
    torch.testing.assert_close(transform(images, parameters), images, atol=1e-5, rtol=0)


def test_results_stay_within_the_images_range():
    result = transform(torch.rand(8, 3, 24, 24), parameters_of(8))
    assert result.min() >= 0 and result.max() <= 1


def test_the_tutorials_ranges_are_the_default():
    parameters = parameters_of(20_000).numpy()
    high = [np.radians(50), np.radians(0.2), 0.2, 0.2, 1.3, 1.3]
    low = [-np.radians(50), -np.radians(0.2), -0.2, -0.2, 0.7, 0.7]
    np.testing.assert_allclose(parameters[:, :6].max(axis=0), high, rtol=2e-3)
    np.testing.assert_allclose(parameters[:, :6].min(axis=0), low, rtol=2e-3)
    np.testing.assert_allclose(parameters[:, :6].mean(axis=0), np.add(low, high) / 2, atol=0.01)
    assert set(parameters[:, 6]) == {0, 1} and abs(parameters[:, 6].mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    "settings", [{"zoom": 1}, {"zoom": -0.1}, {"flip": 1.1}, {"rotation": -1}, {"shift": "far"}, {"shear": -0.2}]
)
def test_ranges_without_a_meaning_are_refused(settings):
    """With a zoom of 1 an image would be turned inside out."""
    ((name, value),) = settings.items()
    with pytest.raises(ArgumentError, match=f"{name}={value!r}: expected") as error:
        Affine(**settings)
    assert isinstance(error.value, UserError)


def test_parameters_are_a_function_of_the_generators_state():
    parameters = parameters_of(5)
    assert torch.equal(parameters, parameters_of(5)) and parameters.dtype == torch.float32
    assert len(parameters[:, 0].unique()) == 5  # each image has its own
    assert not np.isin(parameters_of(5, seed=1)[:, 0], parameters[:, 0]).any()


def test_two_equal_images_of_a_batch_become_different():
    first, second = transform(torch.rand(1, 3, 16, 16).repeat(2, 1, 1, 1), parameters_of(2))
    assert not torch.allclose(first, second, atol=0.05)


def test_affine_is_a_step_whose_attributes_are_plain():
    assert isinstance(Affine(), Step)
    assert vars(Affine(rotation=10)) == {"rotation": 10, "shift": 0.2, "shear": 0.2, "zoom": 0.3, "flip": 0.5}


def test_whole_numbers_and_defaults_have_the_key_of_equal_floats():
    """The key is compared as JSON, in which 50 and 50.0 differ."""
    keys = [json.dumps(Augmentation([step]).key) for step in (Affine(), Affine(rotation=50), Affine(rotation=50.0))]
    assert len(set(keys)) == 1


# Outputs of this version: the parameters of two images, and two images transformed with other parameters.
VERSION = 1
SAMPLED = [
    [0.2390432, -0.0016072, -0.1836106, -0.1933889, 1.1879622, 1.2476534, 0.0],
    [0.4005471, 0.0003046, 0.174029, 0.1263414, 0.7016431, 1.2144426, 1.0],
]
PARAMETERS = torch.tensor([[0.5, 0.1, 0.1, -0.2, 1.2, 0.8, 0], [-0.8, -0.3, -0.15, 0.05, 0.75, 1.25, 1]])
IMAGES = (torch.arange(2 * 3 * 3 * 4) * 37 % 101 / 100).reshape(2, 3, 3, 4)
TRANSFORMED = [
    [
        [
            [0.5975049, 0.3986365, 0.4306303, 0.5020359],
            [0.94, 0.5673704, 0.5542706, 0.2579157],
            [0.6029315, 0.3691671, 0.6134664, 0.345216],
        ],
        [
            [0.723505, 0.7685747, 0.5718226, 0.5416136],
            [0.33, 0.5464032, 0.4128505, 0.5625528],
            [0.5248677, 0.5803597, 0.1577878, 0.2477658],
        ],
        [
            [0.3875049, 0.3642497, 0.4143492, 0.2920359],
            [0.73, 0.3573704, 0.503284, 0.9604456],
            [0.3929315, 0.1591671, 0.4034664, 0.6477658],
        ],
    ],
    [
        [
            [0.231644, 0.6458597, 0.7913305, 0.8003801],
            [0.3399077, 0.5667539, 0.6637098, 0.6013138],
            [0.6842386, 0.7092832, 0.1824772, 0.4022475],
        ],
        [
            [0.6098654, 0.3320405, 0.4001683, 0.5442074],
            [0.5506784, 0.5198338, 0.5653592, 0.8885383],
            [0.3516121, 0.4592646, 0.5534263, 0.8022475],
        ],
        [
            [0.021644, 0.4358597, 0.5813305, 0.5903801],
            [0.1299077, 0.3567539, 0.5422978, 0.3913138],
            [0.4742386, 0.5260106, 0.6629182, 0.6228692],
        ],
    ],
]


def test_outputs_of_affine_stay_what_they_are_or_its_version_is_raised():
    changed = (
        "Affine gives other outputs than those stored in this test. If that is meant, raise Affine.version, so that "
        "stored features of augmented images are computed anew, and store the new outputs and the version here."
    )
    sampled = Affine().sample(2, np.random.default_rng((0, 0)))
    np.testing.assert_allclose(sampled, SAMPLED, rtol=0, atol=1e-6, err_msg=changed)
    np.testing.assert_allclose(transform(IMAGES, PARAMETERS), TRANSFORMED, rtol=0, atol=1e-6, err_msg=changed)
    assert Affine.version == VERSION, "Affine.version was raised: store its outputs and the version in this test."
