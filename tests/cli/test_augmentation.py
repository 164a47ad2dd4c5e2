"""The list of augmentation steps on the command line."""

import json
import re

import numpy as np
import pytest
import torch

from transfer_learning import load
from transfer_learning.cli.arguments import prepare
from transfer_learning.cli.build import build_data
from transfer_learning.cli.project import PROJECT
from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.utilities.errors import UserError

SIZES = ["data.image_size=32", "data.train_per_class=9", "data.val_per_class=4", "data.test_per_class=4"]
SMALL = ["data=cartoons", *SIZES, "data.batch_size=6", "trainer=cpu", "trainer.max_epochs=2"]
STEPS = sorted(path.stem for path in (PROJECT / "conf/data/augmentation").glob("*.yaml") if path.stem != "none")


@pytest.mark.parametrize("typed", ["data/augmentation=[]", "~data/augmentation", "data/augmentation=none"])
def test_the_list_may_be_empty_without_augmentation(composed, typed):
    cfg = composed("data=cartoons", *prepare([typed]))
    assert not cfg.data.get("augmentation") and build_data(cfg).augmentation.steps == []


@pytest.mark.parametrize("names", [["horizontal_flip", "rand_augment"], ["rand_augment", "horizontal_flip"]])
def test_steps_have_the_order_of_the_list(composed, names):
    (typed,) = prepare([f"data/augmentation=[{','.join(names)}]"])
    cfg = composed("data=cartoons", typed, "data.augmentation.horizontal_flip.probability=0.3")
    steps = build_data(cfg).augmentation.steps
    assert list(cfg.data.augmentation) == names
    classes = {"horizontal_flip": HorizontalFlip, "rand_augment": RandAugment}
    assert [type(step) for step in steps] == [classes[name] for name in names]
    assert next(step for step in steps if isinstance(step, HorizontalFlip)).probability == 0.3


@pytest.mark.parametrize("name", STEPS)
def test_one_step_needs_no_brackets(composed, name):
    cfg = composed("data=cartoons", f"data/augmentation={name}", "data.augment=true")
    assert list(cfg.data.augmentation) == [name] and len(build_data(cfg).augmentation.steps) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("~data.augmentation.affine", "data.augment=true: there is no augmentation step; expected at least one."),
        (
            "data/augmentation=horizontal_flip data.augmentation.horizontal_flip.probability=2",
            "data.augmentation.horizontal_flip.probability=2: expected less",
        ),
        (
            "data/augmentation=[random_resized_crop] data.augmentation.random_resized_crop.scale=[0.9,0.1]",
            "data.augmentation.random_resized_crop.scale=[0.9, 0.1]: expected the smaller number first.",
        ),
        (
            "+data.augmentation.color_jitter.hue=0.1",
            "data.augmentation.color_jitter: color_jitter is not chosen; data/augmentation=[...,color_jitter]",
        ),
        ("data.augmentation.affine=null", "data.augmentation.affine=null: expected ~data.augmentation.affine, which"),
        ("data.augmentation.affine=0.2", "data.augmentation.affine=0.2: expected data.augmentation.affine.NAME=VALUE"),
        ("+data.augmentation.affine.beta=1", "data.augmentation.affine.beta=1: no such argument; expected one of "),
    ],
)
def test_a_wrong_value_is_named_by_its_key(composed, arguments, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        build_data(composed("data=cartoons", "data.augment=true", *arguments.split()))


CROP = "data/augmentation=[color_jitter,random_resized_crop] data.augmentation.random_resized_crop"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("data/augmentation=[]", "data.augment=true: there is no augmentation step; expected at least one."),
        (f"{CROP}.size=24", "data.augmentation.random_resized_crop.size=24: the network accepts only images of 32"),
        ("data/augmentation=colour_jitter", "data/augmentation=colour_jitter: there is no such file"),
        (
            "data/augmentation=[affine,mixup]",
            "data/augmentation=mixup: there is no such file",
        ),
    ],
)
def test_a_mistake_is_one_error_before_the_first_step(tmp_path, in_process, arguments, message):
    folder = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache", "model.channels=[4,8]"]
    code, output = in_process(*SMALL, *folder, "data.augment=true", *arguments.split())
    assert code == 1 and message in output and "Traceback" not in output, output
    assert "epoch  " not in output


def test_a_run_with_all_steps_and_smaller_training_images(tmp_path, in_process):
    """The network with global pooling trains at 24 pixels; it is validated and predicts at 32."""
    crop = ["data.augmentation.random_resized_crop.size=24", "model=resnet_small"]
    network = ["model.channels=[4,8]", "model.blocks=[1,1]", "optimizer=adamw"]
    folder = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"]
    steps = f"data/augmentation=[{','.join(STEPS)}]"
    quick = ["callbacks=[checkpoints]", "logger=none", "data.augment=true"]
    code, output = in_process(*SMALL, *network, *folder, *crop, steps, *quick)
    assert code == 0, output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and np.isfinite(metrics["test/loss"])
    model = load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert model.preprocessing.image_size == 32 and model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
