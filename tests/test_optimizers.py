"""The registry's contract, checked for every optimizer in it."""

import dataclasses
import json

import numpy as np
import pytest

import rotsim
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import optimizer_class, optimizer_from_dict
from rotsim.optimizers.base import N_COEFFICIENTS
from tests.conftest import COORDINATEWISE as OPTIMIZERS
from tests.conftest import EXAMPLES


def test_names_and_traits_of_the_registry():
    traits = {}
    for name, spec in OPTIMIZERS.items():
        assert spec.name == name and isinstance(EXAMPLES[name], spec) and spec.acts_on == "coordinate"
        traits[name] = spec.shape, spec.decay, len(EXAMPLES[name].averages)
        changed = EXAMPLES[name].with_beta1(0.25)
        assert changed.beta1 == changed.averages[0] == 0.25 and changed.averages[1:] == EXAMPLES[name].averages[1:]
    assert traits == {
        "adamw": ("inverse root", "decoupled", 2),
        "adam_l2": ("inverse root", "coupled", 2),
        "sgdm": ("identity", "coupled", 1),
        "lion": ("sign", "decoupled", 2),
        "signum": ("sign", "decoupled", 1),
        "nadamw": ("inverse root", "decoupled", 2),
        "ademamix": ("inverse root", "decoupled", 3),
    }
    variant = rotsim.Rotational(EXAMPLES["lion"])
    assert (variant.acts_on, variant.decay, variant.averages) == ("neuron", "none", EXAMPLES["lion"].averages)


def test_spec_is_frozen_and_round_trips(optimizer):
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer.lr = 1.0
    assert optimizer_from_dict(json.loads(json.dumps(optimizer.to_dict()))) == optimizer
    assert hash(optimizer) == hash(optimizer_from_dict(optimizer.to_dict()))
    assert optimizer.label in optimizer.describe() and "weight_decay" in optimizer.describe()


def test_docstring_gives_the_recurrence(optimizer):
    text = type(optimizer).__doc__
    assert ".. math::" in text and "w_t" in text and r"\lambda" in text
    for field in dataclasses.fields(optimizer):
        assert f"{field.name} : " in text


def test_update_works_on_arrays_and_keeps_zero_at_zero(optimizer):
    c = optimizer.coefficient_table(np.array([1]), np.array([optimizer.lr]), np.array([optimizer.weight_decay]))[0]
    assert c.shape == (N_COEFFICIENTS,)
    zero = np.zeros(4)
    moved = optimizer.update(zero, zero, zero, zero, c, *[zero] * optimizer.memory_slots)
    assert len(moved) == 3 + optimizer.memory_slots and not any(part.any() for part in moved)


def test_coefficients_are_finite_for_a_long_run(optimizer):
    step = np.array([1, 2, 10, 10**6, 2**32 - 1])
    table = optimizer.coefficient_table(step, np.full(5, optimizer.lr), np.full(5, optimizer.weight_decay))
    assert np.isfinite(table).all()


def test_examples_have_an_equilibrium(optimizer):
    for spec in type(optimizer).examples():
        for gradient in (ScaleInvariant(), Isotropic(0.05)):
            eq = rotsim.equilibrium(spec, 256, gradient)
            assert 0 < eq.relaxation_steps < 5000 and 0 < eq.rotation < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rotsim.AdamW(0.0, 0.1), r"`lr` must be finite and > 0; got 0.0"),
        (lambda: rotsim.AdamW(float("nan"), 0.1), r"`lr` must be finite and > 0; got nan"),
        (lambda: rotsim.AdamW("fast", 0.1), r"`lr` must be a number; got 'fast'"),
        (lambda: rotsim.AdamW(True, 0.1), r"`lr` must be a number; got True"),
        (lambda: rotsim.AdamW(1e-3, -0.1), r"`weight_decay` must be finite and >= 0; got -0.1"),
        (lambda: rotsim.AdamW(1e-3, 0.1, betas=(0.9, 1.0)), r"`betas\[1\]` must be in \[0, 1\); got 1.0"),
        (lambda: rotsim.AdamW(1e-3, 0.1, betas=(-0.1, 0.9)), r"`betas\[0\]` must be in \[0, 1\); got -0.1"),
        (lambda: rotsim.AdamW(1e-3, 0.1, betas=0.9), r"`betas` must be two numbers"),
        (lambda: rotsim.AdamW(1e-3, 0.1, eps=-1.0), r"`eps` must be finite and >= 0"),
        (lambda: rotsim.AdamW(1.0, 1.0), r"`lr \* weight_decay` must be < 1 .*Use weight_decay < 1 "),
        (lambda: rotsim.AdamL2(1e-3, float("inf")), r"`weight_decay` must be finite"),
        (lambda: rotsim.SGDM(0.1, 0.1, momentum=1.0), r"`momentum` must be in \[0, 1\); got 1.0"),
        (lambda: rotsim.SGDM(10.0, 0.4), r"`lr \* weight_decay` must be < 2 \* \(1 \+ momentum\) = 3.8"),
        (lambda: rotsim.Lion(0.1, 10.0), r"`lr \* weight_decay` must be < 1"),
        (lambda: rotsim.Lion(1e-3, 1.0, betas=(0.9,)), r"`betas` must be two numbers"),
        (lambda: optimizer_class("adagrad"), r"optimizer 'adagrad' is unknown; choose from adamw, adam_l2, sgdm, lion"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        make()


def test_decay_bounds_are_where_the_walks_diverge():
    """SGDM's bound is the true one: just inside it the walk stays finite, the recurrence just outside grows."""
    inside = rotsim.SGDM(1.0, 3.79, momentum=0.9)
    norms = rotsim.simulate(inside, dim=16, neurons=4, steps=3000, dtype="float64")["norm"].values
    assert norms[:, -1].max() < 100 * norms[:, 0].max()
    growth = np.linalg.eigvals(np.array([[1 + 0.9 - 3.81, -0.9], [1.0, 0.0]]))
    assert np.abs(growth).max() > 1
