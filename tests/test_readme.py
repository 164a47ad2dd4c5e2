"""The commands of the README, as they are printed there."""

import re
import shlex

import pytest
import torch
from omegaconf import OmegaConf

from transfer_learning.cli import resolvers
from transfer_learning.runs.metrics import read_metrics

README = (resolvers.PROJECT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Your own images\n")[2].partition("\n## ")[0]
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
    monkeypatch.chdir(layouts)
    monkeypatch.setenv("VGG16_WEIGHTS", str(vgg16_weights))
    code, output = in_process(*shlex.split(command)[2:])
    assert code == 0, output
    (run,) = (layouts / "outputs" / "runs").iterdir()
    metrics = read_metrics(run)
    assert (metrics["images_train"], metrics["images_val"], metrics["images_test"]) == (36, 12, 12)
