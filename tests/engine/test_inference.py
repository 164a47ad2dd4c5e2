import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from transfer_learning import load
from transfer_learning.data.images import unlabelled
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import Folder, labelled_images
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.evaluation import evaluate_images
from transfer_learning.engine.inference import Inference, predict, predict_chunks
from transfer_learning.engine.training import train
from transfer_learning.models.cnn import CNN
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import UserError

RESIZES = [(i, r) for i in ("bilinear", "bicubic", "nearest") for r in ("stretch", "crop", "pad")]


@pytest.fixture
def photographs_folder(tmp_path, write_image):
    """Twenty images of each class, of different sizes."""
    for seed in range(40):
        size = (30 + 7 * (seed % 5), 30 + 11 * (seed % 4))
        write_image(tmp_path / "photographs" / ("cat" if seed % 2 else "dog") / f"{seed}.png", seed, size)
    return tmp_path / "photographs"


@pytest.fixture
def run(tmp_path, photographs_folder, data_module, quiet_trainer):
    """run(precision, network, **preprocessing) -> (the run's folder, its data, its model), tested after one epoch."""

    def make(precision="32-true", network=None, **preprocessing):
        data = data_module(Folder(photographs_folder), (8, 4, 8), batch_size=8, image_size=32, **preprocessing)
        torch.manual_seed(0)
        network, folder = network or CNN(2, 32, [4, 8], [16]), tmp_path / "run"
        model = Classifier(network, data.class_names, data.preprocessing, lambda groups: torch.optim.SGD(groups, 0.1))
        best = ModelCheckpoint(folder / "checkpoints", "best", monitor="val/acc", enable_version_counter=False)
        trainer = quiet_trainer(
            max_epochs=1, precision=precision, default_root_dir=folder, enable_checkpointing=True, callbacks=[best]
        )
        train(data, model, trainer)
        return folder, data, model

    return make


def of_the_test(data, model):
    """Files and probabilities of the run's own test."""
    found = model.predictions["test"]
    return [data.images.names[n] for n in found.indices], model.probabilities(found.logits).numpy()


@pytest.mark.parametrize(("interpolation", "resize"), RESIZES)
def test_probabilities_are_those_of_the_runs_test(run, interpolation, resize):
    folder, data, model = run(interpolation=interpolation, resize=resize)
    files, expected = of_the_test(data, model)
    loaded = load(folder)
    together = loaded.predict(files)
    one_by_one = [loaded.predict([file]).probabilities[0] for file in files]
    for found in (together.probabilities, np.array(one_by_one)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert together.names == files
    assert together.classes == [data.class_names[code] for code in expected.argmax(axis=1)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("frozen", [False, True])
def test_precision_is_that_of_the_training(run, precision, frozen):
    network = Pretrained(2, 32, "resnet18", None) if frozen else None
    folder, data, model = run(precision, network)
    files, expected = of_the_test(data, model)
    loaded = load(folder)
    found, in_float32 = loaded.predict(files).probabilities, load(folder)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2 if "16" in precision else 1e-5)
    in_float32.trained_precision = "32-true"
    if precision == "bf16-mixed":
        difference = np.abs(in_float32.predict(files).probabilities - expected).max()
        assert difference > np.abs(found - expected).max()  # another precision is further away
    assert found.dtype == np.float32


def test_files_opened_images_and_pixels_give_the_same(run):
    folder, data, model = run()
    files, _ = of_the_test(data, model)
    opened, pixels = Image.open(files[0]), np.array(Image.open(files[0]).convert("RGB"))
    found = load(folder).predict([files[0], opened, pixels]).probabilities
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    opened.load()  # still open
    for single in (files[0], opened, pixels):
        np.testing.assert_allclose(load(folder).predict(single).probabilities, found[:1], atol=1e-6)


class Labelled:
    """As a pandas Series after a shuffle: indices are labels, not positions."""

    def __init__(self, items):
        self.items = dict(zip(reversed(range(len(items))), items))

    def __getitem__(self, label):
        return self.items[label]

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items.values())


@pytest.mark.parametrize("container", [Labelled, iter, tuple, dict.fromkeys])
def test_names_and_predictions_belong_together_in_any_container(tmp_path, write_image, small_model, container):
    files = [str(write_image(tmp_path / f"{n}.png", n)) for n in range(3)]
    model = small_model()
    expected, found = model.predict(files), model.predict(container(files))
    assert found.names == expected.names and np.array_equal(found.probabilities, expected.probabilities)
    assert len(np.unique(expected.probabilities[:, 0])) == 3


@pytest.mark.parametrize("images", [None, 3])
def test_what_is_no_list_is_one_error(small_model, images):
    with pytest.raises(UserError, match=f"images are {type(images).__name__}; expected a list of files or images"):
        small_model().predict(images)


def test_several_models_give_the_mean_whatever_their_preprocessing(photographs_folder):
    models = []
    for size, resize in ((32, "crop"), (24, "stretch"), (32, "crop")):
        torch.manual_seed(len(models))
        models.append(Classifier(CNN(3, size, [4], []), ("a", "b", "c"), Preprocessing(size, resize=resize)))
    files = sorted(map(str, photographs_folder.rglob("*.png")))
    single = [model.predict(files).probabilities for model in models]
    np.testing.assert_allclose(predict(models, files).probabilities, np.mean(single, axis=0), atol=1e-7)
    other = Classifier(CNN(2, 32, [4], []), ("a", "b"), Preprocessing(32))
    with pytest.raises(UserError, match="different classes: a, b, c and a, b"):
        predict([models[0], other], files)


def test_an_image_that_one_of_several_models_cannot_read_is_unreadable(tmp_path, write_image):
    Image.fromarray(np.linspace(0, 255, 600, dtype=np.float32).reshape(20, 30)).save(tmp_path / "floats.tif")
    files = [write_image(tmp_path / "a.png", 0), tmp_path / "floats.tif"]
    models = [Classifier(CNN(2, 24, [4], []), ("a", "b"), Preprocessing(24, depth=each)) for each in ("image", "dtype")]
    for order in ([0, 1], [1, 0]):
        (chunk,) = predict_chunks([models[n] for n in order], unlabelled(list(map(str, files))))
        assert chunk.indices == [0] and list(chunk.unreadable) == [1] and "values from 0 to 255" in chunk.unreadable[1]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_flip_is_the_mean_of_the_probabilities_of_images_and_their_mirror_images(photographs_folder, num_classes):
    torch.manual_seed(0)
    models = [Classifier(CNN(num_classes, 32, [4], []), list("abc")[:num_classes], Preprocessing(32)) for _ in range(2)]
    models[0].temperature = 0.1
    images = [np.array(Image.open(file)) for file in sorted(photographs_folder.rglob("*.png"))[:6]]
    mirrored = [np.fliplr(image) for image in images]
    plain, flipped = ([model.predict(each).probabilities for model in models] for each in (images, mirrored))
    found = models[0].predict(images, tta="flip").probabilities
    np.testing.assert_allclose(found, (plain[0] + flipped[0]) / 2, atol=1e-6)
    assert np.abs(found - plain[0]).max() > 1e-3
    found = predict(models, images, tta="flip").probabilities
    np.testing.assert_allclose(found, np.mean(plain + flipped, axis=0), atol=1e-6)
    with pytest.raises(UserError, match="^tta='rotate': expected one of 'flip', None"):
        models[0].predict(images, tta="rotate")


def test_many_images_come_in_order_and_unreadable_ones_are_named(tmp_path, write_image, monkeypatch):
    monkeypatch.setattr("transfer_learning.engine.inference.CHUNK", 4)
    model = Classifier(CNN(2, 16, [2], []), ("a", "b"), Preprocessing(16))
    files = [str(write_image(tmp_path / f"{n}.png", n)) for n in range(10)]
    for broken in (0, 5, 6, 7, 4):
        (tmp_path / f"{broken}.png").write_bytes(b"no image")
    images = [n for n in range(10) if n not in (0, 4, 5, 6, 7)]
    from transfer_learning.data.images import unlabelled

    chunks = list(predict_chunks([model], unlabelled(files)))
    assert [index for chunk in chunks for index in chunk.indices] == images
    assert [len(chunk.probabilities) for chunk in chunks] == [3, 0, 2]
    assert [set(chunk.unreadable) for chunk in chunks] == [{0}, {4, 5, 6, 7}, set()]
    found = np.concatenate([chunk.probabilities for chunk in chunks])
    np.testing.assert_allclose(found, model.predict([files[n] for n in images]).probabilities, atol=1e-6)
    with pytest.raises(UserError, match=r"0\.png: not readable as an image"):
        model.predict(files)
    with pytest.raises(UserError, match=r"missing\.png: not readable as an image \(FileNotFoundError"):
        model.predict([tmp_path / "missing.png"])
    assert model.predict([]).probabilities.shape == (0, 2)


DARK = (
    "where the full range is 0 to 65,535: dark or of little contrast for a model that was trained without a choice of"
)


@pytest.mark.parametrize("depth", [None, "dtype", "image"])
def test_a_model_without_a_choice_of_depth_names_dark_images_in_one_line(tmp_path, monkeypatch, caplog, depth):
    monkeypatch.setattr("transfer_learning.engine.inference.CHUNK", 4)
    model = Classifier(CNN(2, 16, [2], []), ("a", "b"), Preprocessing(16, depth=depth))
    files = [tmp_path / f"{n}.png" for n in range(10)]
    for n, file in enumerate(files):  # the even ones have 12 bits in 16
        limit = 65536 if n % 2 else 4096
        Image.fromarray(np.random.default_rng(n).integers(0, limit, (20, 20)).astype(np.uint16)).save(file)
    with caplog.at_level("INFO"):
        model.predict(files)
    lines = [record.getMessage() for record in caplog.records if "range" in record.getMessage()]
    assert len(lines) == (depth is None)
    if not depth:
        assert lines[0].startswith(f"5 images such as {files[0]}: values from 1") and DARK in lines[0]


def test_the_evaluation_names_dark_images_too(tmp_path, caplog):
    model = Classifier(CNN(2, 16, [2], []), ("a", "b"), Preprocessing(16))
    for n in range(4):
        (tmp_path / "ab"[n % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 9), 100 * n, np.uint16)).save(tmp_path / "ab"[n % 2] / f"{n}.tif")
    with caplog.at_level("INFO"):
        evaluate_images(Inference(model, "cpu"), labelled_images(tmp_path, ("a", "b")))
    assert "4 images such as" in caplog.text and DARK in caplog.text


def test_model_can_be_trained_after_it_has_predicted(small_data, small_model, fit):
    data, model = small_data(), small_model()
    before = model.predict([data.pixels[0]]).probabilities
    fit(model.train(), data, epochs=1)
    assert not np.array_equal(model.predict([data.pixels[0]]).probabilities, before)


def test_unknown_accelerator_is_one_error(small_model):
    with pytest.raises(UserError, match="^accelerator='tpus'"):
        Inference(small_model(), "tpus")


def test_loading_and_predicting_change_no_settings_of_the_process(run):
    folder, data, model = run()
    files, _ = of_the_test(data, model)

    def settings():
        subnormal = (torch.tensor([1e-38]) / 4).item()  # 0 if they are flushed to zero
        return dict(os.environ), warnings.filters[:], torch.get_num_threads(), torch.get_default_dtype(), subnormal

    before = settings()
    load(folder).predict(files[:1], "cpu")
    assert settings() == before
