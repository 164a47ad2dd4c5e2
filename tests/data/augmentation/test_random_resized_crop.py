import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.utilities.errors import ArgumentError


def sampled(count, **settings):
    return torch.from_numpy(RandomResizedCrop(**settings).sample(count, np.random.default_rng(0)))


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("size", [None, 8, 24])
def test_same_as_torchvision(size, flip):
    """Of a crop that is larger than the result, torchvision's `antialias=False` samples the same pixels."""
    images, targets = torch.rand(2, 3, 20, 20, dtype=torch.float64), torch.tensor([0, 1])
    crops = [(4, 6, 10, 8), (0, 2, 14, 18)]  # top, left, height, width in pixels
    rows = [
        [height / 20, width / 20, (2 * top + height) / 20 - 1, (2 * left + width) / 20 - 1, flip]
        for top, left, height, width in crops
    ]
    result, same = RandomResizedCrop(size=size).apply(images, targets, torch.tensor(rows, dtype=torch.float64))
    assert same is targets and result.shape == (2, 3, size or 20, size or 20)
    for image, crop, cropped in zip(images, crops, result):
        expected = functional.resized_crop(image, *crop, [size or 20] * 2, antialias=False)
        expected = expected.flip(2) if flip else expected
        # At the crop's border torchvision repeats it; here pixels beside the crop are sampled.
        torch.testing.assert_close(cropped[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2])


def test_the_whole_image_stays_as_it_is():
    images = torch.rand(3, 3, 9, 9)
    result, _ = RandomResizedCrop().apply(images, torch.zeros(3), sampled(3, scale=[1, 1], ratio=[1, 1], flip=0))
    torch.testing.assert_close(result, images, atol=1e-5, rtol=0)


def test_scale_ratio_position_and_flip_are_distributed_as_said():
    height, width, down, right, flip = sampled(20_000, scale=(0.2, 0.5), ratio=(0.5, 2.0), flip=0.3).double().T.numpy()
    area, ratio = height * width, np.log(width / height)
    for values, low, high in [(area, 0.2, 0.5), (ratio, np.log(0.5), np.log(2))]:
        quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(quantiles, np.linspace(low, high, 5), atol=0.02)
    assert max(height.max(), width.max()) <= 1 and abs(np.corrcoef(area, ratio)[0, 1]) < 0.03
    for centre, extent in [(down, height), (right, width)]:
        assert (np.abs(centre) <= 1 - extent + 1e-6).all()  # inside the image
        np.testing.assert_allclose(np.quantile(centre / (1 - extent), [0.1, 0.5, 0.9]), [-0.8, 0, 0.8], atol=0.03)
    assert set(flip) == {0, 1} and abs(flip.mean() - 0.3) < 0.02


def test_a_side_is_never_longer_than_the_images():
    parameters = sampled(500, scale=(0.9, 1.0), ratio=(3.0, 4.0))
    assert (parameters[:, 1] == 1).all() and (parameters[:, 3] == 0).all() and (parameters[:, 0] < 0.6).all()


@pytest.mark.parametrize(
    "name, value",
    [("scale", [0, 1]), ("scale", [0.5, 1.1]), ("scale", 0.5), ("ratio", [1.0]), ("flip", -0.1), ("size", 0)],
)
def test_ranges_without_a_meaning_are_refused(name, value):
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        RandomResizedCrop(**{name: value})


@pytest.mark.parametrize("name", ["scale", "ratio"])
def test_the_smaller_number_of_a_range_is_the_first(name):
    with pytest.raises(ArgumentError) as error:
        RandomResizedCrop(**{name: [1.0, 0.5]})
    assert str(error.value) == f"{name}=[1.0, 0.5]: expected the smaller number first."
