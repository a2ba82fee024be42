"""Long work can be stopped: courses and walks go on in parts, which change no number."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

import rotsim
from rotsim.simulation import chunks, engines
from rotsim.simulation.engines.readable import Readable
from rotsim.theory import boundary, record
from rotsim.theory.base import theory_of
from tests.conftest import press_ctrl_c

COURSES = {
    f"{kind.name} {number}": optimizer
    for kind in (*rotsim.OPTIMIZERS.values(), rotsim.Rotational, rotsim.Hyperball, rotsim.Cautious)
    for number, optimizer in enumerate(kind.examples())
    if (theory := theory_of(optimizer)) and theory.has_course
}
SLOW = rotsim.SGDM(0.1, 0.01)


def course(optimizer, steps=60, start=30.0):
    """From weights so long that decay fills the second moment of Adam+L2."""
    return rotsim.predict(optimizer, 64, steps=steps, initial_norm=start, record_every=9).drop_attrs()


@pytest.mark.parametrize("name", COURSES)
def test_a_course_is_the_same_in_parts(name, monkeypatch):
    whole = course(COURSES[name])
    monkeypatch.setattr(record, "STEPS_AT_ONCE", 7)
    assert course(COURSES[name]).identical(whole)


def test_courses_split_by_weight_are_among_them(monkeypatch):
    """Else the parts of Adam+L2's course would not be seen to be carried on."""
    seen = []
    in_parts = record.in_parts

    def watched(advance, carried, course):
        in_parts(lambda *part: seen.append(advance(*part)) or seen[-1], carried, course)

    monkeypatch.setattr("rotsim.theory.adam.in_parts", watched)
    monkeypatch.setattr(record, "STEPS_AT_ONCE", 7)
    course(COURSES["adam_l2 0"])
    assert {carried[0] for carried in seen} >= {40}


def test_the_clock_is_seen_within_a_course(monkeypatch):
    ticks = count()
    monkeypatch.setattr(boundary, "_clock", lambda: float(next(ticks)))
    monkeypatch.setattr(boundary, "MAX_SECONDS", 10.0)
    course(SLOW)
    monkeypatch.setattr(record, "STEPS_AT_ONCE", 4)
    with pytest.raises(rotsim.InvalidInput, match="`predict` takes more than 10 s"):
        course(SLOW)


@pytest.mark.parametrize(
    "optimizer", [rotsim.AdamW(0.01, 1.0), rotsim.AdamL2(0.01, 0.3, (0.9, 0.99)), rotsim.Lion(0.01, 1.0)]
)
def test_a_course_at_rest_is_not_followed(optimizer, monkeypatch):
    """The rest of it is as its last part, in windows that end anywhere; a rate that changes is waited for."""
    schedule = np.where(np.arange(90_000) < 40_000, 1.0, 0.5)

    def predicted(most):
        parts = count(1)
        with monkeypatch.context() as patch:
            patch.setattr(record, "check_time", lambda: next(parts))
            patch.setattr(record, "AT_REST", most)
            found = rotsim.predict(optimizer, 64, steps=90_000, lr_schedule=schedule, record_every=7001)
        return next(parts) - 1, found

    (few, short), (all_of_them, whole) = predicted(record.AT_REST), predicted(-1.0)
    assert 40_000 // record.STEPS_AT_ONCE < few < all_of_them == -(-90_000 // record.STEPS_AT_ONCE)
    for name in whole:
        np.testing.assert_allclose(short[name], whole[name], rtol=1e-6, err_msg=str(name))
    assert abs(whole.norm[0, -1] / whole.norm[0, 4] - 1) > 0.1


def test_ctrl_c_is_heard_within_a_course(monkeypatch):
    parts = count(1)
    monkeypatch.setattr(record, "check_time", lambda: press_ctrl_c() if next(parts) == 3 else None)
    monkeypatch.setattr(record, "STEPS_AT_ONCE", 10)
    with pytest.raises(KeyboardInterrupt):
        course(SLOW)
    assert next(parts) == 4


def walked(monkeypatch, seconds):
    """Steps of the chunks of a walk in which each step takes so long, and the walk."""
    now, done = [0.0], [0]

    class Slow(Readable):
        def kernel(self, problem):
            walk = super().kernel(problem)

            def slow(block, neurons, steps, room, records):
                now[0] += seconds * len(steps.coefficients)
                walk(block, neurons, steps, room, records)

            return slow

    monkeypatch.setattr(engines, "ENGINES", (Slow(),))
    monkeypatch.setattr(chunks, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: 0.0))
    data = rotsim.simulate(
        SLOW, 3, 2, steps=600, engine="numpy", threads=1, progress=lambda steps, total: done.append(steps)
    )
    monkeypatch.undo()
    return np.diff(done), data


def test_a_chunk_of_a_walk_takes_about_a_second(monkeypatch):
    """Whatever a step costs: the first chunk is short, and the others follow from how long it took."""
    fast, reference = walked(monkeypatch, 0.0)
    assert len(fast) == 2 and fast[0] < 100
    for each in (0.004, 0.1, 30.0):
        steps, data = walked(monkeypatch, each)
        assert (steps[1:] * each).max() == pytest.approx(max(chunks.CHUNK_SECONDS, each))
        assert data.drop_attrs().identical(reference.drop_attrs())
