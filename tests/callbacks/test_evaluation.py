import json

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning import load
from transfer_learning.callbacks.evaluation import Evaluation, grad_cam_overlays
from transfer_learning.engine.training import train
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.reporting.prediction_table import read_predictions

SPLITS = ("val", "test")
FIGURES = {f"{name}-{split}.png" for name in ("confusion", "reliability", "mistakes") for split in SPLITS}


@pytest.fixture
def run(tmp_path, small_data, small_model, quiet_trainer):
    """run(folder, evaluation, **settings of train and of the trainer) -> (folder, data, metrics).

    False for no Evaluation.
    """

    def make(name="run", evaluation=None, epochs=5, model=None, test=True, resume=None, mode="min", **settings):
        folder, data = tmp_path / name, small_data()
        kept = dict(dirpath=folder / "checkpoints", enable_version_counter=False)
        callbacks = [
            *([] if evaluation is False else [evaluation or Evaluation()]),
            ModelCheckpoint(filename="best", monitor="val/loss", mode=mode, save_weights_only=True, **kept),
            ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **kept),
        ]
        trainer = quiet_trainer(
            max_epochs=epochs, default_root_dir=folder, enable_checkpointing=True, callbacks=callbacks, **settings
        )
        return folder, data, train(data, model or small_model(learning_rate=0.05), trainer, test=test, resume=resume)

    return make


def probabilities(folder, data, split, checkpoint="best"):
    """Of a checkpoint, in plain torch, in the order of the split's sorted indices."""
    indices = np.sort(data.splits[split])
    images = torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        return indices, load(folder / "checkpoints" / f"{checkpoint}.ckpt")(images).numpy()


def check(folder, data, splits=SPLITS):
    table = read_predictions(folder / "predictions.csv")
    assert set(table.splits) == set(splits)
    for split in splits:
        indices, expected = probabilities(folder, data, split)
        part = table.of(split)
        assert list(part.files) == [data.images.names[n] for n in indices]
        assert list(part.digests) == [data.images.digests[n] for n in indices]
        assert np.array_equal(part.labels, data.labels[indices])
        np.testing.assert_allclose(part.probabilities, expected, rtol=0, atol=1e-5)


def test_tables_are_those_of_the_best_checkpoint(run):
    folder, data, metrics = run()
    assert 1 < metrics["epoch_best"] < 5  # the last epoch would be another table
    check(folder, data)
    table = read_predictions(folder / "predictions.csv").of("test")
    assert (table.predicted == table.labels).mean() == pytest.approx(metrics["test/acc"])


def test_without_a_test_the_table_and_the_model_are_those_of_the_best_epoch(run, small_model):
    model = small_model(learning_rate=0.05)
    folder, data, metrics = run(model=model, test=False)
    assert 1 < metrics["epoch_best"] < 5
    check(folder, data, ["val"])
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not list(folder.glob("*-test.png"))


def test_resumed_run_has_the_table_of_an_epoch_before_the_interruption(run):
    expected, _, metrics = run("whole")
    best = metrics["epoch_best"]
    folder, _, _ = run("resumed", epochs=best)
    (folder / "predictions.csv").unlink()
    (folder / "metrics.json").unlink()
    _, data, _ = run("resumed", resume=folder / "checkpoints" / "last.ckpt")
    check(folder, data)
    assert (folder / "predictions.csv").read_bytes() == (expected / "predictions.csv").read_bytes()


@pytest.mark.parametrize("state", [{"images": "of other images"}, None])
def test_predictions_of_moved_images_are_not_taken_from_a_checkpoint(run, state):
    """As after a resume with a copy that comes first. None: a checkpoint of a program that did not keep the images."""
    _, _, metrics = run("whole")
    folder, _, _ = run("resumed", epochs=metrics["epoch_best"])
    (folder / "metrics.json").unlink()
    last = folder / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    kept = saved["callbacks"]["Evaluation"]
    kept["best"]["indices"] = kept["best"]["indices"].flip(0)
    if state is None:
        kept.pop("images", None)
    torch.save(saved | {"callbacks": saved["callbacks"] | {"Evaluation": kept | (state or {})}}, last)
    _, data, resumed = run("resumed", resume=last)
    assert resumed["epoch_best"] == metrics["epoch_best"]
    check(folder, data)


def test_best_epoch_that_was_not_kept_is_validated_again(run):
    class Absent(Evaluation):
        def on_validation_end(self, trainer, model): ...

        def state_dict(self):
            return {"best": {}, "epoch": None}

        def on_run_end(self, trainer, model, best_epoch): ...

    folder, _, metrics = run(evaluation=Absent(), epochs=3)
    assert metrics["epoch_best"] == 2 and not (folder / "predictions.csv").exists()
    _, data, _ = run(epochs=3, resume=folder / "checkpoints" / "last.ckpt")
    check(folder, data)


def test_checkpoint_that_does_not_save_each_epoch(tmp_path, small_data, small_model, quiet_trainer):
    """The fourth epoch is better, but only the third is saved."""
    data = small_data()
    settings = dict(monitor="val/loss", mode="min", every_n_epochs=3, save_weights_only=True)
    best = ModelCheckpoint(tmp_path / "checkpoints", "best", **settings)
    trainer = quiet_trainer(
        max_epochs=5, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[Evaluation(), best]
    )
    assert train(data, small_model(learning_rate=0.05), trainer)["epoch_best"] == 3
    check(tmp_path, data)


def test_table_is_written_when_the_metric_improves_and_not_otherwise(run, small_model):
    """The file as it is at the end of each epoch belongs to the best epoch so far."""
    seen = []

    class Watching(Evaluation):
        def on_train_epoch_start(self, trainer, model):
            if trainer.current_epoch:
                table = read_predictions(f"{trainer.default_root_dir}/predictions.csv")
                of_label = table.probabilities[np.arange(len(table.files)), table.labels]
                seen.append((float(-np.log(of_label).mean()), [row["val/loss"] for row in model.history.rows]))

    run(evaluation=Watching())
    assert len(seen) == 4
    for loss, losses in seen:
        assert loss == pytest.approx(min(losses), abs=1e-5)


def test_metric_of_the_training_may_be_monitored(tmp_path, small_data, small_model, quiet_trainer):
    data = small_data()
    best = ModelCheckpoint(tmp_path / "checkpoints", "best", monitor="train/loss", mode="min", save_weights_only=True)
    trainer = quiet_trainer(
        max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[Evaluation(), best]
    )
    train(data, small_model(), trainer)
    check(tmp_path, data)


def test_figures_in_the_folder_and_in_tensorboard(run, tmp_path):
    logger = TensorBoardLogger(tmp_path / "run", name="", version="", default_hp_metric=False)
    folder, _, _ = run(logger=logger)
    table = read_predictions(folder / "predictions.csv")
    wrong = {split: (table.of(split).predicted != table.of(split).labels).sum() for split in SPLITS}
    assert all(wrong.values())
    assert {path.name for path in folder.glob("*.png")} == FIGURES | {"gradcam-val.png", "curves.png"}
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    expected = {path.removesuffix(".png").replace("-", "/") for path in FIGURES | {"gradcam-val.png"}}
    assert set(events.Tags()["images"]) == expected
    assert all(Image.open(path).size[0] > 100 for path in folder.glob("*.png"))


def test_numbers_of_shown_images_may_be_changed(run):
    folder, _, _ = run(evaluation=Evaluation(mistakes=0, explained=0))
    assert not list(folder.glob("mistakes-*")) and not list(folder.glob("gradcam-*"))
    assert (folder / "confusion-val.png").exists()


def test_stored_features_and_a_network_without_maps(run, classifier):
    """The images of Grad-CAM pass the frozen part, whose features are stored; a transformer has no Grad-CAM."""
    for backbone, has_maps in (("resnet18", True), ("vit_b_16", False)):
        torch.manual_seed(0)
        network = Pretrained(2, 32, backbone, weights=None)
        model = classifier(network, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
        folder, data, _ = run(backbone, model=model, epochs=1)
        assert (folder / "gradcam-val.png").exists() is has_maps
        if has_maps:
            check(folder, data)


def test_interrupted_epoch_that_left_a_better_checkpoint(run):
    """The checkpoint on the disk is that of an interrupted epoch: its validation is repeated, and the table is its."""
    folder, data, _ = run(epochs=3)
    (folder / "metrics.json").unlink()
    path = folder / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["network.trainable.9.bias"] += 5  # another model than that of the last complete epoch
    torch.save(saved, path)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for state in last["callbacks"].values():
        if state.get("monitor"):
            state["best_model_score"] = torch.tensor(-1.0)
            state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(-1.0))
    torch.save(last, folder / "checkpoints" / "last.ckpt")
    run(epochs=4, resume=folder / "checkpoints" / "last.ckpt")
    check(folder, data)


def test_overlays_have_the_size_of_the_images(small_data, small_model):
    data, model = small_data(), small_model().eval()
    overlays = grad_cam_overlays(model, data.pixels[:3], np.array([0, 1, 1]))
    assert [each.shape for each in overlays] == [(32, 32, 3)] * 3
    assert not np.array_equal(overlays[0], data.pixels[0])


def test_results_are_the_same_without_it(run):
    metrics = []
    for name, evaluation in (("with", None), ("without", False)):
        folder, _, _ = run(name, evaluation)
        assert (folder / "predictions.csv").exists() == (name == "with")
        found = json.loads((folder / "metrics.json").read_text())
        metrics.append({key: value for key, value in found.items() if not key.startswith("seconds")})
    assert metrics[0] == metrics[1]
