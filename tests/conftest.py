"""Fixtures shared by all tests, the share of the cores that each process has, and the count of statistical tests."""

import os
import signal
import sys
import time

# Every process of pytest-xdist would otherwise start as many threads as the machine has cores.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    cores = max(1, (os.cpu_count() or 1) // processes)
    os.cpu_count = lambda: cores
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))

import matplotlib
import pytest

matplotlib.use("Agg")

from rotsim.comparison import compare
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import OPTIMIZERS
from tests import chance

pytest_plugins = ["tests.few", "tests.redraw"]

# One moderate setting per registered optimizer: its gentle example, which settles within a few thousand steps.
# Those that act on a coordinate at a time; tests/test_muon.py has what acts on matrices.
COORDINATEWISE = {name: spec for name, spec in OPTIMIZERS.items() if spec.acts_on == "coordinate"}
EXAMPLES = {name: spec.examples()[0] for name, spec in COORDINATEWISE.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Add what a process of pytest-xdist counted."""
    chance.spent += getattr(node, "workeroutput", {}).get("spent", 0)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["spent"] = chance.spent
    elif chance.spent > chance.TESTS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(
        f"{chance.spent} of at most {chance.TESTS} statistical tests; with all seeds drawn anew, the probability of a "
        f"false alarm would be {chance.spent * chance.SHARE:.1g}."
    )


def press_ctrl_c():
    """Raise SIGINT and wait until Python has run its handler: two signals that are both pending count as one."""
    before, deadline = signal.getsignal(signal.SIGINT), time.monotonic() + 10
    signal.raise_signal(signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is before and time.monotonic() < deadline:
        time.sleep(1e-3)


def chunks_of(monkeypatch, steps):
    """Walks in chunks of so many steps, however long this machine takes for one (and for compiling the first)."""
    monkeypatch.setattr("rotsim.simulation.chunks.MAX_CHUNK_STEPS", steps)
    monkeypatch.setattr("rotsim.simulation.chunks.CHUNK_SECONDS", float("inf"))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """Also where the tests are a background job, whose shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Matplotlib warns of the twenty-first, where one process runs many tests."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(params=list(COORDINATEWISE))
def optimizer(request):
    """Every registered optimizer in turn."""
    return EXAMPLES[request.param]


@pytest.fixture(params=[Isotropic(0.7), ScaleInvariant(1.3)], ids=lambda g: g.name)
def gradient(request):
    """Both noise models in turn."""
    return request.param


@pytest.fixture
def seldom_wrong(monkeypatch):
    """`compare` and `verify` allow so many standard errors that chance all but never fails 24 checks of 32 neurons."""
    k = chance.errors(32, 24)
    monkeypatch.setitem(compare.__kwdefaults__, "k", k)
    monkeypatch.setattr("rotsim.verify.K", k)


@pytest.fixture
def one_thread():
    """PyTorch on one thread: small networks wait for more, and sums split over threads round differently."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
