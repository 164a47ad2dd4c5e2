import json
import re

import pytest
import torch

from transfer_learning.cli.main import main
from transfer_learning.data.digests import FileDigests
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.engine import export as export_module
from transfer_learning.engine.calibration import write_temperature
from transfer_learning.utilities.files import file_sha256


@pytest.fixture
def call(capfd):
    """call(*arguments) -> (exit code, stdout, stderr) of the program."""

    def run(*arguments):
        with pytest.raises(SystemExit) as raised:
            main(["export", *map(str, arguments)])
        output, errors = capfd.readouterr()
        code = raised.value.code
        return (code, output, errors) if isinstance(code, int) else (1, output, f"{errors}{code}\n")

    return run


def metadata_of(path):
    extra = {export_module.METADATA: ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra[export_module.METADATA])


def test_a_run_becomes_an_onnx_file_in_its_folder(run_folder, call):
    for module in export_module.FORMATS["onnx"].modules:
        pytest.importorskip(module)
    code, output, errors = call(run_folder)
    assert (code, errors) == (0, "")  # torch and onnxscript print and warn much
    first, second = output.splitlines()
    assert first == f"{run_folder}/model.onnx: {(run_folder / 'model.onnx').stat().st_size / 1e6:.2f} MB, float32"
    assert re.fullmatch(r"largest difference on 16 cartoons: \d.\de-\d\d from the model in float32, .* trained", second)
    assert {file.name for file in run_folder.iterdir()} == {"checkpoints", "metrics.json", "model.onnx"}


def test_a_checkpoint_becomes_a_file_beside_it_with_its_calibration(run_folder, call):
    checkpoint = run_folder / "checkpoints" / "best.ckpt"
    write_temperature(checkpoint, 2.5, file_sha256(checkpoint))
    code, output, errors = call(checkpoint, "--format", "torch-export")
    assert (code, errors) == (0, "") and output.startswith(f"{checkpoint.with_suffix('.pt2')}: ")
    about = metadata_of(checkpoint.with_suffix(".pt2"))
    assert (about["temperature"], about["resize"], about["image_size"]) == ("2.5", "crop", "32")


def test_labelled_images_give_both_accuracies(run_folder, tmp_path, call):
    drawn = Cartoons(3, 1, 1).list_images(FileDigests())
    for index, code in enumerate(drawn.labels):
        path = tmp_path / "photos" / drawn.class_names[code] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.read(index).save(path)
    (tmp_path / "photos" / "cat" / "broken.jpg").write_text("no image")
    out = tmp_path / "cats.pt2"
    code, output, errors = call(run_folder, "--format", "torch-export", "--out", out, "--verify", tmp_path / "photos")
    assert code == 1 and out.exists() and not (run_folder / "model.pt2").exists()
    assert "largest difference on 10 images: " in output
    accuracies = re.search(r"^accuracy: (\S+) of the file, (\S+) of the model as it was trained$", output, re.MULTILINE)
    assert accuracies and accuracies[1] == accuracies[2] and float(accuracies[1]) in [n / 10 for n in range(11)]
    assert errors.count("\n") == 1 and "broken.jpg: left out, not readable as an image" in errors


def test_training_images_among_those_of_the_check_are_counted(run_folder, tmp_path, call):
    drawn = Cartoons(3, 1, 1).list_images(FileDigests())
    rows = ["split,class,sha256,file"]
    for index, code in enumerate(drawn.labels):
        path = tmp_path / "photos" / drawn.class_names[code] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.read(index).save(path)
        rows.append(f"{'train' if index < 4 else 'val'},{drawn.class_names[code]},{file_sha256(path)},{path}")
    (run_folder / "split.csv").write_text("\n".join(rows))
    code, output, _ = call(run_folder, "--format", "torch-export", "--verify", tmp_path / "photos")
    assert code == 0
    assert output.splitlines()[-1] == "training images of this run: 4 of 10, so the accuracy is too high here"


def test_an_existing_file_is_replaced_only_with_overwrite(run_folder, call):
    file = run_folder / "model.pt2"
    file.write_text("an older file")
    code, _, errors = call(run_folder, "--format", "torch-export")
    assert code == 1 and errors == (
        f"transfer-learning: {file}: exists already. Choose another name with --out, or add --overwrite.\n"
    )
    assert file.read_text() == "an older file"
    assert call(run_folder, "--format", "torch-export", "--overwrite")[0] == 0
    assert metadata_of(file)["class_names"] == '["cat", "dog"]'


def test_a_failed_check_leaves_no_file(run_folder, call, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    code, output, errors = call(run_folder, "--format", "torch-export")
    assert (code, output) == (1, "") and errors.count("\n") == 1 and "not written" in errors
    assert {file.name for file in run_folder.iterdir()} == {"checkpoints", "metrics.json"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "model.pt2"], "--out model.pt2: expected a name that ends in .onnx, for --format onnx."),
        (["--out", "nowhere/model.onnx"], "nowhere/model.onnx: there is no folder "),
        (["--verify", "nowhere"], "nowhere: no such folder; expected"),
        (["--verify", "."], ".: no images of cat, dog; expected"),
    ],
)
def test_mistakes_are_one_line(run_folder, tmp_path, call, monkeypatch, arguments, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, output, errors = call(run_folder, *arguments)
    assert (code, output) == (1, "") and errors.count("\n") == 1
    assert errors.startswith(f"transfer-learning: {message}")
