"""How much memory there is: the least of what the machine, a container and the process's own limit leave."""

import subprocess
import sys

import pytest

import rotsim
from rotsim import memory

GIB = 2**30
resource = pytest.importorskip("resource")


def under_limit(gib, code):
    program = (
        f"import resource\nimport numpy\nfrom rotsim import memory\nimport rotsim\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({gib * GIB}, {gib * GIB}))\n{code}"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of a process is read from /proc")
def test_a_limit_on_the_address_space_leaves_what_is_not_taken():
    """Against an allocation: what is said to be available can be had, and hardly more."""
    done = under_limit(
        3, "found = memory._of_the_process(); print(found); taken = numpy.empty(int(0.98 * found), numpy.uint8)"
    )
    assert done.returncode == 0, done.stderr
    assert 0.5 * 3 * GIB < int(done.stdout) < 3 * GIB
    more = under_limit(3, "taken = numpy.empty(int(1.02 * memory._of_the_process()), numpy.uint8)")
    assert more.returncode and "MemoryError" in more.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of a process is read from /proc")
def test_a_run_beyond_the_limit_is_refused_before_it_starts():
    walk = "rotsim.simulate(rotsim.AdamW(0.1, 0.1), dim=2**20, neurons=256, steps=1, engine='numpy')"
    done = under_limit(2, f"try: {walk}\nexcept rotsim.InvalidInput as error: print(error)")
    assert done.stdout.startswith("the run needs about "), done.stderr


def test_without_a_limit_the_process_says_nothing(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert memory._of_the_process() is None
    monkeypatch.setattr(memory, "_of_the_machine", lambda: None)
    assert memory.available_memory() is None
    memory.check_fits(10**30, 10**30)  # where nothing is known, nothing is refused


@pytest.mark.parametrize(("machine", "process", "least"), [(3, 2, 2), (2, 3, 2), (None, 2, 2), (2, None, 2)])
def test_the_least_counts(machine, process, least, monkeypatch):
    monkeypatch.setattr(memory, "_of_the_machine", lambda: machine)
    monkeypatch.setattr(memory, "_of_the_process", lambda: process)
    assert memory.available_memory() == least


def files(**texts):
    """A stand-in for `Path` that reads these files, by the last part of their names, and no other."""

    class Path:
        def __init__(self, path):
            self.name = path.rpartition("/")[2].replace(".", "_")

        def read_text(self):
            if self.name not in texts:
                raise FileNotFoundError
            return texts[self.name]

    return Path


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:       4 kB\n"}, 4096),
        ({"meminfo": "MemAvailable: 4 kB\n", "memory_max": "3000\n", "memory_current": "1000\n"}, 2000),
        ({"meminfo": "MemAvailable: 4 kB\n", "memory_max": "max\n", "memory_current": "1000\n"}, 4096),
        ({"meminfo": "MemAvailable: 4 kB\n", "memory_max": "9000\n", "memory_current": "1000\n"}, 4096),
    ],
)
def test_a_container_may_leave_less_than_the_machine(texts, found, monkeypatch):
    monkeypatch.setattr(memory, "Path", files(**texts))
    assert memory._of_the_machine() == found


def test_the_refusal_says_how_much_and_what_else_to_do(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * GIB)
    memory.check_fits(GIB, GIB)
    with pytest.raises(
        rotsim.InvalidInput, match=r"about 2.5 GiB \(state 1.5, records 1\) and 2 GiB .* record_every, or x$"
    ):
        memory.check_fits(3 * GIB // 2, GIB, ", or x")
