"""What `${project:…}`, `${when:…}` and the like mean in `conf/`. Importing this registers them."""

import hashlib
import re
import warnings
from pathlib import Path

from omegaconf import OmegaConf

# conf/hydra/launcher/ has values for launchers that bring a schema of the same name.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/.*' is validated against ConfigStore schema")

PROJECT = Path(__file__).resolve().parents[2]


def folder_name(overrides: str) -> str:
    """Overrides as a folder's name: readable, without characters that a file system or a shell minds, at most 200 long.

    Of a path the last part stands in it. Where that, or the length, leaves something out, eight digits of a hash tell such names apart.
    """
    short = re.sub(r"(?<==)[^,=]*/", "", overrides)
    name, digits = re.sub(r"[^\w.=,+-]+", "-", short) or "defaults", hashlib.sha256(overrides.encode()).hexdigest()[:8]
    return name if short == overrides and len(name) <= 200 else f"{name[:190]}-{digits}"


def input_size(backbone: str, weights: str | None) -> int:
    """The image size that torchvision's weights expect, in pixels."""
    from transfer_learning.models.weights import (
        input_size,
    )  # not above: it imports torch, for which --help should not wait

    return input_size(backbone, weights)


OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)
OmegaConf.register_new_resolver("either", lambda first, second: second if first is None else first, replace=True)
OmegaConf.register_new_resolver("when", lambda condition, yes, no: yes if condition else no, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("input_size", input_size, replace=True)
