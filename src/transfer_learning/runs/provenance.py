"""The provenance of a run: command, code, packages and machine."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path

import torch

from transfer_learning.utilities.hardware import device_name, processor


def attempt(command: Sequence[str], project: Path, device: torch.device) -> dict:
    """Describes one start of a run, the first or a resume, in plain values. `project` is the folder of the code."""
    commit, cores = _git(project, "rev-parse", "HEAD"), os.cpu_count()
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "directory": os.getcwd(),
        "git_commit": commit,
        "git_dirty": bool(_git(project, "status", "--porcelain")) if commit else None,
        "device": device_name(device),
        "machine": dict(name=platform.node(), system=platform.platform(), processor=processor(), cores=cores),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "packages": dict(sorted((each.name, each.version) for each in distributions() if each.name)),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if git or a repository is missing."""
    try:
        found = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
