"""Table and gallery of claims in README.md, written from docstrings and committed results: nothing is said twice."""

import json
import re
from collections.abc import Sequence
from importlib import import_module
from math import isfinite
from typing import Any

from experiments.harness import markdown
from experiments.harness.claim import RESULTS
from rotsim.checks import Check, Report
from rotsim.files import write_atomically

README = RESULTS.parent / "README.md"
BEGIN, END = "<!-- claims: written by python -m experiments --table -->", "<!-- end of claims -->"
_GALLERY = "<!-- figures: written with the table -->", "<!-- end of figures -->"
_COLUMNS = 2
ABOUT_ANSWERS = (
    "Effect: mean over seeds of a ratio, minus 1, with its interval after all looks. Margin: the smallest effect that "
    "matters, fixed before the seeds were trained."
)
_OPEN = "<!-- statements: written with the table -->", "<!-- end of statements -->"
_STATEMENTS = ("claim", "statement", "effect", "claimed", "verdict", "why")
_ANSWERED = "<!-- answers: written with the table -->", "<!-- end of answers -->"
_ANSWERS = ("claim", "statement", "effect", "interval", "margin", "seeds", "verdict")
_HEAD = ("claim", "of", "our result", "verdict", "command", "CPU time", "figure")


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


def report_of(content: dict[str, Any]) -> Report:
    """The statements of a committed result."""
    return Report(tuple(map(Check.from_dict, content["checks"])))


def row(name: str) -> list[str]:
    """One line of the table of claims."""
    documentation = import_module(f"experiments.{name}").__doc__ or ""
    content = committed(name)
    result = (
        ["", "not run", f"`python -m experiments.{name}`", "", ""]
        if content is None
        else [
            content["result"],
            report_of(content).summary(),
            f"`python -m experiments.{name}`",
            _duration(content["cpu_seconds"]),
            f"[{name}](results/{name}.png)",
        ]
    )
    return [title_of(documentation), section_of(documentation), *result]


def statements(claims: Sequence[str], every: bool) -> str:
    """Statements with effect, interval and verdict in columns: every one, or those that do not pass."""
    rows = [
        (name, c.statement, _effect(c), c.interval(), c.verdict, c.note)
        for name in claims
        if (content := committed(name)) is not None
        for c in report_of(content)
        if (every or not c.passed) and c.statement not in {a["statement"] for a in content.get("answers", ())}
    ]
    return markdown.table(_STATEMENTS, rows)


def answers(claims: Sequence[str], every: bool) -> str:
    """Answers about trained networks in columns: every one, or those that are not as claimed."""
    rows = [
        (
            name, a["statement"], f"{a['effect']:+.1%}", f"{a['low']:+.1%} to {a['high']:+.1%}",
            f"{a['margin']:.0%}", a["seeds"], _in_words(a),
        )
        for name in claims
        if (content := committed(name)) is not None
        for a in content.get("answers", ())
        if every or a["verdict"] != "PASS"
    ]  # fmt: skip
    return markdown.table(_ANSWERS, rows)


def _in_words(answer: dict[str, Any]) -> str:
    """A verdict, and what it says of the claim, in at most ten words."""
    if answer["verdict"] == "UNRESOLVED":
        return str(answer["words"])
    return f"{answer['words']}, {'as claimed' if answer['verdict'] == 'PASS' else 'against the claim'}"


def _effect(check: Check) -> str:
    """The measured number and its standard error."""
    error = f" ± {check.standard_error:.1g}" if isfinite(check.standard_error) else ""
    return f"{check.measured:.3g}{error}"


def gallery(claims: Sequence[str]) -> str:
    """Every figure with its message, side by side."""
    cells = []
    for name in claims:
        if (content := committed(name)) is not None:
            figure = f"results/{name}.png"
            message = title_of(import_module(f"experiments.{name}").__doc__ or "")
            cells.append(f"[![{name}]({figure})]({figure})<br>**{name}**: {message}. *{report_of(content).summary()}*")
    cells += [""] * (-len(cells) % _COLUMNS)
    lines = [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
    return markdown.table([""] * _COLUMNS, lines)


def text(claims: Sequence[str]) -> str:
    """The README with its tables and its gallery up to date."""
    page = _between(README.read_text(), BEGIN, END, markdown.table(_HEAD, map(row, claims)))
    page = _between(page, *_OPEN, statements(claims, every=False))
    page = _between(page, *_ANSWERED, answers(claims, every=False))
    return _between(page, *_GALLERY, gallery(claims))


def document(claims: Sequence[str]) -> str:
    """results/claims.md: every statement of every claim."""
    about = "Effect: measured, ± standard error. Claimed: the interval, fixed before the numbers were seen."
    parts = (about, statements(claims, every=True), "## Trained networks", ABOUT_ANSWERS, answers(claims, every=True))
    return "\n\n".join(("# Statements of all claims", *parts)) + "\n"


def _between(page: str, begin: str, end: str, content: str) -> str:
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def update(claims: Sequence[str]) -> None:
    """Write it."""
    write_atomically(README, text(claims))
    write_atomically(RESULTS / "claims.md", document(claims))


def _duration(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"{max(5 * round(seconds / 5), 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"
