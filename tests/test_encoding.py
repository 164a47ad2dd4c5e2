"""Text files are UTF-8 on every system. Python's default is that of the locale, on Windows cp1252."""

import ast
from pathlib import Path

import pytest

import train
from tests.test_layers import FILES


def lacks_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file, or reads the text that a process prints, in the encoding of the locale."""
    name, is_function = ast.unparse(call.func).rpartition(".")[2], isinstance(call.func, ast.Name)
    settings = {each.arg: each.value for each in call.keywords}
    values = [each.value for each in (*call.args, *settings.values()) if isinstance(each, ast.Constant)]
    if name == "open" and is_function:
        is_text = not any(isinstance(each, str) and "b" in each and set(each) <= set("rwaxb+") for each in values)
    elif name in ("read_text", "write_text"):
        is_text = not is_function  # ours, which writes UTF-8
    else:
        is_text = name == "FileHandler" or bool({"text", "universal_newlines"} & set(settings))
    return is_text and "encoding" not in settings


@pytest.mark.parametrize(
    "code, expected",
    [
        ("open(path)", True),
        ("open(path, 'a', newline='')", True),
        ("open(path, 'rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("path.read_text(errors='replace')", True),
        ("subprocess.run(command, text=True)", True),
        ("write_text(path, text)", False),
        ("Image.open(path)", False),
    ],
)
def test_the_check_itself(code, expected):
    assert lacks_encoding(ast.parse(code).body[0].value) == expected


def test_text_is_read_and_written_with_an_encoding():
    found = []
    benchmarks = Path(train.__file__).with_name("benchmarks").rglob("*.py")
    for file in (*FILES, Path(train.__file__), *benchmarks):
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        found += [f"{file}:{call.lineno}" for call in calls if lacks_encoding(call)]
    assert found == []
