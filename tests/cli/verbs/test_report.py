"""`transfer-learning report`, the page at the end of a sweep, and the tutorial's sweep."""

import csv
import json
import re
import subprocess
import sys

import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from transfer_learning.cli import main
from transfer_learning.cli.project import PROJECT

SIZES = ["data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8"]
TINY = ["data=cartoons", *SIZES, "trainer=cpu", "trainer.max_epochs=2", "model.channels=[4]", "model.dense=[16]"]
SYSTEMS = {
    "basic_cnn": ("basic_cnn", False, 0.7246),
    "regularised_cnn": ("regularised_cnn", False, 0.7674),
    "regularised_cnn_augmented": ("regularised_cnn", True, 0.838),
    "vgg16_frozen": ("vgg16_frozen", False, 0.8923),
    "vgg16_frozen_augmented": ("vgg16_frozen", True, 0.904),
}


@pytest.fixture
def verb(monkeypatch, capfd):
    """verb(*arguments) -> (exit code, stdout, error line) of `transfer-learning report ...`."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main.main(["report", *map(str, arguments)])
        code = end.value.code
        return (1 if isinstance(code, str) else code), capfd.readouterr().out, code if isinstance(code, str) else ""

    return call


def test_sweep_ends_with_a_page_that_the_verb_writes_too(in_process, tmp_path, verb):
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
    code, output = in_process("-m", *TINY, *where, "seed=0,1", "optimizer.lr=1e-3,1e30")
    assert code == 1 and f"report: {tmp_path}/sweep/report.html" in output and "2 of 4 jobs" in output
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "the loss is not finite" in page and 'id="run1-val/acc"' in page

    (tmp_path / "sweep" / "report.html").write_text("older")
    out = tmp_path / "page.html"
    code, output, _ = verb(tmp_path, "--out", out)
    assert code == 0 and f"page: {out}" in output and 'id="run1-val/acc"' in out.read_text()
    with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
        seeds = {row["seed"] for row in csv.DictReader(file)}
    assert seeds == {"0", "1"} and "± " in output  # two seeds are a group
    code, output = in_process("-m", *TINY, *where, "seed=0,1", "optimizer.lr=1e-3")
    assert code == 1 and (tmp_path / "sweep" / "report.html").read_text() != "older"


def test_sweep_of_backbones_ends_with_accuracy_against_speed_and_size(in_process, tmp_path):
    sizes = ["data=cartoons", *SIZES, "trainer=cpu", "trainer.max_epochs=1", "callbacks.throughput.seconds=0.01"]
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache", f"model.weights={tmp_path}"]
    names = ("shufflenet_v2_x0_5", "mobilenet_v3_small")
    for name in names:
        torch.save(torchvision.models.get_model(name).state_dict(), tmp_path / f"{name}-random.pth")
    less = ["callbacks=[ema,checkpoints,progress,throughput]", "logger=none"]
    backbones = f"model.backbone={','.join(names)}"
    code, output = in_process("-m", "experiment=backbones", *sizes, *where, *less, backbones, "seed=0,1")
    assert code == 0 and "4 of 4 jobs" in output
    page = (tmp_path / "sweep" / "report.html").read_text()
    section = page.partition("<h2>Accuracy against speed and size</h2>")[2].partition("<h2>")[0]
    rows = re.findall(r"<tr>\s*<td[^>]*>\s*(\d)</td><td>(\w+)</td><td[^>]*>32</td><td[^>]*>2</td>", section)
    assert sorted(rows) == [("1", rows[0][1]), ("2", rows[1][1])] and {name for _, name in rows} == set(names)
    speeds = [json.loads(path.read_text())["images_per_second"] for path in tmp_path.glob("sweep/*/metrics.json")]
    assert len(speeds) == 4 and min(speeds) > 0


def test_the_list_of_backbones_and_their_image_sizes(in_process, composed, tmp_path):
    """All names exist, and none needs an extra."""
    cfg = composed("experiment=backbones", "data.root=photos")
    listed = HydraConfig.get().sweeper.params["model.backbone"].split(",")
    assert len(listed) > 3 and set(listed) <= set(torchvision.models.list_models(torchvision.models))
    assert "throughput" in cfg.callbacks and "throughput" not in composed("model=pretrained").callbacks
    for name, size in (("vgg16", 224), ("efficientnet_v2_s", 384)):
        assert composed("experiment=backbones", f"model.backbone={name}").data.image_size == size
    code, output = in_process("experiment=backbones", "data=cartoons", f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and "experiment=backbones: is a sweep; add -m" in output


def test_page_that_fails_changes_neither_leaderboard_nor_exit_code(in_process, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a programming error")

    monkeypatch.setattr("transfer_learning.cli.sweep.report.write", fail)
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
    code, output = in_process("-m", *TINY, *where, "trainer.max_epochs=1")
    assert code == 0 and "no report, ZeroDivisionError: a programming error" in output and "Traceback" not in output
    assert (tmp_path / "sweep" / "leaderboard.csv").is_file()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "nothing: no such folder; expected the folder of a run"),
        (["."], r".: no run there; expected the folder of a run"),
        ([".", "--out", "no/page.html"], "no/page.html: there is no folder no."),
        ([".", "--out", "folder"], "--out folder: expected a name that ends in .html."),
        ([".", "--out", "table.csv", "--overwrite"], "--out table.csv: expected a name that ends in .html."),
        (
            [".", "--out", "folder.html", "--overwrite"],
            "folder.html: exists already, as another kind of file. Choose another name with --out.",
        ),
        ([".", "--out", "page.html"], "page.html: exists already. Choose another name with --out, or add --overwrite."),
    ],
)
def test_mistakes_are_one_line(verb, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "folder.html"):
        (tmp_path / name).mkdir()
    for name in ("page.html", "table.csv"):
        (tmp_path / name).write_text("mine")
    code, _, line = verb(*arguments)
    assert code == 1 and line.startswith(f"transfer-learning: {message}") and "\n" not in line
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == dict.fromkeys(
        ("page.html", "table.csv"), "mine"
    )


def test_tutorial_is_a_sweep_over_its_five_systems(composed):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        params = compose("config", ["experiment=tutorial"], return_hydra_config=True).hydra.sweeper.params
    assert params == {"system": ",".join(SYSTEMS)}
    for system, (model, augment, accuracy) in SYSTEMS.items():
        cfg = composed("experiment=tutorial", f"system={system}", "debug=short")
        assert (cfg.data.augment, cfg.reference["val/acc_best"]) == (augment, accuracy)
        assert cfg.model == composed(f"model={model}").model and cfg.trainer.max_epochs == 3
        assert cfg.choices.model == model


def test_tutorial_without_a_multirun_is_one_line(in_process, tmp_path):
    code, output = in_process("experiment=tutorial", f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and "experiment=tutorial: is a sweep; add -m, or choose one of system=basic_cnn," in output
    assert "Traceback" not in output and not (tmp_path / "run" / "config.yaml").exists()


def test_report_does_not_wait_for_torch_and_help_for_no_large_library():
    code = "import sys; from transfer_learning.cli import main; main.parser(); "
    code += "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules); "
    code += "import transfer_learning.runs.comparison_report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
