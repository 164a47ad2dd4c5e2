"""Reading metrics.json, the results of a finished run."""

import json
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
