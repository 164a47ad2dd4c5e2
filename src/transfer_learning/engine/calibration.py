"""Temperature scaling (Guo et al. 2017): logits are divided by one number, so that probabilities match accuracy."""

from pathlib import Path

import torch
import torch.nn.functional as F

from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import file_sha256, read_checked_json, write_checked_json

LOG2_RANGE = (-6.0, 6.0)  # of the temperature


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor, objective: CrossEntropy) -> float:
    """The temperature with the least mean loss: logits (N, 1) or (N, C) float, class codes (N,) int64.

    Raises UserError if the loss has no minimum, as where no image is predicted wrongly.
    """
    from scipy.optimize import minimize_scalar  # takes half a second to import, and nothing else here needs it

    # Of one logit and codes, torch computes the losses in float32.
    targets = F.one_hot(labels, 2).double() if logits.shape[1] == 1 else labels

    def loss(log2: float) -> float:
        return objective.losses(logits.double() / 2**log2, targets).mean().item()

    log2 = minimize_scalar(loss, bounds=LOG2_RANGE, method="bounded").x
    is_minimum = loss(log2) < min(map(loss, LOG2_RANGE))  # losses of small temperatures may all be rounded to 0
    if not is_minimum or min(abs(log2 - bound) for bound in LOG2_RANGE) < 0.1:
        reason = "the validation split has no mistakes, or the model has learned nothing"
        raise UserError(f"no temperature fits: {reason}. Nothing was calibrated.")
    return float(2**log2)


def temperature_file(checkpoint: str | Path) -> Path:
    """Where the calibration of a checkpoint is, beside it."""
    return Path(checkpoint).with_suffix(".temperature.json")


def read_temperature(checkpoint: str | Path) -> float:
    """The temperature of a checkpoint; 1.0 if it has not been calibrated.

    Raises UserError if the calibration is damaged, or of another checkpoint.
    """
    file = temperature_file(checkpoint)
    if not file.exists():
        return 1.0
    saved = read_checked_json(file)
    if not saved or saved["checkpoint_sha256"] != file_sha256(checkpoint):
        reason = "of another checkpoint" if saved else "damaged"
        raise UserError(f"{file}: this calibration is {reason}. Delete it, and calibrate again.")
    return saved["temperature"]


def write_temperature(checkpoint: str | Path, temperature: float, checkpoint_sha256: str) -> None:
    """Writes the temperature of a checkpoint beside it, atomically.

    `checkpoint_sha256` is that of the file when it was read. Raises UserError if a training has replaced it since, and
    OSError.
    """
    if file_sha256(checkpoint) != checkpoint_sha256:
        reason = "replaced by a training while its predictions were computed, so nothing was calibrated"
        raise UserError(f"{checkpoint}: {reason}. Repeat the command.")
    saved = {"temperature": temperature, "checkpoint_sha256": checkpoint_sha256}
    write_checked_json(temperature_file(checkpoint), saved)
