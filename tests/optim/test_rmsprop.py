import copy
import pickle
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from transfer_learning.optim.rmsprop import RMSprop
from transfer_learning.utilities.errors import ArgumentError


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_steps_equal_those_of_torchs_own(dtype, tolerance):
    torch.manual_seed(0)
    shapes = [(7, 5), (8, 3, 3, 3), (1,)]
    ours = [torch.randn(shape, dtype=dtype) for shape in shapes]
    ours[1] = ours[1].contiguous(memory_format=torch.channels_last)
    theirs = [weight.clone() for weight in ours]
    for weight in [*ours, *theirs]:
        weight.requires_grad_()
    optimizer, reference = (
        RMSprop(ours, 0.01, alpha=0.9, eps=1e-7),
        torch.optim.RMSprop(theirs, 0.01, alpha=0.9, eps=1e-7),
    )
    for step in range(30):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, dtype=dtype) if step != 5 else None  # a weight without gradient
            b.grad = None if a.grad is None else a.grad.clone()
        for each in (optimizer, reference):
            each.step()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_resumes_from_its_state_bit_for_bit():
    def stepped(weight, optimizer, steps):
        for step in steps:
            weight.grad = torch.full_like(weight, float(step) - 3)
            optimizer.step()

    whole, first = torch.ones(5, requires_grad=True), torch.ones(5, requires_grad=True)
    stepped(whole, RMSprop([whole]), range(8))
    optimizer = RMSprop([first])
    stepped(first, optimizer, range(4))
    second = first.detach().clone().requires_grad_()
    again = RMSprop([second])
    again.load_state_dict(optimizer.state_dict())
    stepped(second, again, range(4, 8))
    assert torch.equal(whole, second)


def test_a_closure_is_called_once_with_gradients():
    weight = torch.ones(2, requires_grad=True)
    optimizer, losses = RMSprop([weight], lr=0.1), []

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == 2.0 and losses == [2.0]
    assert torch.allclose(weight, torch.full((2,), 1 - 0.1 * 2 / (0.1 * 4) ** 0.5))  # v = 0.1 · 2²


@pytest.mark.parametrize(
    "argument", [dict(lr=-1.0), dict(alpha=1.0), dict(alpha=-0.1), dict(eps=-1e-8), dict(lr="0.1"), dict(momentum=0.9)]
)
def test_invalid_arguments(argument):
    (name,) = argument
    with pytest.raises(ArgumentError, match=f"^{name}={argument[name]!r}: "):
        RMSprop([torch.ones(1, requires_grad=True)], **argument)


def test_weight_decay_is_refused():
    groups = [{"params": [torch.ones(2, requires_grad=True)], "weight_decay": decay} for decay in (0.0, 0.3)]
    with pytest.raises(ArgumentError, match="^weight_decay=0.3: RMSprop has no weight decay"):
        RMSprop(groups)
    RMSprop(groups[:1])


def test_learning_rate_of_each_parameter_group():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = RMSprop([{"params": [a]}, {"params": [b], "lr": 0.2}], lr=0.1, alpha=0.75, eps=0.0)
    a.grad, b.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(a.detach(), torch.full((2,), 1 - 0.1 / 0.25**0.5))  # v = (1 - 0.75) · 1²
    torch.testing.assert_close(b.detach(), torch.full((2,), 1 - 0.2 / 0.25**0.5))


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts = getattr(self, "counts", Counter())
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("renewed", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each)), lambda each: each])
def test_a_step_is_as_many_operations_for_many_parameters_as_for_one(renewed):
    weights = [torch.ones(3, requires_grad=True) for _ in range(20)]
    weights, optimizer = renewed((weights, RMSprop(weights)))
    for weight in weights:
        weight.grad = torch.ones(3)
    optimizer.step()
    assert {tuple(state) for state in optimizer.state_dict()["state"].values()} == {("square_avg",)}
    with Operations() as operations:
        optimizer.step()
    operations = {name: count for name, count in operations.counts.items() if "record_function" not in name}
    assert operations == {"_foreach_add_": 1, "_fused_adam_": 1}
