"""Experiments, systems and recipes beside the user's own choices: the user's choice counts, or is refused."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from transfer_learning.cli import job
from transfer_learning.cli.config_errors import config_message
from transfer_learning.data.images import Images
from transfer_learning.data.splits import Given
from transfer_learning.utilities.errors import UserError


def values(cfg, *keys):
    return [OmegaConf.select(cfg, key) for key in keys]


def test_settings_of_the_experiments_as_they_were_measured(composed):
    """Those of docs/results.md and docs/measurements.md."""
    found = composed("experiment=scratch")
    assert values(found, "optimizer.lr", "optimizer.weight_decay", "callbacks.ema.decay") == [2e-3, 0.05, 0.998]
    assert values(found, "data.image_size", "data.augmentation.random_resized_crop.size") == [128, 96]
    for name in ("best", "fast"):
        assert values(composed(f"experiment={name}"), "optimizer.lr", "optimizer.weight_decay") == [1e-3, 0.01]
    found = composed("experiment=quickstart")
    assert values(found, "model.channels", "model.dense", "trainer.max_epochs") == [[16, 32, 64], [64], 12]
    assert values(found, "data.image_size", "optimizer.lr", "name") == [64, 1e-3, "small_cnn-seed0"]
    assert values(composed("optimizer=adamw"), "optimizer.lr", "callbacks.ema.decay") == [3e-4, None]


@pytest.mark.parametrize("name", ["best", "scratch"])
def test_another_optimizer_has_its_own_values(composed, name):
    alone, beside = composed("optimizer=sgd").optimizer, composed(f"experiment={name}", "optimizer=sgd").optimizer
    assert alone == beside
    assert "weight_decay" not in composed(f"experiment={name}", "optimizer=rmsprop").optimizer


def test_another_model_has_its_own_values(composed):
    found = composed("experiment=quickstart", "model=regularised_cnn")
    assert found.model == composed("model=regularised_cnn").model and found.data.image_size == 150
    composed("experiment=quickstart", "model=vgg16_frozen", "model.layer_decay=0.75")


@pytest.mark.parametrize("size, crop", [(224, 168), (64, 48)])
def test_training_images_follow_the_image_size(composed, size, crop):
    found = composed("experiment=scratch", f"data.image_size={size}")
    assert found.data.augmentation.random_resized_crop.size == crop


@pytest.mark.parametrize(
    "choice", ["data/augmentation=[rand_augment]", "callbacks=[checkpoints,progress]", "callbacks=none"]
)
def test_what_was_not_chosen_is_not_there(composed, choice):
    found = composed("experiment=scratch", choice)
    nodes = [*(found.data.augmentation or {}).values(), *(found.callbacks or {}).values()]
    assert nodes == [] or all("_target_" in node for node in nodes)


def test_fast_takes_all_training_images_of_given_splits(composed):
    sizes = composed("experiment=fast", "data.train_share=1").data
    splits = ["train"] * 80 + ["val"] * 10 + ["test"] * 10
    digests = [str(number) for number in range(100)]
    given = Images(digests, np.arange(100) % 2, ("a", "b"), digests, pytest.fail, splits=splits)
    found = Given(sizes.train_per_class, sizes.val_per_class, sizes.test_per_class)(given)
    assert [len(found[split]) for split in ("train", "val", "test")] == [80, 10, 10]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["callbacks.early_stopping.patience=5"],
            "callbacks.early_stopping: early_stopping is not chosen; callbacks=[...,",
        ),
        (["logger.wandb.project=x"], "logger.wandb: wandb is not chosen; logger=[...,wandb] chooses it"),
        (
            ["scheduler.warmup=0.1"],
            "scheduler.warmup: scheduler is none; choose it too, scheduler=... of cosine, none, one",
        ),
    ],
)
def test_a_key_of_a_member_that_is_not_chosen(composed, overrides, message):
    with pytest.raises(Exception) as raised:
        composed(*overrides)
    error = raised.value
    assert (config_message(error) or config_message(error.__cause__)).startswith(message)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["system=basic_cnn", "model=vgg16_frozen"], "system=basic_cnn: is model=basic_cnn, but"),
        (["experiment=quickstart", "system=regularised_cnn"], "system=regularised_cnn: is model=regularised_cnn, but"),
        (["system=vgg16_frozen_augmented", "model=vgg16_frozen"], None),
        (["system=basic_cnn", "debug=short"], None),
    ],
)
def test_a_system_with_another_model_is_refused(composed, overrides, message):
    cfg = composed(*overrides)
    if message is None:
        return job.check_mode(cfg, is_single=True)
    with pytest.raises(UserError, match=message):
        job.check_mode(cfg, is_single=True)


@pytest.mark.parametrize(
    "direction, monitor, is_right", [("maximize", "val/acc", True), ("minimize", "val/acc", False)]
)
def test_a_sweeper_that_searches_for_the_worst_value_is_refused(composed, direction, monitor, is_right):
    cfg = composed(f"monitor={monitor}")
    job.check_direction(cfg, None)
    if is_right:
        return job.check_direction(cfg, direction)
    with pytest.raises(UserError, match=f"hydra.sweeper.direction={direction}: monitor={monitor} needs maximize"):
        job.check_direction(cfg, direction)
