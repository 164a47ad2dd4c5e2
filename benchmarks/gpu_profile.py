"""Profiles of gpu.py: how long the device computes in an epoch, and what seeding and checkpoints take."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from gpu_runs import train_here
from gpu_steps import Settings
from gpu_systems import arguments
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from transfer_learning.engine import classifier

LONGEST = 5  # kernels that are named


class EpochProfile(pl.Callback):
    """Times the second epoch of a run, and profiles the third. The fourth writes the values to `path`, as JSON.

    An epoch reaches from its start to that of the next, so validation and checkpoints are in it.
    """

    def __init__(self, path: str):
        self.path, self.values = Path(path), dict[str, object]()
        self.seconds: Counter = Counter()

    def on_fit_start(self, trainer, model) -> None:
        writer = trainer.strategy.checkpoint_io
        classifier.seed_generators = self.timed("seeding", classifier.seed_generators)
        trainer.save_checkpoint = self.timed("checkpoints", trainer.save_checkpoint)
        writer.files.save_checkpoint = self.timed("writing them, beside the training", writer.files.save_checkpoint)

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*given, **named):
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return call

    def on_train_epoch_start(self, trainer, model) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        now, epoch = time.perf_counter(), trainer.current_epoch
        if epoch == 1:
            self.seconds.clear()
        elif epoch == 2:
            self.values = {"epoch": now - self.start, **self.seconds, "steps": trainer.num_training_batches}
            activity = ProfilerActivity.CUDA if model.device.type == "cuda" else ProfilerActivity.CPU
            self.profiler = profile(activities=[activity])
            self.profiler.start()
        elif epoch == 3:
            self.profiler.stop()
            self.values |= {"profiled epoch": now - self.start, **kernels(self.profiler, model.device)}
            self.path.write_text(json.dumps(self.values), encoding="utf-8")
        self.start = time.perf_counter()


def kernels(profiler: profile, device: torch.device) -> dict:
    """Seconds and number of kernels and copies, those of which take longest. On the CPU of torch's operators."""
    wanted = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    seconds: Counter = Counter()
    count = 0
    for event in profiler.events():
        if event.device_type == wanted and not getattr(event, "is_user_annotation", False):
            took = event.self_cpu_time_total if wanted == DeviceType.CPU else event.time_range.elapsed_us()
            seconds[event.name] += took / 1e6
            count += 1
    assert count, "the profiler saw no kernel"
    longest = dict(seconds.most_common(LONGEST))
    return {"kernels": sum(seconds.values()), "number of kernels": count, "longest kernels": longest}


def run(settings: Settings, system: str) -> dict:
    """Four epochs of a system. Seconds: `epoch` without the profiler, `kernels` of another one with it.

    `seeding` and `checkpoints` are parts of `epoch`. A checkpoint's copies wait for what the device still computes.
    """
    path = Path(settings.folder, "profile.json")
    added = ["+callbacks.profile._target_=gpu_profile.EpochProfile", f"+callbacks.profile.path={path}"]
    train_here(*arguments(settings, system), "trainer.max_epochs=4", *added)
    return json.loads(path.read_text(encoding="utf-8"))
