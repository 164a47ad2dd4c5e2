"""Checks this project on a CUDA device and measures it, for ten minutes a call: a table in Markdown and JSON.

python benchmarks/gpu.py [--out outputs/gpu] [--minutes 10] [--patience 1] [--steps NAME ...] [--device cpu] [--short]
    [data.root=FOLDER] [model.weights=FILE] [other overrides of train.py]

First come comparisons of the device with the CPU, on small drawings, several at a time; then the five systems with all
of their epochs in the default precision of train.py, rows of epoch.py, and profiles, one at a time. Systems, rows and
profiles take the photographs and weights that overrides name, else drawings and random weights. Nothing is downloaded.

Each step is a process of its own with a limit in seconds (gpu_steps.py; --patience 3 multiplies it and the minutes, for
a slow device). One that fails, hangs or is killed is a row of table.md, with its last lines, and the others go on. A
step begins only if its limit fits into what is left of --minutes. The same command goes on with the steps that are
missing or have failed. It refuses a folder with results of another commit, device, torch or of other arguments. Exit
code: 0, 1 if a step has failed, 2 if the arguments are refused. `--device cpu --short` tries the command itself.

To install the project on a machine without a network, run this in its folder on a machine that has one, with the same
system, processor type and version of Python:

    pip download -d wheels '.[sweep]' setuptools wheel

(for another torch add 'torch==2.11.*', or the index of the build that fits the driver; CUDA's libraries come with it).
Copy the project and the folder `wheels`, and then:

    pip install --no-index --find-links wheels -e '.[sweep]'
"""

import argparse
import json
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from gpu_steps import MACHINE, STEPS, Settings, end, run_process, running

from transfer_learning.runs.leaderboard import markdown
from transfer_learning.utilities.cores import usable_cores
from transfer_learning.utilities.files import read_checked_json, write_checked_json, write_text

LAST_LINES, LONGEST_LINE = 15, 300  # of the output of a step that failed
SIDE_BY_SIDE = max(2, min(4, usable_cores() // 4))  # steps at a time, unless they measure
SAME = ("commit", "code", "device", "torch", "lightning", "arguments")  # of all results in a folder
Row = dict[str, Any]


class Folder:
    """The results in the folder `path`: table.md, table.json, and for each step STEP.json, its log and its files."""

    def __init__(self, path: Path, machine: Row):
        self.path, self.machine = path, machine
        for name in ("steps", "logs", "work"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def row(self, name: str) -> Row:
        """The last result of a step. States: finished, failed, timed out, not run, needs CUDA."""
        if STEPS[name].needs_cuda and self.machine["arguments"][0] == "cpu":
            return {"state": "needs CUDA"}
        return read_checked_json(self.path / "steps" / f"{name}.json") or {"state": "not run"}

    def run(self, name: str, settings: Settings, patience: float, deadline: float, threads: int | None) -> Row:
        """Runs a step and writes its result, unless its limit does not fit into the time that is left."""
        step, work = STEPS[name], self.path / "work" / name
        limit, start = step.limit * patience, time.monotonic()
        if start + limit > deadline:
            return self.row(name)
        if not step.goes_on:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(exist_ok=True)
        (work / "result.json").unlink(missing_ok=True)
        log = self.path / "logs" / f"{name}.txt"
        code = run_process(name, settings._replace(folder=str(work)), log, limit, threads)
        values = read_checked_json(work / "result.json") if code == 0 else None
        row: Row = {"seconds": round(time.monotonic() - start, 1), "limit": limit}
        if values is not None:
            row |= {"state": "finished", "values": values}
            shutil.rmtree(work, ignore_errors=True)
        else:
            row |= {"state": "timed out"} if code is None else {"state": "failed", "exit code": code}
            row["last lines"] = last_lines(log)
        write_checked_json(self.path / "steps" / f"{name}.json", row)
        return row

    def write_tables(self) -> None:
        """Writes table.md and table.json: the machine and all rows."""
        rows = {name: self.row(name) for name in STEPS}
        write_text(self.path / "table.json", json.dumps({"machine": self.machine, "steps": rows}, indent=1))
        header = ["step", "what", "state", "seconds", "limit", "result"]
        cells = [
            [name, STEPS[name].about, row["state"], row.get("seconds"), row.get("limit", STEPS[name].limit), shown(row)]
            for name, row in rows.items()
        ]
        machine = "\n".join(f"- {key}: {value}" for key, value in self.machine.items())
        parts = ["# Checks and measurements of a device", machine, markdown([header, *cells])]
        for name, row in rows.items():
            if "last lines" in row:
                lines = "\n".join(f"    {line}" for line in row["last lines"])
                parts.append(f"## {name}: {row['state']}\n\nIts last lines; logs/{name}.txt has all.\n\n{lines}")
        write_text(self.path / "table.md", "\n\n".join(parts) + "\n")


def last_lines(log: Path) -> list[str]:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return [line[:LONGEST_LINE] for line in lines[-LAST_LINES:]]


def shown(row: Row) -> str:
    """The result of a step in a line: its plain values, or the last line of one that failed."""
    values = {key: value for key, value in row.get("values", {}).items() if not isinstance(value, dict)}
    texts = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()]
    return ", ".join(texts) or " ".join(row.get("last lines", [])[-1:])


def machine_of(settings: Settings, folder: Path) -> Row:
    """What the results depend on. Exits with 2 if the device cannot be used."""
    with_folder = settings._replace(folder=str(folder / "machine"))
    Path(with_folder.folder).mkdir(parents=True, exist_ok=True)
    code = run_process(MACHINE, with_folder, folder / "machine" / "log.txt", limit=120)
    found = read_checked_json(folder / "machine" / "result.json") if code == 0 else None
    if found is None:
        refuse(" ".join(last_lines(folder / "machine" / "log.txt")[-1:]) or "torch does not start within 120 s")
    return found | {"arguments": [settings.device, settings.short, *settings.overrides]}


def check_same(path: Path, machine: Row) -> None:
    """Exits with 2 if the folder has results of something else."""
    before = read_checked_json(path / "machine.json") or machine
    if differ := [f"{key} was {before.get(key)}, is {machine[key]}" for key in SAME if before.get(key) != machine[key]]:
        refuse(f"{path} has results of something else ({'; '.join(differ)}). Choose another folder with --out.")
    write_checked_json(path / "machine.json", machine)


def refuse(reason: str) -> None:
    print(f"gpu.py: {reason}", file=sys.stderr)
    sys.exit(2)


def run_all(folder: Folder, names: list[str], settings: Settings, patience: float, minutes: float) -> None:
    """Runs steps in their order; a table is complete after each. Steps that measure run alone, but not with --short."""
    deadline = time.monotonic() + 60 * minutes * patience
    for measures, group in groupby(names, key=lambda name: STEPS[name].measures and not settings.short):
        threads = None if measures else max(1, usable_cores() // SIDE_BY_SIDE)
        with ThreadPoolExecutor(1 if measures else SIDE_BY_SIDE) as pool:
            try:
                futures = {pool.submit(folder.run, name, settings, patience, deadline, threads): name for name in group}
                for future in as_completed(futures):
                    row, name = future.result(), futures[future]
                    print(
                        f"{name:18s} {row['state']:11s} {row.get('seconds', ''):>6}  {shown(row)[:LONGEST_LINE]}",
                        flush=True,
                    )
                    folder.write_tables()
            except BaseException:  # also Ctrl-C and SIGTERM
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(running):
                    end(process)
                raise


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=10, help="of the whole command")
    parser.add_argument("--patience", type=float, default=1, help="multiplies all limits, and the minutes")
    parser.add_argument("--steps", nargs="+", metavar="NAME", help=", ".join(STEPS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to try the command itself")
    options, overrides = parser.parse_known_args(arguments)
    overrides += [each for each in options.steps or [] if "=" in each and each not in STEPS]
    chosen = [each for each in options.steps or STEPS if each not in overrides]
    if wrong := [each for each in overrides if each.startswith("-") or "=" not in each]:
        parser.error(f"{' '.join(wrong)}: neither an option nor KEY=VALUE")
    if wrong := [each for each in chosen if each not in STEPS]:
        parser.error(f"--steps: {', '.join(wrong)}; expected some of {', '.join(STEPS)}")
    out = options.out.resolve()
    settings = Settings(options.device, options.short, "", str(out / "cache"), tuple(overrides))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with FileLock(out / ".lock", timeout=0):
            machine = machine_of(settings, out)
            check_same(out, machine)
            folder = Folder(out, machine)
            missing = [name for name in chosen if folder.row(name)["state"] not in ("finished", "needs CUDA")]
            print(
                f"{machine['device']}, torch {machine['torch']}; steps to run: {len(missing)}, others are done",
                flush=True,
            )
            folder.write_tables()
            run_all(folder, missing, settings, options.patience, options.minutes)
    except Timeout:
        refuse(f"{out}: another process is using this folder.")
    states = [folder.row(name)["state"] for name in chosen]
    left = states.count("not run")
    print(
        f"{out / 'table.md'}"
        + f"; steps that did not fit into the time: {left}, the same command runs them" * bool(left)
    )
    return int(any(state in ("failed", "timed out") for state in states))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
