"""Wrong values on the command line: each is accepted, or is one line that begins with the key as typed."""

import json
import re
from copy import deepcopy

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from transfer_learning.cli import job
from transfer_learning.cli.arguments import prepare
from transfer_learning.cli.build import check_added_keys
from transfer_learning.cli.errors import is_user_error, name_keys, one_line
from transfer_learning.cli.overrides import as_typed
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.runs.config import flat
from transfer_learning.runs.folder import RunFolder

VALUES = ["abc", [1], -1, 0, [], 10**30]
NAMES = re.compile(r"(.*\.)?_\w+_|name|choices\..*|recipe\.name|repeats|sweep|overrides|data\.(source|split)")
TINY_CNN = "recipe.image_size=32 model.channels=[4] model.dense=[8]"
COMBINATIONS = {  # overrides -> keys whose values vary
    f"data=cartoons {TINY_CNN} scheduler=cosine logger=[tensorboard,csv] metrics=[macro_f1] trainer=cpu "
    "callbacks=[layer_table,pictures,evaluation,ema,checkpoints,progress,early_stopping]": r".*",
    "data=image_folder data.root=. model=pretrained model.backbone=resnet18 model.weights=null recipe.image_size=64 "
    "optimizer=adamw trainer=cpu": (
        r"model\..*|recipe\.(image_size|interpolation|crop_pct)|optimizer\..*|data\.(root|classes|group_pattern|.*_per_class)"
    ),
    f"data=table data.table=. data.file_column=a data.label_column=b {TINY_CNN} optimizer=sgd trainer=cpu": (
        r"data\.(root|table|classes|.*_column)"
    ),
    f"data=dogs_vs_cats {TINY_CNN} optimizer=sgd trainer=ddp_cpu": (
        r"optimizer\..*|data\.(root|download_to)|trainer\.strategy"
    ),
}
TINY = [
    "data=cartoons", "data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8",
    "trainer=cpu", "trainer.max_epochs=2", "model.channels=[4]", "model.dense=[8]",
]  # fmt: skip


class Built(Exception):
    """All objects have been built, and the training would begin."""


@pytest.fixture
def built(monkeypatch, tmp_path):
    """built(cfg): builds all objects of a run and makes the checks before the first epoch, without any images."""

    def list_images(self):
        self.class_names, self.labels = ("cat", "dog"), np.arange(120) % 2
        self.splits = {"train": np.arange(60), "val": np.arange(60, 90), "test": np.arange(90, 120)}

    def store_features(self, *_):
        raise Built

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ImageDataModule, "list_images", list_images)
    monkeypatch.setattr(ImageDataModule, "setup", lambda self: None)
    monkeypatch.setattr(ImageDataModule, "store_features", store_features)
    monkeypatch.setattr(RunFolder, "record", lambda *_: None)
    monkeypatch.setattr(job, "attempt", lambda *_: {})

    def build(cfg) -> None:
        with name_keys(cfg):
            check_added_keys(cfg, list(HydraConfig.get().overrides.task))
            job.check_mode(cfg, is_single=True)
            job.fill_in(cfg, {})
            job.recorded(cfg)
            job.build_and_train(cfg, RunFolder(tmp_path / "run"), True, [], 0.0)

    return build


SLOW = [pytest.param(number, VALUES, marks=pytest.mark.slow) for number in range(4)]


@pytest.mark.parametrize("number, values", [(0, ["abc", -1]), *SLOW])
def test_each_value_is_accepted_or_is_one_line_that_begins_with_its_key(composed, built, number, values):
    overrides = list(COMBINATIONS)[number]
    config = composed(*overrides.split())
    with pytest.raises(Built):
        built(deepcopy(config))
    keys = [key for key in flat(OmegaConf.to_container(config)) if not NAMES.fullmatch(key)]
    keys = [key for key in keys if re.fullmatch(COMBINATIONS[overrides], key)]
    wrong = []
    OmegaConf.set_readonly(HydraConfig.get(), False)
    for key in keys:
        for value in values:
            cfg, typed = deepcopy(config), f"{key}={as_typed(value)}"
            OmegaConf.update(cfg, key, value, merge=False)
            HydraConfig.get().overrides.task = [*overrides.split(), typed]
            try:
                built(cfg)
            except Built:
                pass
            except Exception as error:
                line = one_line(error)
                if not is_user_error(error):
                    wrong.append(f"{typed}  ->  {type(error).__name__}: {line[:200]}")
                elif not line.startswith((f"{key}=", f"{key}:")):
                    wrong.append(f"{typed}  ->  {line[:200]}")
            else:
                wrong.append(f"{typed}  ->  not built")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(keys) * len(VALUES)}", *wrong])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("model.channels=[]", "model.channels=[]: expected "),
        ("optimizer.lr=abc", "optimizer.lr=abc: expected a valid number"),
        ("seed=99999999999", "seed=99999999999: expected less than or equal to 4294967295"),
        ("seed=-1 data.order_seed=0", "seed=-1: expected greater than or equal to 0"),
        ("+batch_size=10", "+batch_size=10: nothing reads batch_size; did you mean data.batch_size?"),
        ("+model.foo=1", "model.foo=1: no such argument; expected one of num_classes, image_size, channels,"),
        ("+data.foo=1", "data.foo=1: nothing reads it; expected one of "),
        ("+trainer.foo=1", "trainer.foo=1: "),
        (
            "metrics=[macro_f1] monitor=val/f2",
            "monitor=val/f2: no such metric; expected one of val/acc, val/loss, val/macro_f1, val/balanced_acc,",
        ),
        ("metrics=[macro_f1] metrics.macro_f1.average=most", "metrics.macro_f1.average=most: "),
        ("callbacks.ema.decay=1", "callbacks.ema.decay=1: expected less than 1"),
        ("callbacks.ema=0.99", "callbacks.ema=0.99: expected callbacks.ema.NAME=VALUE, or ~callbacks.ema, which"),
        ("callbacks.ema=null", "callbacks.ema=null: expected ~callbacks.ema, which leaves it out."),
        ("+trainer.check_val_every_n_epoch=5", "trainer.check_val_every_n_epoch=5: expected at most max_epochs=2."),
        ("objective.label_smoothing=1", "objective.label_smoothing=1: expected less than 1"),
        ("test=maybe", "test=maybe: expected a valid boolean"),
    ],
)
def test_wrong_value_is_one_line(in_process, tmp_path, arguments, message):
    where = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"]
    code, output = in_process(*TINY, *arguments.split(), *where)
    assert code == 1 and "Traceback" not in output
    assert [line.startswith(message) for line in output.splitlines()].count(True) == 1, output
    assert message in (tmp_path / "run" / "FAILED").read_text() and not (tmp_path / "run" / "checkpoints").exists()


def test_run_without_loggers_callbacks_and_metrics(in_process, tmp_path):
    """The lists are empty. Without checkpoints the last epoch is tested."""
    arguments = ["logger=[]", "~callbacks", "metrics=none", f"hydra.run.dir={tmp_path}/run"]
    code, output = in_process(*TINY, *arguments, f"data.cache_dir={tmp_path}/cache")
    assert code == 0, output
    names = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    written = {"config.yaml", "provenance.json", "split.csv", "train.log", "metrics.json", "curves.png", "epochs.csv"}
    assert names == written
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == metrics["epoch_best"] == 2 and metrics["val/acc_best"] == metrics["val/acc_last"]


@pytest.mark.parametrize("argument", ["logger=[]", "~callbacks", "metrics=null"])
def test_each_list_of_objects_may_be_empty(composed, built, argument):
    (prepared,) = prepare([argument])
    cfg = composed("data=cartoons", "recipe.image_size=32", "trainer=cpu", prepared)
    assert not cfg[argument.strip("~").partition("=")[0]]
    with pytest.raises(Built):
        built(cfg)
