from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from transfer_learning.reporting import figures
from transfer_learning.reporting.prediction_table import PredictionTable


def table(classes=2, count=200, right=None):
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    labels = probabilities.argmax(axis=1) if right else rng.integers(classes, size=count)
    names = [f"class {n} of $x$" for n in range(classes)]
    files = [f"/photos/{n}_{'long' * 20}.jpg" for n in range(count)]
    return PredictionTable(files, [""] * count, ["val"] * count, labels, probabilities, names)


def test_confusion_matrix_shows_the_counts():
    each = table(3)
    (axes,) = figures.confusion_matrix(each).axes
    expected = confusion_matrix(each.labels, each.predicted)
    assert [int(text.get_text()) for text in axes.texts] == expected.ravel().tolist()
    assert axes.get_title() == f"{np.trace(expected)} of 200 images right"
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "label"


@pytest.mark.parametrize(("classes", "step"), [(3, 1), (120, 1), (121, 2), (1000, 9)])
def test_names_of_many_classes_do_not_cover_each_other(classes, step):
    axes = figures.confusion_matrix(table(classes)).axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert axis.get_ticklocs().tolist() == list(range(0, classes, step))
        assert axis.get_ticklabels()[-1].get_text() == f"class {(classes - 1) // step * step} of \\$x\\$"


@pytest.mark.parametrize("classes", [2, 15, 16, 130])
def test_nothing_of_a_confusion_matrix_is_outside_the_figure_whatever_its_names(classes):
    each = replace(table(classes), class_names=[f"{'W' * 30}{n}" for n in range(classes)])
    figure = figures.confusion_matrix(each)
    pixels = figures.rendered(figure)
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all()
    assert len(figure.axes) == (1 if classes <= 15 else 2)
    if classes > 15:
        assert not figure.axes[0].texts and figure.axes[1].get_ylabel() == "share of the label's images"


def test_reliability_diagram_is_that_of_scikit_learn():
    each = table(2)
    upper, lower = figures.reliability_diagram(each).axes
    right, confidence = each.predicted == each.labels, each.probabilities.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose(upper.lines[1].get_xdata(), mean, rtol=1e-5)
    np.testing.assert_allclose(upper.lines[1].get_ydata(), accuracy, rtol=1e-5)
    assert sum(bar.get_height() for bar in lower.patches) == 200


def test_most_confident_predictions():
    each = table(3)
    wrong, right = (figures.most_confident(each, 7, right=right) for right in (False, True))
    assert len(wrong) == len(right) == 7
    assert (each.predicted[wrong] != each.labels[wrong]).all() and (each.predicted[right] == each.labels[right]).all()
    confidence = each.probabilities.max(axis=1)
    is_wrong = each.predicted != each.labels
    assert confidence[wrong].tolist() == sorted(confidence[is_wrong], reverse=True)[:7]
    assert len(figures.most_confident(table(3, right=True), 7, right=False)) == 0


@pytest.mark.parametrize("count", [1, 5, 6, 20])
def test_grid_shows_every_image_where_its_title_is(count):
    images = [np.full((40, 30, 3), 10 * n, dtype=np.uint8) for n in range(count)]
    pixels = figures.rendered(figures.image_grid(images, [f"a $ sign $ {n}\nline 2" for n in range(count)]))
    height, width = pixels.shape[0] // -(-count // 5), pixels.shape[1] // 5
    for n in range(count):
        row, column = divmod(n, 5)
        part = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (part[height // 3, width // 2] == 10 * n).all()  # the image
        assert (part[-30:] < 100).any() and (part[0] == 255).all()  # the title below it, on white


@pytest.mark.parametrize("name", ["golden_retriever", "american staffordshire bull terrier", "W" * 40])
def test_lines_below_images_stay_below_them_and_keep_both_ends_of_names(name):
    black = np.zeros((9, 9, 3), dtype=np.uint8)
    grid = figures.image_grid([black, black], [f"{name}.jpg\nlabel: {name}\n{name} 0.923"] * 2)
    pixels = figures.rendered(grid)
    assert (pixels[:, [121, 122, 123, 124, 125]] == 255).all() and (pixels[130:, 10:116] < 100).any()
    file, label, prediction = grid.texts[0].get_text().split("\n")
    assert file[:3] == name[:3] and file.endswith(".jpg")
    assert label.startswith("label: ") and label.endswith(name[-2:])
    assert prediction[:3] == name[:3] and prediction.endswith(f"{name[-1]} 0.923")
    assert ("…" in prediction) == (name != "golden_retriever")


def test_figures_of_predictions_and_captions():
    each = table(2)
    wrong = figures.most_confident(each, 3, right=False)
    pixels = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    assert set(figures.of_predictions(each, wrong, pixels)) == {"confusion", "reliability", "mistakes"}
    assert "mistakes" not in figures.of_predictions(each, wrong[:0], pixels[:0])
    name, label, predicted = figures.caption(each, wrong[0]).split("\n")
    assert name.startswith(f"{wrong[0]}_long") and "/" not in name
    assert label == f"label: class {each.labels[wrong[0]]} of $x$"
    assert predicted == f"class {each.predicted[wrong[0]]} of $x$ {each.probabilities[wrong[0]].max():.3f}"


def test_overlay_is_brightest_where_the_map_is_largest(tmp_path):
    cam = np.zeros((4, 4))
    cam[0, 3], cam[0, 2] = 0.001, 0.0005
    image = figures.overlay(np.full((40, 80, 3), 100, dtype=np.uint8), cam)
    assert image.shape == (40, 80, 3) and image.dtype == np.uint8
    assert image[2, 77].sum() > image[2, 40].sum() > image[30, 10].sum()
    assert figures.overlay(np.full((4, 4, 3), 100, dtype=np.uint8), np.zeros((2, 2))).max() < 60
    figures.write_png(tmp_path / "image.png", image)
    assert np.array_equal(np.array(Image.open(tmp_path / "image.png")), image)


def test_only_the_figures_of_a_run_are_removed(tmp_path):
    for name in ("mistakes-val", "gradcam-test", "mistakes-2024", "confusion-field"):
        (tmp_path / f"{name}.png").touch()
    figures.remove_figures(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"mistakes-2024", "confusion-field"}
