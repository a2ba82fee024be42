"""Text for terminals that know few characters: what cannot be shown is spelled, as |w| for ‖w‖ and lambda for λ."""

from __future__ import annotations

import codecs
import os
import re
import sys
import unicodedata
from io import TextIOWrapper

SPELLED = "rotsim.spelled"  # the name of `_spelled` among Python's handlers of encoding errors
ASCII = "rotsim_ascii"  # the same as "ascii", a name that click takes for a mistake and answers in UTF-8
_SPELLING = {
    "‖": "|", "⟨": "<", "⟩": ">", "±": "+-", "→": "->", "×": "x", "·": "*", "⋅": "*", "−": "-", "–": "-", "—": "-",
    "…": "...", "≤": "<=", "≥": ">=", "≈": "~", "∝": "~", "√": "sqrt", "∞": "inf", "Δ": "d", "ℓ": "l", "’": "'",
    "“": '"', "”": '"', "°": " deg", "′": "'", "⊥": "_|_", "⟂": "_|_", "∫": "integral ", "∂": "d", "⊙": "*", "⌈": "[",
    "⌉": "]", "λ": "lambda", "Λ": "Lambda",
    "▁": "_", "▂": ".", "▃": "-", "▄": "~", "▅": "=", "▆": "+", "▇": "*", "█": "#",
}  # fmt: skip
# These characters move a terminal's cursor or turn its text around. Names in a file must not command it.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Python sets these handlers by itself. Any other was asked for in PYTHONIOENCODING.
_DEFAULTS = {"strict", "surrogateescape", "backslashreplace"}


def readable(text: str, encoding: str) -> str:
    """`text` with every character spelled that `encoding` lacks, or that a terminal would obey.

    Parameters
    ----------
    text : str
    encoding : str
        As Python names it; "ascii" spells all that is not ASCII.
    """
    harmless = _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)
    return harmless.encode(encoding, SPELLED).decode(encoding)


def prepare() -> None:
    """Let standard output and error spell what they cannot show, instead of ending in an exception.

    One that was closed before the start, which Python has as None, goes to the null device.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the null device takes its descriptor, which the next file would have had
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            ascii_alone = codecs.lookup(stream.encoding).name == "ascii"
            errors = SPELLED if stream.errors in _DEFAULTS else stream.errors
            stream.reconfigure(encoding=ASCII if ascii_alone else None, errors=errors)


def shows(text: str) -> bool:
    """Whether standard output can show `text` as it is."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return readable(text, encoding) == text


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelled = "".join(map(_spelling, error.object[error.start : error.end]))
    return re.sub(r"(?<=([\^_])[\w+-])\1", "", spelled), error.end  # a raised or lowered group has one mark


def _spelling(character: str) -> str:
    if character in _SPELLING:
        return _SPELLING[character]
    if unicodedata.combining(character):
        return ""
    how, _, rest = unicodedata.decomposition(character).rpartition("> ")
    parts = "".join(_ascii(chr(int(code, 16))) for code in rest.split())
    if parts:
        return {"<super": "^", "<sub": "_"}.get(how, "") + parts
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        return "+" if " AND " in name else "-" if "HORIZONTAL" in name else "|"
    if name.startswith("GREEK"):
        letter = name.rpartition(" ")[2]
        return letter.capitalize() if "CAPITAL" in name else letter.lower()
    return "?"


def _ascii(character: str) -> str:
    return character if character.isascii() else _spelling(character)


def _codec(name: str) -> codecs.CodecInfo | None:
    if name != ASCII:
        return None
    same = codecs.lookup("ascii")
    return codecs.CodecInfo(
        same.encode, same.decode, same.streamreader, same.streamwriter, same.incrementalencoder,
        same.incrementaldecoder, ASCII,
    )  # fmt: skip


codecs.register(_codec)
codecs.register_error(SPELLED, _spelled)
