from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from transfer_learning.cli.build import absolute_paths, build, check_added_keys
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.hardware import default_precision

TINY = ["data=cartoons", "data.image_size=32"]


@pytest.mark.parametrize(
    "added, hint",
    [
        ("+batch_size=10", "nothing reads batch_size; did you mean data.batch_size?"),
        ("++batch_size=10", "nothing reads batch_size; did you mean data.batch_size?"),
        ("+foo.batch_size=10", "nothing reads foo.batch_size; did you mean data.batch_size?"),
        ("+recipe.lrs=1", "nothing reads recipe.lrs; did you mean"),
        ("+choices.x=1", "nothing reads choices.x."),
        ("+data.x=1", "data.x=1: nothing reads it"),
        ("+optimizer.x=1", "optimizer.x=1: "),
    ],
)
def test_an_added_key_that_nothing_reads_is_refused(tmp_path, in_process, added, hint):
    code, output = in_process(*TINY, f"hydra.run.dir={tmp_path}/run", added)
    assert code == 1 and hint in output and "Traceback" not in output, output


@pytest.mark.parametrize(
    "override, group",
    [
        ("model._target_=nowhere.Net", "model"),
        ("model._target_=transfer_learning.models.cnn.CMM", "model"),
        ("optimizer._target_=torch.optim.Adamw", "optimizer"),
        ("+callbacks.mine={_target_: nowhere.Mine}", None),
        ("data.source=folder", "data/source"),
    ],
)
def test_a_class_that_cannot_be_imported_is_one_line(tmp_path, in_process, override, group):
    code, output = in_process(*TINY, f"hydra.run.dir={tmp_path}/run", override)
    assert code == 1 and output.count("cannot be imported") == 1 and len(output.strip().splitlines()) == 1, output
    key = override.partition("=")[0].lstrip("+")
    assert output.startswith(key) and ": it cannot be imported (" in output
    assert (f"{group}=NAME chooses a file of conf/{group}/." in output) == bool(group)


def test_keys_that_something_reads_may_be_added(composed):
    added = ["++recipe.lr=1e-4", "+trainer.max_steps=3", "+data/augmentation@data.augmentation=none", "++seed=1"]
    check_added_keys(composed(*TINY), added)


def test_paths_are_absolute_and_lead_where_the_shell_goes(composed, tmp_path, monkeypatch):
    for folder in ("images", "elsewhere/images", "elsewhere/inner"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    monkeypatch.chdir(tmp_path)
    for typed, expected in (
        ("images", "images"),
        ("./images//", "images"),
        ("link/../images", "elsewhere/images"),
        ("elsewhere/../images", "images"),
        ("link", "link"),  # links stay as long as they lead to the same place
    ):
        cfg = composed("data=image_folder", f"data.root={typed}")
        absolute_paths(cfg)
        assert cfg.data.root == str(tmp_path / expected), typed


@pytest.mark.parametrize(
    "typed, is_path",
    [
        ("DEFAULT", False),
        ("resnet50.a1_in1k", False),
        ("resnet50.pth", True),
        ("weights/resnet50.a1_in1k", True),
        ("~/resnet50", True),
        ("copied.weights", True),
        (".", True),
    ],
)
def test_weights_that_are_a_name_with_dots_stay_as_they_are(composed, tmp_path, monkeypatch, typed, is_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "copied.weights").touch()
    cfg = composed("data=cartoons")
    cfg.model = {"_target_": "transfer_learning.models.pretrained.Pretrained", "weights": typed}
    absolute_paths(cfg)
    expected = tmp_path / typed.removeprefix("~/") if is_path else typed
    assert cfg.model.weights == str(expected)


@pytest.mark.parametrize(
    "key, target",
    [
        ("objective", "transfer_learning.engine.objective.CrossEntropy"),
        ("optimizer", "transfer_learning.optim.rmsprop.RMSprop"),  # called with `try_with`, not by Hydra
    ],
)
def test_the_causes_of_an_error_end(composed, monkeypatch, key, target):
    def refuse(*_, **__):
        raise UserError("refused") from ValueError("the reason")

    cfg = composed(*TINY)
    assert cfg[key]._target_ == target
    monkeypatch.setattr(f"{target}.__init__", refuse)
    with pytest.raises(UserError) as raised:
        build(cfg, key, try_with=([torch.nn.Parameter(torch.zeros(1))],) if key == "optimizer" else ())
    causes: list[BaseException] = [raised.value]
    while causes[-1].__cause__ and len(causes) < 9:
        causes.append(causes[-1].__cause__)
    assert [str(each) for each in causes] == ["refused", "the reason"]


@pytest.mark.parametrize("typed", ["hydra.run.dir=", "resume=", "data.root=", "data.cache_dir="])
def test_an_empty_folder_is_refused(in_process, tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    code, output = in_process("data=image_folder", "data.root=.", f"hydra.run.dir={tmp_path}/run", typed)
    assert code == 1 and f"{typed}: expected a" in output, output
    assert not [path for path in tmp_path.iterdir() if path.name != "run"]


def test_the_progress_bar_is_not_drawn_for_each_batch(composed, small_data, small_model, quiet_trainer, monkeypatch):
    bar, drawn = build(composed(*TINY), "callbacks.progress"), []
    monkeypatch.setattr(Tqdm, "refresh", lambda self, *arguments, **settings: drawn.append(self.n))
    trainer = quiet_trainer(max_epochs=1, callbacks=[bar], enable_progress_bar=True, limit_val_batches=0)
    trainer.fit(small_model(), datamodule=small_data(batch_size=1))
    assert trainer.global_step == 24 and {10, 20, 24} <= set(drawn) and not {9, 11, 19, 21, 23} & set(drawn)


@pytest.mark.parametrize("experiment", ["best", "fast", "scratch", "quickstart"])
def test_experiments_need_no_bfloat16(composed, monkeypatch, experiment):
    """As on a T4, whose compute capability is 7.5: cuDNN has no bfloat16 convolutions for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7))
    precision = composed(f"experiment={experiment}", "data=cartoons", "trainer=gpu").trainer.precision
    assert (default_precision("gpu") if precision == "auto" else precision) == "32-true"
