import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from transfer_learning.data.augment import augment, draw
from transfer_learning.errors import UserError


def keras_augment(image, draws):
    """Keras 2's ImageDataGenerator on one (H, W, 3) image, written with its matrices and SciPy."""
    theta, shear, down, right, zoom_y, zoom_x, flip = draws.astype(float)
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
    draws = draw(16, seed=1, epoch=2, shear=20)  # more shear than the tutorial's, so that a mistake in it would show
    expected = np.stack([keras_augment(image, row) for image, row in zip(images, draws)])
    result = augment(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(draws))
    np.testing.assert_allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-4)


def test_nothing_drawn_changes_nothing():
    images = torch.rand(3, 3, 17, 17)
    draws = torch.from_numpy(draw(3, 0, 0, rotation=0, shift=0, shear=0, zoom=0, flip=0))
    torch.testing.assert_close(augment(images, draws), images, atol=1e-5, rtol=0)


def test_results_stay_within_the_images_range():
    result = augment(torch.rand(8, 3, 24, 24), torch.from_numpy(draw(8, 0, 0)))
    assert result.min() >= 0 and result.max() <= 1


def test_ranges_are_the_tutorials():
    draws = draw(20_000, seed=0, epoch=0)
    high = [np.radians(50), np.radians(0.2), 0.2, 0.2, 1.3, 1.3]
    low = [-np.radians(50), -np.radians(0.2), -0.2, -0.2, 0.7, 0.7]
    np.testing.assert_allclose(draws[:, :6].max(axis=0), high, rtol=2e-3)
    np.testing.assert_allclose(draws[:, :6].min(axis=0), low, rtol=2e-3)
    np.testing.assert_allclose(draws[:, :6].mean(axis=0), np.add(low, high) / 2, atol=0.01)
    assert set(draws[:, 6]) == {0, 1} and abs(draws[:, 6].mean() - 0.5) < 0.02


def test_a_zoom_that_turns_images_inside_out():
    with pytest.raises(UserError, match="data.augmentation.zoom=1"):
        draw(3, 0, 0, zoom=1)


def test_draws_are_a_function_of_seed_epoch_and_image():
    draws = draw(5, seed=0, epoch=0)
    assert np.array_equal(draws, draw(5, seed=0, epoch=0))
    assert len(np.unique(draws[:, 0])) == 5  # each image has its own
    angles = [draw(5, seed, epoch)[:, 0] for seed in (0, 1) for epoch in (0, 1)]
    assert len(np.unique(angles)) == 20  # (0, 1) and (1, 0) too have nothing in common


def test_two_equal_images_of_a_batch_come_out_different():
    image = torch.rand(1, 3, 16, 16)
    first, second = augment(image.repeat(2, 1, 1, 1), torch.from_numpy(draw(2, 0, 0)))
    assert not torch.allclose(first, second, atol=0.05)
