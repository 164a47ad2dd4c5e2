import pytest

from transfer_learning.optim.accumulation import batch_weight


@pytest.mark.parametrize("window", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [4, 4, 4, 4, 4], [4, 4, 4, 4, 1], [4, 4, 4, 3], [2]])
@pytest.mark.parametrize("left_out", [0, 1])
def test_weighted_mean_losses_sum_to_the_mean_over_the_images_of_the_step(window, sizes, left_out):
    """`left_out`: batches at the end of the epoch that the trainer does not take."""
    losses = [[10.0 * number + image for image in range(size)] for number, size in enumerate(sizes)]
    taken = losses[: len(losses) - left_out]
    for first in range(0, len(taken), window):
        step = taken[first : first + window]
        weights = [batch_weight(first + n, window, len(taken), 4, sum(sizes)) for n in range(len(step))]
        found = sum(weight * sum(batch) / len(batch) / window for weight, batch in zip(weights, step))
        assert found == pytest.approx(sum(map(sum, step)) / sum(map(len, step)))
