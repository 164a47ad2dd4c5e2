import pytest
import torch

from transfer_learning.errors import UserError
from transfer_learning.models.schedule import cosine


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert cosine(step / 40, warmup=0.0) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()


def test_warm_up_rises_linearly_to_the_whole_rate():
    assert [cosine(progress, warmup=0.2) for progress in (0, 0.05, 0.1, 0.2, 0.6, 1)] == pytest.approx(
        [0, 0.25, 0.5, 1, 0.5, 0]
    )


@pytest.mark.parametrize("warmup", [-0.1, 1, 2])
def test_a_warm_up_that_cannot_be(warmup):
    with pytest.raises(UserError, match=f"scheduler.warmup={warmup}"):
        cosine(0.5, warmup)
