"""Table and gallery of claims in README.md, written from docstrings and committed results: nothing is said twice."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.claim import RESULTS
from rotsim.files import write_atomically

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- claims: written by python -m experiments --table -->", "<!-- end of claims -->"
_GALLERY = "<!-- figures: written with the table -->", "<!-- end of figures -->"
_COLUMNS = 2
_HEAD = "| claim | of | our result | verdict | command | CPU time | figure |"


def committed(name: str) -> dict[str, Any] | None:
    """The committed result of a claim, or None before there is one."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def section_of(documentation: str) -> str:
    """Where a claim comes from: what its docstring has in parentheses after "Claim"."""
    found = re.search(r"^Claim \((.*?)\):", documentation, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(
            'a claim\'s docstring says where it comes from: "Claim (Kosson et al. 2024, section 3.2): ..."'
        )
    return " ".join(found[1].replace("Kosson et al. 2024, ", "").split())


def title_of(documentation: str) -> str:
    """What is found, in a sentence: the first line."""
    return documentation.strip().splitlines()[0].rstrip(".")


def row(name: str) -> str:
    """One line of the table."""
    documentation = import_module(f"experiments.{name}").__doc__ or ""
    title = title_of(documentation)
    content = committed(name)
    if content is None:
        cells = [title, section_of(documentation), "", "not run", f"`python -m experiments.{name}`", "", ""]
    else:
        cells = [
            title,
            section_of(documentation),
            content["result"],
            verdict(content),
            f"`python -m experiments.{name}`",
            _duration(content["cpu_seconds"]),
            f"[{name}](results/{name}.png)",
        ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def verdict(content: dict[str, Any], reasons_too: bool = True) -> str:
    """Holds, or how many of the statements do not; of what, and why where that is known."""
    checks = content["checks"]
    refuted = [check for check in checks if is_refuted(check)]
    undecided = [check for check in checks if not check["holds"] and not is_refuted(check)]
    parts = []
    for found, what in ((refuted, "refuted"), (undecided, "not established")):
        if found:
            reasons = dict.fromkeys(f"{_subject(c['statement'])}: {c['because']}" for c in found if c.get("because"))
            subjects = dict.fromkeys(_subject(c["statement"]) for c in found if not c.get("because"))
            why = "; ".join([*reasons, *([", ".join(subjects)] if subjects else [])])
            parts.append(f"{len(found)} of {len(checks)} statements {what}" + f" ({why})" * reasons_too)
    return "; ".join(parts) or "holds"


def is_refuted(check: dict[str, Any]) -> bool:
    """As `experiments.claim.Check.refuted`, of a committed check."""
    return check.get("established", True) and not check["holds"]


def _subject(statement: str) -> str:
    return re.split("[,:]", statement)[0]


def gallery(claims: Sequence[str]) -> str:
    """Every figure with its message, side by side."""
    cells = []
    for name in claims:
        if (content := committed(name)) is not None:
            figure = f"results/{name}.png"
            message = title_of(import_module(f"experiments.{name}").__doc__ or "").replace("|", "\\|")
            cells.append(f"[![{name}]({figure})]({figure})<br>**{name}**: {message}. *{verdict(content, False)}*")
    cells += [""] * (-len(cells) % _COLUMNS)
    lines = [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
    head = ["| " * _COLUMNS + "|", "|---" * _COLUMNS + "|"]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def text(claims: Sequence[str]) -> str:
    """The README with its table and its gallery up to date."""
    rows = "\n".join([_HEAD, "|---" * (_HEAD.count("|") - 1) + "|", *(row(name) for name in claims)])
    return _between(_between(README.read_text(), BEGIN, END, rows), *_GALLERY, gallery(claims))


def _between(page: str, begin: str, end: str, content: str) -> str:
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def update(claims: Sequence[str]) -> None:
    """Write it."""
    content = text(claims)
    write_atomically(README, content)


def _duration(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"{max(5 * round(seconds / 5), 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"
