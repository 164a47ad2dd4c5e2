"""The leaderboard of a sweep: a table of all jobs in its folder, the best first."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer_learning.runs.config import read_config
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import write_text


@dataclass
class Job:
    """One job: its folder, the settings that its command named, "finished", "failed" or "unfinished", and its metrics."""

    folder: str
    settings: dict[str, str]
    state: str
    reason: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def jobs(folder: Path) -> list[Job]:
    """The jobs in a sweep's folder: the best by the monitored metric first, those that have not finished last."""
    found = [_job(log.parent) for log in sorted(folder.glob("*/train.log"))]

    def rank(job: Job) -> tuple:
        if not job.metrics:
            return (1, "", 0.0)
        sign = -1 if job.metrics["monitor_mode"] == "max" else 1
        return (0, job.metrics["monitor"], sign * job.metrics["monitor_best"])

    return sorted(found, key=rank)


def _job(folder: Path) -> Job:
    settings = _settings(folder)
    if (folder / "FAILED").exists():
        reason = (folder / "FAILED").read_text(encoding="utf-8", errors="replace").strip().split("\n")[0]
        return Job(folder.name, settings, "failed", reason)
    if not (folder / "metrics.json").exists():
        return Job(folder.name, settings, "unfinished")
    try:
        metrics = json.loads((folder / "metrics.json").read_bytes())
        needed = {key: metrics[key] for key in ("monitor", "monitor_mode", "monitor_best", "test/acc", "seconds")}
        float(needed["monitor_best"]), float(needed["seconds"])
        return Job(folder.name, settings, "finished", metrics=needed)
    except (ValueError, KeyError, TypeError):
        return Job(folder.name, settings, "failed", "metrics.json is damaged, or of an older version")


def _settings(folder: Path) -> dict[str, str]:
    """The overrides of a job's command; from the folder's name if it failed before it wrote its config."""
    try:
        overrides = read_config(folder / "config.yaml").get("overrides") or []
    except UserError:
        overrides = [each for each in folder.name.split(",") if "=" in each]
    return {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}


def table(found: Sequence[Job]) -> list[list[Any]]:
    """The header and one row per job: settings that vary, state, result, the test where there was one, and the reason."""
    keys = list(dict.fromkeys(key for job in found for key in job.settings))
    keys = [key for key in keys if len({job.settings.get(key) for job in found}) > 1]
    monitors = {job.metrics["monitor"] for job in found if job.metrics}
    best = f"{monitors.pop()}_best" if len(monitors) == 1 else "monitor_best"
    tested = any(job.metrics.get("test/acc") is not None for job in found)
    rows: list[list[Any]] = [[*keys, "state", best, *(["test/acc"] if tested else []), "seconds", "reason"]]
    for job in found:
        results = [job.metrics.get("monitor_best"), *([job.metrics.get("test/acc")] if tested else [])]
        seconds = round(job.metrics["seconds"], 1) if job.metrics else None
        rows.append([*(job.settings.get(key) for key in keys), job.state, *results, seconds, job.reason])
    return rows


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Rows, the header first, as a Markdown table."""

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    cells = [[shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def write_leaderboard(folder: Path, found: Sequence[Job]) -> None:
    """Writes leaderboard.md and leaderboard.csv, which also names the folder of each job. Raises OSError."""
    rows = table(found)
    text = io.StringIO(newline="")
    folders = ["folder", *(job.folder for job in found)]
    csv.writer(text).writerows([*row, name] for row, name in zip(rows, folders))
    write_text(folder / "leaderboard.csv", text.getvalue())
    write_text(folder / "leaderboard.md", markdown(rows))
