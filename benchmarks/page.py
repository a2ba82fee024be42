"""docs/speed.md, whose tables lie between marks and are written from committed results."""

from pathlib import Path

from rotsim.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"


def mark(program: str) -> tuple[str, str]:
    """The lines around a table that ``python -m benchmarks.PROGRAM --table`` writes."""
    return f"<!-- {program}: written by python -m benchmarks.{program} --table -->", f"<!-- end of {program} -->"


def shown(program: str) -> str:
    """What the page has between a program's marks."""
    begin, end = mark(program)
    return PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()


def write(program: str, content: str) -> None:
    """Put `content` between a program's marks."""
    begin, end = mark(program)
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    write_atomically(PAGE, f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}")
