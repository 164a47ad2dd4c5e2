import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_learning.data.images import unlabelled
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine import export as export_module
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.export import FORMATS, METADATA, compare, export, metadata
from transfer_learning.engine.inference import Inference
from transfer_learning.models.cnn import CNN
from transfer_learning.models.network import Frozen, Network
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities import errors
from transfer_learning.utilities.errors import UserError

DOCS = (errors.__file__.rsplit("/src/", 1)[0]) + "/docs/onnx.md"
SIZE = 32


def cnn(num_classes):
    return CNN(num_classes, SIZE, channels=[4, 8], dense=[16], dropout=0.5)


def frozen_vgg(num_classes):
    """Its batch norms have statistics that matter."""
    network = Pretrained(num_classes, SIZE, "vgg11_bn", weights=None)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return network


def model_of(build, num_classes, temperature, precision="32-true", **preprocessing):
    """A model whose probabilities differ from image to image: its logits have mean 0 and standard deviation 1."""
    torch.manual_seed(0)
    names = ("cat", "dog", "höhle")[:num_classes]
    model = Classifier(build(num_classes), names, Preprocessing(SIZE, **preprocessing)).eval()
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        logits = model.logits(torch.tensor(np.moveaxis(pixels(40), 3, 1) / 255.0))
        last.weight.div_(logits.std(dim=0)[:, None])
        last.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))
    model.temperature, model.trained_precision = temperature, precision
    return model


def pixels(count, seed=0):
    """Red, green and blue are of different brightness."""
    random = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3))
    return (random * (1.0, 0.6, 0.2)).astype(np.uint8)


def reference(model, images, temperature=None):
    """Probabilities in float64, from the network and the textbook's formulas."""
    with torch.no_grad():
        logits = deepcopy(model.network).double()(torch.tensor(np.moveaxis(images, 3, 1) / 255.0)).numpy()
    logits /= temperature or model.temperature
    if logits.shape[1] == 1:
        return np.concatenate([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], axis=1)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


MODELS = {"cnn": (cnn, 2, 1.7), "cnn, 3 classes": (cnn, 3, 0.6), "frozen VGG": (frozen_vgg, 3, 2.5)}


@pytest.fixture(scope="module")
def export_once(tmp_path_factory):
    """export_once(name, file_format) -> a model and its file."""
    done = {}

    def run(name, file_format):
        for module in FORMATS[file_format].modules:
            pytest.importorskip(module)
        if (name, file_format) == ("frozen VGG", "onnx") and torch.__version__.startswith("2.6"):
            pytest.skip("torch 2.6 cannot write ONNX files of networks with batch norms")
        if (name, file_format) not in done:
            path = tmp_path_factory.mktemp("export") / f"model{FORMATS[file_format].suffix}"
            model = model_of(*MODELS[name], resize="pad")
            check = export(model, path, file_format, unlabelled(list(pixels(9))))
            assert check.images == 9 and check.difference < 1e-5
            done[name, file_format] = model, path
        return done[name, file_format]

    return run


@pytest.fixture(params=[(name, form) for name in MODELS for form in FORMATS], ids=", ".join)
def exported(request, export_once):
    """A model, its file and the file's format."""
    return *export_once(*request.param), request.param[1]


def test_pixels_become_the_probabilities_of_the_network(exported):
    model, path, form = exported
    run, images = FORMATS[form].open(str(path)), pixels(8, seed=1)
    swapped, dark = images[..., ::-1], images // 2
    expected, with_swapped, with_dark = np.split(reference(model, np.concatenate([images, swapped, dark])), 3)
    for batch in (slice(0, 1), slice(1, 3), slice(3, 8)):
        found = run(images[batch])
        assert found.dtype == np.float32 and np.abs(found - expected[batch]).max() < 1e-5
    # A file that confuses colours, ranges or temperatures would be noticed.
    for other in (with_swapped, with_dark, reference(model, images, temperature=1.0)):
        assert np.abs(other - expected).max() > 1e-3


def test_the_file_tells_how_to_use_it(exported):
    model, path, form = exported
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        found = session.get_modelmeta().custom_metadata_map
        (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
        assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [SIZE, SIZE, 3])
        assert (probabilities.name, probabilities.shape[1:]) == ("probabilities", [len(model.class_names)])
        assert isinstance(images.shape[0], str) and images.shape[0] == probabilities.shape[0]
    else:
        extra = {METADATA: ""}
        torch.export.load(path, extra_files=extra)
        found = json.loads(extra[METADATA])
    assert found == metadata(model)


def test_the_file_is_alone_and_names_no_path_of_this_machine(exported):
    _, path, _ = exported
    assert list(path.parent.iterdir()) == [path]
    assert not re.search(rb"/[\w./-]+/transfer_learning/|site-packages", path.read_bytes())


@pytest.mark.parametrize("settings", [("bilinear", "stretch"), ("bicubic", "crop"), ("nearest", "pad")])
def test_metadata_are_texts(settings):
    model = model_of(cnn, 3, 0.123456789012345, interpolation=settings[0], resize=settings[1])
    found = metadata(model)
    assert all(isinstance(value, str) for value in found.values())
    assert json.loads(found["class_names"]) == ["cat", "dog", "höhle"]
    assert (found["image_size"], found["interpolation"], found["resize"]) == (str(SIZE), *settings)
    assert float(found["temperature"]) == 0.123456789012345
    settings = ["image_size", "interpolation", "resize", "depth", "crop_pct"]
    assert set(found) == {*settings, "class_names", "temperature", "input", "output"}
    assert f"(N, {SIZE}, {SIZE}, 3) uint8" in found["input"] and "(N, 3) float32" in found["output"]


@pytest.mark.parametrize("wrong", [lambda p: p + 0.0011, lambda p: p * torch.nan])
def test_a_file_that_differs_from_the_model_is_not_written(tmp_path, monkeypatch, wrong):
    right = export_module.PixelsToProbabilities.forward
    monkeypatch.setattr(export_module.PixelsToProbabilities, "forward", lambda self, images: wrong(right(self, images)))
    path = tmp_path / "model.pt2"
    path.write_text("an older file")
    with pytest.raises(UserError, match=r"model.pt2: not written, .* (0.0011|nan), more than 0.001\.$"):
        export(model_of(cnn, 2, 1.0), path, "torch-export", unlabelled(list(pixels(3))))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"] and path.read_text() == "an older file"


def test_the_check_measures_differences_and_accuracies(tmp_path):
    images = pixels(50)
    exact, model = model_of(cnn, 3, 1.0), model_of(cnn, 3, 1.0, precision="bf16-mixed")
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    listed = unlabelled([*images, broken])
    expected = reference(model, images)
    batches, labels = [], expected.argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 3  # so 40 of 50 are right
    listed.labels[:50] = labels

    def run(batch):
        batches.append(len(batch))
        found = reference(model, batch)
        if len(batches) == 2:
            found[1] = np.eye(3)[labels[2]]  # the third image becomes right
        return found

    check = compare(run, exact, model, listed)
    difference = np.abs(np.eye(3)[labels[2]] - expected[2]).max()
    assert batches == [1, 2, 5, 32, 10] and check.images == 50 and list(check.unreadable) == [str(broken)]
    assert check.difference == pytest.approx(difference, abs=1e-6) and check.difference > 0.1
    assert check.trained_difference == pytest.approx(difference, abs=0.05)
    assert check.trained_difference != check.difference
    assert check.accuracy == 0.82
    bf16 = Inference(model, "cpu").probabilities(images).argmax(axis=1)
    assert check.trained_accuracy == np.mean(bf16 == labels) <= 0.8
    with pytest.raises(UserError, match="none of the images"):
        compare(run, exact, model, unlabelled([broken]))


@pytest.mark.parametrize("depth", [None, "image"])
def test_the_check_names_dark_images_in_one_line(tmp_path, caplog, depth):
    exact = model_of(cnn, 3, 1.0, depth=depth)
    for n in range(12):
        values = np.random.default_rng(n).integers(0, 4096, (20, 20)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{n}.png")
    listed = unlabelled([tmp_path / f"{n}.png" for n in range(12)])
    with caplog.at_level("INFO"):
        check = compare(lambda batch: reference(exact, batch), exact, exact, listed)
    lines = [record.getMessage() for record in caplog.records if "full range" in record.getMessage()]
    assert check.images == 12 and len(lines) == (depth is None)
    assert not lines or lines[0].startswith(f"12 images such as {tmp_path}/0.png: values from")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_a_file_is_float32_whatever_the_training(tmp_path, precision):
    model, images = model_of(cnn, 2, 1.7, precision), pixels(4)
    Inference(model, "cpu")  # a prediction before the export converts the weights
    expected = reference(model, images)
    check = export(model, tmp_path / "model.pt2", "torch-export", unlabelled(list(images)))
    found = FORMATS["torch-export"].open(str(tmp_path / "model.pt2"))(images)
    assert check.difference < 1e-6 and np.abs(found - expected).max() < 1e-5
    assert (check.trained_difference > 1e-4) == precision.startswith("bf16")
    assert model.trained_precision == precision


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r"needs onnxscript, .* pip install -e '\.\[export\]'$"):
        export(model_of(cnn, 2, 1.0), tmp_path / "model.onnx", "onnx", unlabelled(list(pixels(1))))


class Undecided(torch.nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images


class Undecidable(Network):
    def __init__(self, num_classes):
        layers = Undecided(), torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 1), torch.nn.Flatten()
        super().__init__(Frozen(), torch.nn.Sequential(*layers), {})


def test_a_network_that_cannot_be_exported_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"model.pt2: torch .* cannot export .* as torch-export \(\w+: .*\)\."
    ) as raised:
        export(model_of(Undecidable, 2, 1.0), tmp_path / "model.pt2", "torch-export", unlabelled(list(pixels(1))))
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def docs_lines():
    """The first Python block of the page."""
    with open(DOCS, encoding="utf-8") as file:
        return re.search(r"```python\n(.*?)```", file.read(), re.DOTALL)[1]


def photograph(path):
    """A photograph that the camera turned, twice as wide as high."""
    rows = np.linspace(0, 255, 60)[:, None, None] * (1.0, 0.5, 0.1) + np.linspace(0, 90, 120)[None, :, None]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(path, exif=exif)


@pytest.mark.parametrize(
    "settings",
    [("bilinear", "stretch", None, 1.0), ("bicubic", "crop", None, 0.875), ("nearest", "pad", None, 0.5)],
)
def test_the_lines_of_the_page_predict_as_the_project(export_once, tmp_path, monkeypatch, capsys, settings):
    onnx = pytest.importorskip("onnx")
    model, path = export_once("cnn, 3 classes", "onnx")
    model = deepcopy(model)
    model.preprocessing = Preprocessing(SIZE, *settings)
    file = onnx.load(path)
    onnx.helper.set_model_props(file, metadata(model))
    onnx.save(file, tmp_path / "model.onnx")
    photograph(tmp_path / "photo.jpg")
    expected = model.predict([tmp_path / "photo.jpg"], "cpu").probabilities[0]
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    exec(docs_lines(), {})
    printed = eval(capsys.readouterr().out)
    assert list(printed) == ["cat", "dog", "höhle"] and list(printed.values()) == pytest.approx(expected, abs=1e-5)


def test_the_lines_for_torch_predict_as_the_project(export_once, tmp_path, monkeypatch, capsys):
    model, path = export_once("cnn, 3 classes", "torch-export")
    shutil.copy(path, tmp_path / "model.pt2")
    photograph(tmp_path / "photo.jpg")
    expected = model.predict([tmp_path / "photo.jpg"], "cpu").probabilities[0]
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    with open(DOCS, encoding="utf-8") as file:
        onnx_lines, loading, printing = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    lines = onnx_lines.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("session = ")]
    assert lines[start + 1].startswith("about = ") and lines[-1].startswith("print(")
    lines = ["import json, numpy", *lines[1:start], *loading.splitlines(), *lines[start + 2 : -1], printing]
    exec("\n".join(lines), {})
    printed = eval(capsys.readouterr().out)
    assert list(printed) == ["cat", "dog", "höhle"] and list(printed.values()) == pytest.approx(expected, abs=1e-5)


def test_the_page_needs_ten_lines():
    assert len([line for line in docs_lines().splitlines() if line]) == 10


@pytest.mark.slow
def test_the_lines_of_the_page_run_without_torch(export_once, tmp_path):
    """In a new environment that has only what the page installs."""
    model, path = export_once("frozen VGG", "onnx")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    with open(DOCS, encoding="utf-8") as file:
        packages = re.search(r"```bash\npip install (.*)\n```", file.read())[1].split()
    install = [python, "-m", "pip", "install", "--quiet", *packages]
    installed = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"pip cannot install {' '.join(packages)} here: {installed.stderr.strip().splitlines()[-1]}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*arguments):
        return subprocess.run(
            [python, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
        )

    absent = call("-c", "import torch")
    assert absent.returncode and "No module named 'torch'" in absent.stderr
    photograph(tmp_path / "photo.jpg")
    shutil.copy(path, tmp_path / "model.onnx")
    (tmp_path / "lines.py").write_text(docs_lines(), encoding="utf-8")
    done = call("-X", "utf8", "lines.py")
    assert not done.returncode, done.stderr
    expected = model.predict([tmp_path / "photo.jpg"], "cpu").probabilities[0]
    printed = eval(done.stdout)
    assert list(printed) == ["cat", "dog", "höhle"] and list(printed.values()) == pytest.approx(expected, abs=1e-5)
