"""Pages of the site that are written elsewhere: derivations, API, commands, README, changelog, claims.

They go to docs/generated and docs/index.md, which git ignores. Nothing here lists names: modules and folders are asked.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
GENERATED = "generated"
REPOSITORY = f"{GENERATED}/repository"  # pages of files that are not in docs/
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")

#: How-to pages in reading order. Pages of docs/ that are named nowhere are background.
HOW_TO = ("explore", "predict", "sweep", "simulate", "page", "measure", "read-others", "read-a-report")
#: Pages of docs/ that are evidence, beside those of experiments/.
EVIDENCE = ("what-agrees", "speed")


def write(docs: Path) -> None:
    """All generated pages; those that have not changed are left alone, so that Sphinx does not read them again."""
    theory = _derivations(docs / GENERATED / "theory")
    pages = {f"{GENERATED}/theory/{name}.md": text for name, text in theory.items()}
    pages |= {f"{GENERATED}/glossary.md": _glossary(), f"{GENERATED}/api.md": _api()}
    pages[f"{GENERATED}/commands.md"] = "# Commands\n\n" + _rst(
        ".. click:: rotsim.cli:cli\n   :prog: rotsim\n   :nested: full"
    )
    evidence = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "experiments").rglob("*.md"))]
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", *evidence):
        pages[f"{REPOSITORY}/{name}"] = relinked(ROOT / name, f"{REPOSITORY}/{name}")
    pages["index.md"] = relinked(ROOT / "README.md", "index.md") + _contents(docs, theory, evidence)
    for name, text in pages.items():
        path = docs / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def on_source_read(app: Any, page: str, source: list[str]) -> None:
    """Links of a page of docs/ that leave the folder lead to the copy on the site."""
    if not page.startswith((GENERATED, "index")):
        source[0] = relinked(ROOT / "docs" / f"{page}.md", f"{page}.md")


def relinked(file: Path, page: str) -> str:
    """The text of a Markdown file of the repository, with links that hold on `page` of the site."""
    folder, place = file.parent, (ROOT / "docs" / page).parent

    def link(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if "://" in target:
            return found[0]
        path = Path(os.path.normpath(folder / target))
        return f"{before}{os.path.relpath(_on_site(path), place)}{after}"

    return LINK.sub(link, file.read_text(encoding="utf-8"))


def _on_site(file: Path) -> Path:
    """Where the page of a Markdown file of the repository is; any other file is taken from where it is."""
    docs = ROOT / "docs"
    if file.suffix != ".md":
        return file
    if file in (ROOT / "README.md", docs / "README.md"):
        return docs / "index.md"
    return file if file.is_relative_to(docs) else docs / REPOSITORY / file.relative_to(ROOT)


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```\n"


def _derivations(folder: Path) -> dict[str, str]:
    """The walk-throughs by name, as `python -m derivations --markdown` writes them; symbols lead to the glossary.

    To derive is slow. A page ends with a digest of what it was made from, and stays where that is the same.
    """
    import derivations

    pages = {}
    for name in derivations.DERIVATIONS:
        made, path = f"% made from {_digest(name)}\n", folder / f"{name}.md"
        pages[name] = path.read_text(encoding="utf-8") if path.exists() else ""
        if not pages[name].endswith(made):
            text = derivations.render(name, "markdown")
            pages[name] = re.sub(r"(?<=\$ \| )(?=`\w+` \| )", "{term}", text) + "\n" + made
    return pages


def _digest(name: str) -> str:
    """Of the source of a derivation, of all that it imports from derivations/, and of sympy's version."""
    import sympy

    folder, waiting, sources = ROOT / "derivations", [name, "__init__"], {}
    while waiting:
        path = folder / f"{waiting.pop()}.py"
        if path in sources or not path.exists():
            continue
        sources[path] = path.read_bytes()
        for node in ast.walk(ast.parse(sources[path])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("derivations"):
                waiting += [node.module.rpartition(".")[2], *(found.name for found in node.names)]
    content = [sympy.__version__.encode(), Path(__file__).read_bytes(), *(sources[path] for path in sorted(sources))]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def _glossary() -> str:
    """Every symbol of the derivations under its name in the code."""
    from sympy import latex

    from derivations.symbols import TABLE

    entries: dict[str, list[str]] = {}
    for symbol, (code, meaning, _) in TABLE.items():
        entries.setdefault(code, []).append(f"${latex(symbol)}$: {meaning}")
    listed = "\n\n".join(f"{code}\n  " + "; ".join(meanings) for code, meanings in entries.items())
    head = "# Symbols of the derivations\n\nBy their names in the code. [symbols](../symbols.md) explains words."
    return f"{head}\n\n```{{glossary}}\n:sorted:\n\n{listed}\n```\n"


def _api() -> str:
    """Every public name of rotsim and rotsim.measure, by kind, each with a page of its own."""
    import rotsim
    import rotsim.measure

    groups = _groups(rotsim) | {
        f"Measuring (`rotsim.measure`): {k.lower()}": v for k, v in _groups(rotsim.measure).items()
    }
    parts = ["# API reference", "Every public name. `help(rotsim.NAME)` shows the same text.", ""]
    for title, names in groups.items():
        listed = "\n".join(f"   {name}" for name in names)
        parts.append(f"## {title}\n\n" + _rst(f".. autosummary::\n   :toctree: api\n\n{listed}"))
    return "\n".join(parts)


def _groups(module: ModuleType) -> dict[str, list[str]]:
    from rotsim.gradients import Gradient
    from rotsim.optimizers.base import Optimizer

    def of(kind: type) -> Callable[[Any], bool]:
        return lambda value: inspect.isclass(value) and issubclass(value, kind)

    kinds: dict[str, Callable[[Any], bool]] = {
        "Functions": inspect.isfunction,
        "Optimizers": of(Optimizer),
        "Gradients": of(Gradient),
        "Errors": of(BaseException),
        "Classes": inspect.isclass,
        "Data": lambda value: not inspect.ismodule(value),
    }
    groups: dict[str, list[str]] = {title: [] for title in kinds}
    for name in module.__all__:
        title = next(title for title, fits in kinds.items() if fits(getattr(module, name)))
        groups[title].append(f"{module.__name__}.{name}")
    return {title: sorted(names) for title, names in groups.items() if names}


def _contents(docs: Path, theory: dict[str, str], evidence: list[str]) -> str:
    """The tables of contents, below the first page's text."""
    background = sorted({path.stem for path in docs.glob("*.md")} - {*HOW_TO, *EVIDENCE, "README", "index"})
    questions = [f"answers/{path.stem}" for path in sorted((docs / "answers").glob("*.md"))]
    contents = {
        "How to": HOW_TO,
        "Questions": questions,
        "Lessons": [f"lessons/{path.stem}" for path in sorted((docs / "lessons").glob("*.md"))],
        "Theory, step by step": [_entry(text, f"{GENERATED}/theory/{name}") for name, text in theory.items()],
        "Background": background,
        "Evidence": [*EVIDENCE, *(f"{REPOSITORY}/{name.removesuffix('.md')}" for name in evidence)],
        "Reference": [
            f"{GENERATED}/api",
            f"{GENERATED}/commands",
            f"{GENERATED}/glossary",
            *(f"{REPOSITORY}/{n}" for n in ("CHANGELOG", "CONTRIBUTING")),
        ],
    }
    return "".join(
        f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in contents.items()
    )


def _entry(text: str, page: str) -> str:
    """A line of a table of contents: of a page's headline what stands before the colon."""
    return f"{text.partition(chr(10))[0].removeprefix('# ').partition(':')[0].rstrip('.')} <{page}>"
