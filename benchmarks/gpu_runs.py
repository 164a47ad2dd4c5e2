"""Runs of train.py on small drawings that gpu.py compares: each is the whole command.

Each function raises AssertionError if a difference is too large, or CalledProcessError if a run fails.
"""

import csv
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from gpu_checks import LOSS, SMALL, check, small_config, without_tf32
from gpu_steps import PROJECT, Settings


def command(settings: Settings, folder: Path, *overrides: str) -> list[str]:
    """A run, or with -m a sweep, of the regularised CNN on small drawings, with dropout and augmentation."""
    trainer = {"cuda": "gpu"}.get(settings.device, settings.device)
    small = [*SMALL, "model=regularised_cnn", "data.augment=true", f"trainer={trainer}", "logger=none"]
    places = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", f"data.cache_dir={settings.folder}/cache"]
    options = [each for each in overrides if each.startswith("-")]
    values = [each for each in overrides if each not in options]
    return [sys.executable, str(PROJECT / "train.py"), *options, *small, *places, *values]


def resumed(settings: Settings) -> dict:
    """Weights and optimizer after a run that is killed after an epoch and resumed are those of a straight run.

    With trainer.deterministic=true, to the bit.
    """
    from transfer_learning.engine.checkpoint import read_checkpoint

    straight, killed = (Path(settings.folder, name) for name in ("straight", "killed"))
    same = ["trainer.deterministic=true", "trainer.max_epochs=20"]
    subprocess.run(command(settings, straight, *same), check=True)
    process = subprocess.Popen(command(settings, killed, *same))
    while not (killed / "checkpoints" / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = read_checkpoint(killed / "checkpoints" / "last.ckpt")["epoch"] + 1
    assert done < 20, "the run ended before it was killed"
    subprocess.run([sys.executable, str(PROJECT / "train.py"), f"resume={killed}"], check=True)
    one, two = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (straight, killed))
    assert one["epoch"] == two["epoch"] == 19
    squares = [saved["optimizer_states"][0]["state"].values() for saved in (one, two)]
    pairs = [(one["state_dict"][key], two["state_dict"][key]) for key in one["state_dict"]]
    pairs += [(a["square_avg"], b["square_avg"]) for a, b in zip(*squares, strict=True)]
    found = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    return {"killed after epoch": done, "largest difference": check("a weight or average", found, 0)}


def train_here(*arguments: str) -> None:
    """`python train.py ARGUMENTS` in this process. Exits as it does if the run fails."""
    import train

    sys.argv = [str(PROJECT / "train.py"), f"--config-path={PROJECT / 'conf'}", *arguments]
    train.main()


def without_cuda(settings: Settings) -> dict:
    """After a run with trainer=cpu, this process has not opened CUDA."""
    of_cpu = settings._replace(device="cpu")
    train_here(*command(of_cpu, Path(settings.folder, "run"), "trainer.max_epochs=2")[2:])
    assert not torch.cuda.is_initialized(), "CUDA was initialized"
    return {"CUDA is initialized": False}


def checkpoint_on_cpu(settings: Settings) -> dict:
    """`load()` of a run of the device, on the CPU, beside the run's own predictions.csv: float32 without TF32."""
    from transfer_learning import load
    from transfer_learning.cli.build import build_data

    without_tf32()
    folder = Path(settings.folder, "run")
    subprocess.run(command(settings, folder, "trainer.precision=32-true", "trainer.max_epochs=3"), check=True)
    data = build_data(small_config(settings))
    data.setup()
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        saved = {row["file"]: float(row["p:dog"]) for row in csv.DictReader(file) if row["split"] == "val"}
    rows = data.splits["val"]
    probabilities = load(folder).predict(list(data.pixels[rows]), "cpu").probabilities[:, 1]
    expected = [saved[data.images.names[row]] for row in rows]
    return {"largest difference": check("a probability", np.abs(probabilities - expected).max().item(), 1e-3)}


def sweep(settings: Settings) -> dict:
    """Losses of two jobs side by side (joblib, two workers) beside those of the same jobs in turn."""
    without_tf32()
    losses: list[list[float]] = []
    side_by_side = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    has_joblib = bool(find_spec("hydra_plugins") and find_spec("hydra_plugins.hydra_joblib_launcher"))
    for name, more in (("in turn", []), ("side by side", side_by_side))[: 2 if has_joblib else 1]:
        folder = Path(settings.folder, name.replace(" ", "-"))
        given = ["-m", "seed=0,1", "model.dropout=0", "trainer.precision=32-true", "trainer.max_epochs=3"]
        subprocess.run(command(settings, folder, *given, *more), check=True)
        files = sorted(folder.glob("*/epochs.csv"))
        assert len(files) == 2, f"{len(files)} of 2 jobs have finished"
        tables = [csv.DictReader(file.read_text(encoding="utf-8").splitlines()) for file in files]
        losses.append([float(row["train/loss"]) for table in tables for row in table])
    if not has_joblib:
        return {"jobs in turn": 2, "side by side": "not tried, needs pip install -e '.[sweep]'"}
    return {"loss": check("a loss", np.abs(np.subtract(*losses)).max(), LOSS)}
