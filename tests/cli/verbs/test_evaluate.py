import csv
import json
import re
import shutil

import numpy as np
import pytest

from tests.conftest import needs_linux_names
from transfer_learning import load
from transfer_learning.cli.verbs.evaluate import classes_table
from transfer_learning.engine import evaluation
from transfer_learning.reporting.prediction_table import read_predictions
from transfer_learning.utilities.files import file_sha256
from transfer_learning.utilities.text import printable

FIGURES = ("confusion", "reliability")


def test_own_splits_have_the_metrics_of_the_run(finished, verb):
    output = verb("evaluate", finished)
    assert output.code == 0, output.err
    folder = finished / "evaluations" / "val-test"
    assert output.out.splitlines()[-1] == str(folder)
    found, run = (
        json.loads((folder / "evaluation.json").read_text()),
        json.loads((finished / "metrics.json").read_text()),
    )
    assert (found["temperature"], found["tta"], found["folder"], found["splits"]) == (1.0, None, None, ["val", "test"])
    best = finished / "checkpoints" / "best.ckpt"
    assert (found["checkpoint"], found["checkpoint_sha256"]) == ("best.ckpt", file_sha256(best))
    assert set(found["files"]) | {"evaluation.json"} == {path.name for path in folder.iterdir()}
    assert found["test"]["accuracy"] == pytest.approx(run["test/acc"])
    assert found["test"]["loss"] == pytest.approx(run["test/loss"], abs=1e-3)
    assert found["val"]["accuracy"] == pytest.approx(run["val/acc_best"])
    assert [found["test"][f"accuracy_{end}"] for end in ("low", "high")] == [run["test/acc_low"], run["test/acc_high"]]
    assert all((folder / f"{name}-{split}.png").is_file() for name in FIGURES for split in ("val", "test"))
    own, again = read_predictions(finished / "predictions.csv"), read_predictions(folder / "predictions.csv")
    order = {digest: row for row, digest in enumerate(again.digests)}
    rows = np.array([order[digest] for digest in own.digests])
    np.testing.assert_allclose(again.probabilities[rows], own.probabilities, atol=2e-2)
    assert [again.splits[row] for row in rows] == list(own.splits)
    for word in ("balanced accuracy", "f1 macro", "auroc", "calibration error", "support", "dog"):
        assert word in output.out


def test_one_split_only(finished, verb):
    assert verb("evaluate", finished, "--split", "test").code == 0
    found = json.loads((finished / "evaluations" / "test" / "evaluation.json").read_text())
    assert "test" in found and "val" not in found and found["splits"] == ["test"]


def test_another_folder_with_other_classes_and_broken_images(finished, photographs_folder, verb, tmp_path):
    other = tmp_path / "field"
    shutil.copytree(photographs_folder / "dog", other / "Dogs")
    shutil.copytree(photographs_folder / "cat", other / "lynx")
    (other / "Dogs" / "broken.jpg").write_bytes(b"no image")
    output = verb("evaluate", finished, other, "--out", tmp_path / "results")
    assert output.code == 1  # an image was left out
    assert f"{other}/Dogs/broken.jpg: left out, not readable as an image" in output.err
    about = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    found = about["field"]
    assert about["folder"] == str(other) and about["splits"] == []
    assert found["images"] == 16 and found["classes"]["cat"]["support"] == 0 and found["auroc"] is None
    assert "undefined" in output.out
    files = sorted(map(str, (other / "Dogs").glob("*.png")))
    predicted = load(finished).predict(files)
    table = read_predictions(tmp_path / "results" / "predictions.csv")
    assert sorted(table.files) == files and set(table.splits) == {"field"} and set(table.labels) == {1}
    assert found["accuracy"] == pytest.approx(predicted.classes.count("dog") / 16)


def test_training_images_of_the_run_are_counted_in_another_folder(finished, photographs_folder, verb, tmp_path):
    with open(finished / "split.csv", newline="") as file:
        digests = {row["sha256"] for row in csv.DictReader(file) if row["split"] == "train"}
    others, mixed, note = tmp_path / "others", photographs_folder, "training images of this run: "
    files = [path for path in shutil.copytree(mixed, others).rglob("*.png") if file_sha256(path) in digests]
    assert 0 < len(files) == len(digests) < 32
    for path in files:
        path.unlink()
    for folder, count in {others: 0, mixed: len(files)}.items():
        output = verb("evaluate", finished, folder)
        found = json.loads((finished / "evaluations" / folder.name / "evaluation.json").read_text())[folder.name]
        assert output.code == 0 and found["training_images"] == count and (note in output.out) == (count > 0)
    assert f"{note}{len(files)} of 32, so the accuracy is too high here\n" in output.out
    (finished / "split.csv").unlink()
    output = verb("evaluate", finished, mixed, "--out", tmp_path / "unknown")
    assert output.code == 0 and "without the split.csv of the run it is not known whether these images" in output.out
    assert json.loads((tmp_path / "unknown" / "evaluation.json").read_text())[mixed.name]["training_images"] is None
    assert verb("evaluate", finished / "checkpoints" / "last.ckpt", mixed).code == 0


def test_runs_below_the_folder_of_the_images_are_no_images(photographs_folder, in_process, verb, tmp_path):
    photos = shutil.copytree(photographs_folder, tmp_path / "photos")
    settings = ["data=image_folder", f"data.root={photos}", "data.image_size=32", "data.batch_size=6", "trainer=cpu"]
    settings += ["model.channels=[4,8]", "trainer.max_epochs=1", "logger=none", "callbacks=[checkpoints,evaluation]"]
    for name in ("first", "second"):
        code, output = in_process(*settings, f"data.cache_dir={tmp_path}/cache", f"hydra.run.dir={photos}/runs/{name}")
        assert code == 0 and "left out, folders of runs or evaluations" in output, output
        assert re.search(r"^all  +20 +6 +6$", output, re.MULTILINE)
    for number in range(2):
        output = verb("evaluate", photos / "runs" / "first", "--out", photos / f"results{number}")
        assert output.code == 0, output.err


def test_calibration_is_kept_and_used(finished, photographs_folder, verb, monkeypatch):
    monkeypatch.setattr(evaluation, "fit_temperature", lambda *_: 1.7)  # such small data may have none
    file = photographs_folder / "cat" / "0.png"
    before = load(finished).predict([file]).probabilities
    output = verb("evaluate", finished, "--calibrate")
    assert output.code == 0 and output.out.startswith("temperature ")
    temperature = float(output.out.split()[1].rstrip(","))
    saved = json.loads((finished / "checkpoints" / "best.temperature.json").read_text())["temperature"]
    assert saved == pytest.approx(temperature, abs=1e-4) and temperature != 1
    results = json.loads((finished / "evaluations" / "val-test-calibrated" / "evaluation.json").read_text())
    assert results["temperature"] == saved
    odds = np.log(before[0, 1] / before[0, 0]) / saved
    expected = 1 / (1 + np.exp(-odds))
    model = load(finished)
    assert model.temperature == saved
    assert model.predict([file]).probabilities[0, 1] == pytest.approx(expected, abs=1e-4)


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_not_calibrated(finished, verb, monkeypatch):
    checkpoint = finished / "checkpoints" / "best.ckpt"

    def replaced(*_):
        checkpoint.write_bytes((finished / "checkpoints" / "last.ckpt").read_bytes())
        return 1.7

    monkeypatch.setattr(evaluation, "fit_temperature", replaced)
    output = verb("evaluate", checkpoint, "--calibrate")
    assert output.code == 1 and "best.ckpt: replaced by a training while its predictions were computed" in output.err
    assert not checkpoint.with_name("best.temperature.json").exists() and load(checkpoint).temperature == 1


def test_flip_is_named_in_the_results(finished, verb, monkeypatch):
    monkeypatch.setattr(evaluation, "fit_temperature", lambda *_: 1.7)
    for arguments, name in {(): "test-flip", ("--calibrate",): "test-calibrated-flip"}.items():
        output = verb("evaluate", finished, "--split", "test", "--tta", "flip", *arguments)
        assert output.code == 0 and "test-time augmentation: flip\n" in output.out
        folder = finished / "evaluations" / name
        results = json.loads((folder / "evaluation.json").read_text())
        assert results["tta"] == "flip" and results["temperature"] == (1.7 if arguments else 1.0)
        table = read_predictions(folder / "predictions.csv")
        expected = load(finished).predict(list(table.files), tta="flip").probabilities
        np.testing.assert_allclose(table.probabilities, expected, atol=1e-5)
    wrong = verb("evaluate", finished, "--tta", "rotate")
    assert wrong.code == 2 and "--tta: invalid choice: 'rotate'" in wrong.err


def test_nothing_is_overwritten_unasked(finished, photographs_folder, verb, tmp_path):
    own = (finished / "metrics.json").read_bytes(), (finished / "predictions.csv").read_bytes()
    verb("evaluate", finished)
    again = verb("evaluate", finished)
    assert again.code == 1 and again.err.splitlines()[-1] == (
        f"transfer-learning: {finished}/evaluations/val-test: exists already. "
        "Choose another name with --out, or add --overwrite."
    )
    assert verb("evaluate", finished, "--overwrite").code == 0
    assert ((finished / "metrics.json").read_bytes(), (finished / "predictions.csv").read_bytes()) == own


def test_mistakes_are_one_line(finished, photographs_folder, verb, tmp_path, original):
    lone = tmp_path / "lone.ckpt"
    shutil.copy(finished / "checkpoints" / "best.ckpt", lone)
    (tmp_path / "birds" / "bird").mkdir(parents=True)
    shutil.copy(photographs_folder / "cat" / "0.png", tmp_path / "birds" / "bird")
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "1.png").write_bytes(b"no image")
    for arguments, message in {
        (lone,): f"{lone}: not in the folder of a run, which has config.yaml and checkpoints/.",
        (
            finished,
            tmp_path / "birds",
        ): f"{tmp_path}/birds: no images of cat, dog; expected a folder of class folders",
        (finished, tmp_path / "broken"): f"{tmp_path}/broken/cat/1.png: not readable as an image (Unidentified",
        (finished, tmp_path / "nowhere"): f"{tmp_path}/nowhere: no such folder",
        (tmp_path / "birds",): f"{tmp_path}/birds: not a run",
    }.items():
        output = verb("evaluate", *arguments)
        assert output.code == 1 and "Traceback" not in output.err
        assert output.err.splitlines()[-1].startswith(f"transfer-learning: {message}")
    assert verb("evaluate", lone, photographs_folder, "--out", tmp_path / "of_lone").code == 0


def test_own_images_that_have_changed_are_refused(finished, verb, tmp_path):
    rows = (finished / "split.csv").read_text().splitlines()
    (finished / "split.csv").write_text("\n".join(rows[:-2]) + "\n")
    output = verb("evaluate", finished)
    assert output.code == 1 and "this run began with other images (2 differ)" in output.err.splitlines()[-1]
    (finished / "split.csv").unlink()
    output = verb("evaluate", finished)
    assert output.code == 1 and "split.csv: missing, so this run's images cannot be checked" in output.err


def test_options_that_would_be_ignored_are_refused(finished, photographs_folder, verb):
    output = verb("evaluate", finished, photographs_folder, "--split", "test")
    assert output.code == 1 and output.err.startswith("transfer-learning: --split: it is for the run's own images")


def test_folder_that_is_called_like_a_split_is_not_the_validation(
    finished, photographs_folder, verb, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation, "fit_temperature", lambda *_: 1.7)
    shutil.copytree(photographs_folder, tmp_path / "val")
    output = verb("evaluate", finished, tmp_path / "val", "--calibrate", "--out", tmp_path / "results")
    assert output.code == 0 and "validation split, before" in output.out and "val, after" in output.out


def test_nothing_is_left_if_the_results_cannot_be_written(finished, verb, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfer_learning.reporting.figures.write_png", fail)
    output = verb("evaluate", finished, "--out", tmp_path / "results")
    assert output.code == 1 and "No space left on device" in output.err and not (tmp_path / "results").exists()


def test_figures_of_earlier_results_are_removed_and_nothing_else(finished, verb, tmp_path):
    verb("evaluate", finished, "--out", tmp_path / "results")
    (tmp_path / "results" / "mistakes-2024.png").write_text("mine")
    assert verb("evaluate", finished, "--split", "test", "--out", tmp_path / "results", "--overwrite").code == 0
    figures = {path.stem.split("-")[1] for path in (tmp_path / "results").glob("*.png")}
    assert figures == {"test", "2024"} and not list((tmp_path / "results").glob(".*"))


def test_a_failure_leaves_the_old_evaluation(finished, verb, tmp_path, monkeypatch):
    out = tmp_path / "results"
    verb("evaluate", finished, "--out", out)
    old = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfer_learning.reporting.figures.write_png", fail)
    output = verb("evaluate", finished, "--split", "test", "--out", out, "--overwrite")
    assert output.code == 1 and "No space left on device" in output.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == old


@pytest.mark.parametrize("verb_name", ["evaluate", "audit", "predict"])
def test_results_are_not_written_to_the_folder_of_a_run(finished, photographs_folder, verb, verb_name):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    arguments = [photographs_folder, "--explain"] if verb_name == "predict" else ["--out"]
    output = verb(verb_name, finished, *arguments, finished, "--overwrite")
    assert output.code == 1 and output.err.startswith(f"transfer-learning: {finished}: the folder of a run, which")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_results_are_not_written_among_the_images(finished, photographs_folder, verb, tmp_path):
    (tmp_path / "link").symlink_to(photographs_folder)
    before = sorted(photographs_folder.rglob("*"))
    for verb_name, option in {"evaluate": "--out", "predict": "--explain"}.items():
        for out in (photographs_folder, tmp_path / "link"):
            output = verb(verb_name, finished, photographs_folder, option, out, "--overwrite")
            reason = "the folder of the images; expected a folder of its own."
            assert output.code == 1 and output.err == f"transfer-learning: {option} {out}: {reason}\n"
    assert sorted(photographs_folder.rglob("*")) == before


def test_evaluations_of_something_else_are_named_and_kept(finished, photographs_folder, verb, tmp_path):
    checkpoints, evaluations = finished / "checkpoints", finished / "evaluations"
    assert verb("evaluate", finished, "--split", "val").code == 0
    assert verb("evaluate", checkpoints / "last.ckpt", "--split", "val").code == 0
    shutil.copytree(photographs_folder, tmp_path / "val")
    assert verb("evaluate", finished, tmp_path / "val").code == 0
    assert {path.name for path in evaluations.iterdir()} == {"val", "last-val", "folder-val"}
    shutil.copytree(tmp_path / "val", tmp_path / "other" / "val")
    other = verb("evaluate", finished, tmp_path / "other" / "val")
    assert other.code == 1 and (
        f"/folder-val: exists already, an evaluation of best.ckpt on {tmp_path}/val. Choose another name" in other.err
    )
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "best.ckpt")
    extended = verb("evaluate", finished, "--split", "val")
    assert extended.code == 1 and (
        "/val: exists already, an evaluation of an earlier best.ckpt on the run's val images. Choose" in extended.err
    )
    (evaluations / "val" / "evaluation.json").write_text('{"temperature": 1.0, "val": {}}')
    older = verb("evaluate", finished, "--split", "val", "--overwrite")
    assert older.code == 1 and "/val: its evaluation.json is damaged. Delete it" in older.err


@needs_linux_names
@pytest.mark.parametrize("name", ["temperature", "files", "bad\udcff \x1b[31m", "猫" * 80, "validation split"])
def test_names_of_folders(finished, photographs_folder, verb, tmp_path, monkeypatch, name):
    monkeypatch.setattr(evaluation, "fit_temperature", lambda *_: 1.7)
    for label in ("cat", "dog"):
        (tmp_path / name / label).mkdir(parents=True)
        shutil.copy(photographs_folder / label / f"{int(label == 'dog')}.png", tmp_path / name / label)
    output = verb("evaluate", finished, tmp_path / name, "--calibrate")
    assert output.code == 0 and "\x1b" not in output.out, output.err
    header = next(line for line in output.out.splitlines() if "before" in line)
    assert header.count("before") == 2 and header.count("after") == 2
    (folder,) = (finished / "evaluations").iterdir()
    found = json.loads((folder / "evaluation.json").read_text())
    shown = f"folder-{name}" if name in ("temperature", "files") else printable(name)
    assert found["temperature"] == 1.7 and found[shown]["images"] == 2
    assert set(read_predictions(folder / "predictions.csv").splits) == {shown}
    assert len(list(folder.glob("confusion-*.png"))) == 1


def test_of_many_classes_those_with_the_lowest_f1_are_shown():
    def metrics(count):
        return {"classes": {f"class {n}": {"precision": 1.0, "f1": (n * 7 % count) / count} for n in range(count)}}

    few = classes_table({"val": metrics(3), "test": metrics(3)}).splitlines()
    assert len(few) == 2 + 6
    many = classes_table({"test": metrics(1000)}).splitlines()
    assert len(many) == 2 + 20 + 1 and many[-1] == (
        "test: the 20 classes with the lowest F1; evaluation.json has all 1,000"
    )
    shown = [float(line.split()[-1]) for line in many[2:-1]]
    assert shown == [n / 1000 for n in range(20)]


def test_of_many_classes_those_without_images_come_last():
    classes = {f"class {n}": {"f1": n / 40 if n >= 15 else 0.0, "support": 5 * (n >= 15)} for n in range(40)}
    lines = classes_table({"test": {"classes": classes}}).splitlines()[2:-1]
    assert [line.split()[2] for line in lines] == [str(n) for n in range(15, 35)]
