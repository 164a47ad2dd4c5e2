import math

import pytest
import torch

from transfer_learning.models.network import ParameterGroup
from transfer_learning.optim.schedules import Cosine, GroupSchedule, OneCycle, optimizer_groups
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


@pytest.mark.parametrize("settings", [{}, {"rise": 0.45, "div_factor": 10.0, "final_div_factor": 300.0}])
def test_one_cycle_equals_torchs(settings):
    """torch reaches the maximum in step rise * steps - 1, and its last rate in step steps - 1."""
    steps, cycle = 60, OneCycle(**settings)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = {"pct_start" if name == "rise" else name: value for name, value in settings.items()}
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps, cycle_momentum=False, **theirs)
    same_peak = OneCycle(**settings | {"rise": (cycle.rise * steps - 1) / (steps - 1)})
    for step in range(steps):
        rate = optimizer.param_groups[0]["lr"]
        assert 0.2 * same_peak(step / (steps - 1)) == pytest.approx(rate, rel=1e-9)
        assert 0.2 * cycle((step + 0.5) / steps) == pytest.approx(rate, abs=0.2 * 0.06)  # as the fit evaluates it
        optimizer.step()
        if step < steps - 1:
            torchs.step()


def test_one_cycle_at_its_corners():
    cycle = OneCycle(rise=0.25, div_factor=20.0, final_div_factor=50.0)
    assert [cycle(progress) for progress in (0, 0.25, 0.625, 1)] == pytest.approx([0.05, 1, 0.5005, 0.001])


@pytest.mark.parametrize("name, value", [("rise", 0), ("rise", 1), ("div_factor", 0.5), ("final_div_factor", -1)])
def test_one_cycle_out_of_range(name, value):
    with pytest.raises(ArgumentError, match=f"^{name}={value}: expected"):
        OneCycle(**{name: value})


def test_progress_is_never_above_1_not_even_after_the_last_step():
    """torch computes the rate of a step more than there are."""
    seen = []
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 1.0)
    group = ParameterGroup("all", [weight])
    scheduler = GroupSchedule(
        optimizer, [group], lambda progress: seen.append(progress) or math.sqrt(1 - progress), 4, 2
    )
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert seen == [0.125, 0.375, 0.625, 0.875, 1.0]


def test_weight_decay_of_each_group():
    decays = {"head": None, "middle": 0.0, "stem": 0.3}
    groups = [
        ParameterGroup(name, [torch.nn.Parameter(torch.ones(2))], weight_decay=decay) for name, decay in decays.items()
    ]
    optimizer = torch.optim.AdamW(optimizer_groups(groups), lr=0.1, weight_decay=0.02)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0, 0.3]
    assert [group["params"][0] for group in optimizer.param_groups] == [group.parameters[0] for group in groups]
    for group in groups:
        group.parameters[0].grad = torch.zeros(2)
    optimizer.step()  # without gradients, weight decay alone changes weights
    found = [group.parameters[0][0].item() for group in groups]
    assert found == pytest.approx([1 - 0.1 * 0.02, 1.0, 1 - 0.1 * 0.3])
