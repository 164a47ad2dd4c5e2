import json

import numpy as np
import pytest
from PIL import Image

from transfer_learning.reporting.lr_curve import LearningRateCurve, lr_figure, write_lr_curve

RATES = np.logspace(-6, 0, 200)


def curve(losses):
    return LearningRateCurve(RATES.tolist(), losses.tolist())


def falling(seed, centre, noise=0.05):
    """A loss that falls from 0.7 by 0.5, most steeply at 10 ** centre, and explodes beyond a rate of 0.3."""
    place = np.log10(RATES)
    losses = 0.7 - 0.5 / (1 + np.exp(-5 * (place - centre))) + np.random.default_rng(seed).normal(0, noise, 200)
    return losses + np.where(RATES > 0.3, 50 * RATES, 0)


@pytest.mark.parametrize("centre", [-4.0, -3.0, -2.0])
@pytest.mark.parametrize("seed", range(5))
def test_suggestion_is_where_the_loss_falls_most_per_decade(centre, seed):
    assert np.log10(curve(falling(seed, centre)).suggestion) == pytest.approx(centre, abs=0.35)
    assert np.log10(curve(falling(seed, centre, noise=0)).suggestion) == pytest.approx(centre, abs=0.05)


def test_a_fall_after_the_minimum_does_not_count():
    """The loss jumps up at a rate of 0.01, and falls steeply at 0.03, but not to the minimum."""
    place = np.log10(RATES)
    losses = 0.7 - 0.5 / (1 + np.exp(-5 * (place + 4))) + np.where(place > -2, 2, 0) - np.where(place > -1.5, 1.85, 0)
    assert np.log10(curve(losses).suggestion) == pytest.approx(-4, abs=0.1)


def test_noise_alone_gives_no_suggestion():
    for seed in range(20):
        losses = np.random.default_rng(seed).normal(0.69, 0.02, 200)
        assert curve(losses).suggestion is None and str(curve(losses)).startswith("no suggestion: the loss does not")
    assert curve(np.linspace(0.7, 5, 200)).suggestion is None  # it only rises


def test_end_that_is_not_finite_is_left_out():
    losses = falling(0, -3.0)
    losses[190:] = np.nan
    assert np.log10(curve(losses).suggestion) == pytest.approx(-3, abs=0.35) and len(curve(losses).smoothed) == 190
    assert np.isfinite(curve(losses).smoothed).all()


def test_files_and_figure(tmp_path):
    found = curve(falling(0, -3.0))
    write_lr_curve(tmp_path, found)
    saved = json.loads((tmp_path / "lr_find.json").read_text())
    assert saved == {"suggestion": found.suggestion, "rates": found.rates, "losses": found.losses}
    write_lr_curve(tmp_path, curve(np.array([*found.losses[:-1], np.inf])))
    last = json.loads((tmp_path / "lr_find.json").read_text(), parse_constant=pytest.fail)["losses"][-1]
    assert last is None  # JSON has no infinity
    assert Image.open(tmp_path / "lr_find.png").size == (720, 480)
    (axes,) = lr_figure(found).axes
    assert axes.get_xscale() == "log" and axes.get_ylim()[1] < 1 < max(found.losses)
    *_, mark = axes.lines
    assert mark.get_xdata() == [found.suggestion] and f"{found.suggestion:.1e}" in mark.get_label()
    assert len(lr_figure(curve(np.full(200, 0.7))).axes[0].lines) == 2  # no mark
