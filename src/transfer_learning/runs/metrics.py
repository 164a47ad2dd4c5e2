"""metrics.json, the results of a finished run: reading it, and whether they may be extended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_learning.utilities.errors import UserError, first_line


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """The results of the run in a folder, or None if it has not finished.

    They have at least "monitor" and "monitor_mode", texts; "epochs", an integer; "monitor_best" and "seconds", floats;
    "val/acc_best" and "test/acc", floats or None. Raises UserError if the file is damaged or lacks one other than
    "val/acc_best", and OSError.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    try:
        metrics = json.loads(path.read_bytes())
        metrics |= {key: str(metrics[key]) for key in ("monitor", "monitor_mode")}
        metrics |= {"epochs": int(metrics["epochs"])}
        metrics |= {key: float(metrics[key]) for key in ("monitor_best", "seconds")}
        accuracies = {"val/acc_best": metrics.get("val/acc_best"), "test/acc": metrics["test/acc"]}
        return metrics | {key: None if value is None else float(value) for key, value in accuracies.items()}
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{first_line(error)}. Move it away, and repeat the command."
        raise UserError(f"{path}: damaged, or not the metrics of a run: {reason}") from error


def cannot_be_extended(metrics: Mapping[str, Any], max_epochs: int | None, last: Path) -> str | None:
    """Why a finished run with these metrics cannot train more epochs than `max_epochs`; None if it can."""
    if not last.exists():
        return f"more epochs need {last}, which is missing. Restore it, or use another folder."
    if not max_epochs or not 0 < max_epochs <= metrics["epochs"]:
        return f"it stopped by itself after {metrics['epochs']} epochs, so it trains no more. Use another folder."
    return None
