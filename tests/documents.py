"""The documents' examples, run: every `python` and `sh` block, and the `text` block after it is what it prints.

``python -m tests.documents`` writes into README.md and docs/ what the blocks print now.

A `text` block may leave lines out: ``...`` stands for any number of them, also of none. Blocks of one document run in
order, in one folder, and its Python blocks share their names. A block marked `no-test` is not run. Behind `text` may
stand ``within 20 %``: numbers may differ by so much, where training amplifies the rounding of a processor.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE = {"generated", "index.md"}  # in docs/, by Sphinx
WRITTEN = [
    path for path in sorted((ROOT / "docs").rglob("*.md")) if not MADE & {*path.relative_to(ROOT / "docs").parts}
]
PAGES = [ROOT / "README.md", *WRITTEN]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[+-]?\d+(?:\.(\d+))?(?:e([+-]?\d+))?")
ELLIPSIS = "..."


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind the language, its text, and where that text lies in the page."""

    language: str
    options: str
    text: str
    start: int
    end: int


def blocks(page: str) -> list[Block]:
    return [Block(match[1], match[2].strip(), match[3], match.start(3), match.end(3)) for match in FENCE.finditer(page)]


def examples(page: str) -> list[tuple[Block, Block | None]]:
    """Each block that runs, with the block of its output, if there is one."""
    found = blocks(page)
    pairs = zip(found, [*found[1:], None], strict=False)
    return [
        (block, after if after and after.language == "text" else None)
        for block, after in pairs
        if block.language in ("python", "sh") and "no-test" not in block.options
    ]


def run(block: Block, names: dict[str, object]) -> str:
    """What a block prints, run in the current folder."""
    if block.language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block.text, "<document>", "exec"), names)
        return printed.getvalue()
    with tempfile.TemporaryDirectory() as scripts:
        command = Path(scripts, "rotsim")  # the tree's own, also where another rotsim is installed
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rotsim "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
        }
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            ["sh", "-eu", "-c", block.text], capture_output=True, encoding="utf-8", env=environment, check=False
        )
    assert done.returncode == 0, f"{block.text}ended with {done.returncode}: {done.stderr}"
    return done.stdout


def agrees(shown: str, printed: str, share: float = 0.0) -> bool:
    """Are the words alike, and the numbers within one unit of the last digit shown, or within `share`?"""
    return _fits(_lines(shown), _lines(printed), share)


def _lines(text: str) -> list[str]:
    """Lines with their words apart by single spaces, so that a column may become wider; empty ones are left out."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _fits(wanted: list[str], lines: list[str], share: float) -> bool:
    if not wanted:
        return not lines
    if wanted[0] == ELLIPSIS:
        return any(_fits(wanted[1:], lines[skipped:], share) for skipped in range(len(lines) + 1))
    return bool(lines) and _alike(wanted[0], lines[0], share) and _fits(wanted[1:], lines[1:], share)


def _alike(wanted: str, line: str, share: float) -> bool:
    if NUMBER.sub("#", wanted) != NUMBER.sub("#", line):
        return False
    for one, other in zip(NUMBER.finditer(wanted), NUMBER.finditer(line), strict=True):
        a, b = float(one[0]), float(other[0])
        digit = 10.0 ** (int(one[2] or 0) - len(one[1] or ""))
        if abs(a - b) > max(1.01 * digit * bool(one[1] or one[2]), share * abs(a)):
            return False
    return True


def share_of(block: Block) -> float:
    """The share by which the numbers of a `text` block may differ."""
    allowed = re.search(r"within (\d+) %", block.options)
    return int(allowed[1]) / 100 if allowed else 0.0


def outputs(page: str) -> list[tuple[Block, Block | None, str]]:
    """Run a page's examples in an empty folder: what runs, what it should print, what it prints."""
    names: dict[str, object] = {"__name__": "document"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return [(block, shown, run(block, names)) for block, shown in examples(page)]
        finally:
            os.chdir(before)


def written(page: str) -> str:
    """The page with the outputs as they are now. A wrong one is replaced whole, also where it left lines out."""
    for _, shown, printed in reversed(outputs(page)):
        if shown and not agrees(shown.text, printed, share_of(shown)):
            page = (
                page[: shown.start]
                + "\n".join(line.rstrip() for line in printed.rstrip().splitlines())
                + "\n"
                + page[shown.end :]
            )
    return page


def main() -> None:
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: outputs written; leave out what a reader does not need")


if __name__ == "__main__":
    main()
