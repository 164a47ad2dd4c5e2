"""The command, as a user types it, and the config that it composes."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

import train
from transfer_learning import load
from transfer_learning.cli.build import build
from transfer_learning.cli.resolvers import model_name
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.reporting.prediction_table import read_predictions
from transfer_learning.utilities.hardware import default_precision

PROJECT = Path(train.__file__).parent
SIZES = ["data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8"]
TINY = ["data=cartoons", *SIZES, "trainer=cpu", "trainer.max_epochs=2"]
FILES = {"config.yaml", "provenance.json", "split.csv", "train.log", "checkpoints", "metrics.json", "curves.png"}
FILES |= {"epochs.csv", "predictions.csv"}
OF_PREDICTIONS = re.compile(r"(confusion|mistakes|reliability|gradcam)-(val|test)\.png")
KEYS = {
    "val/acc_best", "epoch_best", "monitor", "monitor_mode", "monitor_best", "val/acc_last", "train/acc_last",
    "test/acc", "test/acc_low", "test/acc_high", "test/loss", "parameters_trainable", "parameters_frozen",
    "images_train", "images_val", "images_test", "epochs", "seconds", "seconds_features", "seconds_to_first_step",
    "seconds_per_epoch", "device", "precision",
}  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    return f"data.cache_dir={tmp_path}/cache"


def complete(folder: Path) -> dict:
    """The metrics of a run whose folder has all files."""
    names = {path.name for path in folder.iterdir()}
    assert names >= FILES | {"hparams.yaml"} and any(name.startswith("events.out.tfevents") for name in names)
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
        ("vgg16_frozen model.unfreeze=block5", False, 1e-4, 10),
        ("vgg16_finetuned", False, 1e-4, 10),
    ],
)
def test_learning_rate_and_epochs_are_those_of_the_tutorial(composed, model, augment, lr, epochs):
    arguments = [*f"model={model}".split(), f"data.augment={augment}"]
    cfg = composed(*arguments)
    assert (cfg.optimizer.lr, cfg.trainer.max_epochs, cfg.data.batch_size, cfg.data.image_size) == (lr, epochs, 30, 150)
    assert cfg.data.interpolation == "bilinear"
    cfg = composed(*arguments, "optimizer.lr=0.5", "trainer.max_epochs=7")
    assert (cfg.optimizer.lr, cfg.trainer.max_epochs) == (0.5, 7)


def test_block_5_learns_at_a_tenth_of_the_rate_from_the_third_epoch_on(composed):
    cfg = composed("model=vgg16_frozen", "model.unfreeze=block5", "model.weights=null", "data.image_size=32")
    assert cfg.name == "vgg16_finetuned_block5-seed0"
    network = build(cfg, "model", num_classes=2, image_size=32)
    head, backbone = network.parameter_groups()
    assert (head.name, head.lr_scale, head.from_epoch) == ("head", 1.0, 0)
    assert (backbone.name, backbone.lr_scale, backbone.from_epoch) == ("backbone", 0.1, 2)
    learning = {id(parameter): name for name, parameter in network.named_parameters() if parameter.requires_grad}
    in_block_5 = {f"network.trainable.backbone.block5.{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias")}
    assert {f"network.{learning[id(parameter)]}" for parameter in backbone.parameters} == in_block_5
    assert len(head.parameters) + len(backbone.parameters) == len(learning)


@pytest.mark.parametrize(
    "overrides, name",
    [
        ([], "basic_cnn-seed0"),
        (["model=regularised_cnn", "data.augment=true", "seed=3"], "regularised_cnn-augmented-seed3"),
        (["model=vgg16_frozen"], "vgg16_frozen-seed0"),
        (["model=vgg16_finetuned"], "vgg16_finetuned_block5-seed0"),
        (["model=pretrained"], "resnet50_frozen-seed0"),
        (["model=pretrained", "model.unfreeze=all", "model.backbone=vit_b_16"], "vit_b_16_finetuned_all-seed0"),
        (["experiment=quickstart"], "small_cnn-seed0"),
        (["experiment=best"], "timm_tf_efficientnet_lite2_frozen-seed0"),
    ],
)
def test_run_is_named_after_its_model(composed, overrides, name):
    assert composed(*overrides).name == name
    cfg = composed(*overrides)
    assert cfg.choices.model == name.split("-")[0] and cfg.choices.optimizer in ("rmsprop", "adamw")


def test_provider_is_part_of_a_models_name():
    assert model_name("timm/convnext", None) == "timm_convnext_frozen"


@pytest.mark.parametrize(
    "overrides, image_size, interpolation",
    [
        ([], 224, "bilinear"),
        (["model.backbone=efficientnet_v2_s"], 384, "bilinear"),
        (["model.backbone=efficientnet_b0"], 224, "bicubic"),
        (["model.backbone=efficientnet_b0", "model.weights=null"], 224, "bicubic"),
        (["model.backbone=vit_b_16", "model.weights=IMAGENET1K_SWAG_E2E_V1"], 384, "bicubic"),
        (["data.image_size=64"], 64, "bilinear"),
        (["model.backbone=efficientnet_b0", "data.interpolation=nearest"], 224, "nearest"),
    ],
)
def test_image_size_and_interpolation_follow_the_weights_unless_given(composed, overrides, image_size, interpolation):
    data = composed("model=pretrained", *overrides).data
    assert (data.image_size, data.interpolation) == (image_size, interpolation)


def test_schedule_is_chosen_by_name(composed):
    schedule = build(composed("scheduler=cosine", "scheduler.warmup=0.5"), "scheduler")
    assert schedule(0.25) == 0.5 and composed().scheduler is None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_optimizers_have_their_own_learning_rate(composed, optimizer):
    with_vgg16 = composed("model=vgg16_frozen", f"optimizer={optimizer}").optimizer.lr
    assert with_vgg16 == composed(f"optimizer={optimizer}").optimizer.lr


def test_seed_of_the_split_does_not_follow_the_seed_of_the_run(composed):
    cfg = composed("seed=5")
    assert (cfg.data.seed, cfg.data.order_seed) == (0, 5)


@pytest.mark.parametrize("monitor, mode", [("val/acc", "max"), ("val/loss", "min"), ("val/macro_f1", "max")])
def test_mode_of_the_monitor_follows_its_name(composed, monitor, mode):
    cfg = composed(f"monitor={monitor}", "callbacks=[checkpoints,early_stopping]")
    for callback in (cfg.callbacks.checkpoint_best, cfg.callbacks.early_stopping):
        assert (callback.monitor, callback.mode) == (monitor, mode)


def test_rmsprop_is_that_of_keras_2(composed):
    """Keras 2: accumulator = rho * accumulator + (1 - rho) * g²; w -= lr * g / (sqrt(accumulator) + epsilon)."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = build(composed("optimizer.lr=0.01"), "optimizer")([w])
    expected, accumulator = w.detach().double(), torch.zeros(3).double()
    for step in range(20):
        gradient = torch.tensor([1e-7, 0.3 * step, -2.0])
        w.grad = gradient.clone()
        optimizer.step()
        accumulator = 0.9 * accumulator + 0.1 * gradient.double() ** 2
        expected = expected - 0.01 * gradient.double() / (accumulator.sqrt() + 1e-7)
    torch.testing.assert_close(w.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_callbacks_and_loggers_are_chosen_by_name(composed):
    assert "early_stopping" not in composed().callbacks
    assert "early_stopping" in composed("callbacks=[checkpoints,early_stopping]").callbacks
    assert set(composed("~callbacks.pictures").callbacks) == set(composed().callbacks) - {"pictures"}
    assert not composed("~logger.tensorboard").logger
    assert set(composed("logger=[tensorboard,csv]").logger) == {"tensorboard", "csv"}
    assert set(composed("metrics=[macro_f1]").metrics) == {"macro_f1"}


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job", "--resolve"]])
def test_help_and_config_do_not_import_torch(arguments):
    command = [sys.executable, "-X", "importtime", "train.py", *arguments]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0 and "basic_cnn" in result.stdout
    assert " hydra.main" in result.stderr and not re.search(r"\| +(torch|pytorch_lightning)\b", result.stderr)


def test_precision_is_that_of_the_hardware_unless_given(tmp_path, in_process, cache):
    for name, overrides, expected in (
        ("auto", [], default_precision("cpu")),
        ("given", ["trainer.precision=64-true"], "64-true"),
    ):
        where = [cache, f"hydra.run.dir={tmp_path}/{name}"]
        _, output = in_process(*TINY, "trainer.max_epochs=1", *overrides, *where)
        assert f"precision {expected}" in output.split("epoch   1/1")[0], output
        assert complete(tmp_path / name)["precision"] == expected


@pytest.mark.slow
def test_run_from_another_directory(tmp_path, in_shell, cache):
    run = tmp_path / "run"
    model = ["model=regularised_cnn", "data.augment=true", "model.channels=[4]"]
    result = in_shell(*TINY, *model, f"hydra.run.dir={run}", cache, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = complete(run)
    assert metrics["epochs"] == 2 and metrics["images_test"] == 16 and 1 < metrics["seconds_to_first_step"] < 200
    model = load(run / "checkpoints" / "best.ckpt")
    assert model(torch.rand(3, 3, 32, 32)).shape == (3, 2) and model.class_names == ("cat", "dog")
    epoch = r"epoch   2/2  loss \d\.\d{4}  accuracy \d\.\d{4}  validation loss .*  validation accuracy .* s\n"
    shown = [
        "cat           20      8       8",
        "(40, 32, 32, 3)",
        "trainable parameters: ",
        "best validation accuracy",
    ]
    for text in (result.stdout, (run / "train.log").read_text()):
        assert re.search(epoch, text)
        assert [text.count(each) for each in (*shown, f"tensorboard --logdir {run}")] == [1] * 5
    assert not (set(tmp_path.iterdir()) - {run, tmp_path / "cache"})


def test_relative_paths_are_those_of_the_shell(tmp_path, in_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = in_process(*TINY, "data.cache_dir=own/cache", "hydra.run.dir=run", "model.channels=[4]")
    assert code == 0 and list((tmp_path / "own" / "cache").glob("*.rows")), output
    assert f"cache_dir: {tmp_path}/own/cache" in (tmp_path / "run" / "config.yaml").read_text()


def test_relative_paths_are_those_of_the_shell_if_hydra_changes_the_folder(tmp_path, in_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["hydra.job.chdir=true", "hydra.run.dir=run", f"data.cache_dir={tmp_path}/cache", "data.root=photos"]
    code, output = in_process("data=image_folder", *where)
    assert code == 1 and f"data.root={tmp_path}/photos: no such folder" in output


@pytest.mark.parametrize("experiment", ["best", "fast"])
def test_experiment_trains_a_head_on_stored_features(tmp_path, in_process, cache, experiment):
    """Composed as it is, on cartoons and random weights."""
    arguments = [
        *TINY,
        f"experiment={experiment}",
        "data.train_share=1",
        "model.weights=null",
        f"hydra.run.dir={tmp_path}/run",
        cache,
    ]
    code, output = in_process(*arguments)
    assert code == 0, output
    metrics = complete(tmp_path / "run")
    trainable = 2 * 1280 + 1281  # layer norm, logit
    assert metrics["precision"] == "32-true" and metrics["parameters_trainable"] == trainable
    assert len(list((tmp_path / "cache").glob("features-*.rows"))) == 1  # one file for all splits
    counts = re.findall(r"features-\w+\.rows: (\d+) rows computed;", output)
    assert sorted(counts) == ["16", "16", "40"]


@pytest.mark.slow
def test_sweep_leaves_four_complete_and_different_folders(tmp_path, monkeypatch, in_process, cache):
    torch.manual_seed(0)
    network = Pretrained(2, 32, backbone="vgg16", weights=None, layer_norm=False)
    state = network.frozen.state_dict()  # block5.28.weight is torchvision's features.28.weight
    state = {f"features.{key.split('.', 1)[1]}": value for key, value in state.items() if "block" in key}
    torch.save(state, tmp_path / "vgg16.pth")
    monkeypatch.setenv("VGG16_WEIGHTS", str(tmp_path / "vgg16.pth"))
    sweep = ["model=basic_cnn,vgg16_frozen", "data.augment=false,true"]
    code, output = in_process("-m", *sweep, *TINY, f"hydra.sweep.dir={tmp_path}/sweep", cache)
    assert code == 0, output
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert len(folders) == 4
    metrics = [complete(folder) for folder in folders]
    assert all(re.match(r"data.augment=(True|False),.*,model=", folder.name) for folder in folders)
    assert len({each["test/loss"] for each in metrics}) == 4
    assert [each["parameters_frozen"] > 0 for each in metrics] == [False, True, False, True]
    in_process(*TINY, "model=basic_cnn", "data.augment=true", f"hydra.run.dir={tmp_path}/alone", cache)
    assert complete(tmp_path / "alone")["test/loss"] == metrics[2]["test/loss"]  # a job is a run like any other


@pytest.mark.parametrize(
    "model",
    [
        "model.channels=[4,8]",
        pytest.param(
            "model=pretrained model.backbone=resnet18 model.weights=null model.unfreeze=block5 "
            "model.unfreeze_at_epoch=1 model.layer_norm=false model.dropout=0 model.backbone_lr_scale=1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_train_to_the_same_accuracy_in_one_folder(tmp_path, in_process, in_shell, cache, model):
    runs = {}
    for trainer in ("cpu", "ddp_cpu"):
        folder = tmp_path / trainer
        arguments = [*TINY, f"trainer={trainer}", *model.split(), f"hydra.run.dir={folder}", cache]
        arguments += ["data.batch_size=10", "trainer.precision=32-true"]  # in which sums of another order differ least
        if trainer == "cpu":
            in_process(*arguments)
        else:  # it starts itself again
            result = in_shell(*arguments)
            assert result.returncode == 0, result.stderr
        runs[trainer] = complete(folder)
        text = (folder / "train.log").read_text()
        assert text.count("best validation accuracy") == text.count("epoch   2/2") == 1
        assert {path.name for path in folder.glob("*.log")} == {"train.log"}
        assert len(list(csv.DictReader((folder / "split.csv").open()))) == 72
    assert runs["ddp_cpu"]["test/loss"] == pytest.approx(runs["cpu"]["test/loss"], rel=1e-3)
    assert runs["ddp_cpu"]["val/acc_last"] == pytest.approx(runs["cpu"]["val/acc_last"])
    assert runs["ddp_cpu"]["images_test"] == runs["cpu"]["images_test"] == 16
    tables = [read_predictions(tmp_path / trainer / "predictions.csv") for trainer in runs]
    assert list(tables[0].files) == list(tables[1].files) and len(tables[0].files) == 32  # gathered from both
    np.testing.assert_allclose(tables[0].probabilities, tables[1].probabilities, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("decay", ["null", "0.9"])
def test_two_processes_evaluate_with_the_statistics_and_averages_of_the_checkpoint(
    tmp_path, in_shell, write_image, cache, decay
):
    """Of the first process, whatever the other one's batches were; each evaluates every second of five images."""
    for n, split in enumerate(["train"] * 12 + ["val"] * 5 + ["test"] * 5):
        write_image(tmp_path / "images" / split / ("cat" if n % 2 else "dog") / f"{n}.png", n)
    arguments = ["data=image_folder", f"data.root={tmp_path}/images", "data.image_size=32", "data.batch_size=2", cache]
    arguments += ["model=resnet_small", "model.channels=[4,8]", "model.blocks=[1,1]", "optimizer.lr=0.01"]
    arguments += [
        "trainer=ddp_cpu",
        "trainer.max_epochs=3",
        "trainer.precision=32-true",
        f"hydra.run.dir={tmp_path}/run",
    ]
    result = in_shell(*arguments, f"callbacks.ema.decay={decay}", "trainer.accumulate_grad_batches=2")
    assert result.returncode == 0, result.stderr
    model, table = load(tmp_path / "run"), read_predictions(tmp_path / "run" / "predictions.csv")
    assert list(table.splits) == ["val"] * 5 + ["test"] * 5
    np.testing.assert_allclose(model.predict(list(table.files)).probabilities, table.probabilities, atol=1e-6)


def test_several_devices_in_a_sweep_are_refused(tmp_path, in_process, cache):
    code, output = in_process("-m", "seed=0", *TINY, "trainer=ddp_cpu", f"hydra.sweep.dir={tmp_path}/sweep", cache)
    assert code == 1 and "trainer: several devices in a sweep are not supported" in output


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_launcher_runs_the_jobs_in_other_processes_with_the_same_results(
    tmp_path, in_process, in_shell, cache, launcher
):
    where = [f"hydra.sweep.dir={tmp_path}/sweep", cache, "trainer.precision=32-true"]
    result = in_shell("-m", f"hydra/launcher={launcher}", "seed=0,1", *TINY, *where)
    assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
    jobs = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir() and not path.name.startswith("."))
    metrics = [complete(job) for job in jobs]
    processes = {next(job.glob("events.out.tfevents*")).name.split(".")[-2] for job in jobs}
    assert len(jobs) == 2 and metrics[0]["test/loss"] != metrics[1]["test/loss"]
    assert launcher == "joblib" or len(processes) == 2  # joblib may give both to one fast process
    code, output = in_process("-m", "seed=1,0", *TINY, *where)  # by the basic launcher
    assert code == 0 and output.count("finished already") == 2
    in_process("seed=1", *TINY, f"hydra.run.dir={tmp_path}/alone", *where[1:])
    assert complete(tmp_path / "alone")["test/loss"] == pytest.approx(metrics[1]["test/loss"], rel=1e-4)


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/.*' is validated against ConfigStore schema")
def test_slurm_gets_what_the_config_says(composed):
    composed("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.sweep.dir=/sweep")
    launcher = instantiate(HydraConfig.get().launcher)
    assert launcher.params["partition"] == "gpu" and launcher.params["gpus_per_node"] == 1
    assert launcher.params["submitit_folder"] == "/sweep/.submitit/%j"


SMALL_CNN = ["model.channels=[4]", "model.dense=[16]"]


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw", "sgd"])
def test_gradients_can_be_clipped_with_every_optimizer(tmp_path, in_process, composed, cache, optimizer):
    """Lightning refuses to clip for fused optimizers in mixed precision."""
    assert optimizer == "rmsprop" or composed(f"optimizer={optimizer}").optimizer.fused
    settings = [*TINY, *SMALL_CNN, "trainer.precision=bf16-mixed", f"optimizer={optimizer}", "optimizer.lr=1e-2"]
    settings += ["callbacks=none", "logger=none", cache]
    change = {}
    for limit in ("null", "1e-12"):
        code, output = in_process(*settings, f"trainer.gradient_clip_val={limit}", f"hydra.run.dir={tmp_path}/{limit}")
        assert code == 0, output
        with open(tmp_path / limit / "epochs.csv", newline="", encoding="utf-8") as file:
            first, second = (float(row["val/loss"]) for row in csv.DictReader(file))
        change[limit] = abs(second / first - 1)
    assert change["1e-12"] < 1e-3 < change["null"]


def test_logger_csv(tmp_path, in_process, cache):
    settings = [*TINY, *SMALL_CNN, "logger=csv", "~callbacks.evaluation"]
    code, output = in_process(*settings, f"hydra.run.dir={tmp_path}/run", cache)
    assert code == 0, output
    expected = FILES - {"predictions.csv"} | {".lock", "hparams.yaml", "metrics.csv"}  # nor figures of predictions
    assert {path.name for path in (tmp_path / "run").iterdir()} == expected
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    logged = [float(row["val/acc"]) for row in rows if row["val/acc"]]
    assert len(logged) == 2 and max(logged) == pytest.approx(metrics["val/acc_best"])
    assert logged[-1] == pytest.approx(metrics["val/acc_last"])
    assert [float(row["test/acc"]) for row in rows if row["test/acc"]][-1] == pytest.approx(metrics["test/acc"])
    assert "epochs: 2" in (tmp_path / "run" / "hparams.yaml").read_text()


def test_the_traceback_of_a_user_error_is_in_the_log_and_printed_if_asked_for(tmp_path, in_process, monkeypatch):
    command = ["data=image_folder", f"data.root={tmp_path}/nowhere", f"hydra.run.dir={tmp_path}/run"]
    for asked in (False, True):
        monkeypatch.delenv("TRANSFER_LEARNING_TRACEBACKS", raising=False)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1" if asked else "0")
        code, output = in_process(*command)
        assert code == 1 and f"{tmp_path}/nowhere" in output and ("Traceback" in output) == asked
        assert "Traceback" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_logger_csv_has_each_epoch_once_after_a_resume(tmp_path, in_process, cache):
    in_process(*TINY, *SMALL_CNN, "logger=csv", f"hydra.run.dir={tmp_path}/run", cache)
    code, output = in_process(f"resume={tmp_path}/run", "trainer.max_epochs=3")
    assert code == 0, output
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["step"])) for row in rows if row["val/acc"]] == [1, 2, 3]


def test_without_a_logger_the_curves_are_a_picture(tmp_path, in_process, cache):
    code, output = in_process(*TINY, *SMALL_CNN, "logger=none", f"hydra.run.dir={tmp_path}/run", cache)
    assert code == 0 and "best validation accuracy" in output, output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {name for name in names if not OF_PREDICTIONS.fullmatch(name)} == FILES | {".lock"}
    assert {f"{name}-{split}.png" for name in ("confusion", "reliability") for split in ("val", "test")} < names


def test_without_callbacks_the_last_epoch_is_tested(tmp_path, in_process, cache):
    code, output = in_process(*TINY, *SMALL_CNN, "callbacks=none", f"hydra.run.dir={tmp_path}/run", cache)
    assert code == 0, output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == KEYS and metrics["epoch_best"] == 2 and metrics["test/acc"] is not None
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_a_test_the_results_of_the_test_are_null(tmp_path, in_process, cache):
    code, output = in_process(*TINY, *SMALL_CNN, "test=false", f"hydra.run.dir={tmp_path}/run", cache)
    assert code == 0 and "test accuracy" not in output, output
    metrics = complete(tmp_path / "run")
    assert [key for key in KEYS if metrics[key] is None] and metrics["monitor_best"] == metrics["val/acc_best"]
    assert {key for key in KEYS if metrics[key] is None} == {
        "test/acc", "test/acc_low", "test/acc_high", "test/loss", "images_test"
    }  # fmt: skip


def test_another_metric_may_choose_the_best_epoch(tmp_path, in_process, cache):
    where = [f"hydra.run.dir={tmp_path}/run", cache]
    code, output = in_process(*TINY, *SMALL_CNN, "monitor=val/macro_f1", *where)
    assert code == 0, output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == KEYS | {"test/macro_f1"}
    assert (metrics["monitor"], metrics["monitor_mode"]) == ("val/macro_f1", "max")
    assert all(0 <= metrics[key] <= 1 for key in ("monitor_best", "test/macro_f1"))
