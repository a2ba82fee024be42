"""Many settings at once: the numbers of one after the other, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.arcsine import discounted_sum
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.theory import betas as between
from rotsim.theory import covariance, few_weights, rare_updates, second_moment, together

RNG = np.random.default_rng(5)
NAMES = ("norm", "rotation", "update_rms", "relaxation_steps", "model_error")
RATES = {"lr": 10 ** RNG.uniform(-6, -0.5, 40), "weight_decay": 10 ** RNG.uniform(-4, 0.3, 40)}
SETTINGS = {
    "sgdm": (rotsim.SGDM, {"momentum": RNG.uniform(0, 0.99, 40)}),
    "lion": (rotsim.Lion, {"betas": (0.95, 0.98)}),
    "adamw": (rotsim.AdamW, {"eps": np.repeat([0.0, 1e-8, 1e-5, 1e-3], 10)}),
    "adamw with rare updates": (rotsim.AdamW, {"betas": (0.9, np.repeat([0.3, 0.6], 20))}),
    "a short memory": (rotsim.Lion, {"betas": (np.repeat([0.0, 0.9], 20), np.tile([0.0, 0.5], 20))}),
}


def alone(kind, values, place, **arguments):
    """`equilibrium` of one setting."""
    at = {n: tuple(np.broadcast_to(x, 40)[place] for x in v) if n == "betas" else v[place] for n, v in values.items()}
    return rotsim.equilibrium(kind(**at), **arguments)


@pytest.mark.parametrize("method", ["exact", "leading"])
@pytest.mark.parametrize("gradient", [rotsim.ScaleInvariant(0.01), rotsim.Isotropic()], ids=lambda g: g.name)
@pytest.mark.parametrize("name", SETTINGS)
def test_together_is_one_after_the_other(name, gradient, method, monkeypatch):
    monkeypatch.setattr(together, "AT_ONCE", 7)  # parts of a group are of no consequence
    monkeypatch.setattr(together, "equilibrium", None)  # nobody is asked alone
    kind, more = SETTINGS[name]
    dims = RNG.integers(3, 5000, 40)
    found = rotsim.equilibria(kind, dims, gradient, method, **RATES, **more)
    for place in range(40):
        one = alone(kind, RATES | more, place, dim=int(dims[place]), gradient=gradient, method=method)
        # numpy takes the powers of an array by other instructions than one number's, where the processor has AVX-512
        numbers = [getattr(found, n)[place] for n in NAMES], [getattr(one, n) for n in NAMES]
        np.testing.assert_allclose(*numbers, rtol=4 * np.finfo(float).eps, err_msg=str(place))


def test_shapes_broadcast_and_a_spec_gives_what_is_left():
    lr, decay = np.geomspace(1e-4, 1e-2, 3)[:, None], np.array([0.01, 0.1])
    found = rotsim.equilibria(rotsim.SGDM(1.0, 1.0, momentum=0.5), lr=lr, weight_decay=decay)
    assert found.norm.shape == (3, 2) and found.method == "exact"
    for i, j in itertools.product(range(3), range(2)):
        assert found.norm[i, j] == rotsim.equilibrium(rotsim.SGDM(lr[i, 0], decay[j], 0.5)).norm
    assert rotsim.equilibria(rotsim.SGDM, lr=[], weight_decay=0.1).norm.shape == (0,)
    assert float(rotsim.equilibria(rotsim.SGDM(0.1, 0.1)).norm) == rotsim.equilibrium(rotsim.SGDM(0.1, 0.1)).norm


def test_what_has_no_equilibrium_is_nan():
    found = rotsim.equilibria(rotsim.AdamW, lr=1e-3, weight_decay=[0.0, 0.1])
    assert np.isnan(found.norm).tolist() == [True, False]
    with pytest.raises(NoEquilibrium):
        rotsim.equilibrium(rotsim.AdamW(1e-3, 0.0))
    mean = rotsim.equilibria(rotsim.SGDM, gradient=rotsim.Signal(1.0), lr=[0.01, 0.1], weight_decay=0.1)
    expected = rotsim.equilibrium(rotsim.SGDM(0.1, 0.1), gradient=rotsim.Signal(1.0))
    assert mean.norm[1] == expected.norm != rotsim.equilibrium(rotsim.SGDM(0.1, 0.1)).norm


def test_matrices_have_rows():
    """Of a shape each; what is no number is given once."""
    rows, dims = np.array([[16], [64]]), np.array([32, 64])
    found = rotsim.equilibria(rotsim.Muon, dims, rows=rows, lr=0.02, adjust_lr_fn="match_rms_adamw", ns_steps=6)
    spec = rotsim.Muon(0.02, adjust_lr_fn="match_rms_adamw", ns_steps=6)
    for i, j in itertools.product(range(2), range(2)):
        one = rotsim.equilibrium(spec, int(dims[j]), rows=int(rows[i, 0]))
        assert [getattr(found, n)[i, j] for n in NAMES] == [getattr(one, n) for n in NAMES]
    assert found.norm[0, 0] != pytest.approx(found.norm[1, 0], rel=0.05)  # negative control
    square = rotsim.equilibria(rotsim.Muon(0.02), 64, weight_decay=[0.1, 0.2])
    assert square.norm[0] == rotsim.equilibrium(rotsim.Muon(0.02), 64).norm
    with pytest.raises(InvalidInput, match="`rows` must be >= 2; got 1"):
        rotsim.equilibria(rotsim.Muon, 64, rows=[8, 1], lr=0.02)
    with pytest.raises(InvalidInput, match="`rows` is for an optimizer that acts on matrices"):
        rotsim.equilibria(rotsim.AdamW, 64, rows=8, lr=1e-3, weight_decay=0.1)
    with pytest.raises(InvalidInput, match="must have a norm of its own; Rotational keeps any"):
        rotsim.equilibria(rotsim.Rotational(rotsim.AdamW(1e-3, 0.1)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lr": [0.1, -1.0], "weight_decay": 0.1}, "`lr` must be finite and > 0; got -1"),
        ({"lr": [0.1, np.nan], "weight_decay": 0.1}, "`lr` must be finite"),
        ({"lr": [1.0, 10.0, 1.0], "weight_decay": [1.0, 0.9, 0.1]}, "`lr \\* weight_decay` must be < 2"),
        ({"lr": 0.1, "weight_decay": 0.1, "momentum": [0.0, 1.0]}, "`momentum` must be in"),
        (
            {"lr": 0.1, "weight_decay": 0.1, "beta": 0.1},
            "takes lr, weight_decay, momentum, .*; got beta",
        ),
        ({"lr": 0.1}, "needs a value for weight_decay"),
        ({"lr": [0.1, 0.2], "weight_decay": [1, 2, 3]}, "shapes that broadcast"),
        ({"lr": 0.1, "weight_decay": 0.1, "dim": [2, 1]}, "`dim` must be >= 2"),
        ({"lr": 0.1, "weight_decay": 0.1, "dim": 2.5}, "`dim` must be whole numbers"),
        ({"lr": "x", "weight_decay": 0.1}, "`lr` must be numbers"),
        ({"lr": 0.1, "weight_decay": 0.1, "method": "both"}, "`method` must be"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        rotsim.equilibria(rotsim.SGDM, **arguments)
    with pytest.raises(InvalidInput, match="an optimizer's class or spec"):
        rotsim.equilibria("sgdm", lr=0.1)


def test_a_limit_that_depends_on_another_hyperparameter_is_found():
    """lr·weight_decay is largest where it is allowed, and not where the momentum is small."""
    with pytest.raises(InvalidInput, match="lr \\* weight_decay"):
        rotsim.equilibria(rotsim.SGDM, lr=[3.0, 3.5], weight_decay=1.0, momentum=[0.1, 0.9])


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.0), (0.5, 0.3), (0.9, 0.99), (0.95, 0.999)])
def test_lions_sum_is_that_of_its_terms(betas):
    """Where asin bends terms are added, and where it does not, its series: against the terms alone."""
    kept, lags = np.array([0.0, 0.5, 0.99, 1.0]), np.arange(1, 60_000)
    terms = closed_forms.lion_sign_correlation(*betas, lags.astype(float))
    expected = [(terms * one**lags).sum() for one in kept]
    assert discounted_sum(kept, *betas) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.few(2)
@pytest.mark.parametrize("gradient", [rotsim.ScaleInvariant(), rotsim.Isotropic()], ids=lambda g: g.name)
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_adam_l2_is_interpolated(eps, gradient):
    """Between points that are solved as one setting is; ε is felt under one of them."""
    lr, decay = 10 ** RNG.uniform(-3, -2, 4), 10 ** RNG.uniform(-3, -2, 4)
    found = rotsim.equilibria(rotsim.AdamL2, 64, gradient, lr=lr, weight_decay=decay, eps=eps)
    for place in range(4):
        one = rotsim.equilibrium(rotsim.AdamL2(lr[place], decay[place], eps=eps), 64, gradient)
        for name in NAMES[:-1]:
            assert getattr(found, name)[place] == pytest.approx(getattr(one, name), rel=1e-6)
        assert one.model_error <= found.model_error[place] < one.model_error + 2e-6


def test_adam_l2_is_solved_cell_by_cell_where_the_chain_is_coarse(monkeypatch):
    settings = dict(lr=np.array([1.0]), weight_decay=2.0, betas=(0.9, 0.5), eps=0.0)
    one = rotsim.equilibrium(rotsim.AdamL2(1.0, 2.0, (0.9, 0.5), 0.0), 64, rotsim.Isotropic())
    found = rotsim.equilibria(rotsim.AdamL2, 64, rotsim.Isotropic(), **settings)
    assert [getattr(found, name)[0] for name in NAMES] == [getattr(one, name) for name in NAMES]
    assert one.model_error > 1e-2  # which no polynomial would show


def test_many_betas_are_interpolated_to_what_is_declared():
    rng = np.random.default_rng(0)
    beta2 = 1 - 10 ** rng.uniform(-2.2, np.log10(0.4), 400)
    lr, decay = 10 ** rng.uniform(-4, -1, 400), 10 ** rng.uniform(-2, 0, 400)
    found = rotsim.equilibria(rotsim.AdamW, 64, lr=lr, weight_decay=decay, betas=(0.9, beta2))
    for place in range(0, 400, 40):
        betas = (0.9, float(beta2[place]))
        alone = rotsim.equilibrium(rotsim.AdamW(float(lr[place]), float(decay[place]), betas), 64)
        for name in ("norm", "rotation", "update_rms", "relaxation_steps"):
            assert getattr(found, name)[place] == pytest.approx(getattr(alone, name), rel=1e-5)
        assert found.model_error[place] == pytest.approx(alone.model_error, rel=1e-3, abs=4e-5)
    few = rotsim.equilibria(rotsim.AdamW, 64, lr=lr[:5], weight_decay=decay[:5], betas=(0.9, beta2[:5]))
    assert float(few.norm[0]) == rotsim.equilibrium(rotsim.AdamW(lr[0], decay[0], (0.9, beta2[0])), 64).norm


@pytest.mark.parametrize("vary", ["both", "far"])
def test_interpolation_between_betas(vary):
    """All that depends on betas, between points that are known; far from white theory's own use of it."""
    rng = np.random.default_rng(1)
    beta2 = 1 - 10 ** rng.uniform(-5.3, -5, 20)
    beta1 = 1 - 10 ** rng.uniform(-0.3, -0.2, 20) if vary == "both" else np.full(20, 0.99)
    found = between.adam_covariance(beta1, beta2, np.zeros(20))
    for place in (3, 11):
        betas = float(beta1[place]), float(beta2[place])
        alone = covariance.adam_covariance(*betas)
        assert found.lag_0[place] == pytest.approx(alone.lag_0, rel=between.INTERPOLATION_ERROR)
        total = found.discounted_sum(0.999)[place]
        assert total == pytest.approx(alone.discounted_sum(0.999), rel=between.INTERPOLATION_ERROR)
        for one, other in zip(between.mean_response(beta1, beta2), second_moment.mean_response(*betas), strict=True):
            assert one[place] == pytest.approx(other, rel=between.INTERPOLATION_ERROR)
        assert between.heaviest(beta1, beta2)[place] == pytest.approx(rare_updates.heaviest(*betas), rel=1e-4)


@pytest.mark.parametrize("second", [None, 0.5, 0.999])
def test_what_feeds_back_is_the_sum_over_an_answer_to_an_impulse(second):
    """By the map of `derivations.damped.neurons_differ`, iterated."""
    kept, momentum = 0.97, 0.9
    new, q_m, q_v = 1 - kept**2, momentum**2, 1.0 if second is None else second
    step = np.array([
        [kept**2 + new * (q_m - q_v), new * q_m, -new * q_v],
        [q_m - 1, q_m, 0.0],
        [q_v - 1, 0.0, 0.0 if second is None else q_v],
    ])  # fmt: skip
    state, total = np.array([1.0, 0.0, 0.0]), 0.0
    for _ in range(20_000):
        total, state = total + state[0] ** 2, step @ state
    assert few_weights.fed_back(kept, momentum, second) == pytest.approx((1 - kept**4) * total, rel=1e-9)
    assert few_weights.fed_back(0.97, 0.9999, 0.1) > 10 * few_weights.fed_back(0.97, 0.5, 0.9)  # runs away
    assert 0 < few_weights.fed_back(1.0, momentum, second) < 2  # no decay at all


def test_no_bound_is_declared_where_neurons_run_away():
    """A few neurons of 1024 grow a hundred times as long as the others there, and nowhere else."""
    for betas, weight_decay, dim, runs_away in (
        ((0.98, 0.9), 5.0, 6, True),
        ((0.98, 0.9), 5.0, 24, False),
        ((0.9, 0.9), 5.0, 6, False),
    ):
        optimizer = rotsim.AdamW(0.01, weight_decay, betas)
        walk = rotsim.simulate(optimizer, dim, 1024, steps=4000, seed=5, engine="numba")
        square = (walk["norm"].values[:, 20:] ** 2).mean(axis=1)
        assert (square.max() > 1e4 * np.median(square)) == runs_away
        assert np.isinf(rotsim.equilibrium(optimizer, dim).model_error) == runs_away
    dims = np.array([3, 4, 6, 10, 24, 1024])
    found = rotsim.equilibria(rotsim.AdamW, dim=dims, lr=0.01, weight_decay=5.0, betas=(0.98, 0.9)).model_error
    each = [rotsim.equilibrium(rotsim.AdamW(0.01, 5.0, (0.98, 0.9)), dim).model_error for dim in dims.tolist()]
    assert found.tolist() == each and np.isinf(each).tolist() == [True, True, True, False, False, False]
