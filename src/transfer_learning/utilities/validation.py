"""Argument checks: types and ranges are declared in a constructor's annotations and checked with pydantic."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, validate_call
from pydantic_core import PydanticCustomError

from transfer_learning.utilities.errors import ArgumentError

Class = TypeVar("Class", bound=type)
Number = TypeVar("Number")
PATH, NAME_OR_PATH = "path", "name or path"
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # the seeds that NumPy and torch both accept
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def _ordered(pair: Sequence) -> Sequence:
    if pair[0] > pair[1]:
        raise PydanticCustomError("order", "the smaller number first")
    return pair


def _not_empty(path: str | Path) -> str | Path:
    if not str(path):
        raise PydanticCustomError("path", "a path, not an empty text")
    return path


PathArgument = Annotated[str | Path, PATH, AfterValidator(_not_empty)]  # the command line makes it absolute
NameOrPath = Annotated[str | Path, NAME_OR_PATH, AfterValidator(_not_empty)]  # absolute too, unless it is a name
Range = Annotated[Sequence[Number], Field(min_length=2, max_length=2), AfterValidator(_ordered)]  # Range[Positive]


def validated(cls: Class) -> Class:
    """Class decorator: the constructor raises ArgumentError if an argument does not match its annotation.

    Types are strict: `"1"` and `True` are not accepted as integers. An integer is a float, a list is a sequence.
    """
    init: Callable = cls.__init__  # type: ignore[misc]
    names = list(inspect.signature(init).parameters)
    checked = validate_call(config=STRICT)(init)

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] in ("unexpected_positional_argument", "multiple_argument_values"):
                init(self, *args, **kwargs)  # raises Python's own TypeError
            name = names[first["loc"][0]] if isinstance(first["loc"][0], int) else str(first["loc"][0])
            value = {**dict(zip(names[1:], args)), **kwargs}.get(name)
            raise ArgumentError(name, value, _expected(error, names[1:])) from None

    cls.__init__ = wrapper  # type: ignore[misc]
    return cls


def check_types(function: Callable, arguments: Mapping[str, Any]) -> None:
    """Raises ArgumentError if an argument of another library's function does not match its annotation."""
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    except (NameError, TypeError):  # annotations that exist for type checkers only
        return
    for name, value in arguments.items():
        strict = not isinstance(value, (list, dict))  # a list may stand for a tuple
        config = ConfigDict(strict=strict, arbitrary_types_allowed=True)
        try:
            TypeAdapter(hints.get(name, Any), config=config).validate_python(value)
        except ValidationError as error:
            raise ArgumentError(name, value, _expected(error)) from None


def is_marked(annotation: Any, mark: str) -> bool:
    """Whether an annotation, or a part of it, has the mark `PATH` or `NAME_OR_PATH`."""
    marks = getattr(annotation, "__metadata__", ())
    return mark in marks or any(is_marked(each, mark) for each in get_args(annotation))


def _expected(error: ValidationError, known: Sequence[str] = ()) -> str:
    special = {
        "unexpected_keyword_argument": f"no such argument; expected one of {', '.join(known)}.",
        "missing_argument": "a value is needed.",
        "sequence_str": "expected a list.",
    }
    messages = [re.sub("^(Input should be|Value should have) ", "", each["msg"]) for each in error.errors()]
    return special.get(error.errors()[0]["type"], f"expected {' or '.join(dict.fromkeys(messages))}.")
