"""Seconds and memory of each stage of a training, for more and more photographs and classes.

python benchmarks/growth.py FOLDER [--sizes 3000 25000 100000] [--classes 2 100 1000] [--results outputs/growth]
    [--out docs] [--temporary FOLDER] [--short]

The photographs below FOLDER are repeated until there are enough, with bytes appended so that no two files are equal,
and spread evenly over class folders. All sizes are measured with the fewest classes, all numbers of classes with the
size in the middle, and the largest size with the most classes. Each stage is a process of its own:

    find          list the files and the class of each
    digest        SHA-256 of each file
    decode        64 pixels a side, into the cache; with the check for equal files, and the splits (60, 20 and 20 %)
    features      of a frozen ResNet-18 with random weights, into the cache
    second start  `train.py` with a head on these features, from the command to the first step
    head epoch    its epoch, with the validation and, since it is the best so far, predictions.csv
    end of run    from the end of this epoch to the end of the process: checkpoints, test, figures, results
    CNN epoch     as `head epoch`, of a small CNN on pixels

A first start takes the sum of digest, decode, features and second start. Files that were just written are in the
system's memory, so reading them from a disk is not measured. Memory is the process's own (RssAnon in /proc, read every
20 ms), which is not that of files that are memory-mapped, since the system takes it back when it needs it; ru_maxrss,
with these files, is in the results too. `find` of a few images needs little more than the imports. Linux only.

A combination that --results has, in a JSON file, is not measured again. In the end growth_report.py writes growth.md
and growth.png to --out, by default the folder of --results. --short takes tens of images, as a test of this script.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from transfer_learning.data.formats import is_image_name
from transfer_learning.data.listing import list_files
from transfer_learning.runs.provenance import attempt
from transfer_learning.utilities.cores import usable_cores
from transfer_learning.utilities.files import write_text

PROJECT = Path(__file__).resolve().parents[1]
DATA = ["data=image_folder", "data.image_size=64", "data/split=per_class", "trainer.max_epochs=1"]
HEAD = ["model=pretrained", "model.backbone=resnet18", "model.weights=null"]
CNN = ["model=basic_cnn", "model.channels=[8,16]", "model.dense=[64]"]
STAGES = ("find", "digest", "decode", "features", "second start", "head epoch", "end of run", "CNN epoch")
Measured = dict[str, float]  # "seconds", "MB" and "maxrss_MB"


def combinations(sizes: Sequence[int], classes: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs (images, classes) that are measured, both ascending."""
    middle = sizes[len(sizes) // 2]
    pairs = {(size, classes[0]) for size in sizes} | {(middle, count) for count in classes}
    return sorted(pairs | {(sizes[-1], classes[-1])})


def repeat(photographs: Sequence[Path], folder: Path, images: int, classes: int) -> None:
    """Writes different files with the photographs in turn, in class folders of the same size."""
    for number in range(classes):
        (folder / f"class{number:04d}").mkdir(parents=True)
    for number in range(images):
        turn, which = divmod(number, len(photographs))
        file = folder / f"class{number % classes:04d}" / f"{number}{photographs[which].suffix}"
        file.write_bytes(photographs[which].read_bytes() + turn.to_bytes(4, "big"))


def run(stage: str, overrides: Iterable[str]) -> float:
    """Runs one of the first four stages in this process; returns its seconds, without imports and earlier stages."""
    import pytorch_lightning as pl
    from contenders.inputs import composed

    from transfer_learning.cli.build import build, build_data
    from transfer_learning.data.digests import FileDigests
    from transfer_learning.engine.classifier import Classifier
    from transfer_learning.engine.training import frozen_part
    from transfer_learning.utilities.hardware import configure_process, default_precision

    configure_process()
    cfg = composed(list(overrides))
    data = build_data(cfg)
    paths = [data.source.root / file for file in list_files(data.source.root).files] if stage == "digest" else []
    if stage in ("decode", "features"):
        data.list_images()
    if stage == "features":
        data.setup()
        precision = default_precision(cfg.trainer.accelerator)
        trainer = pl.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        pl.seed_everything(cfg.seed, verbose=False)
        network = build(cfg, "model", num_classes=len(data.class_names), image_size=data.preprocessing.image_size)
        part = frozen_part(Classifier(network, data.class_names, data.preprocessing), trainer)
    start = time.perf_counter()
    if stage == "find":
        data.source.list_images(lambda paths: [str(path) for path in paths])  # type: ignore[arg-type]
    elif stage == "digest":
        FileDigests(data.cache_dir)(paths)
    elif stage == "decode":
        data.setup()
    else:
        data.store_features(part)
    return time.perf_counter() - start


def watched(command: Sequence[str], log: Path) -> Measured:
    """Runs a process: its seconds, and the largest RssAnon and ru_maxrss in MB. Exits if it fails."""
    start, largest, ended = time.perf_counter(), 0, 0
    with open(log, "wb") as file:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=file, stderr=subprocess.STDOUT)
        while not ended:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            used = next((line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")), "0")
            largest = max(largest, int(used))
            time.sleep(0.02)
            ended, code, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        sys.exit(f"{log.read_text(encoding='utf-8')}\n{' '.join(command)}: failed")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "MB": largest * 1024 / 1e6, "maxrss_MB": usage.ru_maxrss * 1024 / 1e6}


def measure(photographs: Sequence[Path], images: int, classes: int, temporary: str | None) -> dict[str, Measured]:
    """All stages of one combination; its files are removed afterwards."""
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="growth-", dir=temporary) as name:
        folder = Path(name)
        repeat(photographs, folder / "images", images, classes)
        time.sleep(3)  # digests of files that have just changed are not kept
        paths = [f"data.root={folder}/images", f"data.cache_dir={folder}/cache"]
        for stage in STAGES[:4]:
            command = [sys.executable, __file__, "--run", stage, *DATA, *HEAD, *paths, "trainer=cpu"]
            found[stage] = watched(command, folder / "log")
            found[stage]["seconds"] = float((folder / "log").read_text(encoding="utf-8").split()[-1])
            print(images, classes, stage, found[stage], flush=True)
        for stage, model in (("head epoch", HEAD), ("CNN epoch", CNN)):
            ours = [*DATA, *model, *paths, "trainer=cpu", f"hydra.run.dir={folder / stage.split()[0]}"]
            process = watched([sys.executable, "train.py", *ours], folder / "log")
            if "computed" in (folder / "log").read_text(encoding="utf-8"):
                sys.exit(
                    f"{(folder / 'log').read_text(encoding='utf-8')}\n{stage}: not all rows were found in the cache"
                )
            with open(folder / stage.split()[0] / "epochs.csv", newline="", encoding="utf-8") as file:
                epoch = float(next(csv.DictReader(file))["seconds"])
            start = json.loads((folder / stage.split()[0] / "metrics.json").read_bytes())["seconds_to_first_step"]
            found[stage] = {**process, "seconds": epoch}
            if model is HEAD:
                found["second start"] = {**process, "seconds": start}
                found["end of run"] = {**process, "seconds": process["seconds"] - start - epoch}
            print(images, classes, stage, found[stage], start, flush=True)
    return {stage: found[stage] for stage in STAGES}


def place() -> dict[str, str]:
    """What was measured, and where."""
    found = attempt([], PROJECT, torch.device("cpu"))
    changed = " with changes" * bool(found["git_dirty"])
    about = {"commit": f"{(found['git_commit'] or 'unknown')[:10]}{changed}", "torch": found["packages"]["torch"]}
    return {"processor": f"{found['machine']['processor']}, {usable_cores()} cores", **about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 25000, 100000])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 100, 1000])
    parser.add_argument("--results", type=Path, default=PROJECT / "outputs" / "growth")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--temporary")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    sizes, classes = ([60, 120], [2]) if options.short else (sorted(options.sizes), sorted(options.classes))
    photographs = [options.folder / file for file in list_files(options.folder).files if is_image_name(file)]
    if not photographs:
        parser.error(f"{options.folder}: no photographs there, nor in its folders")
    options.results.mkdir(parents=True, exist_ok=True)
    for images, count in combinations(sizes, classes):
        file = options.results / f"{images}-images-{count}-classes.json"
        if not file.exists():
            found = {"images": images, "classes": count, "place": place(), "stages": {}}
            found["stages"] = measure(photographs, images, count, options.temporary)
            write_text(file, json.dumps(found, indent=1))
    report = Path(__file__).with_name("growth_report.py")
    subprocess.run([sys.executable, report, options.results, options.out or options.results], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(run(sys.argv[2], sys.argv[3:]))
    else:
        main()
