"""What PyTorch says of parameters that it cannot take, as rotsim says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rotsim.errors import InvalidInput


@contextmanager
def taken_by_torch(name: str) -> Iterator[None]:
    """Turn an exception of PyTorch about the argument `name` into `InvalidInput`."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # TypeError, ValueError, KeyError, or what an object of the caller raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidInput(
            f"`{name}` must be tensors, (name, tensor) pairs or parameter groups as torch.optim takes them: {reason}"
        ) from error
