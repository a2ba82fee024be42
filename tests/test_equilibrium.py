"""Theory against simulation, with wrong theories that must fail."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

import rotsim
from rotsim import closed_forms
from rotsim.gradients import Isotropic, ScaleInvariant
from tests import chance
from tests.conftest import COORDINATEWISE as OPTIMIZERS

DIM, NEURONS = 256, 48

# scale-invariant and isotropic noise of comparable size, so that Adam+L2's effective decay is alike
MODELS = {"scale_invariant": ScaleInvariant(), "isotropic": Isotropic(0.05)}
SETTINGS = {
    (name, strength, model): (spec.examples()[index], MODELS[model])
    for name, spec in OPTIMIZERS.items()
    for index, strength in enumerate(("gentle", "strong"))
    for model in MODELS
}


@pytest.fixture(scope="module")
def walks():
    """Each setting simulated once, from twice its equilibrium norm."""
    cache = {}

    def walk(key):
        if key not in cache:
            optimizer, gradient = SETTINGS[key]
            eq = rotsim.equilibrium(optimizer, DIM, gradient)
            steps = 100 * round(max(8_000, 20 * eq.relaxation_steps) / 100)
            cache[key] = rotsim.simulate(
                optimizer, dim=DIM, neurons=NEURONS, steps=steps, gradient=gradient, initial_norm=2 * eq.norm, seed=7
            )
        return cache[key]

    return walk


@pytest.mark.few(12)
@pytest.mark.parametrize("key", SETTINGS, ids="-".join)
def test_exact_theory_agrees_with_simulation(key, walks):
    optimizer, gradient = SETTINGS[key]
    report = rotsim.compare(walks(key), rotsim.equilibrium(optimizer, DIM, gradient), k=chance.errors(NEURONS, 3))
    assert report.passed, "\n" + report.table()


# What a careless derivation would give, per optimizer: factors on norm and rotation.
WRONG = {
    "momentum forgotten in the rotation": lambda o: (1.0, np.sqrt((1 + beta1(o)) / (1 - beta1(o)))),
    "rotation without the factor 2": lambda o: (1.0, np.sqrt(0.5)),
    "norm as if w and u were uncorrelated": lambda o: (0.97, 1.0),
    "one per cent too fast": lambda o: (1.0, 1.01),
    "one per cent too large": lambda o: (1.01, 1.0),
}


def beta1(optimizer):
    return optimizer.momentum if optimizer.name == "sgdm" else optimizer.betas[0]


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrong_theory_fails(name, mistake, walks):
    """Negative controls: the same comparison rejects each mistake, for every optimizer."""
    key = (name, "strong", "isotropic")
    optimizer, gradient = SETTINGS[key]
    right = rotsim.equilibrium(optimizer, DIM, gradient)
    on_norm, on_rotation = WRONG[mistake](optimizer)
    wrong = replace(right, norm=right.norm * on_norm, rotation=right.rotation * on_rotation)
    verdicts = {
        check.quantity: check.verdict for check in rotsim.compare(walks(key), wrong, k=chance.errors(NEURONS, 2))
    }
    assert verdicts["norm" if on_norm != 1 else "rotation"] == "FAIL"
    assert verdicts["update_rms"] == "PASS"


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_leading_order_fails_where_the_exact_theory_holds(name, walks):
    """At strong decay the paper's formula is outside the noise; it declares so itself."""
    key = (name, "strong", "isotropic")
    optimizer, gradient = SETTINGS[key]
    leading = rotsim.equilibrium(optimizer, DIM, gradient, method="leading")
    assert not rotsim.compare(walks(key), leading, k=chance.errors(NEURONS, 3), tolerance=0.005).passed
    assert leading.model_error > 0.2


def constant_v(optimizer):
    """β2 so near 1 that v does not fluctuate, and no ε: what the leading-order formulas assume."""
    if optimizer.shape != "inverse root":
        return optimizer
    return replace(optimizer, betas=(0.9, 1 - 1e-8, *optimizer.betas[2:]), eps=0.0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_leading_order_is_the_limit_of_the_exact(name, model):
    """Their difference vanishes in proportion to the learning rate, except Lion's constant."""
    optimizer, gradient = constant_v(OPTIMIZERS[name].examples()[0]), MODELS[model]

    def gap(factor):
        spec = replace(optimizer, lr=optimizer.lr * factor)
        exact, leading = (rotsim.equilibrium(spec, 10**9, gradient, method=m) for m in ("exact", "leading"))
        return np.array([leading.norm / exact.norm - 1, leading.rotation / exact.rotation - 1])

    far, near = gap(1e-3), gap(1e-4)
    if optimizer.shape == "sign":  # the linearised sign leaves a constant: (π/2 - 1)·var c in norm²
        assert 0.003 < abs(near[1]) < 0.05 and np.allclose(far, near, rtol=0.05)
    else:
        assert (np.abs(near) < 1e-4).all()
        assert (np.abs(near) < 0.35 * np.abs(far) + 1e-9).all()


@pytest.mark.parametrize("dim", [10, 16, 64])
def test_finite_dim_error_is_of_the_declared_order(dim):
    """At small dim the deviation stays below the declared 1/dim, and isotropic spread is predicted exactly."""
    k = chance.errors(400, 12)
    for gradient in (ScaleInvariant(), Isotropic()):
        optimizer = rotsim.SGDM(lr=0.1, weight_decay=0.05)
        eq = rotsim.equilibrium(optimizer, dim, gradient)
        data = rotsim.simulate(
            optimizer, dim=dim, neurons=400, steps=3000, gradient=gradient, initial_norm=eq.norm, seed=2
        )
        report = rotsim.compare(data, eq, k=k)
        assert report.passed, "\n" + report.table()
        if gradient.name == "isotropic":
            without = replace(eq, rotation=eq.rotation / np.sqrt((dim - 1) / (dim - 2)))
            assert not rotsim.compare(data, without, tolerance=0.05 / dim, k=k).passed
            assert rotsim.compare(data, eq, tolerance=0.05 / dim, k=k).passed


def test_adam_l2_rotation_depends_on_gradient_scale_and_the_others_do_not():
    for name, exponent in {"adamw": 0.0, "lion": 0.0, "sgdm": 0.0, "adam_l2": -1 / 3}.items():
        optimizer = OPTIMIZERS[name].examples()[0]
        small, large = (rotsim.equilibrium(optimizer, 1024, ScaleInvariant(s)).rotation for s in (0.1, 10.0))
        assert np.log(large / small) / np.log(100) == pytest.approx(exponent, abs=0.01), name


def test_paper_values():
    """Numbers of the paper's own configurations (shared field notes): ResNet-50 SGDM, ResNet-20 AdamW."""
    rn50 = rotsim.equilibrium(rotsim.SGDM(lr=0.1, weight_decay=1e-4), method="leading")
    assert rn50.rotation == pytest.approx(3.24e-3, rel=2e-3)
    rn20 = rotsim.equilibrium(rotsim.AdamW(lr=0.01, weight_decay=0.01), method="leading")
    assert rn20.rotation == pytest.approx(3.24e-3, rel=2e-3)
    assert rn20.relaxation_steps == pytest.approx(5000)


def test_tiny_decay_does_not_cancel():
    for name in OPTIMIZERS:
        optimizer = constant_v(replace(OPTIMIZERS[name].examples()[0], lr=1e-9, weight_decay=1e-6))
        exact, leading = (rotsim.equilibrium(optimizer, 10**6, method=m) for m in ("exact", "leading"))
        assert exact.rotation == pytest.approx(leading.rotation, rel=0.05 if optimizer.shape == "sign" else 1e-5)


def test_adam_l2_fixed_point_exists_however_strong_the_decay():
    """λw itself enters the second moment and limits the step, so that the norm stays bounded."""
    for lr, weight_decay, scale in ((10.0, 10.0, 1e-3), (1e-6, 1e-9, 1e3), (0.1, 100.0, 1.0)):
        optimizer = constant_v(rotsim.AdamL2(lr, weight_decay))
        for gradient in (Isotropic(scale), ScaleInvariant(scale)):
            eq = rotsim.equilibrium(optimizer, 64, gradient)
            power = gradient.power(64)

            def excess(log_norm, lr=lr, weight_decay=weight_decay, power=power):  # of the closed form, for constant v
                image = closed_forms.adam_l2_exact_norm_squared_map(
                    lr, weight_decay, 0.9, 64, np.exp(2 * log_norm), power.scale_squared, power.homogeneity
                )
                return np.log(image) - 2 * log_norm if image > 0 else 1e3

            here = np.log(eq.norm)
            assert brentq(excess, here - 1, here + 1, xtol=1e-13) == pytest.approx(here, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.0)), rotsim.NoEquilibrium, "`weight_decay` must be > 0"),
        (lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), dim=1), rotsim.InvalidInput, "`dim` must be >= 2; got 1"),
        (
            lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), 2, Isotropic()),
            rotsim.InvalidInput,
            "`dim` must be >= 3 for isotropic noise",
        ),
        (lambda: rotsim.equilibrium("adamw"), rotsim.InvalidInput, "`optimizer` must be a spec"),
        (lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), method="best"), rotsim.InvalidInput, "`method` must be"),
        (
            lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), 4, rotsim.Replay(np.ones((1, 1, 4)))),
            rotsim.InvalidInput,
            "got Replay, whose gradients follow no law",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("optimizer", "apart"),
    [(rotsim.AdamW(2e-3, 1.0, (0.9, 0.998)), 0.4), (rotsim.AdamL2(2e-3, 0.03, (0.9, 0.998)), 0.15)],
)
def test_a_norm_settles_sooner_beside_eps(optimizer, apart):
    """v lags, and has less to say the more of the denominator is ε: the slope of a course against the mode's time."""
    dim, gradient = 10**6, rotsim.ScaleInvariant(30.0)
    bare = rotsim.equilibrium(replace(optimizer, eps=0.0), dim, gradient)
    beside = replace(optimizer, eps=3 * 30.0 / bare.norm / np.sqrt(dim))  # three deviations of a gradient
    found = rotsim.equilibrium(beside, dim, gradient)
    steps, window = int(9 * found.relaxation_steps), int(found.relaxation_steps / 20)
    course = rotsim.predict(beside, dim, gradient, steps, 1.3 * found.norm, record_every=window)
    step, norm = course["step"].values, course["norm"].values[0]
    late = (step > 3 * found.relaxation_steps) & (step < 5.5 * found.relaxation_steps)
    slope, _ = np.polyfit(step[late], np.log(abs(norm[late] ** 2 / norm[-1] ** 2 - 1)), 1)
    assert -1 / slope == pytest.approx(found.relaxation_steps, rel=0.04)
    assert found.relaxation_steps < (1 - apart) * bare.relaxation_steps  # negative control: not as without ε
