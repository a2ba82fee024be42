"""Tables in Markdown, as all pages here have them."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Head, rule and rows; a bar inside a cell is escaped."""
    rule = "|" + "---|" * len(head)
    line, *lines = (f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in (head, *rows))
    return "\n".join([line, rule, *lines])
