import pytest
from omegaconf import OmegaConf

from transfer_learning.runs.config import differing_keys, flat, read_config
from transfer_learning.utilities.errors import UserError


def test_config_is_read_unresolved(tmp_path):
    path, config = tmp_path / "config.yaml", {"a": {"b": "${c}", "d": [1, None]}, "c": 1e-7, "overrides": []}
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    assert read_config(path) == config


@pytest.mark.parametrize(
    "text",
    ["1e-3", "1E5", "1.5e3", "-2e+4", "1_0e3", "12", "0x10", "1.0", ".5", ".inf", "1e", "e3", "2026-11-25", "yes", "~"],
)
def test_values_are_read_as_omegaconf_reads_them(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(f"a: {{b: {text}}}\noverrides: []")
    expected, found = OmegaConf.load(path).a.b, read_config(path)["a"]["b"]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"a: ${", b"- 1", b"a: {b: 0}\n", b"\xff{", b"text", b"a: !!python/x 1"]
)
def test_file_that_is_no_config_is_named(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: not the config of a run, or damaged") and "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/config.yaml: not the config of a run"):
        read_config(tmp_path / "config.yaml")


def test_flat_joins_keys_with_dots_and_keeps_empty_dicts():
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": None, "f": []}) == {"a.b.c": 1, "a.d": {}, "e": None, "f": []}
    assert flat({}) == {}


OLD = {"seed": 0, "data": {"views": 0, "sizes": [1, 2]}, "scheduler": None}


@pytest.mark.parametrize(
    "new, given, expected",
    [
        (OLD, [], []),
        (OLD, ["seed", "data"], []),
        (OLD | {"seed": 1}, [], ["seed"]),
        (OLD | {"data": {"views": 0, "sizes": [2, 1]}}, [], ["data.sizes"]),
        ({"data": OLD["data"], "scheduler": None}, [], ["seed"]),  # a key that is absent now
        (OLD | {"new": 1}, [], []),  # a key that was absent then
        (OLD | {"new": 1}, ["seed"], []),
        (OLD | {"new": 1}, ["new"], ["new"]),
        (OLD | {"data": {**OLD["data"], "new": {"x": 1}}}, ["data.view"], []),
        (OLD | {"data": {**OLD["data"], "new": {"x": 1}}}, ["data.new.x"], ["data.new.x"]),
        (OLD | {"data": {**OLD["data"], "new": {"x": 1}}}, ["data.new"], ["data.new.x"]),
        (OLD | {"data": {**OLD["data"], "new": {"x": 1}}}, ["data"], ["data.new.x"]),
        (OLD | {"scheduler": {"warmup": 0.1}}, [], ["scheduler"]),  # another group, not a new key
    ],
)
def test_keys_that_differ(new, given, expected):
    assert differing_keys(OLD, new, given) == expected


def test_without_an_old_config_every_key_differs():
    assert differing_keys({}, OLD, []) == ["data.sizes", "data.views", "scheduler", "seed"]
