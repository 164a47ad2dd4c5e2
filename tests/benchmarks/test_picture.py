"""benchmarks/picture.py: what is drawn, in the data of the figure's axes."""

import json

import numpy as np
from matplotlib.figure import Figure

from benchmarks import picture
from transfer_learning.cli.resolvers import PROJECT

CURVES = {"4 head on frozen VGG16": {"seed=0": [0.9, 0.94], "seed=1": [0.92, 0.98]}}
RESULTS = {"curves": CURVES, "tutorial": {"4 head on frozen VGG16": {"val/acc_best": 0.8923}}}


def test_a_curve_is_the_mean_of_its_seeds_in_their_range_beside_the_tutorials_best():
    axes = Figure().subplots()
    picture.draw_curves(axes, RESULTS)
    curve, best, _ = axes.lines
    np.testing.assert_allclose(curve.get_xydata(), [[1, 0.91], [2, 0.96]])
    (band,) = axes.collections
    np.testing.assert_allclose(sorted(set(band.get_paths()[0].vertices[:, 1])), [0.9, 0.92, 0.94, 0.98])
    assert best.get_ydata() == [0.8923] and best.get_color() == curve.get_color()
    assert [text.get_text() for text in axes.get_legend().texts] == [*CURVES, "the tutorial's best epoch"]


def test_each_drawing_is_above_its_map_and_below_its_title():
    rng = np.random.default_rng(0)
    drawings, maps = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    figure = picture.draw(RESULTS, drawings, maps, ["cat 0.90", "dog 0.80", "dog 0.70"])
    below = figure.subfigs[1].axes
    shown = [each.images[0].get_array() for each in below]
    assert np.array_equal(shown, [*drawings, *maps])
    assert [each.get_title() for each in below] == ["cat 0.90", "dog 0.80", "dog 0.70", "", "", ""]


def test_all_stored_curves_fit_on_the_axes():
    stored = json.loads((PROJECT / "docs" / "results.json").read_text("utf-8"))
    axes = Figure().subplots()
    picture.draw_curves(axes, stored)
    low, high = axes.get_ylim()
    assert all(low <= value <= high for line in axes.lines for value in line.get_ydata())
