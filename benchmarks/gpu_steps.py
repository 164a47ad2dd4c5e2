"""The steps of gpu.py, and the processes that run them.

`python benchmarks/gpu_steps.py NAME SETTINGS` runs one step in this process; SETTINGS are `Settings` as JSON. Its
values become FOLDER/result.json.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]


class Step(NamedTuple):
    about: str
    limit: float  # seconds
    function: str  # MODULE.FUNCTION of benchmarks/, called with Settings and `arguments`; returns plain values by name
    arguments: tuple[str, ...] = ()
    needs_cuda: bool = False
    measures: bool = False  # seconds: no other step runs beside it
    goes_on: bool = False  # the next attempt finds the folder of the one before


class Settings(NamedTuple):
    """What a step gets. `overrides` are those of the user, for train.py; correctness steps take drawings anyway."""

    device: str  # "cuda" or "cpu"
    short: bool  # tiny sizes, to try the command itself
    folder: str  # of this step
    cache: str  # of decoded images and features, of the steps that measure; comparisons have their own
    overrides: tuple[str, ...] = ()


def system(number: int, name: str, limit: float) -> Step:
    about = f"system {number}, all of its epochs: seconds and accuracy"
    return Step(about, limit, "gpu_systems.system", (name,), measures=True, goes_on=True)


def epochs(row: str) -> Step:
    return Step(f"epoch.py, row {row}: median seconds per epoch", 90, "gpu_systems.epoch_row", (row,), measures=True)


def profile(about: str, name: str) -> Step:
    return Step(f"profile of an epoch of {about}", 60, "gpu_profile.run", (name,), measures=True)


STEPS = {
    "rmsprop": Step("RMSprop beside its formula", 60, "gpu_checks.rmsprop"),
    "augmentation": Step("each augmentation, device beside CPU", 60, "gpu_checks.augmentation"),
    "features": Step("stored features in three precisions, device beside CPU", 60, "gpu_checks.features"),
    "resident": Step("batches of a split on the device beside those of files", 60, "gpu_checks.resident"),
    "no waiting": Step("no step of system 1 waits for the device", 60, "gpu_fits.no_waiting", needs_cuda=True),
    "fits": Step("losses, device beside CPU: plain, augmented, frozen, with views", 90, "gpu_fits.fits"),
    "other fits": Step("the same: fine-tuned with AdamW and cosine, clipped; 16-mixed", 90, "gpu_fits.other_fits"),
    "deterministic": Step("two fits with deterministic=True, two and three classes", 60, "gpu_fits.deterministic"),
    "resumed": Step("a run that is killed and resumed beside one that is not", 120, "gpu_runs.resumed"),
    "compiled": Step("a compiled fit with a smaller last batch", 150, "gpu_fits.compiled", needs_cuda=True),
    "pinned": Step("a fit from pinned memory beside one on the device", 60, "gpu_fits.pinned", needs_cuda=True),
    "trainer=cpu": Step("a run on the CPU leaves CUDA alone", 60, "gpu_runs.without_cuda", needs_cuda=True),
    "checkpoint": Step("a checkpoint of the device, loaded on the CPU", 60, "gpu_runs.checkpoint_on_cpu"),
    "sweep": Step("a sweep of two jobs: in turn, and side by side (joblib)", 120, "gpu_runs.sweep"),
    "ddp": Step("strategy=ddp on one device beside none", 60, "gpu_fits.ddp"),
    "data": Step("decodes the images of the next steps", 120, "gpu_systems.decode", measures=True),
    "system 1": system(1, "basic_cnn", 60),
    "system 2": system(2, "regularised_cnn", 60),
    "system 3": system(3, "regularised_cnn_augmented", 120),
    "system 4": system(4, "vgg16_frozen", 60),
    "system 5": system(5, "vgg16_frozen_augmented", 150),
    "epoch basic": epochs("basic"),
    "epoch regularised": epochs("regularised"),
    "epoch head": epochs("head"),
    "profile 1": profile("system 1", "basic_cnn"),
    "profile 3": profile("system 3", "regularised_cnn_augmented"),
    "profile head": profile("a head on stored features", "vgg16_frozen"),
}
MACHINE = "machine"  # described before the steps; not one of them
running: set[subprocess.Popen] = set()


def run_process(name: str, settings: Settings, log: Path, limit: float, threads: int | None = None) -> int | None:
    """Runs a step in a process of its own and writes its output to `log`. Returns its exit code, None after `limit` s.

    Processes that it has started end with it. `threads` of torch on the CPU; None leaves them as they are.
    """
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    command = [sys.executable, __file__, name, json.dumps(settings)]
    with open(log, "wb") as output:
        streams = dict(stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
    running.add(process)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)
        running.discard(process)


def end(process: subprocess.Popen) -> None:
    """Kills a step's process and those that it has started."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
    process.wait()


def run_here(name: str, settings: Settings) -> None:
    """Runs a step in this process and writes result.json. Raises AssertionError if a comparison fails."""
    from transfer_learning.utilities.files import write_checked_json

    step = STEPS[name] if name != MACHINE else Step("", 0, "gpu_machine.describe")
    module, _, function = step.function.rpartition(".")
    values = getattr(import_module(module), function)(settings, *step.arguments)
    write_checked_json(Path(settings.folder, "result.json"), values)


if __name__ == "__main__":
    run_here(sys.argv[1], Settings(*json.loads(sys.argv[2])))
