"""Refuse a run that cannot fit in memory before it starts, with the estimate."""

from __future__ import annotations

import os
from pathlib import Path

from rotsim.errors import InvalidInput


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, or None where the system does not tell."""
    found = [number for number in (_of_the_machine(), _of_the_process()) if number is not None]
    return min(found, default=None)


def _of_the_process() -> int | None:
    """What a limit on its address space (``ulimit -v``) leaves of it, or None without one."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return None if limit == resource.RLIM_INFINITY else limit - pages * resource.getpagesize()
    except (ImportError, AttributeError, OSError, ValueError):
        return None


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    try:  # a container's own limit may be lower
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, limit - used)


def check_fits(state_bytes: int, record_bytes: int, hint: str = "") -> None:
    """Raise `InvalidInput` if a run of this size does not fit.

    Parameters
    ----------
    state_bytes : int
        Weights and optimizer state.
    record_bytes : int
        Peak of the records: sums, their roots and the dataset.
    hint : str
        A further way out, for the message.
    """
    available = available_memory()
    if available is None or state_bytes + record_bytes <= available:
        return
    gib = 2**30
    raise InvalidInput(
        f"the run needs about {(state_bytes + record_bytes) / gib:.3g} GiB "
        f"(state {state_bytes / gib:.3g}, records {record_bytes / gib:.3g}) "
        f"and {available / gib:.3g} GiB are available; "
        f"lower dim or neurons, or raise record_every{hint}"
    )
