"""The whole public API and every command under hostile arguments (`tests/fuzz.py`)."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rotsim
import rotsim.measure
from tests import fuzz

pytest.importorskip("torch")

NAMES = fuzz.Namespace(fuzz._modules())
HANG = 120.0  # seconds, far above what any call takes; no test of speed
OPTIONS = dict(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
CALLS, MORE_CALLS, COMMANDS = 200, 1000, 40
LONG = 0.1  # of their share in `python -m tests.fuzz` is left to calls that take long


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    """In a folder of its own: some arguments name files."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    yield
    os.chdir(before)


@pytest.mark.parametrize("calls", [CALLS, pytest.param(MORE_CALLS, marks=pytest.mark.slow)])
def test_every_call_has_an_own_error_or_a_sound_result(calls):
    @settings(max_examples=calls, **OPTIONS)
    @given(st.randoms(use_true_random=True))
    def every(rng):
        line = fuzz.make_call(rng, LONG)
        assert fuzz.fault(line, NAMES, HANG) is None, line

    every()


@settings(max_examples=COMMANDS, **OPTIONS)
@given(st.randoms(use_true_random=True))
def test_every_command_has_an_exit_code_and_no_traceback(rng):
    arguments = fuzz.make_arguments(rng, FILES or FILES.extend(fuzz.command_files(NAMES)) or FILES)
    assert fuzz.command_fault(arguments, HANG) is None, arguments


FILES: list[str] = []


def test_each_public_name_is_called():
    called = {name for _, names in fuzz.CALLS.values() for name in names.split()}
    missing = {*rotsim.__all__, *rotsim.measure.__all__} - called - {name.removeprefix("measure.") for name in called}
    assert not missing


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("np.linalg.inv(np.zeros((2, 2)))", "LinAlgError at"),
        ("np.log(np.zeros(2))", "leaks RuntimeWarning"),
        ("rotsim.Equilibrium(-1.0, 1.0, 1.0, 1.0, 0.0, 'exact')", "norm = -1.0"),
        ("W.assign(rotation=W.rotation * np.nan)", "a walk with NaN, infinite or negative records"),
        ("sum(float('inf') for _ in [1])", "inf"),
        ("rotsim.AdamW('fast', 0.1)", None),
    ],
)
def test_what_is_wrong_is_noticed(line, wrong):
    found = fuzz.fault(line, NAMES, HANG)
    assert found is None if wrong is None else found.startswith(wrong)


def test_a_call_that_does_not_end_is_stopped():
    assert fuzz.fault("[0 for _ in iter(int, 1)]", NAMES, 0.2) == "takes longer than 0.2 s"
