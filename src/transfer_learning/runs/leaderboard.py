"""The leaderboard of a sweep: a table of all jobs in its folder, the best first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from transfer_learning.runs.config import read_config
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import write_csv, write_text


class Job(NamedTuple):
    """`settings`: what its command set. `state`: "finished", "failed" or "unfinished". `metrics`: of a finished job."""

    folder: str
    settings: dict[str, str]
    state: str
    reason: str | None = None
    metrics: dict[str, Any] = {}  # noqa: RUF012


def jobs(folder: Path) -> list[Job]:
    """The jobs in a sweep's folder: the best by the monitored metric first, those that have not finished last."""

    def rank(job: Job) -> tuple:
        sign = -1 if job.metrics.get("monitor_mode") == "max" else 1
        return (not job.metrics, job.metrics.get("monitor", ""), sign * job.metrics.get("monitor_best", 0))

    return sorted((read_job(log.parent)[0] for log in sorted(folder.glob("*/train.log"))), key=rank)


def read_job(folder: Path, refused: str = "failed") -> tuple[Job, dict[str, Any]]:
    """A job, and its config, unresolved; empty if it cannot be read.

    `refused` is the state of a finished run in whose folder a later command was refused: "failed" or "finished".
    """
    config: dict[str, Any] = {}
    try:
        config = read_config(folder / "config.yaml")
        overrides = config.get("overrides") or []
    except UserError:  # it failed before it wrote its config
        overrides = [each for each in folder.name.split(",") if "=" in each]
    settings = {key.lstrip("+~"): value for key, _, value in (each.partition("=") for each in overrides)}
    if (folder / "FAILED").exists() and not (refused == "finished" and (folder / "metrics.json").exists()):
        reason = (folder / "FAILED").read_text(encoding="utf-8", errors="replace").strip().split("\n")[0]
        return Job(folder.name, settings, "failed", reason), config
    if not (folder / "metrics.json").exists():
        return Job(folder.name, settings, "unfinished"), config
    try:
        metrics = json.loads((folder / "metrics.json").read_bytes())
        needed = {key: metrics[key] for key in ("monitor", "monitor_mode", "monitor_best", "test/acc", "seconds")}
        needed |= {key: float(needed[key]) for key in ("monitor_best", "seconds")}
        accuracies = {key: metrics.get(key) for key in ("val/acc_best", "test/acc")}
        needed |= {key: None if value is None else float(value) for key, value in accuracies.items()}
        return Job(folder.name, settings, "finished", metrics=metrics | needed), config
    except (ValueError, KeyError, TypeError):
        return Job(folder.name, settings, "failed", "metrics.json is damaged, or of an older version"), config


def table(found: Sequence[Job]) -> list[list[Any]]:
    """The header and one row per job: settings that vary, state, result, the test if there was one, and the reason."""
    keys = list(dict.fromkeys(key for job in found for key in job.settings))
    keys = [key for key in keys if len({job.settings.get(key) for job in found}) > 1]
    monitors = {job.metrics["monitor"] for job in found if job.metrics}
    best = f"{monitors.pop()}_best" if len(monitors) == 1 else "monitor_best"
    tested = ["test/acc"] if any(job.metrics.get("test/acc") is not None for job in found) else []
    rows: list[list[Any]] = [[*keys, "state", best, *tested, "seconds", "reason"]]
    for job in found:
        results = [job.metrics.get(key) for key in ("monitor_best", *tested)]
        seconds = round(job.metrics["seconds"], 1) if job.metrics else None
        rows.append([*(job.settings.get(key) for key in keys), job.state, *results, seconds, job.reason])
    return rows


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Rows, the header first, as a Markdown table."""
    texts = [["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    header, *cells = [[text.replace("|", "\\|") for text in row] for row in texts]
    return tabulate(cells, header, "github", disable_numparse=True) + "\n"


def write_leaderboard(folder: Path, found: Sequence[Job]) -> None:
    """Writes leaderboard.md and leaderboard.csv, which also names the folder of each job. Raises OSError."""
    rows = table(found)
    write_csv(
        folder / "leaderboard.csv",
        ([*row, name] for row, name in zip(rows, ["folder", *(job.folder for job in found)])),
    )
    write_text(folder / "leaderboard.md", markdown(rows))
