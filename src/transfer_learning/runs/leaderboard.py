"""The leaderboard of a sweep: a table of all jobs in its folder, the best first."""

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from tabulate import tabulate

from transfer_learning.runs.config import read_config
from transfer_learning.runs.metrics import read_metrics
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import write_csv, write_text


class Job(NamedTuple):
    """`settings`: what its command set. `state`: "finished", "failed", "unfinished" or "learning-rate finder".

    `metrics`: of a finished job.
    """

    folder: str
    settings: dict[str, str]
    state: str
    reason: str | None = None
    metrics: dict[str, Any] = {}  # noqa: RUF012


def read_jobs(folder: Path) -> list[Job]:
    """The jobs anywhere in a sweep's folder: the best by the monitored metric first, unfinished ones last."""
    found = {log.parent: read_job(log.parent)[0] for log in sorted(folder.rglob("train.log"))}
    return sorted((job._replace(folder=str(path.relative_to(folder))) for path, job in found.items()), key=_rank)


def _rank(job: Job) -> tuple:
    sign = -1 if job.metrics.get("monitor_mode") == "max" else 1
    return (not job.metrics, job.metrics.get("monitor", ""), sign * job.metrics.get("monitor_best", 0))


def read_job(folder: Path, finished_stays: bool = False) -> tuple[Job, dict[str, Any]]:
    """A job, and its config, unresolved; empty if it cannot be read. A damaged file makes it a failed job.

    `finished_stays`: whether a finished run in whose folder a later command was refused counts as finished, not failed.
    """
    config: dict[str, Any] = {}
    try:
        config = read_config(folder / "config.yaml")
        overrides = [str(each) for each in config.get("overrides") or []]
    except (UserError, TypeError):  # it failed before it wrote its config
        overrides = [each for each in folder.name.split(",") if "=" in each]
    settings = {key.lstrip("+~"): value for key, _, value in (each.partition("=") for each in overrides)}
    try:
        return _state_of(folder, settings, finished_stays), config
    except OSError as error:
        return Job(folder.name, settings, "failed", first_line(error)), config


def _state_of(folder: Path, settings: dict[str, str], finished_stays: bool) -> Job:
    """As `read_job`. Raises OSError."""
    if (folder / "FAILED").exists() and not (finished_stays and (folder / "metrics.json").exists()):
        reason = (folder / "FAILED").read_text(encoding="utf-8", errors="replace").strip().split("\n")[0]
        return Job(folder.name, settings, "failed", reason)
    try:
        metrics = read_metrics(folder)
    except UserError:
        return Job(folder.name, settings, "failed", "metrics.json is damaged")
    if metrics:
        return Job(folder.name, settings, "finished", metrics=metrics)
    searched = (folder / "lr_find.json").exists() and not (folder / "checkpoints").exists()
    return Job(folder.name, settings, "learning-rate finder" if searched else "unfinished")


def table(found: Sequence[Job]) -> list[list[Any]]:
    """The header and one row per job: settings that vary, state, result, the test if there was one, and the reason."""
    keys, best, tested = _columns(found)
    several = len({job.metrics["monitor"] for job in found if job.metrics}) > 1
    named = ["monitor"] if several and "monitor" not in keys else []
    rows: list[list[Any]] = [[*keys, "state", *named, best, *tested, "seconds", "reason"]]
    for job in found:
        results = [job.metrics.get(key) for key in (*named, "monitor_best", *tested)]
        seconds = round(job.metrics["seconds"], 1) if job.metrics else None
        rows.append([*(job.settings.get(key) for key in keys), job.state, *results, seconds, job.reason])
    return rows


def repetition_table(found: Sequence[Job], replicates: Collection[str]) -> list[list[Any]]:
    """The header and one row per group of jobs that differ in the settings `replicates` alone, the best mean first.

    n is the number of finished jobs, "2 of 3" if not all have finished. Without rows if no job is repeated.
    """
    keys, best, tested = _columns(found)
    keys = [key for key in keys if key not in replicates]
    header = [*keys, "n", *(f"{name}, {text}" for name in (best, *tested) for text in ("mean", "standard deviation"))]
    groups: dict[frozenset, list[Job]] = {}
    for job in found:
        fixed = frozenset(each for each in job.settings.items() if each[0] not in replicates)
        groups.setdefault(fixed, []).append(job)
    if len(groups) == len(found):
        return [header]
    rows = []
    for members in groups.values():
        metrics = [job.metrics for job in members if job.metrics]
        n = f"{len(metrics)} of {len(members)}" if len(metrics) < len(members) else len(members)
        values = [[each[key] for each in metrics if each.get(key) is not None] for key in ("monitor_best", *tested)]
        numbers = [number for each in values for number in _mean_and_deviation(each)]
        summary = members[0]._replace(metrics={**metrics[0], "monitor_best": numbers[0]} if metrics else {})
        rows.append((_rank(summary), [*(summary.settings.get(key) for key in keys), n, *numbers]))
    return [header, *(row for _, row in sorted(rows, key=lambda each: each[0]))]


def _columns(found: Sequence[Job]) -> tuple[list[str], str, list[str]]:
    """The settings that vary, the name of the monitored result, and the test's if there was one."""
    keys = list(dict.fromkeys(key for job in found for key in job.settings))
    monitors = {job.metrics["monitor"] for job in found if job.metrics}
    best = f"{monitors.pop()}_best" if len(monitors) == 1 else "monitor_best"
    tested = ["test/acc"] if any(job.metrics.get("test/acc") is not None for job in found) else []
    return [key for key in keys if len({job.settings.get(key) for job in found}) > 1], best, tested


def _mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    return mean(values) if values else None, stdev(values) if len(values) > 1 else None


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Rows, the header first, as a Markdown table."""
    header, *cells = [[_cell(value) for value in row] for row in rows]
    return tabulate(cells, header, "github", disable_numparse=True) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def leaderboard_text(found: Sequence[Job], replicates: Collection[str]) -> str:
    """The table of all jobs and, if some are repeated, that of the groups."""
    tables = [table(found), repetition_table(found, replicates)]
    return "\n".join(markdown(rows) for rows in tables if rows[1:])


def write_leaderboard(folder: Path, found: Sequence[Job], replicates: Collection[str]) -> None:
    """Writes leaderboard.md, and leaderboard.csv with a row per job, which also has its folder. Raises OSError."""
    rows = table(found)
    write_csv(
        folder / "leaderboard.csv",
        ([*row, name] for row, name in zip(rows, ["folder", *(job.folder for job in found)])),
    )
    write_text(folder / "leaderboard.md", leaderboard_text(found, replicates))
