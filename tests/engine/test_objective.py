import pytest
import torch
import torch.nn.functional as F

from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.utilities.errors import ArgumentError

GENERATOR = torch.Generator().manual_seed(0)
ONE_LOGIT = 3 * torch.randn(6, 1, generator=GENERATOR)
LOGITS = 3 * torch.randn(6, 4, generator=GENERATOR)
SHARES = torch.rand(6, 4, generator=GENERATOR)


def probabilities(logits):
    """In closed form, (N, C)."""
    if logits.shape[1] == 1:
        second = 1 / (1 + (-logits[:, 0]).exp())
        return torch.stack([1 - second, second], dim=1)
    return logits.exp() / logits.exp().sum(dim=1, keepdim=True)


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_losses_of_class_codes(logits):
    expected = probabilities(logits)
    codes = torch.arange(6) % expected.shape[1]
    losses = CrossEntropy().losses(logits, codes)
    torch.testing.assert_close(losses, -expected[torch.arange(6), codes].log())


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_losses_of_soft_targets(logits):
    expected = probabilities(logits)
    shares = SHARES[:, : expected.shape[1]]
    targets = shares / shares.sum(dim=1, keepdim=True)
    losses = CrossEntropy().losses(logits, targets)
    torch.testing.assert_close(losses, -(targets * expected.log()).sum(dim=1))


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_one_hot_targets_equal_class_codes(logits):
    codes = torch.arange(6) % max(2, logits.shape[1])
    one_hot = torch.nn.functional.one_hot(codes, max(2, logits.shape[1])).float()
    torch.testing.assert_close(CrossEntropy().losses(logits, one_hot), CrossEntropy().losses(logits, codes))


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_probabilities_and_predicted_codes(logits):
    expected, objective = probabilities(logits), CrossEntropy()
    torch.testing.assert_close(objective.probabilities(logits), expected)
    assert torch.equal(objective.predicted(logits), expected.argmax(dim=1))
    assert objective.predicted(logits).dtype == torch.int64


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_large_logits_have_finite_losses(logit):
    for logits in (torch.tensor([[logit]]), torch.tensor([[0.0, logit]])):
        losses = [CrossEntropy().losses(logits, torch.tensor([code])).item() for code in (0, 1)]
        assert losses == pytest.approx([max(logit, 0), max(-logit, 0)])


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_that_of_torch(logits, soft, smoothing):
    """One logit equals the two logits 0 and itself."""
    equivalent = torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
    shares = SHARES[:, : equivalent.shape[1]]
    targets = shares / shares.sum(dim=1, keepdim=True) if soft else torch.arange(6) % equivalent.shape[1]
    expected = F.cross_entropy(equivalent, targets, reduction="none", label_smoothing=smoothing)
    objective = CrossEntropy(smoothing)
    torch.testing.assert_close(objective.training_losses(logits, targets), expected)
    assert torch.equal(objective.losses(logits, targets), CrossEntropy().losses(logits, targets))


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_class_weights_of_mixed_images_are_those_of_torch(logits):
    equivalent = torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
    classes = equivalent.shape[1]
    weights = torch.tensor([0.5, 8.0, 1.0, 3.0])[:classes]
    shares = SHARES[:, :classes] / SHARES[:, :classes].sum(dim=1, keepdim=True)
    expected = F.cross_entropy(equivalent, shares, weight=weights, reduction="none")
    torch.testing.assert_close(CrossEntropy().training_losses(logits, shares, weights), expected)


@pytest.mark.parametrize("logits", [ONE_LOGIT, LOGITS])
def test_class_weights_of_one_hot_targets_are_those_of_class_codes(logits):
    classes = max(2, logits.shape[1])
    codes, weights = torch.arange(6) % classes, torch.tensor([0.5, 8.0, 1.0, 3.0])[:classes]
    for objective in (CrossEntropy(), CrossEntropy(0.1)):
        expected = objective.training_losses(logits, codes) * weights[codes]
        for targets in (codes, F.one_hot(codes, classes).float()):
            torch.testing.assert_close(objective.training_losses(logits, targets, weights), expected)


@pytest.mark.parametrize("width", [1, 4])
def test_mean_logits_have_the_mean_of_the_probabilities(width):
    logits = 3 * torch.randn(3, 6, width, generator=GENERATOR)
    mean = CrossEntropy().mean_logits(list(logits))
    assert mean.shape == (6, width)
    expected = torch.stack([probabilities(each) for each in logits]).mean(dim=0)
    torch.testing.assert_close(probabilities(mean), expected)
    assert torch.equal(CrossEntropy().mean_logits([logits[0]]), logits[0])


@pytest.mark.parametrize("width", [1, 4])
def test_loss_of_mean_logits_is_finite_where_probabilities_are_rounded_to_zero(width):
    logits = torch.full((2, 1, width), -400.0)
    logits[:, :, 0] = 400.0
    wrong = torch.tensor([0 if width == 1 else 1])  # all logits say the other class
    objective = CrossEntropy()
    expected = objective.losses(logits[0], wrong)
    assert expected.item() in (400, 800)
    torch.testing.assert_close(objective.losses(objective.mean_logits(list(logits)), wrong), expected)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, "0.1"])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(ArgumentError, match=f"^label_smoothing={smoothing!r}: expected "):
        CrossEntropy(label_smoothing=smoothing)
