"""Gradient accumulation: several batches for one step of the optimizer."""


def batch_weight(index: int, window: int, batches: int, batch_size: int, images: int) -> float:
    """The factor of a batch's mean loss that makes the step's gradient the mean over all images of its batches.

    Lightning divides each batch's loss by `window`, also where an epoch's last step has fewer batches, or its last
    batch fewer images. The factor is 1 for steps of equal and complete batches.

    Args:
        index: of the batch in its epoch, from 0.
        window: batches of a step, Lightning's `accumulate_grad_batches`.
        batches, batch_size, images: of an epoch on this device; only the last batch may be smaller.

    Returns:
        A factor in (0, window].
    """
    first = index - index % window
    own = min(batch_size, images - index * batch_size)
    of_step = min(min(first + window, batches) * batch_size, images) - first * batch_size
    return window * own / of_step
