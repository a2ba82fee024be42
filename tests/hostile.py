"""Objects that raise, or never end, when they are asked for what numbers and sequences answer."""

from collections.abc import Mapping, Sequence


class Hostile:
    """Raises from whatever is asked of it."""

    def _no(self, *_, **__):
        raise RuntimeError("hostile")

    __float__ = __int__ = __index__ = __len__ = __iter__ = __getitem__ = __bool__ = __repr__ = __array__ = __eq__ = _no
    __fspath__ = __str__ = _no
    __hash__ = None


class HostileFloat(float):
    __float__ = Hostile._no


class HostileInt(int):
    __int__ = Hostile._no


class HostileMapping(Mapping):
    """Says that it is a mapping, and raises when it is read."""

    __getitem__ = __len__ = __iter__ = Hostile._no


class HostileSequence(Sequence):
    """Likewise a sequence."""

    __getitem__ = __len__ = Hostile._no


class HostileError(Exception):
    """An error that cannot be printed."""

    __str__ = __repr__ = Hostile._no


def raising(*_):
    raise HostileError


def looped():
    """A list that is its own entry."""
    found = [1.0]
    found.append(found)
    return found


class Endless:
    """A sequence that never ends, if it is believed."""

    def __len__(self):
        return 2**62

    def __getitem__(self, place):
        return 0.0
