"""The commands of the README, as they are printed there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from transfer_learning.cli import resolvers
from transfer_learning.runs.metrics import read_metrics

README = (resolvers.PROJECT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Your own images\n")[2].partition("\n## ")[0]
DIFFS = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
LAYOUTS = [line for line in re.search(r"```bash\n(.*?)```", SECTION, re.DOTALL)[1].splitlines() if line[0] != "#"]


@pytest.fixture(scope="session")
def vgg16_weights(tmp_path_factory):
    """A file with random weights of VGG16's convolutions."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{key}": value for key, value in make_layers(cfgs["D"]).state_dict().items()}, file)
    return file


@pytest.fixture
def layouts(tmp_path, write_image):
    """The folders and the table that the section names, with 30 images of each of two classes."""
    for number in range(60):
        flower, split = ("rose", "tulip")[number % 2], ("train", "train", "train", "val", "test")[number // 2 % 5]
        write_image(tmp_path / "flowers" / flower / f"{number}.jpg", number)
        write_image(tmp_path / "flowers-split" / split / flower / f"{number}.jpg", number)
        write_image(tmp_path / "pets" / f"{('cat', 'dog')[number % 2]}.{number}.jpg", number)
        write_image(tmp_path / "images" / f"{number:04x}.jpg", number)
    rows = [f"{number:04x},{('boxer', 'pug')[number % 2]}" for number in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,breed", *rows]))
    return tmp_path


@pytest.fixture
def outputs(tmp_path, vgg16_weights):
    """Runs are written below tmp_path as long as the test runs, and the cache to a folder that the tests share."""

    def project(path):
        return str((vgg16_weights.parent if path == "outputs/cache" else tmp_path) / path)

    OmegaConf.register_new_resolver("project", project, replace=True)
    yield
    OmegaConf.register_new_resolver("project", lambda path: str(resolvers.PROJECT / path), replace=True)


def test_four_layouts_are_shown():
    assert len(LAYOUTS) == 4 and all(line.startswith("python train.py ") for line in LAYOUTS)


@pytest.mark.parametrize("command", LAYOUTS)
def test_the_command_of_a_layout(layouts, outputs, vgg16_weights, in_process, monkeypatch, command):
    """With one epoch of its 30."""
    monkeypatch.chdir(layouts)
    monkeypatch.setenv("VGG16_WEIGHTS", str(vgg16_weights))
    code, output = in_process(*shlex.split(command)[2:], "trainer.max_epochs=1")
    assert code == 0, output
    (run,) = (layouts / "outputs" / "runs").iterdir()
    metrics = read_metrics(run)
    assert (metrics["images_train"], metrics["images_val"], metrics["images_test"]) == (36, 12, 12)


@pytest.fixture
def extended(tmp_path):
    """A copy of the project with all changes of the README applied; returns it and its environment."""
    for name in ("src", "conf"):
        shutil.copytree(resolvers.PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(resolvers.PROJECT / "train.py", tmp_path)
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}  # inside another repository it skips files
    for diff in DIFFS:
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, env=alone, check=True)
    return tmp_path, os.environ | {"PYTHONPATH": str(tmp_path / "src")}


def test_extensions_have_at_most_ten_lines():
    assert len(DIFFS) == 4
    for diff in DIFFS:
        added = [line for line in diff.splitlines() if line[:1] == "+" and line[:3] != "+++" and line != "+"]
        assert 0 < len(added) <= 10, diff


# Runs train.py, or with "predict" the other command, with each of some lists of arguments, in one process.
PROGRAM = """
import json, sys, train
from transfer_learning.cli import main, shell
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main.main(arguments) if arguments[0] == "predict" else shell.call(train.main)
    except SystemExit as end:
        if end.code:
            raise
"""


def test_the_extensions_run_as_printed(extended, write_image):
    """The second run has the source, the augmentation step and the backbone together."""
    project, environment = extended
    for number in range(60):
        write_image(project / "photos" / f"{('Bengal', 'great_pyrenees')[number % 2]}_{number}.jpg", number)
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3)).state_dict(), project / "stem.pth")
    printed = re.findall(r"\n[^`\n]*`([^`]*)`.*\n\n```diff", README.replace("…", "photos"))
    tiny, *others = [shlex.split(each) for each in printed]
    tiny += ["data=cartoons", "data.train_per_class=16", "data.val_per_class=4"]
    commands = []
    for folder, words in (("tiny", tiny), ("others", [word for each in others for word in each])):
        short = ["data.test_per_class=4", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]
        commands += [[*words, *short, f"hydra.run.dir={folder}"], ["predict", folder, "photos/Bengal_0.jpg"]]
    command = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    environment |= {"HYDRA_MAIN_MODULE": "__main__"}  # Hydra looks for conf/ beside train.py
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    frozen = {"tiny": 0, "others": 3 * 32 * 9 + 32}
    names = {"tiny": ["models.tiny.Tiny"], "others": ["sources.pets.Pets", "Grayscale", "own/stem"]}
    for folder in frozen:
        assert read_metrics(project / folder)["parameters_frozen"] == frozen[folder]
        config = (project / folder / "config.yaml").read_text()
        assert all(name in config for name in names[folder])
    assert result.stdout.count("photos/Bengal_0.jpg") == 2
