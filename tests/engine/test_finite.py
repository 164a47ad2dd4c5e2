from types import SimpleNamespace

import pytest
import torch

from transfer_learning.engine.finite import FiniteLosses

ONE_PROCESS = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)


def added(losses, validation=()):
    found = FiniteLosses(torch.device("cpu"))
    for training, each in ((True, losses), (False, validation)):
        for loss in each:
            found.add(torch.tensor(loss), training)
    return found


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_batch_whose_loss_is_not_finite(bad):
    assert added([1.0, 3e38, -1.0], [0.0]).first_not_finite(ONE_PROCESS) is None
    assert added([bad, 1.0]).first_not_finite(ONE_PROCESS) == 0
    assert added([1.0, 1.0, bad, 1.0, bad], [bad]).first_not_finite(ONE_PROCESS) == 2
    assert added([1.0, 1.0], [1.0, bad, 1.0]).first_not_finite(ONE_PROCESS) == 2  # as many as there are


@pytest.mark.parametrize("others, first", [([1.0, 1.0, 1.0], 1), ([float("nan"), 1.0, 1.0], 0)])
def test_all_processes_find_the_first_of_any(others, first):
    processes = [added([1.0, float("nan"), 1.0]), added(others)]
    tensors = []
    for each in processes:
        each.first_not_finite(SimpleNamespace(reduce=lambda tensor, reduce_op: tensors.append(tensor) or tensor))
    together = SimpleNamespace(reduce=lambda tensor, reduce_op: getattr(torch.stack(tensors), f"a{reduce_op}")(dim=0))
    assert [each.first_not_finite(together) for each in processes] == [first, first]


def test_ddp_gets_no_buffer_of_it(small_model):
    assert dict(small_model().named_buffers()) == {}
