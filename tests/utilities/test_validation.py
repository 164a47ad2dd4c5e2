from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field

from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import (
    NAME_OR_PATH,
    PATH,
    NameOrPath,
    PathArgument,
    check_types,
    is_marked,
    validated,
)

Width = Annotated[int, Field(ge=1)]


@validated
class Example:
    """Its docstring."""

    def __init__(
        self,
        size: Annotated[int, Field(ge=1, le=9)],
        rate: float = 0.1,
        mode: Literal["stretch", "crop"] = "stretch",
        widths: Annotated[Sequence[Width], Field(min_length=1)] = (1,),
        share: Width | Annotated[float, Field(gt=0, le=1)] = 1,
        name: str | None = None,
        path: PathArgument = "folder",
        flag: bool = False,
        table: Mapping[str, int] | None = None,
        function: Callable | None = None,
        weights: NameOrPath | None = None,
    ):
        self.arguments = {key: value for key, value in locals().items() if key != "self"}


@pytest.mark.parametrize(
    "arguments",
    [
        dict(size=9),
        dict(size=1, rate=3),  # an integer is a float
        dict(size=1, mode="crop", widths=[3, 4], name="x"),
        dict(size=1, share=0.5, path=Path("folder"), flag=True, table={"a": 1}, function=len),
    ],
)
def test_valid_arguments_reach_the_constructor(arguments):
    found = Example(**arguments).arguments
    assert {key: found[key] for key in arguments} == arguments
    assert found["rate"] == arguments.get("rate", 0.1) and found["mode"] == arguments.get("mode", "stretch")


def test_positional_arguments():
    found = Example(3, 0.5, "crop").arguments
    assert (found["size"], found["rate"], found["mode"]) == (3, 0.5, "crop")
    with pytest.raises(ArgumentError, match="^rate='x': expected a valid number"):
        Example(3, "x")


@pytest.mark.parametrize(
    "argument, value, expected",
    [
        ("size", "1", "a valid integer"),
        ("size", True, "a valid integer"),
        ("size", 1.0, "a valid integer"),
        ("size", None, "a valid integer"),
        ("size", 0, "greater than or equal to 1"),
        ("size", 10, "less than or equal to 9"),
        ("rate", "0.1", "a valid number"),
        ("rate", False, "a valid number"),
        ("mode", "pad", "'stretch' or 'crop'"),
        ("widths", [], "at least 1 item"),
        ("widths", [4, 0], "greater than or equal to 1"),
        ("widths", [4, "8"], "a valid integer"),
        ("widths", 4, "an instance of Sequence"),
        ("share", "half", "a valid integer or a valid number"),
        ("share", 1.5, "a valid integer or less than or equal to 1"),
        ("name", 5, "a valid string"),
        ("path", 5, "a valid string or an instance of Path"),
        ("path", "", "a path, not an empty text"),
        ("weights", "", "a path, not an empty text"),
        ("flag", 1, "a valid boolean"),
        ("table", {"a": "b"}, "a valid integer"),
        ("function", 5, "callable"),
    ],
)
def test_error_names_argument_value_and_expectation(argument, value, expected):
    with pytest.raises(ArgumentError) as error:
        Example(**{"size": 1} | {argument: value})
    assert str(error.value).startswith(f"{argument}={value!r}: expected {expected}")
    assert (error.value.argument, error.value.value) == (argument, value)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_unknown_argument_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="^siez=3: no such argument; expected one of size, rate, mode, widths"):
        Example(size=1, siez=3)


def test_missing_argument():
    with pytest.raises(ArgumentError, match="^size=None: .*needed") as error:
        Example(rate=0.5)
    assert error.value.argument == "size" and "expected Missing" not in str(error.value)


def test_text_is_no_sequence():
    with pytest.raises(ArgumentError, match="^widths='12': ") as error:
        Example(1, widths="12")
    assert "expected 'str' instances are" not in str(error.value)


def test_wrong_calls_are_pythons_own_errors():
    with pytest.raises(TypeError, match="positional arguments"):
        Example(1, 0.5, "crop", [1], 1, None, "x", False, None, None, None, 7)
    with pytest.raises(TypeError, match="multiple values for argument 'size'"):
        Example(1, size=2)


def test_constructor_keeps_its_signature_and_errors():
    @validated
    class Raises:
        def __init__(self, size: int):
            """Documented."""
            raise ZeroDivisionError

    assert Raises.__init__.__doc__ == "Documented." and Example.__doc__ == "Its docstring."
    with pytest.raises(ZeroDivisionError):
        Raises(1)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(lr=0.1, momentum=0.9, nesterov=True),
        dict(lr=1),
        dict(lr=torch.tensor(0.1)),
    ],
)
def test_check_types_accepts_matching_arguments(arguments):
    check_types(torch.optim.SGD, arguments)


def function_of_another_library(sizes: tuple[int, int], mode: Literal["a", "b"] = "a", more=None, **others) -> None:
    pass


@pytest.mark.parametrize(
    "function, argument, value, expected",
    [
        (torch.optim.SGD, "lr", "0.1", "a valid number"),
        (torch.optim.SGD, "nesterov", "yes", "a valid boolean"),
        (torch.optim.SGD, "momentum", [0.9], "a valid number"),
        (function_of_another_library, "sizes", "12", "a valid tuple"),
        (function_of_another_library, "sizes", [1, "x"], "a valid integer"),
        (function_of_another_library, "mode", "c", "'a' or 'b'"),
    ],
)
def test_check_types_names_argument_value_and_expectation(function, argument, value, expected):
    with pytest.raises(ArgumentError) as error:
        check_types(function, {argument: value})
    assert str(error.value).startswith(f"{argument}={value!r}: expected {expected}")


def test_check_types_accepts_lists_for_tuples_and_arguments_without_annotation():
    check_types(function_of_another_library, {"sizes": [1, 2], "more": object(), "unknown": "anything"})


def test_marks_of_paths():
    assert is_marked(PathArgument, PATH) and is_marked(PathArgument | None, PATH)
    assert is_marked(NameOrPath | None, NAME_OR_PATH) and not is_marked(NameOrPath, PATH)
    assert not is_marked(str, PATH) and not is_marked(Sequence[int], NAME_OR_PATH)


def test_argument_error_shows_values_as_in_python():
    error = ArgumentError("unfreeze", "block9", "expected block1.")
    assert str(error) == "unfreeze='block9': expected block1."
    assert (error.argument, error.value, error.message) == ("unfreeze", "block9", "expected block1.")
