"""Gradients of any autocorrelation, and norms that still grow: what the balance of ‖w‖² makes of rotation and norm."""

import numpy as np
import pytest

import rotsim
from rotsim.theory.base import required_theory
from tests import chance

TAPS = np.array([1.0, 0.8, 0.5, -0.3])  # of a moving average: no AR(1), and negative at the longest lag
DIM, NEURONS = 256, 24
OPTIMIZERS = {
    "adamw": rotsim.AdamW(2e-3, 1.0, (0.9, 0.99)),
    "adam_l2": rotsim.AdamL2(4e-3, 0.03, (0.9, 0.99)),
    "sgdm": rotsim.SGDM(0.05, 0.01, 0.8),
    "lion": rotsim.Lion(1e-3, 1.0, (0.9, 0.95)),
}


# Where the norm moves slowly against momentum and v: the balance takes what they remember as known at once.
SLOW = OPTIMIZERS | {"adam_l2": rotsim.AdamL2(1e-3, 0.03, (0.9, 0.99)), "sgdm": rotsim.SGDM(0.05, 2e-3, 0.8)}


def autocorrelation():
    lagged = np.correlate(TAPS, TAPS, "full")[len(TAPS) - 1 :]
    return lagged / lagged[0]


def walk(opt, steps, norm, seed=0):
    """RMS norm and angle of each neuron over the second half; gradients scale-invariant, a moving average of noise."""
    rng, taps = np.random.default_rng(seed), TAPS / np.linalg.norm(TAPS)
    w = rng.standard_normal((NEURONS, DIM))
    w *= norm / np.linalg.norm(w, axis=1, keepdims=True)
    m, v, past = np.zeros_like(w), np.zeros_like(w), rng.standard_normal((len(taps), NEURONS, DIM))
    rates = np.full(steps, opt.lr), np.full(steps, opt.weight_decay)
    found = np.zeros((2, NEURONS))
    for i, c in enumerate(opt.coefficient_table(np.arange(1, steps + 1), *rates)):
        past[i % len(taps)] = rng.standard_normal(w.shape)
        z = sum(tap * past[(i - age) % len(taps)] for age, tap in enumerate(taps))
        square = (w * w).sum(axis=1, keepdims=True)
        g = (z - w * ((z * w).sum(axis=1, keepdims=True) / square)) / np.sqrt(DIM * square)
        change, m, v = opt.update(w, m, v, g, c)
        if i >= steps // 2:
            square, along = square[:, 0], (change * w).sum(axis=1)
            across = (change**2).sum(axis=1) - along**2 / square
            found += square, across / (square * (1 + along / square) ** 2)
        w = w + change
    return np.sqrt(found / (steps - steps // 2))


@pytest.mark.few(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_autocorrelation(name):
    """Norm and rotation of a walk, against the factors on white noise; leading order, so within 1 %."""
    opt = OPTIMIZERS[name]
    eq, (on_rotation, on_norm) = (
        rotsim.equilibrium(opt, DIM),
        required_theory(opt).correlation_factors(autocorrelation()),
    )
    norm, rotation = walk(opt, int(8 * eq.relaxation_steps), eq.norm * on_norm)
    k = chance.errors(NEURONS, 2)
    for values, white, factor in ((norm, eq.norm, on_norm), (rotation, eq.rotation, on_rotation)):
        allowed = 0.01 + k * values.std(ddof=1) / np.sqrt(NEURONS) / white / factor
        assert abs(values.mean() / white / factor - 1) < allowed
        if factor != 1:  # negative control: told that gradients are white
            assert abs(values.mean() / white - 1) > allowed


def test_only_lion_and_adam_l2_turn_otherwise():
    rotation = {
        name: required_theory(opt).correlation_factors(autocorrelation())[0] for name, opt in OPTIMIZERS.items()
    }
    assert rotation["adamw"] == rotation["sgdm"] == 1
    assert rotation["lion"] < 0.98 and rotation["adam_l2"] > 1.05
    assert required_theory(rotsim.Rotational(OPTIMIZERS["lion"])).correlation_factors(autocorrelation()) == (1.0, 1.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ar1_is_the_special_case(name):
    """The factors of R_k = φ^k are those of the exact equilibria under `Autocorrelated`, as lr·wd → 0."""
    opt = OPTIMIZERS[name]
    opt = opt.with_rates(opt.lr / 30, opt.weight_decay / 10)
    white, found = (rotsim.equilibrium(opt, 10**6, g) for g in (None, rotsim.Autocorrelated(0.5)))
    on_rotation, on_norm = required_theory(opt).correlation_factors(0.5 ** np.arange(200))
    assert found.rotation / white.rotation == pytest.approx(on_rotation, rel=0.02)
    assert found.norm / white.norm == pytest.approx(on_norm, rel=0.02)


def test_correlations_that_no_walk_has():
    impossible = np.array([1.0, -0.9, 0.0])
    assert np.isnan(required_theory(rotsim.SGDM(0.1, 0.01, 0.9)).correlation_factors(impossible)).all()
    assert np.isnan(required_theory(rotsim.Lion(1e-3, 1.0)).correlation_factors(np.array([1.0, -3.0]))[0])


@pytest.mark.few(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_norm_that_grows(name):
    """On the way up from 0.7 of the norm: rotation over that of equilibrium, from the growth that is measured."""
    opt = SLOW[name]
    eq = rotsim.equilibrium(opt, DIM)
    window = max(5, int(eq.relaxation_steps / 20))
    data = rotsim.simulate(opt, DIM, 64, 24 * window, initial_norm=0.7 * eq.norm, record_every=window, seed=3)
    rate = 2 * opt.lr * opt.weight_decay
    if name != "lion":
        memory = opt.momentum if name == "sgdm" else opt.betas[0]
        rate = (1 + memory) / (1 - memory) * eq.rotation**2  # what decay takes of ‖w‖² per step at rest
    # moments fill first, and under Lion a sign takes 1/(1-β2) steps to know
    settled = slice(8, None) if name == "lion" else slice(4, None)

    def turned(data):
        """Rotation over that of equilibrium, and over that with the growth that is measured."""
        norm, rotation = (np.sqrt((data[key].values ** 2).mean(axis=0)) for key in ("norm", "rotation"))
        growth = np.log(norm[2:] / norm[:-2]) / window / rate
        predicted = np.array([required_theory(opt).balance_factor(0.0, float(g)) for g in growth])
        return np.array([rotation[1:-1] / eq.rotation, rotation[1:-1] / eq.rotation / predicted])[:, settled]

    without, found = turned(data)
    # jackknife over eighths of the neurons: the growth has noise too
    parts = [turned(data.isel(neuron=np.arange(64) % 8 != i))[1] for i in range(8)]
    error = np.sqrt(7 * np.var(parts, axis=0).mean())
    allowed = 0.02 + chance.errors(8 * len(found), len(found)) * error
    assert np.abs(found - 1).max() < allowed
    assert np.abs(without - 1).max() > max(0.1, allowed)  # negative control: no growth in the balance


@pytest.mark.parametrize("correlation", [-0.3, 0.5])
@pytest.mark.parametrize("name", ["adamw", "adam_l2", "sgdm", "lion", "signum"])
def test_a_remembered_gradient_is_one_with_that_autocorrelation(name, correlation):
    """Two routes to the leading order: sums over lags, and closed forms of AR(1)."""
    theory = required_theory(rotsim.OPTIMIZERS[name](1e-3, 0.1))
    by_lags = theory.correlation_factors(correlation ** np.arange(400.0))
    assert theory.remembered(theory.spec.beta1, correlation) == pytest.approx(by_lags, rel=1e-6)
    if name != "signum":  # whose sign is of all that it remembers; else another memory is another number
        assert theory.remembered(theory.spec.beta1, 0.1) != pytest.approx(by_lags, rel=1e-3)
