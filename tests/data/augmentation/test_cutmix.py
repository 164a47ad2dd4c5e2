import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torchvision.transforms import v2

from transfer_learning.data.augmentation.cutmix import CutMix, rectangles
from transfer_learning.utilities.errors import ArgumentError


def sampled(count, **settings):
    return CutMix(**settings).sample(count, np.random.default_rng(0))


def test_same_as_torchvision_if_all_images_have_one_rectangle():
    images, codes = torch.rand(5, 3, 10, 8), torch.tensor([0, 2, 1, 1, 0])
    transform = v2.CutMix(num_classes=3)
    box = (2, 1, 6, 9)  # left, top, right, bottom in pixels
    adjusted = 1 - (6 - 2) * (9 - 1) / 80
    transform.make_params = lambda i: {"labels": codes, "batch_size": 5, "box": box, "lam_adjusted": adjusted}
    expected = transform(images, codes)
    sides = torch.tensor([[1 / 10, 9 / 10, 2 / 8, 6 / 8]]).repeat(5, 1)
    for ours, theirs in zip(CutMix().apply(images, torch.eye(3)[codes], sides), expected):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("height, width", [(16, 16), (12, 17)])
def test_targets_are_weighted_by_the_pixels_that_are_replaced(height, width):
    images = torch.arange(40.0)[:, None, None, None].expand(-1, 3, height, width)  # each of one colour
    targets, parameters = torch.eye(40), torch.from_numpy(sampled(40))
    mixed, probabilities = CutMix().apply(images, targets, parameters)
    for n in range(40):
        replaced = (mixed[n] == (n - 1) % 40).float().mean()
        kept = (mixed[n] == n).float().mean()
        torch.testing.assert_close(replaced + kept, torch.tensor(1.0))
        expected = kept * targets[n] + replaced * targets[n - 1]
        torch.testing.assert_close(probabilities[n], expected)
    assert len(probabilities.amax(1).unique()) > 20  # each image has its own rectangle


def test_area_has_the_beta_distribution_before_it_is_cut_at_the_border():
    top, bottom, left, right = sampled(20_000, alpha=0.5).astype(float).T
    height, width = bottom - top, right - left
    np.testing.assert_allclose(height, width, atol=1e-6)
    assert kstest(height * width, beta(0.5, 0.5).cdf).statistic < 0.015
    for centre in ((top + bottom) / 2, (left + right) / 2):
        assert kstest(centre, "uniform").statistic < 0.015
        assert abs(np.corrcoef(centre, height)[0, 1]) < 0.03


def test_expected_mass_of_the_other_image():
    """Of a side s and a uniform centre, s - s ** 2 / 4 is inside the image on average."""
    parameters = torch.from_numpy(sampled(5_000))
    mass = []
    for part in parameters.split(500):
        one_hot = torch.eye(2)[torch.arange(500) % 2]  # an image's partner has the other class
        _, probabilities = CutMix().apply(torch.zeros(500, 1, 64, 64), one_hot, part)
        mass.append(probabilities[torch.arange(500), 1 - torch.arange(500) % 2])
    side = np.sqrt((np.arange(1000) + 0.5) / 1000)
    assert abs(torch.cat(mass).mean().item() - ((side - side**2 / 4) ** 2).mean()) < 0.01


@pytest.mark.parametrize("probability", [0, 0.4])
def test_share_of_images_that_are_mixed(probability):
    parameters = sampled(5_000, probability=probability)
    mixed = parameters[:, 0] < parameters[:, 1]
    assert abs(mixed.mean() - probability) < 0.02
    images, targets = torch.rand(50, 3, 9, 9), torch.eye(50)
    result, probabilities = CutMix().apply(images, targets, torch.from_numpy(parameters[~mixed][:50]))
    assert torch.equal(result, images) and torch.equal(probabilities, targets)


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": "1"}, {"probability": -0.1}])
def test_ranges_without_a_meaning_are_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        CutMix(**settings)


def test_pixels_are_inside_if_their_centre_is():
    sides = torch.tensor([[0.25, 0.75, 0.0, 1.0], [-0.5, 0.5, 0.8, 1.5], [0.4, 0.4, 0.2, 0.9], [0.1, 0.4, 0.2, 0.35]])
    inside = rectangles(sides, 4, 5)
    assert inside.shape == (4, 1, 4, 5) and inside.dtype == torch.bool
    expected = torch.zeros(4, 1, 4, 5, dtype=torch.bool)
    for n, (top, bottom, left, right) in enumerate(sides.tolist()):
        for y in range(4):
            for x in range(5):
                expected[n, 0, y, x] = top < (y + 0.5) / 4 < bottom and left < (x + 0.5) / 5 < right
    assert torch.equal(inside, expected)
    assert inside.sum(dim=(1, 2, 3)).tolist() == [10, 2, 0, 2]
