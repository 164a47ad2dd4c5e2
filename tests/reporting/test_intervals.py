import pytest
from scipy.stats import binomtest

from transfer_learning.reporting.intervals import wilson_interval


@pytest.mark.parametrize("correct, total", [(0, 10), (7, 10), (10, 10), (965, 1000), (1, 3)])
def test_wilson_interval_equals_scipys(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_it_is_inside_0_to_1():
    for total in range(1, 2000):
        assert wilson_interval(0, total)[0] >= 0 and wilson_interval(total, total)[1] <= 1
