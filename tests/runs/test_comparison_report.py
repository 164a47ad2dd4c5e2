import re
from html.parser import HTMLParser

import pytest

from transfer_learning.runs.comparison_report import write_comparison_report
from transfer_learning.runs.results import Keys
from transfer_learning.utilities.errors import UserError

KEYS = Keys(
    replicates=("data.fold", "seed"),
    ignored=("overrides", "hydra", "reference"),
    names={"model": "choices.model"},
    reference="reference",
    train_shares=("data.train_share",),
)


class Page(HTMLParser):
    """Texts of the tables' rows, addresses, and tags that were opened and not closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tables, self.addresses, self.open, self.heads = text, [], [], [], []
        self.feed(text)
        self.tables.sort(key=lambda rows: rows[0][0] != "run")  # tables of runs first

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in ("meta", "link", "img", "path", "use", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip()


@pytest.fixture
def page(tmp_path):
    """page(split): the page of all runs of the test, and what the terminal shows."""

    def make(split="val"):
        shown = write_comparison_report([tmp_path / "runs"], tmp_path / "report.html", split, KEYS)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8")), shown

    return make


def column(table, name):
    index = next(n for n, text in enumerate(table[0]) if text.startswith(name))
    return [row[index] for row in table[1:]]


@pytest.fixture
def sweep(add_run):
    """Two models with two seeds each."""
    for n, (model, seed, wrong) in enumerate([("basic", 0, 20), ("basic", 1, 22), ("vgg16", 0, 2), ("vgg16", 1, 4)]):
        add_run(f"run {n}", wrong, f"model={model}", f"seed={seed}")


def test_page_and_terminal_have_the_same_table(sweep, page):
    found, shown = page()
    runs, repetitions, pairs = found.tables[:3]
    assert [row[:3] for row in runs] == [["run", "model", "seed"], ["1", "vgg16", "0"], ["2", "vgg16", "1"],
                                         ["3", "basic", "0"], ["4", "basic", "1"]]  # fmt: skip
    assert column(runs, "validation accuracy") == ["0.950 (0.835–0.986)", "0.900 (0.769–0.960)", "0.500 (0.352–0.648)",
                                                   "0.450 (0.307–0.602)"]  # fmt: skip
    assert column(runs, "comparison") == ["best", "≈ best", "below best", "below best"]
    assert column(runs, "p (Holm)") == ["", "0.500", "< 0.001", "< 0.001"]
    assert column(runs, "difference")[1].startswith("−0.050 (−0.1")
    assert [row[2:4] for row in repetitions[1:]] == [["2 seeds", "0.925 ± 0.035"], ["2 seeds", "0.475 ± 0.035"]]
    assert len(pairs) == 1 + 6
    for row in runs[1:] + repetitions[1:]:
        assert any(all(cell in line for cell in row) for line in shown.splitlines())


def test_test_images_are_only_used_if_asked_for(sweep, page):
    found, shown = page()
    assert "--split test" in found.text and "test accuracy" not in found.text + shown
    found, shown = page("test")
    assert column(found.tables[0], "test accuracy")[0].startswith("0.950") and "test accuracy" in shown
    assert "best epoch was chosen on these images" not in found.text


def test_page_needs_no_other_file(sweep, page):
    found, _ = page()
    assert len([each for each in found.addresses if each.startswith("data:image/jpeg;base64,")]) == 4 * 3
    assert all(each.startswith(("data:", "#")) for each in found.addresses)
    assert "http" not in found.text and "@import" not in found.text and "url(" not in re.sub(r"url\(#", "", found.text)
    assert found.open == []


def test_lines_and_rows_of_a_run_are_linked(sweep, page):
    found, _ = page()
    assert set(re.findall(r'data-run="(\d+)"', found.text)) == {"0", "1", "2", "3"}
    assert set(re.findall(r'id="run(\d+)-', found.text)) == {"0", "1", "2", "3"}


def test_texts_are_escaped(add_run, page):
    classes = ('<b>"cat"</b>', "R&D's")
    add_run("<i>1 & 2</i>", 4, "model=<script>alert(1)</script>", classes=classes)
    add_run('"quoted"', 6, "model=${x}", classes=classes, without=["mistakes-val.png"])
    found, _ = page()
    assert "<script>alert" not in found.text and "<i>" not in found.text.replace("<i>images</i>", "")
    matrix = next(table for table in found.tables if table[0][0] == "" or "as " in table[0][1])
    assert matrix[0][1:] == [f"as {name}" for name in classes] and matrix[1][0] == classes[0]
    assert column(found.tables[0], "model") == ["<script>alert(1)</script>", "${x}"]
    assert "mistakes-val.png: none" in found.text


def test_runs_without_predictions_are_shown_but_not_compared(add_run, page):
    add_run("a", 4, "seed=0")
    add_run("b", 2, "seed=1", without=["predictions.csv", "epochs.csv"])
    add_run("c", 3, "seed=2")
    found, shown = page()
    assert column(found.tables[0], "comparison") == ["not compared", "best", "≈ best"]
    assert "runs/b: predictions.csv: none" in shown and "epochs.csv: none" in found.text


def test_runs_that_failed_are_listed_with_the_reason(add_run, page):
    add_run("a", 4)
    (add_run("b", 4, without=["metrics.json"]) / "FAILED").write_text("the loss is <not> finite\n")
    add_run("c", 4, without=["metrics.json"])
    found, shown = page()
    assert len(found.tables[0]) == 1 + 1 and "2 more runs are" in found.text
    assert "runs/b: failed: the loss is <not> finite" in shown and "runs/c: unfinished" in shown
    assert "the loss is &lt;not&gt; finite" in found.text


def test_finished_run_in_whose_folder_a_command_was_refused_keeps_its_results(add_run, page):
    (add_run("a", 4) / "FAILED").write_text("has results of another config")
    found, shown = page()
    assert len(found.tables[0]) == 1 + 1 and "runs/a: a later command in this folder was refused" in shown


def test_one_damaged_run_does_not_hide_the_others(add_run, page):
    add_run("a", 4)
    (add_run("b", 2) / "predictions.csv").write_text('file,sha256\n"' + "x" * 200_000)
    (add_run("c", 6) / "epochs.csv").write_text("epoch,val/loss,val/acc\n1,nan,0.5\n2,inf,0.6\n")
    metrics = add_run("d", 8) / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"val/acc_best": 0.8', '"val/acc_best": "x"'))
    found, shown = page()
    assert len(found.tables[0]) == 1 + 3 and "runs/b: predictions.csv: not a table of predictions, or damaged" in shown
    assert "runs/d: failed: metrics.json is damaged" in shown


def test_no_run_has_finished(add_run, page):
    add_run("a", 4, without=["metrics.json", "config.yaml"])
    found, shown = page()
    assert "No run has results" in found.text and shown.endswith("runs/a: unfinished")


def test_runs_on_other_images_have_their_own_best(add_run, page):
    for n, images in enumerate(("image", "image", "other", "other")):
        add_run(f"{n}", n, f"seed={n}", images=images)
    found, _ = page()
    assert column(found.tables[0], "images") == ["set 1", "set 1", "set 2", "set 2"]
    assert column(found.tables[0], "comparison") == ["best", "≈ best", "best of set 2", "≈ best of set 2"]
    assert len(next(table for table in found.tables if table[0][0] == "A")) == 1 + 2


def test_accuracy_against_a_number_that_varies(add_run, page):
    for n, size in enumerate((10, 100, 1000)):
        for model in ("basic", "vgg16"):
            add_run(f"{model}{n}", 10 - n, f"data.train_per_class={size}", f"model={model}")
    found, _ = page()
    assert found.text.count('class="wide"') == 1
    assert {"model=basic", "model=vgg16"} <= set(re.findall(r"<text[^>]*>([^<]*)<", found.text))
    add_run("another", 9, "data.train_per_class=0.5", "optimizer.lr=0.01")
    assert page()[0].text.count('class="wide"') == 1  # two learning rates are no curve


def test_a_run_whose_number_of_images_is_unknown_is_in_the_table_and_not_in_the_chart(add_run, page):
    for size in (10, 100, 1000):
        add_run(f"{size}", 4, f"data.train_per_class={size}")
    add_run("unknown", 8, "data.train_per_class=5000", metrics={"images_val": None}, without=["predictions.csv"])
    found, _ = page()
    assert column(found.tables[0], "validation accuracy")[-1] == "0.800"  # without an interval
    assert found.text.count('class="wide"') == 1
    assert {"10", "100", "1000"} <= texts_of(found.text) and "5000" not in texts_of(found.text)


def texts_of(chart):
    return set(re.findall(r"<text[^>]*>([^<]*)<", chart))


def test_learning_curve_is_drawn_against_the_number_of_training_images(add_run, page):
    for share, images, wrong in ((0.01, 30, 20), (0.1, 300, 8), (1.0, 3000, 4)):
        for seed in (0, 1):
            metrics = {"images_train": images + seed * (share < 1)}  # groups: not exactly the share
            add_run(f"{share} {seed}", wrong + seed, f"data.train_share={share}", f"seed={seed}", metrics=metrics)
    found, shown = page()
    assert found.text.count('class="wide"') == 1
    texts = texts_of(found.text)
    assert {"30", "300", "3000", "training images"} <= texts and "data.train_share" not in texts
    note = "From 300 to 3000 training images, accuracy changes by +0.100 ("
    assert note in found.text and note in shown
    assert "another sample of validation images" in found.text


def test_each_line_of_a_learning_curve_has_its_own_numbers_of_images(add_run, page):
    for model, size in (("basic", 3000), ("vgg16", 500)):
        for n, share in enumerate((0.1, 0.5, 1.0)):
            metrics = {"images_train": round(share * size)}
            add_run(f"{model} {n}", 10 - 2 * n, f"data.train_share={share}", f"model={model}", metrics=metrics)
    found, shown = page()
    assert {"50", "250", "300", "500", "1500", "3000"} <= texts_of(found.text)
    assert "From 1500 to 3000 training images (model=basic), accuracy" in shown
    assert "From 250 to 500 training images (model=vgg16), accuracy" in shown


def test_without_predictions_or_on_other_images_a_learning_curve_has_no_difference(add_run, page):
    for n, share in enumerate((0.1, 0.5, 1.0)):
        add_run(f"{n}", 9 - n, f"data.train_share={share}", images=f"fold {n}", metrics={"images_train": 100 * n + 100})
    found, shown = page()
    assert found.text.count('class="wide"') == 1 and "accuracy changes" not in found.text + shown
    assert {"100", "200", "300"} <= texts_of(found.text)


def test_runs_that_do_not_know_their_number_of_images_are_drawn_against_the_share(add_run, page):
    for n, share in enumerate((0.1, 0.5, 1.0)):
        add_run(f"{n}", 9 - n, f"data.train_share={share}", metrics={"images_train": 100} if n else None)
    found, _ = page()
    assert {"0.1", "0.5", "1", "data.train_share"} <= texts_of(found.text) and "accuracy changes" not in found.text


@pytest.fixture
def cross_validated(add_run):
    """Three folds with two seeds each, of two models; a fold has its own validation images."""
    for model, wrong in (("basic", 20), ("vgg16", 4)):
        for n in range(6):
            settings = [f"model={model}", "data.folds=3", f"data.fold={n // 2}", f"seed={n % 2}"]
            add_run(f"{model} {n}", wrong + n, *settings, images=f"fold {n // 2}")


def test_repetitions_name_folds_and_seeds(cross_validated, page):
    found, shown = page()
    repetitions = next(table for table in found.tables if "n" in table[0])
    assert column(repetitions, "n") == ["3 folds × 2 seeds"] * 2
    assert column(repetitions, "model") == ["vgg16", "basic"] and column(repetitions, "data.fold") == ["0, 1, 2"] * 2
    assert column(repetitions, "validation accuracy, mean") == ["0.838 ± 0.047", "0.438 ± 0.047"]
    assert "3 folds × 2 seeds" in shown and "cross-validated accuracy" in found.text
    assert "cross-validated accuracy" not in page("test")[0].text  # that is of other images


def test_runs_of_different_folds_are_not_compared(cross_validated, page):
    found, _ = page()
    assert set(column(found.tables[0], "images")) == {"set 1", "set 2", "set 3"}
    pairs = next(table for table in found.tables if table[0][0] == "A")
    assert len(pairs) == 1 + 3 * 6  # of each fold the pairs of its four runs


def test_a_missing_run_is_seen_in_the_number_of_repetitions(add_run, page):
    for fold, seed in ((0, 0), (0, 1), (1, 0)):
        add_run(f"a {fold} {seed}", 4, "optimizer.lr=0.1", f"data.fold={fold}", f"seed={seed}")
    add_run("b", 8, "optimizer.lr=0.2", "data.fold=0", "seed=0")
    for n in (0, 1):
        add_run(f"c {n}", 9, "optimizer.lr=0.3", "data.fold=0", "seed=0")  # the same run twice
    found, _ = page()
    repetitions = next(table for table in found.tables if "n" in table[0])
    assert column(repetitions, "n") == ["3 (2 folds × 2 seeds)", "1", "2"]


def test_interval_of_a_cross_validated_mean_is_for_the_images_of_all_folds(add_run, page, monkeypatch):
    drawn = []
    chart = "transfer_learning.runs.comparison_report.dependence_chart"
    monkeypatch.setattr(chart, lambda *each: drawn.append(each) or "")
    for rate in (0.1, 0.2, 0.3):
        for fold in range(3):
            for seed in range(2):
                settings = [f"optimizer.lr={rate}", f"data.fold={fold}", f"seed={seed}"]
                add_run(f"{rate} {fold} {seed}", 10, *settings, images=f"fold {fold}")
    page()
    ((_, _, lines),) = drawn
    assert lines == {"all runs": [(rate, [0.75] * 6, 3 * 40) for rate in (0.1, 0.2, 0.3)]}


def test_published_results_are_shown_beside_those_of_the_run(add_run, page):
    add_run("a", 4, config={"reference": {"val/acc_best": 0.725, "seconds_per_epoch": 10, "source": "a <paper>"}})
    add_run("b", 2, "optimizer.lr=0.01")
    found, shown = page()
    published = found.tables[1]
    assert published[0] == [
        "run",
        "optimizer.lr",
        "best validation accuracy",
        "published",
        "seconds per epoch",
        "published",
    ]
    assert published[1:] == [["2", "0.001", "0.9000", "0.7250", "4", "10"]]
    assert "a &lt;paper&gt;" in found.text and "0.7250" in shown


def test_another_monitor_has_a_column(add_run, page):
    add_run("a", 4, monitor="val/f1")
    add_run("b", 2)
    assert column(page()[0].tables[0], "best validation f1") == ["", "0.5000"]


def test_path_without_runs_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        write_comparison_report([tmp_path], tmp_path / "report.html", "val", KEYS)
    assert not list(tmp_path.iterdir())
