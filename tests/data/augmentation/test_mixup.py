import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torchvision.transforms import v2

from transfer_learning.data.augmentation.mixup import Mixup
from transfer_learning.utilities.errors import ArgumentError


def test_same_as_torchvision_if_all_images_have_one_weight():
    images, codes = torch.rand(5, 3, 6, 6), torch.tensor([0, 2, 1, 1, 0])
    transform = v2.MixUp(alpha=0.4, num_classes=3)
    transform.make_params = lambda inputs: {"labels": codes, "batch_size": 5, "lam": 0.3}
    expected = transform(images, codes)
    result = Mixup().apply(images, torch.eye(3)[codes], torch.full((5, 1), 0.3))
    for ours, theirs in zip(result, expected):
        torch.testing.assert_close(ours, theirs)


def test_each_image_is_mixed_with_the_one_before_it_by_its_own_weight():
    images, targets, weights = torch.rand(4, 3, 5, 7), torch.rand(4, 3).softmax(1), torch.tensor([1.0, 0.0, 0.25, 0.6])
    mixed, probabilities = Mixup().apply(images, targets, weights[:, None])
    for n, weight in enumerate(weights):
        torch.testing.assert_close(mixed[n], weight * images[n] + (1 - weight) * images[n - 1])
        torch.testing.assert_close(probabilities[n], weight * targets[n] + (1 - weight) * targets[n - 1])
    assert torch.equal(mixed[0], images[0]) and torch.equal(mixed[1], images[0])


def test_an_image_alone_in_its_batch_stays_as_it_is():
    image, target = torch.rand(1, 3, 5, 5), torch.tensor([[0.0, 1.0]])
    mixed, probabilities = Mixup().apply(image, target, torch.tensor([[0.3]]))
    torch.testing.assert_close(mixed, image)
    torch.testing.assert_close(probabilities, target)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_have_the_beta_distribution_and_the_expected_mass_is_half(alpha):
    weights = Mixup(alpha).sample(20_000, np.random.default_rng(0))
    assert weights.shape == (20_000, 1) and weights.dtype == np.float32
    assert kstest(weights.ravel(), beta(alpha, alpha).cdf).statistic < 0.02  # near 1, float32 rounds
    assert abs(weights.mean() - 0.5) < 0.01  # the expected probability of an image's own class


@pytest.mark.parametrize("probability", [0, 0.4, 1])
def test_share_of_images_that_are_mixed(probability):
    weights = Mixup(1.0, probability).sample(20_000, np.random.default_rng(0))
    assert abs((weights < 1).mean() - probability) < 0.01
    assert abs(weights.mean() - (1 - probability / 2)) < 0.01


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": -1}, {"probability": 1.1}])
def test_ranges_without_a_meaning_are_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        Mixup(**settings)
