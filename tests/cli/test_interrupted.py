"""Trainings as child processes that are killed at random instants. Repeated, they end with the same results."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from tests.conftest import needs_posix_signals
from transfer_learning.engine.checkpoint import read_checkpoint

pytestmark = needs_posix_signals
TRAIN = train.__file__
SMALL = [
    "data=cartoons",
    "data.image_size=32",
    "data.train_per_class=120",
    "data.val_per_class=20",
    "data.test_per_class=20",
    "data.augment=true",
    "trainer=cpu",
    "trainer.deterministic=true",
    "trainer.precision=32-true",
]
RECIPES = {
    "scratch": "model=regularised_cnn model.channels=[8,16] model.dense=[32] optimizer.lr=1e-3 trainer.max_epochs=25",
    "early stop": "model=basic_cnn model.channels=[8] model.dense=[16] optimizer.lr=1e-3 trainer.max_epochs=100 "
    "callbacks=[evaluation,checkpoints,early_stopping] callbacks.early_stopping.patience=12",
    "fine-tuning": "model=pretrained model.backbone=resnet18 model.weights=null model.unfreeze=block5 "
    "model.unfreeze_at_epoch=2 data.views=2 optimizer=adamw scheduler=cosine trainer.max_epochs=20",
    "averaged weights": "model=resnet_small model.channels=[4,8] model.blocks=[1,1] callbacks.ema.decay=0.9 "
    "trainer.accumulate_grad_batches=2 trainer.max_epochs=25",
    "stored features": "model=vgg16_frozen model.weights=null model.dense=[32] data.views=3 optimizer.lr=1e-3 "
    "trainer.max_epochs=25",
}


def typed(folder: Path, cache: Path, *arguments: str) -> list[str]:
    return [*SMALL, *arguments, f"hydra.run.dir={folder}", f"data.cache_dir={cache}"]


def start(folder: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    return run(*typed(folder, cache, *arguments))


def run(*arguments: str, **environment: str) -> subprocess.Popen:
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    settings = dict(env=os.environ | environment, preexec_fn=default_interrupt, **pipes)
    return subprocess.Popen([sys.executable, TRAIN, *arguments], **settings)


def default_interrupt() -> None:
    """A shell starts background processes with SIGINT ignored, which child processes would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return output


def results(folder: Path) -> dict:
    """What a run leaves, without durations. The figures of predictions are drawn from predictions.csv."""
    assert {path.name for path in folder.glob("*-val.png")} >= {"confusion-val.png", "reliability-val.png"}
    metrics = json.loads((folder / "metrics.json").read_text())
    last, best = (read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        "metrics": {key: value for key, value in metrics.items() if not key.startswith("seconds")},
        "rows": [{key: value for key, value in row.items() if key != "seconds"} for row in last["history"]["rows"]],
        "weights": last["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "averages": last["callbacks"].get("EMA"),
        "best weights": best["state_dict"],
        "best epoch": best["epoch"],
        "predictions": (folder / "predictions.csv").read_text(),
        "curves": {  # sorted, since files of one second are read in the order of their names
            tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in events.Tags()["scalars"]
        },
    }


def assert_identical(a, b, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (one, other) in enumerate(zip(a, b)):
            assert_identical(one, other, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, f"{where}: {a} and {b}"


def epochs_ended(folder: Path) -> int:
    last = folder / "checkpoints" / "last.ckpt"
    return read_checkpoint(last)["epoch"] + 1 if last.exists() else 0


def kill_until_finished(recipe: str, tmp_path: Path, seed: int, kills: int) -> int:
    """Kills a run and starts it again, `kills` times; then it ends and is compared with a run that was not killed.

    Returns the number of epochs that were kept when it was killed the last time.
    """
    chance, folder = random.Random(seed), tmp_path / "killed"
    finish(start(tmp_path / "straight", tmp_path / "cache of straight", *RECIPES[recipe].split()))
    epoch = json.loads((tmp_path / "straight" / "metrics.json").read_text())["seconds_per_epoch"]
    kept = 0
    for _ in range(kills):
        if (folder / "config.yaml").exists() and chance.random() < 0.5:
            process = run(f"resume={folder}")
        else:
            process = start(folder, tmp_path / "cache", *RECIPES[recipe].split())
        if chance.random() < 0.25:  # while it imports, decodes, computes features, loads ...
            time.sleep(chance.uniform(0, 5))
        else:  # or soon after its first epoch
            next((line for line in process.stdout if line.startswith("epoch ")), None)
            time.sleep(chance.uniform(0, 3 * max(epoch, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert epochs_ended(folder) >= kept, "an epoch that had ended was lost"
        kept = epochs_ended(folder)
    finish(start(folder, tmp_path / "cache", *RECIPES[recipe].split()))
    assert_identical(results(tmp_path / "straight"), results(folder))
    assert not list(folder.rglob("*.partial"))
    return kept


def test_killed_and_resumed_run_has_the_same_results(tmp_path, in_process, next_second):
    """It is killed when the second epoch has been saved."""
    process = start(tmp_path / "killed", tmp_path / "cache", *RECIPES["scratch"].split())
    while epochs_ended(tmp_path / "killed") < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "metrics.json").exists()
    (tmp_path / "killed").rename(tmp_path / "moved")  # a folder may move between
    next_second()
    code, output = in_process(f"resume={tmp_path}/moved")
    assert code == 0, output
    code, _ = in_process(*typed(tmp_path / "straight", tmp_path / "cache", *RECIPES["scratch"].split()))
    assert code == 0 and (tmp_path / "moved" / "train.log").read_text().count("epoch  25/25") == 1
    assert f"goes on after epoch {epochs_ended(tmp_path / 'moved') - output.count('epoch  ')} of 25" in output
    assert_identical(results(tmp_path / "straight"), results(tmp_path / "moved"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_run_killed_at_random_instants_has_the_same_results(tmp_path, recipe):
    kept = kill_until_finished(recipe, tmp_path, seed=0, kills=10)
    print(f"{recipe}: 10 kills, the last after {kept} epochs")
    assert kept > 5


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_sweep_killed_at_random_instants_has_the_same_results(tmp_path, launcher):
    """With one thread everywhere, as joblib's workers have."""
    chance = random.Random(1)
    varied = ["seed=0,1,2", "model.dropout=0.2,0.4", f"hydra/launcher={launcher}"]
    command = ["-m", *SMALL, *RECIPES["scratch"].split(), *varied, f"data.cache_dir={tmp_path}/cache"]

    def sweep(name: str) -> subprocess.Popen:
        return run(*command, f"hydra.sweep.dir={tmp_path}/{name}", OMP_NUM_THREADS="1")

    finish(sweep("straight"))
    kills = 0
    for _ in range(8):
        process = sweep("killed")
        time.sleep(chance.uniform(1, 9))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # and with it joblib's workers
            kills += 1
        process.communicate()
    output = finish(sweep("killed"))
    jobs = sorted(path.parent.name for path in (tmp_path / "straight").glob("*/train.log"))
    assert len(jobs) == 6 and "6 of 6 jobs" in output
    for job in jobs:
        assert_identical(results(tmp_path / "straight" / job), results(tmp_path / "killed" / job), job)
    print(f"{launcher}: a sweep of 6 jobs, {kills} kills")


@pytest.mark.parametrize(
    "number, times, code, further",
    [
        (signal.SIGINT, 1, 130, []),
        pytest.param(signal.SIGTERM, 3, 143, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, 143, ["trainer=ddp_cpu"], marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_keeps_its_epochs_and_says_how_to_go_on(tmp_path, number, times, code, further):
    """With two processes, the second one has ended too, since it has the same output."""
    folder = tmp_path / "run"
    process = start(folder, tmp_path / "cache", *RECIPES["scratch"].split(), "trainer.max_epochs=500", *further)
    while epochs_ended(folder) < 1 and process.poll() is None:
        time.sleep(0.01)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"To go on: python train.py resume={folder}" in output and "Traceback" not in output
    assert 1 <= epochs_ended(folder) < 500
    assert not (folder / "metrics.json").exists() and not (folder / "FAILED").exists()
    assert not list(folder.rglob("*.partial"))
