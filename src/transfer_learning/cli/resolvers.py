"""Functions that the config calls, such as `${if_else:...}`. Importing this module registers them.

They are registered on import because a launcher's process composes its job as soon as it has imported the program.
"""

import hashlib
import os
import re
import warnings
from pathlib import Path

from omegaconf import OmegaConf

from transfer_learning.cli.project import MAY_CHANGE, PROJECT
from transfer_learning.reporting.metric_names import default_mode

LONGEST = 90 if os.sep == "\\" else 200  # bytes of a job folder's name: Windows allows paths of 260 characters


def folder_name(overrides: str, longest: int = LONGEST) -> str:
    """Overrides as the name of a folder: at most `longest` bytes, and no character that needs quotes in a shell.

    Of an absolute path, or one that begins with `.` or `~`, only the last part is kept. If anything is cut, or replaced
    other than brackets and slashes, a hash of 8 digits is added, so that different overrides have different names.
    """
    short = re.sub(r"(?<==)[/.~][^,=]*/", "", overrides)
    name, digits = re.sub(r"[^\w.=,+-]+", "-", short) or "defaults", hashlib.sha256(overrides.encode()).hexdigest()[:8]
    is_whole = short == overrides and re.fullmatch(r"[\w.=,+\-\[\]/]*", short) and len(name.encode()) <= longest
    return name if is_whole else f"{name.encode()[: longest - 10].decode(errors='ignore')}-{digits}"


def input_spec(field: str, backbone: str, weights: str | None) -> object:
    """What the weights of a backbone expect: its `image_size`, `interpolation` or `crop_pct`."""
    from transfer_learning.models.backbones import input_spec  # imports torch, for which --help should not wait

    return getattr(input_spec(str(backbone), None if weights is None else str(weights)), field)


def model_name(backbone: str, unfreeze: str | None) -> str:
    """A pretrained model in the name of a run: `vgg16_frozen`, `vgg16_finetuned_block5`."""
    return str(backbone).replace("/", "_") + (f"_finetuned_{unfreeze}" if unfreeze else "_frozen")


def epochs_of_share(epochs: int, share: float) -> int:
    """Epochs with a share of the images. The number of steps falls with its square root: fewer images need fewer."""
    valid = type(share) in (int, float) and 0 < share <= 1  # other values are refused later
    return round(epochs / share**0.5) if valid else epochs


def run_id(folder: str) -> str:
    """An id for services that keep runs, from the last two parts of the run's folder: at most 109 characters."""
    name = "-".join(Path(str(folder)).parts[-2:])
    return f"{re.sub(r'[^a-zA-Z0-9_-]+', '-', name)[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# conf/hydra/launcher/ has values for launchers that bring a schema of the same name.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/.*' is validated against ConfigStore schema")
# Hydra 1.4 and OmegaConf 2.4 announce other ways that 1.3 and 2.3 do not have. Configs are code here: docs/security.md.
OTHER_WAYS = (
    r"register_new_resolver\(\) is",
    "The version_base parameter is",
    r"hydra\.utils\.instantiate\(\) resolved",
)
warnings.filterwarnings("ignore", f"({'|'.join(OTHER_WAYS)})")

for name, function in {
    "epochs_of_share": epochs_of_share,
    "folder_name": folder_name,
    "input_spec": input_spec,
    "model_name": model_name,
    "project": lambda path: str(PROJECT / path),
    "if_else": lambda condition, yes, no: yes if condition else no,
    "if_null": lambda value, default: default if value is None else value,
    "keys_outside_job_names": lambda: ["sweep", "repeats", *MAY_CHANGE],
    "monitor_mode": lambda monitor: default_mode(str(monitor)),
    "run_id": run_id,
    "share_of": lambda share, number: round(share * number) if type(number) is int else None,
}.items():
    OmegaConf.register_new_resolver(name, function, replace=True)  # type: ignore[arg-type]
