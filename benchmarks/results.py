"""Writes docs/results.json, docs/results.md and the README's table.

python benchmarks/results.py [FOLDER]

With a FOLDER of `sweeps.py`, its finished runs, all at one commit, are added to docs/results.json. Each replaces the
run with its settings and seed; runs at another commit are refused. FOLDER's file `speed.json`, of `epoch.py --json`,
becomes the table of speed. Then, or without a FOLDER, both texts are made from docs/results.json.
"""

import csv
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from sweeps import PROJECT, SPEED, SPEED_IMAGES, SPEED_ROWS, SWEEPS, SYSTEMS, System
from tables import DOCS, Row, row, table

from transfer_learning.runs.config import read_config
from transfer_learning.runs.leaderboard import markdown
from transfer_learning.runs.results import find_runs
from transfer_learning.utilities.files import write_text

MARKS = "<!-- made by benchmarks/results.py -->\n", "<!-- end -->\n"  # around the README's table
TUTORIAL_MINUTES = 98  # on its GPU
AS_THE_TUTORIAL = {"model.preprocess=tutorial", "data.interpolation=nearest"}


def collect(folder: Path) -> dict[str, Any]:
    """The rows of all finished runs in FOLDER, their curves, the tutorial's results and the speed table.

    Exits if the runs have several commits, or one whose files were changed.
    """
    found: dict[str, Any] = {"commit": "", "sweeps": {}, "curves": {}, "tutorial": {}, "speed": None}
    commits = set()
    for name in SWEEPS:
        if not (folder / name).is_dir():
            continue
        runs = {path: measured for path in find_runs([folder / name]) if (measured := row(path))}
        commits |= {measured["commit"] for measured in runs.values()}
        if runs:
            found["sweeps"][name] = list(runs.values())
        for path, measured in runs.items():
            if system := next((each for each in SYSTEMS if belongs(each, name, measured)), None):
                with open(path / "epochs.csv", encoding="utf-8", newline="") as file:
                    epochs = list(csv.DictReader(file))
                accuracies = [round(float(each["val/acc"]), 4) for each in epochs]
                found["curves"].setdefault(system.name, {})[measured["repetition"]] = accuracies
                found["tutorial"][system.name] = read_config(path / "config.yaml")["reference"]
                measured["seconds_per_epoch"] = str(median(float(each["seconds"]) for each in epochs))
    file = folder / "speed.json"
    found["speed"] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    commits |= {found["speed"].get("commit", "none in speed.json")} if found["speed"] else set()
    if not commits:
        sys.exit(f"{folder}: no finished run of {', '.join(SWEEPS)}, and no speed.json")
    if len(commits) > 1 or any("changes" in each for each in commits):
        sys.exit(f"{folder}: its measurements need one commit without changes, but have {', '.join(sorted(commits))}")
    return found | {"commit": commits.pop()}


def merge(stored: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What results.json has after `found`. Exits if they are of different commits."""
    if "commit" not in stored:
        return found
    if stored["commit"] != found["commit"]:
        ways = "remove docs/results.json first, and measure all sweeps at the new commit"
        sys.exit(f"docs/results.json is of commit {stored['commit']}, these runs are of {found['commit']}: {ways}")
    sweeps = {}
    for name in [each for each in SWEEPS if each in stored["sweeps"] or each in found["sweeps"]]:
        rows = [*stored["sweeps"].get(name, []), *found["sweeps"].get(name, [])]
        sweeps[name] = list({(each["settings"], each["repetition"]): each for each in rows}.values())
    curves = {
        each.name: stored["curves"].get(each.name, {}) | found["curves"].get(each.name, {})
        for each in SYSTEMS
        if each.name in stored["curves"] or each.name in found["curves"]
    }
    tutorial, speed = stored["tutorial"] | found["tutorial"], found["speed"] or stored["speed"]
    return {"commit": found["commit"], "sweeps": sweeps, "curves": curves, "tutorial": tutorial, "speed": speed}


def belongs(system: System, sweep: str, measured: Row) -> bool:
    return sweep == system.sweep and set(system.overrides.split()) <= set(measured["settings"].split())


def spread(rows: Sequence[Row], key: str) -> str:
    """Mean and standard deviation over seeds; how many they are, unless they are three."""
    values = [float(each[key]) for each in rows]
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}" + f" (seeds: {len(values)})" * (len(values) != 3)


def seconds_of(row: Row) -> tuple[float, float]:
    """Seconds of the features, and epochs × the median epoch: other work slowed some epochs."""
    return float(row["seconds_features"]), float(row["seconds_per_epoch"]) * int(row["epochs"])


def place_of(row: Row) -> str:
    return f"{row['machine']}, torch {row['torch']}, precision {row['precision']}"


def systems_table(results: Mapping[str, Any]) -> str:
    """The README's table: the five systems beside the tutorial's, and what they took in all."""
    trained = {
        system: rows
        for system in SYSTEMS
        if (rows := [each for each in results["sweeps"].get(system.sweep, []) if belongs(system, system.sweep, each)])
    }
    timed = {system: each for system, rows in trained.items() for each in rows if each["repetition"] == "seed=0"}
    if not timed:
        sys.exit("the table of the five systems needs a run with seed=0 of one of them, at least")
    place = place_of(next(iter(timed.values())))
    lines = [
        [
            system.name,
            f"`{system.overrides}`",
            rows[0]["epochs"],
            spread(rows, "val/acc_best"),
            f"{results['tutorial'][system.name]['val/acc_best']:.3f}",
            f"**{spread(rows, 'test/acc')}**",
            seconds_shown(timed[system], place) if system in timed else "not measured",
        ]
        for system, rows in trained.items()
    ]
    heading = ["system", "`python train.py …`", "epochs", "best validation accuracy", "the tutorial's"]
    shown = markdown([[*heading, "test accuracy", "seconds"], *lines])
    others = {place_of(each) for rows in trained.values() for each in rows} - {place}
    text = f"{caption(results['commit'], timed, place, others)}{gain_of_preprocessing(results)}"
    return f"{shown}\n{textwrap.fill(text, 120)}\n"


def seconds_shown(row: Row, place: str) -> str:
    """Of the features, if there are any, and of the epochs; with the machine if it is not that of `place`."""
    features, fit = seconds_of(row)
    shown = f"{features:.0f} + {fit:.0f}" if features > 1 else f"{fit:.0f}"
    return shown if place_of(row) == place else f"{shown} ({row['machine'].partition(',')[0]})"


def caption(commit: str, timed: Mapping[System, Row], place: str, others: Collection[str]) -> str:
    """What the numbers of the table are, and where they were measured; the minutes of all five if `place` did it."""
    text = (
        f"Means ± standard deviations of three seeds, unless a row says otherwise; test accuracy of the epoch with the "
        f"best validation accuracy, on 1,000 photographs. Seconds are those of seed 0 (features + epochs × the median "
        f"epoch) on {place}, commit {commit}."
    )
    if others:
        text += f" Rows that name another machine, and some other seeds, were measured on {'; '.join(sorted(others))}."
    for sweep, views in (("stored_views", "8 augmented views"), ("fresh_images", "new augmentation in each epoch")):
        five = [each for system, each in timed.items() if system.sweep in ("tutorial", sweep)]
        if len(five) == 5 and {place_of(each) for each in five} == {place}:
            text += f" With {views}, all five need {sum(sum(seconds_of(each)) for each in five) / 60:.0f} minutes."
    return f"{text} The tutorial's GPU needed about {TUTORIAL_MINUTES}."


def gain_of_preprocessing(results: Mapping[str, Any]) -> str:
    """Why systems 4 and 5 are better than the tutorial's; "" if that was not measured."""
    rows = results["sweeps"].get("preprocessing", [])
    found = [float(each["val/acc_best"]) for each in rows if set(each["settings"].split()) >= AS_THE_TUTORIAL]
    reason = "Systems 4 and 5 gain from preprocessing images as VGG16's weights expect"
    return f" {reason}: with the tutorial's, system 4 has {mean(found):.3f} (validation)." if found else ""


def speed_table(speed: Mapping[str, Any]) -> str:
    """Seconds of an epoch, and how many times those of this project they are."""
    lines = []
    for name, variants in speed["rows"].items():
        own = median(variants["project"])
        for variant, values in variants.items():
            seconds = f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
            code = {"project": "this project", "bare": "bare PyTorch loop"}.get(variant, variant)
            lines.append([SPEED_ROWS.get(name, name), code, seconds, f"{median(values) / own:.2f}"])
    images = {split: 2 * count for split, count in SPEED_IMAGES.items()}  # of two classes
    about = (
        f"{images['train']} training and {images['val']} validation images, {speed['rounds']} rounds in turn, median "
        f"(range); "
        f"{speed['machine']}. Weights are random. Epochs are short, so what happens once in each, such as saving "
        f"checkpoints, counts more than with all images. With frozen layers and augmentation this project validates on "
        f"stored features and the bare loop does not validate; the others pass all images through the network. "
        f"[benchmarks.md](benchmarks.md) says what the other code is."
    )
    command = f"`python benchmarks/epoch.py data.root=… {shlex.join(SPEED)}`"
    return f"{about}\n\n{command}\n\n{markdown([['model', 'code', 'seconds per epoch', '/ this project'], *lines])}"


def page(results: Mapping[str, Any]) -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        f"Made by `benchmarks/results.py` from runs of `benchmarks/sweeps.py` at commit {results['commit']}; "
        "`results.json` has each of them. Photographs: a fixed sample of 5,000 of Dogs vs Cats, stored with 200 × 200 "
        "pixels; 1,500 / 500 / 500 of each class train, validate and test, at 150 pixels, unless a table says so. "
        "Tables show means and, in brackets, ranges over seeds. The interval (Wilson, 95 %) is that of the mean, for "
        "another sample of as many images: it does not cover other seeds, and the epoch was chosen by the validation "
        "accuracy.",
        "Features are computed once and then reused, also by other tables. The column `features` shows the seed that "
        "had most to compute: a row has a small number there if earlier runs had stored its features. Other programs "
        "ran for part of the time, so an idle machine needs fewer seconds; the first table therefore takes the median "
        "epoch.",
        "## The five systems",
        systems_table(results),
    ]
    for name, sweep in SWEEPS.items():
        if rows := results["sweeps"].get(name):
            parts += [f"## {sweep.heading}", sweep.text, table(rows)]
    speed = "Seconds of an epoch, beside other code"
    if results["speed"]:
        parts += [f"## {speed}", speed_table(results["speed"])]
    missing = [sweep.heading for name, sweep in SWEEPS.items() if name not in results["sweeps"]]
    missing += [] if results["speed"] else [speed]
    parts += [f"Not measured yet: {'; '.join(missing)}."] if missing else []
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def with_table(readme: str, results: Mapping[str, Any]) -> str:
    """The README with its table made anew."""
    begin, end = MARKS
    return re.sub(f"(?s)(?<={re.escape(begin)}).*(?={re.escape(end)})", lambda _: systems_table(results), readme)


def main(folders: Sequence[str]) -> None:
    path = DOCS / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if folders:
        results = merge(results, collect(Path(folders[0])))
    readme = PROJECT / "README.md"
    texts = {DOCS / "results.md": page(results), readme: with_table(readme.read_text(encoding="utf-8"), results)}
    for file, text in {path: json.dumps(results, indent=1) + "\n", **texts}.items():
        write_text(file, text)


if __name__ == "__main__":
    main(sys.argv[1:])
