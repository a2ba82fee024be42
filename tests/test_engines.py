"""Engines: each walks what it accepts, in the state and the memory that it tells; a new one is a class and an entry."""

import itertools
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

import rotsim
from rotsim.gradients import Replay
from rotsim.noise import GRADIENT_STREAM, neuron_keys, normals
from rotsim.optimizers.base import Optimizer
from rotsim.simulation import engines, request
from rotsim.simulation.engines import ENGINES, NAMES, engine_for
from rotsim.simulation.engines.base import Problem, WeightEngine
from rotsim.simulation.engines.readable import walk_by
from tests.conftest import EXAMPLES

OPTIMIZERS = [*EXAMPLES.values(), *(rotsim.Rotational(EXAMPLES[name]) for name in ("adamw", "sgdm", "lion"))]
OPTIMIZERS.append(rotsim.Muon(0.1))
GRADIENTS = [rotsim.ScaleInvariant(), rotsim.Isotropic((1.0, 2.0)), rotsim.Autocorrelated(0.5), rotsim.Radial(0.1)]


def problem_of(engine, optimizer, gradient, dim=5, neurons=2):
    return Problem(optimizer, gradient, neurons, dim, 1, engine.dtype("float32"), np.full(neurons, 2.0), None)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_the_first_state_is_of_the_form_that_is_told(engine):
    taken = [pair for pair in itertools.product(OPTIMIZERS, GRADIENTS) if engine.accepts(*pair)]
    for optimizer, gradient in taken:
        problem = problem_of(engine, optimizer, gradient)
        state = engine.fresh(problem)
        assert state.slots.shape == (2, *engine.shape(problem)) and state.slots.dtype == problem.dtype
        np.testing.assert_allclose(state.norm_squared, 4.0, rtol=1e-6)
        assert engine.keeps_weights == (engine.shape(problem)[1] == problem.dim)
    assert taken and len(taken) < len(OPTIMIZERS) * len(GRADIENTS)
    assert {optimizer.acts_on for optimizer, _ in taken} == {engine.acts_on}


@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: g.name)
def test_simulate_takes_every_optimizer(gradient):
    for optimizer in OPTIMIZERS:
        walk = rotsim.simulate(optimizer, dim=5, neurons=2, steps=2, gradient=gradient, engine="numpy")
        assert np.isfinite(walk["rotation"]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cuda"])
def test_every_pair_has_one_engine_or_one_line_of_refusal(name):
    for optimizer, gradient in itertools.product(OPTIMIZERS, GRADIENTS):
        having = [one for one in ENGINES if one.name == name and one.accepts(optimizer, gradient)]
        if name == "auto" or having:
            assert engine_for(name, optimizer, gradient).name in ("gram", "numba") if name == "auto" else having[0].name
            assert len(having) <= 1
        else:
            with pytest.raises(
                rotsim.InvalidInput, match=rf"`engine='{name}'` needs [^\n]*; got [^\n]* Use engine='numba'$"
            ):
                engine_for(name, optimizer, gradient)


@pytest.mark.parametrize("engine", ["numpy", "gram", "numba"])
def test_the_memory_that_is_counted_is_taken(engine, monkeypatch):
    """From a quarter to all of what `check_fits` is told, at sizes beside which Python's own objects are nothing."""
    told, run = [], {"dim": 2000, "engine": engine, "gradient": rotsim.Isotropic(), "threads": 1, "record_every": 1}
    rotsim.simulate(rotsim.SGDM(0.1, 0.01), neurons=1, steps=1, **run)  # compiles
    monkeypatch.setattr(request, "check_fits", lambda state, records, hint: told.append(state + records))
    tracemalloc.start()
    try:
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), neurons=600, steps=300 if engine == "gram" else 2, **run)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told[0] / 4 < peak < 1.05 * told[0], f"{peak / 1e6:.1f} MB of {told[0] / 1e6:.1f}"


def orthogonal(matrix):
    """The matrix whose singular values are 1, with the singular vectors of this one."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


@dataclass(frozen=True)
class Orthogonalised(Optimizer):
    """Muon with an exact singular value decomposition: w_t = (1 - ηλ) w_{t-1} - η orthogonal(m_t)."""

    name, label, acts_on = "orthogonalised", "Orthogonalised", "matrix"
    momentum: float = 0.9

    moments = examples = None  # no theory of it

    @staticmethod
    def update(w, m, v, g, c):
        decay, lr, momentum = c[:3]
        m = momentum * m + g
        return -decay * w - lr * orthogonal(m), m, v

    def coefficients(self, step, lr, weight_decay):
        return lr * weight_decay, lr, self.momentum


class Matrixwise(WeightEngine):
    """All neurons are the rows of one matrix."""

    name, acts_on, needs, automatic = "matrix", "matrix", "an optimizer that acts on matrices", True

    def blocks(self, workers):
        return 1

    def workspace(self, problem):
        return None

    def kernel(self, problem):
        def move(slots, g, c, step):
            change, slots[:, 1], slots[:, 2] = problem.optimizer.update(slots[:, 0], slots[:, 1], slots[:, 2], g, c)
            return slots[:, 0] + change, change

        return walk_by(move, problem.gradient)


MATRIX = {
    "dim": 12,
    "neurons": 4,
    "steps": 30,
    "dtype": "float64",
    "gradient": rotsim.Isotropic(0.5),
    "record_every": 7,
}


def test_an_update_of_a_matrix_needs_an_engine():
    """The readable walk takes any rule of a matrix, the jitted one that of Muon."""
    for name in ("auto", "numba", "gram", "cuda"):
        with pytest.raises(rotsim.InvalidInput, match=r"; got Orthogonalised\(.*No engine has what acts on a matrix$"):
            rotsim.simulate(Orthogonalised(0.1, 0.1), engine=name, **MATRIX)
    assert np.isfinite(rotsim.simulate(Orthogonalised(0.1, 0.1), engine="numpy", **MATRIX)["norm"]).all()


def test_an_engine_for_matrices_is_one_class(monkeypatch):
    """Against the recurrence in a loop on the same noise; resumed, in float32 and under another model."""
    monkeypatch.setattr(engines, "ENGINES", (*ENGINES, Matrixwise()))
    monkeypatch.setattr(request, "NAMES", (*NAMES, "matrix"))
    monkeypatch.setitem(rotsim.OPTIMIZERS, Orthogonalised.name, Orthogonalised)
    optimizer = Orthogonalised(0.1, 0.05)
    run = {**MATRIX, "keep_state": True, "seed": 3}
    walk = rotsim.simulate(optimizer, **run)
    assert rotsim.dataset.spec_of(walk)["engine"] == "matrix"
    w = rotsim.simulate(optimizer, **{**run, "steps": 1}, lr_schedule=np.zeros(1))["state"].values[:, 0]
    keys, m, norms = neuron_keys(3, 4, GRADIENT_STREAM), 0.0, []
    for step in range(1, 31):
        m = 0.9 * m + 0.5 * normals(keys, step, 12).astype(float)
        before, w = w, (1 - 0.1 * 0.05) * w - 0.1 * orthogonal(m)
        np.testing.assert_allclose(np.linalg.svd(w - (1 - 0.005) * before)[1], 0.1, rtol=1e-12)
        norms.append(np.linalg.norm(w, axis=1))
    np.testing.assert_allclose(walk["state"][:, 0], w, rtol=1e-12)
    np.testing.assert_allclose(walk["norm"][:, -1], np.sqrt(np.mean(np.square(norms[28:]), axis=0)), rtol=1e-12)
    part = rotsim.simulate(optimizer, **{**run, "steps": 11})
    assert rotsim.simulate(optimizer, resume=part, **run).drop_attrs().identical(walk.drop_attrs())
    few = rotsim.simulate(
        optimizer, **{**run, "neurons": 3}
    )  # rows see each other, unlike neurons of the other engines
    assert not np.allclose(few["norm"], walk["norm"][:3], rtol=1e-3)
    given = Replay(np.random.default_rng(0).normal(size=(30, 4, 12)))
    assert np.isfinite(rotsim.simulate(optimizer, **{**run, "gradient": given, "dtype": "float32"})["norm"]).all()
    with pytest.raises(
        rotsim.InvalidInput, match=r"`engine='matrix'` needs an optimizer that acts on matrices; got SGDM"
    ):
        rotsim.simulate(rotsim.SGDM(0.1, 0.1), engine="matrix", **MATRIX)
