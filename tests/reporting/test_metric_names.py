import pytest

from transfer_learning.reporting.metric_names import default_mode, label


@pytest.mark.parametrize(
    "key, expected",
    [
        ("val/acc", "validation accuracy"),
        ("train/loss", "training loss"),
        ("test/f1", "test f1"),
        ("lr", "learning rate"),
        ("seconds", "seconds"),
        ("other/acc", "other accuracy"),
    ],
)
def test_labels(key, expected):
    assert label(key) == expected


@pytest.mark.parametrize(
    "key, mode", [("val/loss", "min"), ("train/loss", "min"), ("loss", "min"), ("val/acc", "max"), ("val/f1", "max")]
)
def test_lower_is_better_for_losses_only(key, mode):
    assert default_mode(key) == mode
