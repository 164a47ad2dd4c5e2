import pytest
import torch

from transfer_learning.models.network import ParameterGroup
from transfer_learning.optim.schedules import Cosine, lr_scheduler, optimizer_groups
from transfer_learning.utilities.errors import ArgumentError


def test_cosine_equals_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    cosine = Cosine(warmup=0.0)
    for step in range(40):
        assert cosine(step / 40) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()


def test_warmup_rises_linearly_to_the_full_rate():
    cosine = Cosine(warmup=0.2)
    assert [cosine(progress) for progress in (0, 0.05, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("warmup", [-0.1, 1, 2])
def test_warmup_out_of_range(warmup):
    with pytest.raises(ArgumentError, match=f"^warmup={warmup}: expected"):
        Cosine(warmup)


def parameter_groups():
    """Three groups of one parameter each."""
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    settings = [
        dict(name="head"),
        dict(name="middle", lr_scale=0.5, weight_decay=0.0),
        dict(name="stem", lr_scale=0.1, weight_decay=0.3, from_epoch=2),
    ]
    return [ParameterGroup(parameters=[parameter], **each) for parameter, each in zip(parameters, settings)]


def test_weight_decay_of_each_group():
    groups = parameter_groups()
    optimizer = torch.optim.AdamW(optimizer_groups(groups), lr=0.1, weight_decay=0.02)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0, 0.3]
    assert [group["params"][0] for group in optimizer.param_groups] == [group.parameters[0] for group in groups]
    for group in groups:
        group.parameters[0].grad = torch.zeros(2)
    optimizer.step()  # without gradients, weight decay alone changes weights
    found = [group.parameters[0][0].item() for group in groups]
    assert found == pytest.approx([1 - 0.1 * 0.02, 1.0, 1 - 0.1 * 0.3])


@pytest.mark.parametrize("schedule", [None, Cosine(0.25), lambda progress: 1 - progress])
def test_schedule_and_scale_multiply_the_learning_rate_of_each_group(schedule):
    groups, steps, steps_per_epoch = parameter_groups(), 12, 3
    optimizer = torch.optim.SGD(optimizer_groups(groups), lr=0.2)
    scheduler = lr_scheduler(optimizer, groups, schedule, steps, steps_per_epoch)
    for step in range(steps):
        progress = (step + 0.5) / steps  # the middle of the step
        factor = schedule(progress) if schedule else 1.0
        expected = [0.2 * factor, 0.2 * factor * 0.5, 0.2 * factor * 0.1 if step >= 6 else 0.0]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        optimizer.step()
        scheduler.step()
