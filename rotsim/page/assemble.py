"""One HTML file from the page's parts: style, numbers, and what draws them. It needs no network and no server."""

from __future__ import annotations

from rotsim.page.numerics import script, text

#: Hand-written files that need a browser, in the order in which they stand in the page.
IN_THE_BROWSER = ("pen.js", "panels.js", "exports.js", "controls.js", "main.js")


def page() -> str:
    """The whole page.

    Returns
    -------
    str
        HTML that refers to nothing outside of itself.
    """
    parts = {"style": text("style.css"), "core": script(), "page": "\n".join(map(text, IN_THE_BROWSER))}
    html = text("index.html")
    for name, content in parts.items():
        if "</script" in content or "</style" in content:
            raise ValueError(f"the page's {name} would end where it must not")
        html = html.replace(f"{{{{{name}}}}}", content)
    return html
