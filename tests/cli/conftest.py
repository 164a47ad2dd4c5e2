"""Fixtures that tests of the command line share."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

import train

PROJECT = Path(train.__file__).parent


@pytest.fixture
def composed(tmp_path):
    """composed(*overrides): the config that the command composes; its run has the folder tmp_path/run."""

    def make(*overrides: str):
        with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
            cfg = compose("config", list(overrides), return_hydra_config=True)
        with open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = str(tmp_path / "run")
        HydraConfig.instance().set_config(cfg)
        job = deepcopy(cfg)
        with open_dict(job):
            job.pop("hydra")
        return job

    yield make
    HydraConfig.instance().cfg = None


@pytest.fixture
def in_shell():
    """in_shell(*arguments, cwd=, **environment): `python train.py ...` as a process of its own."""

    def run(*arguments: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess:
        command, environment = [sys.executable, str(PROJECT / "train.py"), *arguments], os.environ | environment
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280)

    return run
