import pytest

from transfer_learning.runs.results import Keys, differing_settings, find_runs, read_run, repetitions
from transfer_learning.utilities.errors import UserError

KEYS = Keys(
    ("seed", "data.fold"),
    ("name", "logger", "data.cache_dir", "overrides", "hydra"),
    {"model": "choices.model"},
    "reference",
)


@pytest.fixture
def runs(add_run):
    """runs((overrides), ...): runs that are read, one for each list of overrides."""

    def read(*commands, **settings):
        return [read_run(add_run(f"run {n}", n, *command, **settings), "val") for n, command in enumerate(commands)]

    return read


def test_runs_are_found_once_wherever_they_are(add_run, tmp_path):
    first, second = add_run("a", 1), add_run("sweep/b", 2)
    assert find_runs([first]) == [first]
    assert set(find_runs([tmp_path, first, tmp_path / "runs" / "sweep" / ".." / "a"])) == {first, second}


@pytest.mark.parametrize("name, message", [("nothing", "no such folder"), ("empty", "no run there")])
def test_path_without_runs(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name}: {message}; expected the folder of a run"):
        find_runs([tmp_path / name])


def test_results_of_a_run(add_run):
    run = read_run(add_run("a", 4), "val")
    assert run.accuracy == 0.9 and run.images == 40 and len(run.predictions.labels) == 40 and run.missing == []
    assert run.epochs[1] == {"epoch": 2, "train/acc": 0.6, "val/acc": 0.5, "train/loss": 0.6, "val/loss": 0.7}
    tested = read_run(run.path, "test")
    assert tested.accuracy == 0.9 and len(tested.predictions.labels) == tested.images == 20


def test_missing_files_are_named(add_run):
    run = read_run(add_run("a", 4, without=["predictions.csv", "epochs.csv"]), "val")
    assert run.accuracy == 0.9 and run.predictions is None and run.epochs == [] and run.images == 40
    assert [note.partition(":")[0] for note in run.missing] == ["epochs.csv", "predictions.csv"]


@pytest.mark.parametrize("file", ["predictions.csv", "epochs.csv"])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"epoch,x\n1,2,3\n"])
def test_damaged_files_are_named(add_run, file, content):
    folder = add_run("a", 4)
    (folder / file).write_bytes(content)
    run = read_run(folder, "val")
    assert run.accuracy == 0.9 and (not run.missing or file in run.missing[0])
    assert run.missing or not run.epochs  # an empty epochs.csv has no epochs


def test_predictions_of_another_training_are_noticed(add_run):
    folder = add_run("a", 4)
    (folder / "predictions.csv").write_bytes((add_run("b", 8) / "predictions.csv").read_bytes())
    assert "predictions.csv has accuracy 0.8000, metrics.json 0.9000" in read_run(folder, "val").missing[0]


def test_unfinished_run_has_no_results(add_run):
    run = read_run(add_run("a", 4, without=["metrics.json"]), "val")
    assert run.accuracy is None and run.job.state == "unfinished" and run.missing == []


def test_settings_that_differ_are_columns_with_the_defaults_of_runs_that_did_not_set_them(runs):
    found = runs(["seed=1", "data.augment=true"], ["seed=1", "model=vgg16"], ["seed=1", "optimizer.lr=0.001"])
    assert differing_settings(found, KEYS) == ["data.augment", "model"]
    assert [[run.text(key, KEYS) for key in ("data.augment", "model")] for run in found] == [
        ["true", "basic_cnn"],
        ["false", "vgg16"],
        ["false", "basic_cnn"],
    ]


def test_runs_that_would_look_alike_get_the_columns_in_which_they_differ(runs, add_run):
    found = runs(["seed=0"], ["seed=0", "name=x", "data.cache_dir=elsewhere"])
    assert differing_settings(found, KEYS) == []
    found.append(read_run(add_run("other", 3, "seed=0", config={"model": {"dropout": 0.5}}), "val"))
    assert differing_settings(found, KEYS) == ["model.dropout"]


def test_repetitions_differ_in_seed_or_fold_alone(runs):
    found = runs(["seed=0"], ["seed=1", "model=vgg16"], ["seed=1", "data.fold=2"], ["seed=2", "logger=none"])
    assert repetitions(found, KEYS) == [[found[0], found[2], found[3]], [found[1]]]


def test_run_without_a_config_is_alone(runs):
    found = runs(["seed=0"], ["seed=1"], without=["config.yaml"])
    assert [len(group) for group in repetitions(found, KEYS)] == [1, 1]
