"""The table that ends a sweep, of all jobs in its folder."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from transfer_learning.atomic import replacing

COLUMNS = ("overrides", "state", "val/acc_best", "test/acc", "seconds", "reason")


class Leaderboard(Callback):
    """Hydra's callback: prints the table, leaves it as leaderboard.csv and leaderboard.md, exits with 1 unless all jobs have finished."""

    def on_multirun_end(self, config: DictConfig, **_) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = jobs(folder)
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *rows])
        finished = sum(state == "finished" for _, state, *_ in rows)
        print(f"{markdown(rows)}\n{finished} of {len(rows)} jobs in {folder} finished", flush=True)
        try:
            for name, content in (("leaderboard.csv", text.getvalue()), ("leaderboard.md", markdown(rows))):
                with replacing(folder / name) as file:
                    file.write(content.encode())
        except OSError as error:  # Hydra would make a warning of it
            sys.exit(str(error))
        if finished < len(rows):
            sys.exit(1)


def jobs(folder: Path) -> list[tuple]:
    """One row of `COLUMNS` for each job's folder, the best validation accuracy first, what has not finished last."""
    rows = []
    for path in sorted(log.parent for log in folder.glob("*/train.log")):
        failed, finished = path / "FAILED", path / "metrics.json"
        if failed.exists():
            rows.append((path.name, "failed", None, None, None, failed.read_text().strip().split("\n")[0]))
        elif not finished.exists():
            rows.append((path.name, "unfinished", None, None, None, None))
        else:
            try:
                metrics = json.loads(finished.read_bytes())
                rows.append(
                    (
                        path.name,
                        "finished",
                        metrics["val/acc_best"],
                        metrics["test/acc"],
                        round(metrics["seconds"], 1),
                        None,
                    )
                )
            except (ValueError, KeyError, TypeError):
                rows.append((path.name, "failed", None, None, None, "metrics.json is damaged"))
    return sorted(rows, key=lambda row: -1.0 if row[2] is None else row[2], reverse=True)


def markdown(rows: Sequence[tuple]) -> str:
    """The rows as a table for people."""

    def shown(value) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    cells = [COLUMNS, *(tuple(map(shown, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"
