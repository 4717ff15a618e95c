"""Kinds of values that a key can have, and what else is said of it."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

# Marks in the annotation of a key: it changes how fast a run goes, or whether it goes on, but not
# what it computes; it has to be alike in all runs of a comparison; so it has, but where the methods
# themselves differ.
OPERATIONAL, COMPARED, ALIKE = "operational", "compared", "alike"

# Of every class of keys. Hydra and YAML take a path such as 2024 for a number.
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

_NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
}


def holds(test: Callable[[Any], bool]) -> AfterValidator:
    """Returns the validator of values for which a test holds."""

    def check(value: Any) -> Any:
        if not test(value):
            raise ValueError
        return value

    return AfterValidator(check)


def _none_of(*kinds: type) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, kinds):
            raise ValueError
        return value

    return BeforeValidator(check)


# `title` is what an error expects, where the bounds do not say it well.
Whole = Annotated[int, _none_of(bool, float)]
Number = Annotated[float, _none_of(bool)]
AtLeast1 = Annotated[Whole, Field(ge=1)]
Count = Annotated[Whole, Field(ge=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1, title="a share, from 0 to 1")]
Part = Annotated[Number, Field(gt=0, lt=1, title="a share between 0 and 1")]
Rate = Annotated[Number, Field(ge=0, lt=1, title="a rate from 0 to below 1")]
Workers = Annotated[Whole, Field(ge=-1)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63, title="0 to 2^63 - 1")]
Seed32 = Annotated[Whole, Field(ge=0, lt=2**32, title="0 to 2^32 - 1")]
Limit = Annotated[
    Whole,
    holds(lambda value: value >= 1 or value == -1),
    Field(title="at least 1, or -1 for no limit"),
]
Auto = Annotated[bool | Literal["auto"], Field(title="auto, true or false")]


def expected(kind: Any, with_noun: bool = True) -> str:
    """Returns in words which values a kind has, e.g. `a whole number, at least 1, or null`.

    Args:
        kind: The annotation of a field, as `get_type_hints` gives it with its extras.
        with_noun: Whether the words say that it is a number, where it has bounds as well.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        stated = [one for one in kind.__metadata__ if isinstance(one, FieldInfo)]
        for title in (one.title for one in stated if one.title):
            return title
        bounds = [_bound(limit) for one in stated for limit in one.metadata]
        noun = [expected(inner[0], with_noun)] if with_noun or not bounds else []
        return ", ".join([*noun, *bounds])
    if origin in (Union, UnionType):
        kinds = [expected(one, with_noun) for one in inner if one is not type(None)]
        return ", or ".join([*kinds, *(["null"] if type(None) in inner else [])])
    if origin is Literal:
        return f"one of {', '.join(str(one) for one in inner)}"
    return _NOUNS.get(origin or kind, "keys and values")


def _bound(limit: Any) -> str:
    if hasattr(limit, "gt"):
        return f"more than {limit.gt}"
    return f"at least {limit.ge}" if limit.ge > 0 else f"{limit.ge} or more"
