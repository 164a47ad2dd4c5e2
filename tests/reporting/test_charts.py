import re

import pytest

from transfer_learning.reporting.charts import TradeOff, curve_charts, dependence_chart, style, trade_off_chart


def history(epochs=3, **changed):
    values = {"train/acc": 0.5, "val/acc": 0.4, "train/loss": 0.7, "val/loss": 0.8} | changed
    return [{"epoch": float(n + 1), **values} for n in range(epochs)]


def test_forty_runs_have_different_lines():
    assert len({style(n) for n in range(40)}) == 40
    assert {style(n).dashes for n in range(7)} == {()}


def test_a_panel_for_each_of_the_four_curves_and_a_line_a_run():
    charts = curve_charts([history(), [], history(1)])
    titles = ["training accuracy", "validation accuracy", "training loss", "validation loss"]
    for chart, title, name in zip(charts, titles, ("train/acc", "val/acc", "train/loss", "val/loss"), strict=True):
        assert title in chart and re.findall(r'id="(run.*?)"', chart) == [f"run0-{name}", f"run2-{name}"]


def test_elements_fit_into_any_page():
    for chart in [
        *curve_charts([history()]),
        dependence_chart("n", "accuracy", {"a": [(1, [0.5], 10), (2, [0.6], 10)]}),
    ]:
        assert chart.startswith("<svg") and "http" not in chart and "currentColor" in chart
        assert "#010203" not in chart and not re.search(r' id="(figure|axes|text)_1"', chart)


def test_epoch_without_validation_and_loss_that_explodes():
    rows = history(4)
    del rows[1]["val/acc"], rows[1]["val/loss"]
    accuracy, loss = curve_charts([rows, history(2, **{"val/loss": 1e6})])[1::2]
    assert "run0-val/acc" in accuracy and "10" in loss


@pytest.mark.parametrize("numbers, ticks", [((10, 30, 1500), ["10", "30", "1500"]), ((1, 2, 3), ["1", "2", "3"])])
def test_dependence_has_a_tick_for_each_number_and_a_name_for_each_line(numbers, ticks):
    lines = {name: [(n, [0.5, 0.6], 100) for n in numbers] for name in ("a <b> & $c$", "d")}
    chart = dependence_chart("data.train_per_class", "validation accuracy", lines)
    texts = re.findall(r"<text[^>]*>([^<]*)<", chart)
    assert set(ticks) <= set(texts) and {"a &lt;b&gt; &amp; $c$", "d", "data.train_per_class"} <= set(texts)


@pytest.mark.parametrize("costs, ticks", [((5, 400), {"5", "10", "100", "500"}), ((20, 24), {"15", "20", "30"})])
def test_trade_off_numbers_its_points_on_a_logarithmic_axis(costs, ticks):
    points = [TradeOff(cost, 0.9, (0.8, 0.95), on_front) for cost, on_front in zip(costs, (True, False))]
    texts = re.findall(r"<text[^>]*>([^<]*)<", trade_off_chart("MB", "test accuracy", points))
    assert ticks | {"MB", "test accuracy", "1", "2"} <= set(texts)


def test_numbers_of_equal_points_do_not_cover_each_other():
    chart = trade_off_chart("images/s", "accuracy", [TradeOff(70, 0.9, (0.8, 0.95), True)] * 20)
    found = re.findall(r"<text([^>]*)>(\d+)</text>", chart)
    places = {text: attributes for attributes, text in found if text in map(str, range(1, 9))}
    assert len(places) == 8 == len(set(places.values()))
    assert {str(n) for n in range(1, 21)} <= {text for _, text in found}  # if there is no room, they do
