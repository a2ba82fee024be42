"""The page in a notebook: an `anywidget` for Jupyter and marimo, whose settings Python reads and sets."""

from __future__ import annotations

from typing import Any

from rotsim.errors import InvalidInput, integer, text
from rotsim.page.assemble import page
from rotsim.page.numerics import text as part

SMALLEST, LARGEST = 300, 4000  # height of the widget, pixels


def widget(view: str = "", height: int = 740) -> Any:
    """The page of `rotsim explore` as a widget.

    Parameters
    ----------
    view : str
        What follows the address in a link to a view, as ``"#dim=32&schedule=cosine"``; what is not understood in it is
        left out. Empty for the page as it opens.
    height : int
        Pixels, from 300 to 4000.

    Returns
    -------
    anywidget.AnyWidget
        With the traits ``view``, which follows every change on the page and changes it when it is set, and ``height``.

    Raises
    ------
    InvalidInput
        If an argument is out of range, or anywidget is not installed.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise InvalidInput(
            "a widget needs anywidget: pip install 'rotsim[notebook]'. Or use `rotsim explore`"
        ) from None

    class Page(anywidget.AnyWidget):
        _esm = part("widget.js")
        html = traitlets.Unicode().tag(sync=True)
        view = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int().tag(sync=True)

    pixels = integer("height", height, low=SMALLEST, high=LARGEST + 1)
    return Page(html=page(), view=text("view", view) if view else "", height=pixels)
