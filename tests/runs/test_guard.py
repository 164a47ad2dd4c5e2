"""The config of a run that goes on with other epochs, whether or not there is a step to take."""

from types import SimpleNamespace

import pytest

from transfer_learning.runs.guard import RunGuard


@pytest.mark.parametrize("steps", [True, False])
def test_the_training_begins_once_before_the_results_are_written(steps):
    calls = []
    folder = SimpleNamespace(begin_training=lambda: calls.append("begin"), check_ours=lambda: calls.append("check"))
    guard = RunGuard(folder)
    if steps:
        guard.on_train_start(SimpleNamespace(world_size=1), None)
    guard.on_run_end(None, None, 1)
    assert calls == ["begin"] * steps + ["check", "begin"]
