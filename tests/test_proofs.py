"""Proofs in processes of their own: the same verdicts, and one clear line whatever happens to a process."""

import os
import signal
import subprocess
import sys
import time

import pytest

import derivations
from derivations import workers
from derivations.workers import Proofs

SHORT = ("rotational_sgdm", "sgdm")


def test_workers_prove_what_this_process_proves():
    reported = []
    with Proofs(SHORT, processes=2, progress=lambda *done: reported.append(done)) as proofs:
        found = proofs.results()
    assert found == [derivations.prove(name) for name in SHORT]
    assert reported == [(1, 2), (2, 2)]
    assert all(holds for _, holds in derivations.verdicts(found))


def test_a_proof_that_raises_is_a_false_statement_and_the_next_is_proved():
    with Proofs(("nothing", "rotational_sgdm"), processes=1) as proofs:
        broken, whole = proofs.results()
    assert len(whole.statements) > 1 and all(holds for _, holds in whole.statements)
    ((statement, holds),) = broken.statements
    assert not holds and statement.startswith("nothing: no proof, ValueError: no derivation is called 'nothing'")
    assert not all(holds for _, holds in derivations.verdicts([broken, whole]))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_killed_worker_is_one_line_and_no_hang():
    with Proofs(("radial", "rotational_sgdm"), processes=1) as proofs:
        process = begun(proofs).process
        process.kill()
        first, second = proofs.results()
    assert first.statements == [("radial: no proof, its process was ended by SIGKILL", False)]
    assert all(holds for _, holds in second.statements)  # by another process


def test_a_worker_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "derivations").mkdir()
    (tmp_path / "derivations" / "__init__.py").write_text("raise ImportError('no sympy here')")
    monkeypatch.setattr(workers.sys, "path", [str(tmp_path), *sys.path])
    with Proofs(("sgdm",)) as proofs:
        ((statement, holds),) = proofs.results()[0].statements
    assert (
        not holds and "its process ended with code 1" in statement and statement.endswith("ImportError: no sympy here")
    )


def test_leaving_early_ends_the_workers():
    with pytest.raises(KeyboardInterrupt), Proofs(("radial", "adam_l2", "damped"), processes=1) as proofs:
        process = begun(proofs).process
        raise KeyboardInterrupt
    assert process.poll() is not None


def begun(proofs):
    """The first worker, once there is one."""
    deadline = time.monotonic() + 60
    while not proofs._workers and time.monotonic() < deadline:
        time.sleep(0.01)
    return proofs._workers[0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_during_verify_is_one_line():
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import sys; "
    program += "import time; from rotsim import verify; from rotsim.cli import main\n"
    # a signal between the call of sleep and the sleep itself does not wake it: so many short ones
    program += "def wait(*_):\n    print('proving', flush=True)\n    while True: time.sleep(0.05)\n"
    program += "verify._networks = wait\nsys.exit(main(['verify']))"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdout.readline() == "proving\n"  # the workers run by then, and main waits where networks are read
    os.killpg(child.pid, signal.SIGINT)
    try:
        _, errors = child.communicate(timeout=300)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert errors.strip() == "rotsim: interrupted; nothing was written"
