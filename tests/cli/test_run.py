"""The command, as a user types it, and the config it composes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import train
from transfer_learning import load
from transfer_learning.hardware import native_precision
from transfer_learning.models.pretrained import Pretrained

PROJECT = Path(train.__file__).parent
TINY = "data=cartoons data.image_size=32 data.train_per_class=20 data.val_per_class=8 data.test_per_class=8 trainer=cpu trainer.max_epochs=2"
FILES = {
    "config.yaml",
    "provenance.json",
    "split.csv",
    "train.log",
    "checkpoints",
    "metrics.json",
    "curves.png",
    "hparams.yaml",
}
KEYS = {
    "val/acc_best", "epoch_best", "val/acc_last", "train/acc_last", "test/acc", "test/acc_low", "test/acc_high", "test/loss",
    "parameters_trainable", "parameters_frozen", "images_train", "images_val", "images_test", "epochs", "seconds", "seconds_encoding",
    "seconds_to_first_step", "seconds_per_epoch", "device", "precision",
}  # fmt: skip


def config(*overrides):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", list(overrides))


def command(*arguments, cwd=PROJECT, **environment):
    return subprocess.run(
        [sys.executable, str(PROJECT / "train.py"), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


def complete(folder: Path) -> dict:
    """The metrics of a run's folder that holds all it should."""
    names = {path.name for path in folder.iterdir()}
    assert names >= FILES and any(name.startswith("events.out.tfevents") for name in names)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == KEYS
    return metrics


@pytest.mark.parametrize(
    "model, augment, lr, epochs",
    [
        ("basic_cnn", False, 1e-3, 30),
        ("basic_cnn", True, 1e-4, 100),
        ("regularised_cnn", False, 1e-3, 30),
        ("regularised_cnn", True, 1e-4, 100),
        ("vgg16_frozen", False, 1e-4, 30),
        ("vgg16_frozen", True, 2e-5, 100),
    ],
)
def test_learning_rate_and_epochs_are_the_tutorials(model, augment, lr, epochs):
    cfg = config(f"model={model}", f"data.augment={augment}")
    assert (cfg.optimizer.lr, cfg.trainer.max_epochs, cfg.data.batch_size, cfg.data.image_size) == (lr, epochs, 30, 150)
    cfg = config(f"model={model}", f"data.augment={augment}", "optimizer.lr=0.5", "trainer.max_epochs=7")
    assert (cfg.optimizer.lr, cfg.trainer.max_epochs) == (0.5, 7)


def test_image_size_follows_from_the_weights_unless_somebody_says_otherwise():
    assert config("model=frozen").data.image_size == 224
    assert config("model=frozen", "model.backbone=efficientnet_v2_s").data.image_size == 384
    assert (
        config("model=frozen", "model.backbone=vit_b_16", "model.weights=IMAGENET1K_SWAG_E2E_V1").data.image_size == 384
    )
    assert config("model=frozen", "data.image_size=64").data.image_size == 64


def test_schedules_come_by_name():
    schedule = instantiate(config("scheduler=cosine", "scheduler.warmup=0.5").scheduler)
    assert schedule(0.25) == 0.5 and config().scheduler is None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_optimisers_have_a_learning_rate_of_their_own(optimizer):
    assert (
        config("model=vgg16_frozen", f"optimizer={optimizer}").optimizer.lr
        == config(f"optimizer={optimizer}").optimizer.lr
    )


def test_the_splits_seed_does_not_follow_the_runs():
    cfg = config("seed=5")
    assert (cfg.data.seed, cfg.data.order_seed) == (0, 5)


def test_rmsprop_is_keras_2s():
    """Keras 2: accumulator = rho * accumulator + (1 - rho) * g²; w -= lr * g / (sqrt(accumulator) + epsilon)."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = instantiate(config("optimizer.lr=0.01").optimizer)([w])
    expected, accumulator = w.detach().double(), torch.zeros(3).double()
    for step in range(20):
        gradient = torch.tensor([1e-7, 0.3 * step, -2.0])
        w.grad = gradient.clone()
        optimizer.step()
        accumulator = 0.9 * accumulator + 0.1 * gradient.double() ** 2
        expected = expected - 0.01 * gradient.double() / (accumulator.sqrt() + 1e-7)
    torch.testing.assert_close(w.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_callbacks_and_loggers_come_and_go_by_name():
    assert "early_stopping" not in config().callbacks
    assert "early_stopping" in config("callbacks=[checkpoints,early_stopping]").callbacks
    assert set(config("~callbacks.pictures").callbacks) == set(config().callbacks) - {"pictures"}
    assert not config("~logger.tensorboard").logger


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job", "--resolve"]])
def test_help_and_config_do_not_wait_for_torch(arguments):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *arguments], cwd=PROJECT, capture_output=True, text=True
    )
    assert result.returncode == 0 and "basic_cnn" in result.stdout
    assert " hydra.main" in result.stderr and not re.search(r"\| +(torch|pytorch_lightning)\b", result.stderr)


def test_precision_is_the_hardwares_unless_somebody_says_otherwise(tmp_path, in_process):
    where = [*TINY.split(), "trainer.max_epochs=1", f"data.cache_dir={tmp_path}/cache"]
    for name, overrides, expected in (
        ("auto", [], native_precision("cpu")),
        ("said", ["trainer.precision=64-true"], "64-true"),
    ):
        _, output = in_process(*where, *overrides, f"hydra.run.dir={tmp_path}/{name}")
        assert f"precision {expected}" in output.split("epoch   1/1")[0], output
        assert complete(tmp_path / name)["precision"] == expected


def test_one_run_from_another_directory(tmp_path):
    run = tmp_path / "run"
    result = command(
        *TINY.split(),
        f"hydra.run.dir={run}",
        f"data.cache_dir={tmp_path}/cache",
        "model=regularised_cnn",
        "data.augment=true",
        "model.channels=[4]",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    metrics = complete(run)
    assert metrics["epochs"] == 2 and metrics["images_test"] == 16 and 1 < metrics["seconds_to_first_step"] < 200
    model = load(run / "checkpoints" / "best.ckpt")
    assert model(torch.rand(3, 3, 32, 32)).shape == (3, 2) and model.class_names == ("cat", "dog")
    log = (run / "train.log").read_text()
    for text in (result.stdout, log):
        assert re.search(
            r"epoch   2/2  loss \d\.\d{4}  accuracy \d\.\d{4}  validation loss .*  validation accuracy .* s\n", text
        )
        for shown in (
            "cat datasets: (20,) (8,) (8,)",
            "(40, 32, 32, 3)",
            "trainable parameters: ",
            "best validation accuracy",
            f"tensorboard --logdir {run}",
        ):
            assert text.count(shown) == 1
    assert not (set(tmp_path.iterdir()) - {run, tmp_path / "cache"})


def test_the_best_experiment_fine_tunes_on_what_is_stored(tmp_path, in_process):
    """Composed as it stands, on drawings and random weights."""
    arguments = [
        *TINY.split(),
        "experiment=best",
        "model.weights=null",
        f"hydra.run.dir={tmp_path}/run",
        f"data.cache_dir={tmp_path}/cache",
    ]
    code, output = in_process(*arguments)
    assert code == 0, output
    metrics = complete(tmp_path / "run")
    assert (
        metrics["precision"] == "bf16-mixed" and metrics["parameters_trainable"] == 7_079_424 + 2 * 512 + 513
    )  # block 5, norm, logit
    assert {path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache").glob("outputs*.npy")} == {
        "outputs-train",
        "outputs-val",
        "outputs-test",
    }


def test_the_sweep_of_the_issue_leaves_four_complete_and_distinct_folders(tmp_path, monkeypatch, in_process):
    torch.manual_seed(0)
    state = Pretrained(2, 32, weights=None).frozen.state_dict()  # block5.28.weight is torchvision's features.28.weight
    torch.save(
        {f"features.{key.split('.', 1)[1]}": value for key, value in state.items() if "block" in key},
        tmp_path / "vgg16.pth",
    )
    monkeypatch.setenv("VGG16_WEIGHTS", str(tmp_path / "vgg16.pth"))
    where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
    code, output = in_process("-m", "model=basic_cnn,vgg16_frozen", "data.augment=false,true", *TINY.split(), *where)
    assert code == 0, output
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert len(folders) == 4
    metrics = [complete(folder) for folder in folders]
    assert all(re.match(r"data.augment=(True|False),.*,model=", folder.name) for folder in folders)
    assert len({each["test/loss"] for each in metrics}) == 4
    assert [each["parameters_frozen"] > 0 for each in metrics] == [False, True, False, True]
    in_process(
        *TINY.split(),
        "model=basic_cnn",
        "data.augment=true",
        f"hydra.run.dir={tmp_path}/alone",
        f"data.cache_dir={tmp_path}/cache",
    )
    assert (
        complete(tmp_path / "alone")["test/loss"] == metrics[2]["test/loss"]
    )  # a job of a sweep is as good as a run of its own


@pytest.mark.parametrize(
    "model",
    [
        "model.channels=[4,8]",
        pytest.param(
            "model=frozen model.backbone=resnet18 model.weights=null model.unfreeze=block5 model.head_epochs=1 model.dropout=0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_train_to_the_same_accuracy_in_one_folder(tmp_path, in_process, model):
    runs = {}
    for trainer in ("cpu", "ddp_cpu"):
        folder = tmp_path / trainer
        arguments = [
            *TINY.split(),
            f"trainer={trainer}",
            *model.split(),
            f"hydra.run.dir={folder}",
            f"data.cache_dir={tmp_path}/cache",
            "data.batch_size=10",
            "trainer.precision=32-true",  # in which sums of another order differ least
        ]
        if trainer == "cpu":
            in_process(*arguments)
        else:  # it starts itself again
            result = command(*arguments)
            assert result.returncode == 0, result.stderr
        runs[trainer] = complete(folder)
        text = (folder / "train.log").read_text()
        assert text.count("best validation accuracy") == text.count("epoch   2/2") == 1
        assert {path.name for path in folder.glob("*.log")} == {"train.log"}
    assert runs["ddp_cpu"]["test/loss"] == pytest.approx(runs["cpu"]["test/loss"], rel=1e-3)
    assert runs["ddp_cpu"]["val/acc_last"] == pytest.approx(runs["cpu"]["val/acc_last"])
    assert runs["ddp_cpu"]["images_test"] == runs["cpu"]["images_test"] == 16


def test_several_devices_within_a_sweep_are_refused(tmp_path, in_process):
    code, output = in_process(
        "-m",
        "seed=0",
        *TINY.split(),
        "trainer=ddp_cpu",
        f"hydra.sweep.dir={tmp_path}/sweep",
        f"data.cache_dir={tmp_path}/cache",
    )
    assert code == 1 and "several devices within a sweep" in output


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_launcher_runs_a_sweeps_jobs_in_other_processes_to_the_same_results(tmp_path, in_process, launcher):
    where = [f"data.cache_dir={tmp_path}/cache", "trainer.precision=32-true"]
    result = command(
        "-m", f"hydra/launcher={launcher}", "seed=0,1", *TINY.split(), f"hydra.sweep.dir={tmp_path}/sweep", *where
    )
    assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
    jobs = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir() and not path.name.startswith("."))
    metrics = [complete(job) for job in jobs]
    processes = {next(job.glob("events.out.tfevents*")).name.split(".")[-2] for job in jobs}
    assert len(jobs) == 2 and metrics[0]["test/loss"] != metrics[1]["test/loss"]
    assert launcher == "joblib" or len(processes) == 2  # joblib may give one quick process both
    code, output = in_process(
        "-m", "seed=1,0", *TINY.split(), f"hydra.sweep.dir={tmp_path}/sweep", *where
    )  # and by another launcher
    assert code == 0 and output.count("finished already") == 2
    in_process("seed=1", *TINY.split(), f"hydra.run.dir={tmp_path}/alone", *where)
    assert complete(tmp_path / "alone")["test/loss"] == pytest.approx(metrics[1]["test/loss"], rel=1e-4)


def test_slurm_is_given_what_the_config_says():
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        overrides = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.sweep.dir=/sweep"]
        launcher = instantiate(compose("config", overrides, return_hydra_config=True).hydra.launcher)
    assert launcher.params["partition"] == "gpu" and launcher.params["gpus_per_node"] == 1
    assert launcher.params["submitit_folder"] == "/sweep/.submitit/%j"


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw", "sgd"])
def test_gradients_can_be_clipped_with_every_optimiser(tmp_path, in_process, optimizer):
    """Lightning refuses to clip for fused optimisers in mixed precision."""
    where = [
        f"hydra.run.dir={tmp_path}/run",
        f"data.cache_dir={tmp_path}/cache",
        "trainer.max_epochs=1",
        "trainer.precision=bf16-mixed",
    ]
    code, output = in_process(*TINY.split(), *where, f"optimizer={optimizer}", "trainer.gradient_clip_val=1")
    assert code == 0, output
    assert optimizer == "rmsprop" or config(f"optimizer={optimizer}").optimizer.fused
