"""The proofs behind rotsim's predictions, step by step, in sympy; and the source of its closed forms.

A function that takes a name takes a key of `DERIVATIONS`, and raises `ValueError` for any other.
"""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from derivations.languages import LANGUAGES

if TYPE_CHECKING:
    from sympy import Eq

    from derivations.formula import Formula

_NAMES = (
    "adamw", "adam_l2", "adam_l2_chain", "sgdm", "lion", "shapes", "muon", "second_moment",
    "second_moment_fluctuation", "damped", "transient", "lion_transient", "signal", "autocorrelated",
    "lion_autocorrelated", "correlated_adam", "shifting_moment", "radial", "rotational", "rotational_adamw",
    "rotational_sgdm", "rotational_lion", "finite_dim", "rare_updates", "planning", "nesterov", "signum", "nadamw",
    "ademamix", "cautious", "hyperball",
)  # fmt: skip


class _Modules(UserDict[str, ModuleType | None]):
    """Modules of this package by name. One is imported when it is first asked for, and sympy with it."""

    def __getitem__(self, name: str) -> ModuleType:
        return self.data[name] or import_module(f"derivations.{name}")


#: By name, in the order in which their functions are generated.
DERIVATIONS = _Modules(dict.fromkeys(_NAMES))

#: What `rotsim verify --quick` proves: optimizers and rotational variants whose proofs are short, and how to plan.
QUICK = (
    "adamw", "sgdm", "lion", "rotational", "rotational_adamw", "rotational_sgdm", "rotational_lion", "planning",
)  # fmt: skip


class WalkthroughStep(NamedTuple):
    """One step of the argument: what it is called, why it holds, what it yields."""

    title: str
    explanation: str
    equations: tuple[Eq, ...]


def walkthrough(name: str) -> list[WalkthroughStep]:
    """The steps of one derivation, in the order of the argument."""
    from derivations.formula import STEPS

    steps = []
    for step in STEPS[_derivation(name).__name__]:
        result = step()
        equations = result if isinstance(result, tuple) else (result,)
        steps.append(WalkthroughStep(_title(step.__name__), step.__doc__ or "", equations))
    return steps


def _title(name: str) -> str:
    """The name of a step as a heading; optimizers as they are written."""
    title = name.replace("_", " ").capitalize()
    for code, label in (
        ("nadamw", "NAdamW"),
        ("ademamix", "AdEMAMix"),
        (r"\badamw", "AdamW"),
        ("adam l2", "Adam+L2"),
        ("sgdm", "SGDM"),
        (" lion", " Lion"),
        ("muon", "Muon"),
    ):
        title = re.sub(code, label, title, flags=re.IGNORECASE)
    return title


def render(name: str, style: str = "text") -> str:
    """One derivation as a page to read.

    The style is "text", Unicode for a terminal of 100 columns; "ascii", the same with equations in ASCII; or
    "markdown", with LaTeX equations. `ValueError` if there is no such style.
    """
    from derivations.symbols import TABLE
    from derivations.typeset import render_head, render_step

    headline = (_derivation(name).__doc__ or "").strip()
    steps = walkthrough(name)
    used = {symbol for step in steps for item in step.equations for symbol in item.free_symbols}
    used -= set(getattr(_derivation(name), "LOCAL", ()))
    legend = [(symbol, entry) for symbol, entry in TABLE.items() if symbol in used]
    pages = [render_step(number, *step, style=style) for number, step in enumerate(steps, start=1)]
    return "\n".join([render_head(headline, legend, style=style), *pages])


@cache
def closed_forms(file: str = "closed_forms.py") -> str:
    """Source of a generated file as the derivations give it.

    "closed_forms.py" is for rotsim, "closed_forms.js" for the page of `rotsim explore`.
    """
    source: str = LANGUAGES[file].closed_forms(source for name in DERIVATIONS for source in _sources(name, file))
    return source


def formulas(name: str) -> tuple[Formula, ...]:
    """What one derivation generates, in the order of its definition."""
    from derivations.formula import FORMULAS

    return tuple(FORMULAS[_derivation(name).__name__])


class Proof(NamedTuple):
    """What was proved of one derivation.

    Attributes
    ----------
    name : str
        A key of `DERIVATIONS`.
    statements : list of (str, bool)
        Each with its verdict.
    sources : dict of list of str, or None
        Its functions in each generated file; None if the proof broke off.
    """

    name: str
    statements: list[tuple[str, bool]]
    sources: dict[str, list[str]] | None


def prove(name: str) -> Proof:
    """Check every statement of one derivation that can be checked without numbers, and generate its functions."""
    statements = [(f"{name}: {statement}", bool(holds)) for statement, holds in _derivation(name).checks()]
    return Proof(name, statements, {file: _sources(name, file) for file in LANGUAGES})


def verdicts(proofs: Sequence[Proof]) -> list[tuple[str, bool]]:
    """All statements of some proofs, and whether the committed functions are those that they generate.

    The last are about the files. With proofs of all derivations, in the order of `DERIVATIONS`, each whole file is
    compared.
    """
    whole = [proof.name for proof in proofs if proof.sources is not None] == list(DERIVATIONS)
    files = []
    for file, language in LANGUAGES.items():
        path = language.committed_path()
        committed = path.read_text(encoding="utf-8") if path.exists() else ""
        sources = [source for proof in proofs if proof.sources is not None for source in proof.sources[file]]
        if whole:
            files.append((f"{file} is what the derivations generate", committed == language.closed_forms(sources)))
        else:
            files.append((f"{file} has the functions that these generate", all(s in committed for s in sources)))
    return [*(statement for proof in proofs for statement in proof.statements), *files]


def check() -> list[tuple[str, bool]]:
    """Every statement that can be checked without numbers, and whether it holds; proved on all cores.

    The last say whether the committed closed forms are the derived ones.
    """
    from derivations.workers import Proofs  # which imports this

    with Proofs(tuple(DERIVATIONS)) as proofs:
        return verdicts(proofs.results())


def _sources(name: str, file: str) -> list[str]:
    language = LANGUAGES[file]
    return [language.function(formula) for formula in formulas(name) if language.known(formula)]


def _derivation(name: str):  # type: ignore[no-untyped-def]
    try:
        return DERIVATIONS[name]
    except KeyError:
        raise ValueError(f"no derivation is called {name!r}; choose from {', '.join(DERIVATIONS)}") from None
