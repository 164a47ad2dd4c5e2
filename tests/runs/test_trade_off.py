"""The section of the page on accuracy against speed and size."""

import re

import pytest

from transfer_learning.reporting.intervals import wilson_interval
from transfer_learning.runs.comparison_report import write_comparison_report
from transfer_learning.runs.results import Keys

KEYS = Keys(
    replicates=("data.fold", "seed"),
    ignored=("overrides", "hydra"),
    names={},
    reference="reference",
    shown=("model.backbone", "data.image_size"),
)


@pytest.fixture
def add_measured(add_run):
    """add_measured(backbone, image_size, seed, wrong, speed, megabytes): a run of `add_run` with these results."""

    def add(backbone, image_size, seed, wrong, speed, megabytes, **metrics):
        values = {"images_per_second": speed, "megabytes": megabytes, "seconds_features": 30.0 * (seed == 0)}
        values |= {"device": "cpu (x86_64)", "precision": "bf16-mixed"} | metrics
        config = {"data": {"image_size": image_size}}
        settings = [f"model.backbone={backbone}", f"seed={seed}"]
        add_run(f"{backbone} {image_size} {seed}", wrong, *settings, config=config, metrics=values)

    return add


@pytest.fixture
def table(tmp_path):
    """table(split) -> (page, rows of the table on the terminal: a dict each; headings are shortened)."""

    def make(split="val"):
        shown = write_comparison_report([tmp_path / "runs"], tmp_path / "page.html", split, KEYS)
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        section = text.partition("<h2>Accuracy against speed and size</h2>")[2].partition("<h2>")[0]
        cells = [re.findall(r"<td[^>]*>\s*([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section, re.S)]
        heads = re.findall(r"<button>([^<]*)</button>", section)
        assert all(cell in shown for row in cells for cell in row)
        return section, [dict(zip((head.partition(" ±")[0] for head in heads), row)) for row in cells if row]

    return make


def test_a_row_for_each_backbone_and_size_with_means_over_seeds(add_measured, table):
    for seed, wrong, speed in ((0, 2, 50.0), (1, 4, 70.0), (2, 3, 52.0)):
        add_measured("timm/a", 224, seed, wrong, speed, 20.0)
    add_measured("resnet", 150, 0, 4, 50.0, 45.0)
    section, rows = table()
    assert [(row["row"], row["model.backbone"], row["data.image_size"], row["n"]) for row in rows] == [
        ("1", "timm/a", "224", "3"),
        ("2", "resnet", "150", "1"),
    ]
    low, high = wilson_interval(37, 40)
    assert rows[0]["validation accuracy"] == f"0.925 ± 0.025 ({low:.3f}–{high:.3f})"
    assert rows[0]["test accuracy"].startswith("0.933 ± 0.029 (") and rows[1]["test accuracy"].startswith("0.900 (")
    assert rows[0]["images/s"] == "52" and rows[0]["MB"] == "20"  # the median of the runs
    assert rows[0]["features + fit, s"] == "42"  # 30 for the features, once, and a fit of 12
    assert rows[0]["Pareto front"] == "images/s, MB" and rows[1]["Pareto front"] == ""
    assert section.count("<svg") == 2 and ">images/s</text>" in section and ">MB</text>" in section
    assert "cpu (x86_64), precision bf16-mixed" in section


def test_pareto_front_of_speed_and_of_size(add_measured, table):
    add_measured("accurate", 224, 0, 1, 10.0, 100.0)
    add_measured("fast", 224, 0, 5, 90.0, 50.0)
    add_measured("small", 224, 0, 6, 20.0, 5.0)
    add_measured("neither", 224, 0, 7, 20.0, 60.0)
    _, rows = table()
    assert {row["model.backbone"]: row["Pareto front"] for row in rows} == {
        "accurate": "images/s, MB",
        "fast": "images/s, MB",
        "small": "MB",
        "neither": "",
    }


def test_on_test_images_the_order_and_the_front_are_those_of_the_test(add_measured, table):
    add_measured("better in validation", 224, 0, 2, 10.0, 9.0, **{"test/acc": 0.8})
    add_measured("better in test", 224, 0, 4, 10.0, 9.0, **{"test/acc": 0.9})
    assert [row["model.backbone"] for row in table()[1]] == ["better in validation", "better in test"]
    section, rows = table("test")
    assert [row["model.backbone"] for row in rows] == ["better in test", "better in validation"]
    assert [row["Pareto front"] for row in rows] == ["images/s, MB", ""] and "test accuracy</text>" in section


def test_interval_of_folds_is_for_the_images_of_all_of_them(add_run, table):
    values = {"images_per_second": 9.0, "megabytes": 5.0, "seconds_features": 0.0, "device": "cpu", "precision": "32"}
    for fold in (0, 1):
        add_run(f"fold {fold}", 4, f"data.fold={fold}", images=f"fold {fold}", metrics=values)
    (row,) = table()[1]
    low, high = wilson_interval(72, 80)
    assert row["validation accuracy"].endswith(f"({low:.3f}–{high:.3f})")


def test_runs_without_a_test_have_no_column_for_it(add_measured, table):
    add_measured("resnet", 224, 0, 2, 10.0, 9.0, **{"test/acc": None, "images_test": None})
    assert "test accuracy" not in table()[1][0]


@pytest.mark.parametrize("key", ["seconds_features", "device", "precision"])
def test_a_run_that_lacks_a_measurement_is_left_out(add_measured, table, key):
    add_measured("complete", 224, 0, 2, 10.0, 9.0)
    add_measured("lacking", 224, 0, 4, 10.0, 9.0, **{key: None})
    assert [row["model.backbone"] for row in table()[1]] == ["complete"]


def test_accuracies_on_an_unknown_number_of_images_have_no_interval(add_measured, table):
    add_measured("resnet", 224, 0, 2, 10.0, 9.0, images_test=None)
    (row,) = table()[1]
    assert row["validation accuracy"].startswith("0.950 (") and row["test accuracy"] == "0.950"


def test_without_measurements_there_is_no_section(add_run, add_measured, table):
    add_run("a", 3, "seed=0")
    assert table() == ("", [])
    add_measured("resnet", 224, 0, 2, 10.0, 9.0)
    assert len(table()[1]) == 1  # the run that has measured it
