"""A head on stored outputs: a job of a sweep, 30 epochs, beside the same 3,000 steps in a bare loop, in turn.

python tests/benchmarks/heads.py data.root=FOLDER model.weights=FILE [trainer.precision=bf16-mixed …]

A: `python train.py -m model=vgg16_frozen seed=…` with the overrides given; a job's seconds are from its `.hydra/` to its `metrics.json`,
so building, validation, checkpoints, TensorBoard, test and report are in them. Each sweep's first job, which starts up, is left out.
B: forward, backward and RMSprop on features in memory, nothing else, in the same precision.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from transfer_learning.models.network import dense_layers

PROJECT = Path(__file__).resolve().parents[2]
TURNS, JOBS = 2, 3  # each turn: a sweep of JOBS, then as many bare loops as count
IMAGES, FEATURES, BATCH, EPOCHS = 3000, 512 * 4 * 4, 30, 30


def jobs(overrides: list[str]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(str(seed) for seed in range(JOBS))
        command = [
            sys.executable,
            PROJECT / "train.py",
            "-m",
            "model=vgg16_frozen",
            f"seed={seeds}",
            f"hydra.sweep.dir={folder}",
            *overrides,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        runs = sorted(path for path in Path(folder).iterdir() if path.is_dir())
        ends = [os.stat(run / "metrics.json").st_mtime for run in runs]
        starts = [os.stat(run / ".hydra" / "config.yaml").st_mtime for run in runs]
    return [end - start for start, end in zip(starts[1:], ends[1:])]


def bare(device: torch.device, precision: str) -> float:
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    features, labels = torch.rand(IMAGES, FEATURES).to(dtype), torch.randint(2, (IMAGES,)).float()
    head = torch.nn.Sequential(*dense_layers(FEATURES, [512, 512], 0.3, 1)).to(device)
    optimizer = torch.optim.RMSprop(head.parameters(), 1e-4, alpha=0.9, eps=1e-7)
    start = time.perf_counter()
    for _ in range(EPOCHS):
        for rows in torch.randperm(IMAGES).split(BATCH):
            x, y = features[rows].to(device), labels[rows].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = head(x)[:, 0]
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits.float(), y).backward()
            optimizer.step()
    head[-1].bias.sum().item()  # waits for the device
    return time.perf_counter() - start


def main(*overrides: str) -> None:
    torch.set_flush_denormal(True)  # as training.py does
    precision = next((each.split("=")[1] for each in overrides if each.startswith("trainer.precision=")), "32-true")
    device = torch.device("cuda" if torch.cuda.is_available() and "trainer=cpu" not in overrides else "cpu")
    jobs([*overrides, "trainer.max_epochs=1"])  # fills the cache
    seconds = {"job": [], "bare": []}
    for _ in range(TURNS):
        seconds["job"] += jobs(list(overrides))
        seconds["bare"] += [bare(device, precision) for _ in range(JOBS - 1)]
    for name, values in seconds.items():
        print(f"{name:5s} {statistics.median(values):6.1f} s  ({min(values):.1f} to {max(values):.1f}), {len(values)} times")
    ratio = statistics.median(seconds["job"]) / statistics.median(seconds["bare"])
    print(f"job / bare: {ratio:.2f}, {precision}, {device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
