import itertools
import json
import time
from types import SimpleNamespace

import pytest
import torch

from transfer_learning.callbacks import throughput
from transfer_learning.callbacks.throughput import Throughput
from transfer_learning.engine.training import train
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import ArgumentError


@pytest.fixture
def run(tmp_path, small_data, small_model, quiet_trainer):
    """run(name, model, *callbacks, **settings of the trainer) -> metrics of one epoch."""

    def make(name, *callbacks, model=None, **settings):
        trainer = quiet_trainer(max_epochs=1, callbacks=list(callbacks), default_root_dir=tmp_path / name, **settings)
        return train(small_data(), model or small_model(), trainer)

    return make


def test_images_of_a_batch_divided_by_its_seconds(run, small_model):
    model, calls = small_model(), []

    def slow(network, inputs, output):
        if len(inputs[0]) == 16:  # more than the ten images of the validation, and another size than in the fit
            calls.append((inputs[0].clone(), network.training, torch.is_autocast_enabled("cpu")))
            time.sleep(0.5 if len(calls) == 1 else 0.04)

    model.network.register_forward_hook(slow)
    metrics = run("run", Throughput(batch_size=16, seconds=0.1), model=model, precision="bf16-mixed")
    assert len(calls) >= 1 + 3 and not any(training for _, training, _ in calls)
    assert all(autocast for *_, autocast in calls)
    images = calls[0][0]
    assert images.shape == (16, 3, 32, 32) and torch.equal(images[10:], images[:6]) and images.max() <= 1
    assert 16 / 0.5 < metrics["images_per_second"] < 16 / 0.04  # the first batch is not counted


@pytest.mark.parametrize("seconds, batches", [(0.1, 3), (0.3, 6), (0.7, 14)])
def test_longer_measurements_have_more_batches(run, small_model, monkeypatch, seconds, batches):
    """With a clock by which each batch takes 1/20 s; there are three batches or more, after the first."""
    model, calls, clock = small_model(), [], itertools.count(step=0.05)
    model.network.register_forward_hook(lambda network, inputs, output: calls.append(len(inputs[0]) == 16))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    metrics = run("run", Throughput(batch_size=16, seconds=seconds), model=model)
    assert sum(calls) == 1 + batches and metrics["images_per_second"] == pytest.approx(16 / 0.05)


def test_megabytes_are_those_of_all_parameters_and_buffers(run, classifier, tmp_path):
    torch.manual_seed(0)
    network = Pretrained(2, 32, "shufflenet_v2_x0_5", weights=None)
    optimizer = lambda groups: torch.optim.SGD(groups, 0.01)  # noqa: E731
    metrics = run("run", Throughput(seconds=0.01), model=classifier(network, optimizer=optimizer))
    torch.save(network.state_dict(), tmp_path / "file")
    assert metrics["megabytes"] == pytest.approx((tmp_path / "file").stat().st_size / 1e6, rel=0.1)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics


def test_other_results_are_the_same_and_nothing_is_measured_by_default(run, small_model):
    without, with_it = run("a"), run("b", Throughput(seconds=0.01))
    assert {key for key in with_it if key not in without} == {"images_per_second", "megabytes"}
    assert all(without[key] == with_it[key] for key in without if "seconds" not in key)


@pytest.mark.parametrize("argument, value", [("batch_size", 0), ("seconds", 0.0), ("seconds", "2")])
def test_wrong_arguments(argument, value):
    with pytest.raises(ArgumentError, match=f"^{argument}="):
        Throughput(**{argument: value})
