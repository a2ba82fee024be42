"""AdamW's v that follows the weights: against exact theory, and against walks that the other theory misses."""

from __future__ import annotations

import numpy as np
import pytest

import rotsim
from rotsim.theory import adamw, shifting_moment
from rotsim.theory.shifting_moment import reaches
from tests import chance, declared
from tests.test_declared import CASES, QUANTITIES, TABLE, judged

LASTING = (
    "memory adamw short, tuned",
    "memory adamw long, tuned",
    "memory adamw drawn 9803",
    "memory adamw drawn 9811",
)


def expanded(*arguments):
    return shifting_moment.shifting_moment(*arguments)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.999), (0.95, 0.999)])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_where_nothing_is_projected_it_is_the_exact_theory(betas, correlation):
    """But for a higher power of what v wavers by. A control in which v hardly wavers is further off."""
    spec = rotsim.AdamW(0.01, 2.0, betas, eps=0.0)
    law = rotsim.Autocorrelated(correlation, scale_invariant=False) if correlation else rotsim.Isotropic()
    exact, found = rotsim.equilibrium(spec, 10**6, law), expanded(0.02, betas, correlation, False)
    allowed = found.spread**1.5 + 1e-4
    assert found.left == pytest.approx(1.0)
    assert np.sqrt(100 * found.square) == pytest.approx(exact.norm, rel=allowed)
    assert np.arccos(1 - found.one_minus_cosine) == pytest.approx(exact.rotation, rel=allowed)
    steady = expanded(0.02, (betas[0], 1 - 1e-4), correlation, False)
    assert abs(np.sqrt(100 * steady.square) / exact.norm - 1) > allowed


def test_gradients_without_a_memory_are_orthogonal_anyway():
    assert expanded(0.02, (0.9, 0.99), 0.0, True) == expanded(0.02, (0.9, 0.99), 0.0, False)


@pytest.mark.parametrize("name", LASTING)
def test_walks_agree_where_the_other_theory_is_off(name, monkeypatch):
    """Within what is declared; the theory of a v that knows nothing of the weights misses them by far more."""
    off, _, _ = judged(name)
    monkeypatch.setattr(adamw, "reaches", lambda *_: False)
    before, _, _ = judged(name)
    assert np.abs(off).max() < 0.03 and np.abs(before).max() > 5 * np.abs(off).max()


def test_a_walk_of_other_seeds_agrees():
    case, row = CASES[LASTING[0]], TABLE[LASTING[0]]
    found = declared.measure(case, {**row, "neurons": 48}, 99)
    theory = rotsim.equilibrium(case.optimizer, case.dim, case.gradient)
    for quantity in QUANTITIES:
        said = getattr(theory, quantity)
        noise = chance.errors(48, len(QUANTITIES)) * found[f"{quantity}_error"]
        assert abs(found[quantity] - said) < theory.model_error * said + noise


def test_what_is_declared_grows_with_what_v_wavers_by():
    errors = [expanded(0.03, (0.9, beta2), 0.9, True).error for beta2 in (0.9999, 0.999, 0.99, 0.95)]
    assert errors == sorted(errors) and errors[0] < 1e-3 < 0.05 < errors[-1]
    assert expanded(0.03, (0.9, 0.99), 0.9, False).error < 1e-3


@pytest.mark.parametrize(("decay", "betas", "correlation"), [(0.03, (0.0, 0.9), 0.99), (0.9, (0.0, 0.8), 0.9995)])
def test_what_leaves_the_range_of_floats_is_left_to_the_other_theory(decay, betas, correlation):
    """Found by a search: the iteration ran off there, and took the answer along."""
    assert expanded(decay, betas, correlation, True).error == np.inf
    found = rotsim.equilibrium(rotsim.AdamW(1e-3, decay / 1e-3, betas, eps=0.0), 96, rotsim.Autocorrelated(correlation))
    assert np.isfinite([found.norm, found.rotation, found.model_error]).all()


def test_memories_beyond_the_grid_are_left_to_the_other_theory(monkeypatch):
    law, slow = rotsim.Autocorrelated(0.9), rotsim.AdamW(1e-4, 1e-3, (0.9, 0.99), eps=0.0)
    assert not reaches(slow.lr * slow.weight_decay, slow.betas, 0.9) and reaches(0.02, (0.9, 0.99), 0.9)
    found = rotsim.equilibrium(slow, 1000, law)
    monkeypatch.setattr(adamw, "reaches", lambda *_: False)
    assert rotsim.equilibrium(slow, 1000, law) == found


def test_what_does_not_settle_is_not_taken(monkeypatch):
    monkeypatch.setattr(shifting_moment, "_MOST_SWEEPS", 1)
    shifting_moment.shifting_moment.cache_clear()
    try:
        assert expanded(0.03, (0.9, 0.99), 0.9, True).error == np.inf
        spec, law = rotsim.AdamW(0.01, 3.0, (0.9, 0.99), eps=0.0), rotsim.Autocorrelated(0.9)
        found = rotsim.equilibrium(spec, 1000, law)
    finally:
        shifting_moment.shifting_moment.cache_clear()
    monkeypatch.setattr(adamw, "reaches", lambda *_: False)
    assert rotsim.equilibrium(spec, 1000, law) == found
