"""The structure of the package: what may import what, and what an import may not do."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import transfer_learning
from transfer_learning.cli.project import PROJECT

PACKAGE = Path(transfer_learning.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# A module imports only from its own folder and from folders of a lower number.
LAYERS = {"utilities": 0, "data": 1, "models": 1, "reporting": 1, "optim": 2, "callbacks": 2, "engine": 3}
LAYERS |= {"runs": 4, "cli": 5}


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent != PACKAGE], ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_no_module_imports_from_a_higher_layer(file):
    own = file.relative_to(PACKAGE).parts[0]
    for module in imported_modules(file):
        if module.startswith("transfer_learning."):
            other = module.split(".")[1]
            assert other == own or LAYERS[other] < LAYERS[own], f"{own} imports {module}"
        assert own == "cli" or not module.startswith("hydra"), f"{own} imports {module}"


def test_only_the_command_line_knows_config_keys():
    groups = "|".join(folder.name for folder in (PROJECT / "conf").iterdir() if folder.is_dir())
    key = re.compile(rf"""["']({groups}|hydra)\.(?!(json|csv|npy|safetensors)\b)\w|({groups}|hydra)(\.\w+)+=""")
    for file in FILES:
        if "cli" not in file.parts:
            lines = file.read_text(encoding="utf-8").splitlines()
            assert not [line for line in lines if key.search(line)], file


def test_files_are_short():
    assert {str(file): count for file in FILES if (count := len(file.read_text("utf-8").splitlines())) > 250} == {}


def test_importing_the_package_changes_nothing_in_the_process():
    """Each module in turn, except `cli.resolvers`, which registers functions for the config and hides a warning."""
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in FILES]
    names = [name.removesuffix(".__init__") for name in names if name != "transfer_learning.cli.resolvers"]
    names.sort(key=lambda name: name.startswith("transfer_learning.cli"))
    code = f"""
import importlib, logging, os, sys, threading, warnings
import pytorch_lightning, torchvision, torchmetrics, matplotlib.figure, pooch, hydra, tensorboard, scipy
import tqdm.contrib.logging
from pytorch_lightning import loggers
import hydra.experimental.callback
def state():
    filters = [logging.getLogger(name).filters[:] for name in sorted(logging.root.manager.loggerDict)
               if "lightning" in name or name == "root"]
    return dict(os.environ), warnings.filters[:], sys.excepthook, threading.excepthook, logging.raiseExceptions, filters
before = state()
for name in {names}:
    if name == "transfer_learning.cli":
        importlib.import_module("transfer_learning.cli.resolvers")
        before = state()
    importlib.import_module(name)
    assert state() == before, name
"""
    # Not this process's environment: it has imported the package already.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
