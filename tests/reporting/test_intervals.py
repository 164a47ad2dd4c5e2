import pytest
from scipy.stats import binomtest

from transfer_learning.reporting.intervals import wilson_interval


@pytest.mark.parametrize("correct, total", [(0, 10), (7, 10), (10, 10), (965, 1000), (1, 3)])
def test_wilson_interval_equals_scipys(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-5)
