"""Kinds of values that options take, as people write them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

MOST_EXACT = 1 << 53  # above it floats skip whole numbers


class Whole(click.ParamType):
    """A whole number, also as people write long ones: 1e4, 2.0."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or click's error."""
        try:
            return int(value)
        except ValueError:  # it is not made of digits, or has too many
            pass
        try:
            number = float(value)
        except ValueError:
            number = 0.5  # no whole number, which is refused below
        if not number.is_integer() or abs(number) > MOST_EXACT:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return int(number)


class Named(click.Choice[str]):
    """One of some names, with or without capitals and with either dash; an error has the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is listed, or click's error."""
        spelled = str(value).replace("_", "-").lower()
        if spelled not in self.choices:
            near = get_close_matches(spelled, self.choices, 1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}{hint}", param, ctx)
        return spelled


class Shape(click.ParamType):
    """Rows and columns of a layer's matrix: 1024x4096."""

    name = "rows x columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Both numbers, or click's error."""
        if isinstance(value, tuple):
            return value
        rows, cross, columns = str(value).lower().replace("×", "x").partition("x")
        if not cross:
            self.fail(f"{value!r} is not ROWSxCOLUMNS, as in 1024x4096", param, ctx)
        return WHOLE.convert(rows, param, ctx), WHOLE.convert(columns, param, ctx)


WHOLE = Whole()
