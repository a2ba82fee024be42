"""Fixtures shared by all tests."""

import signal
import time

import matplotlib
import pytest

matplotlib.use("Agg")

from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import OPTIMIZERS, SGDM, AdamL2, AdamW, Lion

# One moderate setting per registered optimizer: lr·wd = 1e-3 or the equivalent, so that a few
# thousand steps reach equilibrium. A new optimizer must be added here: the protocol tests insist.
EXAMPLES = {
    "adamw": AdamW(lr=1e-2, weight_decay=0.1),
    "adam_l2": AdamL2(lr=1e-3, weight_decay=0.05),
    "sgdm": SGDM(lr=0.1, weight_decay=1e-2),
    "lion": Lion(lr=1e-3, weight_decay=1.0),
}


def press_ctrl_c():
    """Raise SIGINT and wait until Python has run its handler: two signals that are both pending count as one."""
    before, deadline = signal.getsignal(signal.SIGINT), time.monotonic() + 10
    signal.raise_signal(signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is before and time.monotonic() < deadline:
        time.sleep(1e-3)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """Also where the tests are a background job, whose shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=list(OPTIMIZERS))
def optimizer(request):
    """Every registered optimizer in turn."""
    return EXAMPLES[request.param]


@pytest.fixture(params=[Isotropic(0.7), ScaleInvariant(1.3)], ids=lambda g: g.name)
def gradient(request):
    """Both noise models in turn."""
    return request.param


@pytest.fixture
def one_thread():
    """PyTorch on one thread: small networks wait for more, and sums split over threads round differently."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
