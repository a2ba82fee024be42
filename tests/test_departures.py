"""Gradients with a mean, a memory or a radial part: theory against walks, limits, and what must not depend on them."""

from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.gradients import Autocorrelated, Isotropic, Radial, ScaleInvariant, Signal
from rotsim.theory.base import required_theory
from tests import chance

OPTIMIZERS = {
    "adamw": rotsim.AdamW(0.01, 0.3, (0.9, 0.99)),
    "adam_l2": rotsim.AdamL2(2e-3, 0.1, (0.9, 0.99)),
    "sgdm": rotsim.SGDM(0.05, 0.02),
    "lion": rotsim.Lion(2e-3, 2.0),
}
STRENGTH = {"adamw": 0.01, "adam_l2": 0.1, "sgdm": 0.02, "lion": 0.003}  # near λ in effect, under ScaleInvariant()


NEURONS = 24


def walk(opt, gradient, eq, dim=512, neurons=NEURONS, seed=0):
    window = max(1, int(eq.relaxation_steps / 5))
    return rotsim.simulate(
        opt, dim=dim, neurons=neurons, steps=120 * window, gradient=gradient, seed=seed,
        initial_norm=eq.norm, record_every=window,
    )  # fmt: skip


def check(opt, gradient, wrong=None, dim=512, neurons=NEURONS):
    """The walk agrees with the prediction for its gradients, and not with that for white noise (or `wrong`)."""
    eq = rotsim.equilibrium(opt, dim, gradient)
    data = walk(opt, gradient, eq, dim, neurons)
    k = chance.errors(neurons, 2)
    report = rotsim.compare(data, eq, quantities=("norm", "rotation"), k=k)
    assert report.passed, "\n" + report.table()
    white = rotsim.equilibrium(opt, dim, wrong or ScaleInvariant())
    verdicts = {c.verdict for c in rotsim.compare(data, replace(eq, norm=white.norm, rotation=white.rotation), k=k)}
    assert "FAIL" in verdicts


#: Coupled decay and signs, the harder ones; the others are walked by the slow tests.
FEW = [pytest.param(name, marks=() if name in ("adam_l2", "lion") else pytest.mark.slow) for name in OPTIMIZERS]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("correlation", [-0.5, 0.7])
def test_autocorrelated(name, correlation):
    check(OPTIMIZERS[name], Autocorrelated(correlation))


@pytest.mark.parametrize("name", FEW)
def test_radial(name):
    check(OPTIMIZERS[name], Radial(STRENGTH[name]))


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_outward_radial(name):
    check(OPTIMIZERS[name], Radial(-STRENGTH[name] / 6))


@pytest.mark.parametrize("name", FEW)
def test_autocorrelated_isotropic(name):
    check(OPTIMIZERS[name], Autocorrelated(0.7, scale_invariant=False), Isotropic(), dim=128, neurons=48)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", FEW)
def test_signal_isotropic(name):
    """At twice the takeover ratio the fixed part is four times what noise adds."""
    opt = OPTIMIZERS[name]
    decay = opt.lr * opt.weight_decay / (1 - getattr(opt, "momentum", 0.0))
    if name == "adam_l2":
        decay = 2e-4 / np.sqrt(1 + 1e-4)  # lr·wd/√v of unit noise
    check(opt, Signal(2 * np.sqrt(decay / 2), scale_invariant=False), Isotropic(), dim=128)


@pytest.mark.parametrize("name", ["adamw", "adam_l2", "sgdm"])
def test_projected_signal_changes_neither_norm_nor_rotation(name):
    """In front of a normalisation layer a neuron turns at one rate whether it learns or not."""
    opt = OPTIMIZERS[name]
    gradient = Signal(0.3)
    eq, white = (rotsim.equilibrium(opt, 512, g) for g in (gradient, ScaleInvariant()))
    assert eq.rotation == pytest.approx(white.rotation, rel=5e-3)
    assert eq.norm == pytest.approx(white.norm, rel=0.01)
    report = rotsim.compare(walk(opt, gradient, eq), eq, quantities=("norm", "rotation"), k=chance.errors(NEURONS, 2))
    assert report.passed, "\n" + report.table()


def test_projected_signal_hurries_lion():
    """Lion's two averages see a mean as one more correlation. A strong one locks signs, and is not described."""
    opt, gradient = OPTIMIZERS["lion"], Signal(0.1)
    eq = rotsim.equilibrium(opt, 512, gradient)
    assert eq.rotation > 1.01 * rotsim.equilibrium(opt, 512).rotation
    report = rotsim.compare(walk(opt, gradient, eq), eq, quantities=("norm", "rotation"), k=chance.errors(NEURONS, 2))
    assert report.passed, "\n" + report.table()


@pytest.mark.parametrize("ratio", [0.02, 0.1])
def test_alignment_with_the_mean(ratio):
    """The squared cosine between weights and mean, which no recorded quantity shows, in a walk of its own."""
    opt, dim, neurons = rotsim.AdamW(0.01, 0.5, (0.9, 0.99)), 256, 64
    rng = np.random.default_rng(5)
    w = rng.standard_normal((neurons, dim)) * rotsim.equilibrium(opt, dim).norm / np.sqrt(dim)
    m, v = np.zeros_like(w), np.zeros_like(w)
    cosine = []
    for t in range(1, 2401):
        square = (w * w).sum(axis=1, keepdims=True)
        z = rng.standard_normal(w.shape) + ratio
        g = (z - w * ((z * w).sum(axis=1, keepdims=True) / square)) / np.sqrt(dim * square)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        w = 0.995 * w - 0.01 * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.99**t))
        if t > 1200:
            cosine.append(w.sum(axis=1) ** 2 / (w * w).sum(axis=1) / dim)
    measured = np.mean(cosine, axis=0)
    expected = closed_forms.signal_alignment(ratio**2 / closed_forms.adamw_takeover(0.01, 0.5))
    error = measured.std(ddof=1) / np.sqrt(neurons)
    k = chance.errors(neurons)
    assert abs(measured.mean() - expected) < k * error + 0.03 * expected + 1 / dim
    assert abs(measured.mean() - ratio**2 / 0.0025) > k * error + 0.03 * expected + 1 / dim  # without saturation


@pytest.mark.parametrize("law", [Signal(1e-9), Autocorrelated(1e-9), Radial(1e-9)], ids=lambda g: g.name)
@pytest.mark.parametrize("shaped", [True, False], ids=["scale-invariant", "isotropic"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("method", ["exact", "leading"])
def test_vanishing_departure_is_white_noise(name, law, shaped, method):
    opt = OPTIMIZERS[name]
    eq = rotsim.equilibrium(opt, 256, replace(law, scale_invariant=shaped), method)
    white = rotsim.equilibrium(opt, 256, ScaleInvariant() if shaped else Isotropic(), method)
    if name == "lion" and method == "leading" and law.name == "autocorrelated":
        pytest.skip("Lion's leading form for correlated gradients counts lag zero fully, the paper's does not")
    assert eq.norm == pytest.approx(white.norm, rel=1e-5)
    assert eq.rotation == pytest.approx(white.rotation, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("law", [Signal(0.02), Autocorrelated(0.4), Radial(1e-3)], ids=lambda g: g.name)
def test_leading_order_is_the_limit_of_exact(name, law):
    """At ηλ a hundred times smaller and β2 near one the two methods meet, but for Lion's linearised sign."""
    opt = OPTIMIZERS[name]
    fields = {"lr": opt.lr / 100}
    if name.startswith("adam"):
        fields["betas"] = (0.9, 0.99999)
    opt = replace(opt, **fields)
    if law.name == "radial":
        law = replace(law, strength=0.1 * STRENGTH[name] * (0.1 if name in ("adamw", "lion") else 1.0))
    exact, leading = (rotsim.equilibrium(opt, 4096, law, method) for method in ("exact", "leading"))
    tolerance = 0.02 if name != "lion" else 0.15
    assert leading.norm == pytest.approx(exact.norm, rel=tolerance)
    assert leading.rotation == pytest.approx(exact.rotation, rel=tolerance)


def test_lion_depends_on_correlation_as_the_numeric_sum_says():
    """Independent route: the triple sum over lags of `rotsim.theory.lion`."""
    for correlation in (-0.5, -0.2, 0.2, 0.5, 0.9):
        factor = required_theory(rotsim.Lion(1e-3, 1.0)).correlation_factors(correlation ** np.arange(2000.0))[0]
        white, found = (
            1 + 2 * closed_forms.lion_linear_sum(1e-12, 1.0, 0.9, 0.99, closed_forms.lion_overlap_ratio(0.9, 0.99, c))
            for c in (0.0, correlation)
        )
        assert np.sqrt(white / found) == pytest.approx(factor, rel=1e-3)


def test_lion_table_of_correlated_walks():
    """Rotation over that under white noise at small ηλ: faster when anticorrelated, slower when correlated."""
    opt = rotsim.Lion(2e-4, 2.0)
    white = rotsim.equilibrium(opt, 1024).rotation
    found = [rotsim.equilibrium(opt, 1024, Autocorrelated(c)).rotation / white for c in (-0.5, -0.2, 0.2, 0.5, 0.9)]
    assert np.all(np.diff(found) < 0)
    assert found == pytest.approx([1.381, 1.124, 0.898, 0.770, 0.617], rel=0.03)


def test_adamw_rotation_hardly_knows_the_correlation():
    """Through the spread of v alone: tests/test_correlated_moment.py has where it does."""
    opt = replace(OPTIMIZERS["adamw"], betas=(0.9, 0.999))
    white = rotsim.equilibrium(opt, 256).rotation
    for correlation in (-0.9, 0.3, 0.6):
        assert rotsim.equilibrium(opt, 256, Autocorrelated(correlation)).rotation == pytest.approx(white, rel=2e-3)
    assert rotsim.equilibrium(opt, 256, Autocorrelated(0.5), "leading").rotation == pytest.approx(
        rotsim.equilibrium(opt, 256, method="leading").rotation, rel=1e-14
    )


def test_what_has_no_equilibrium_says_so():
    for name, strength in (("sgdm", -0.02), ("adam_l2", -0.1), ("adamw", -1.0), ("lion", -1.0)):
        with pytest.raises(NoEquilibrium, match="pull inwards"):
            rotsim.equilibrium(OPTIMIZERS[name], 256, Radial(strength))


def test_one_departure_at_a_time():
    law = replace(Signal(0.1).power(64), radial=0.1)
    with pytest.raises(InvalidInput, match="one of signal"):
        required_theory(OPTIMIZERS["adamw"]).at_rest(64, law, "exact")


def test_lion_comes_to_rest_where_the_mean_drowns_the_noise():
    """Signs that never change leave the weights at -1/λ in every coordinate: no rotation, no division by 0."""
    eq = rotsim.equilibrium(rotsim.Lion(2e-3, 2.0), 64, Signal(2.0, scale_invariant=False))
    assert eq.norm == pytest.approx(8 / 2.0) and eq.rotation == 0.0
    assert rotsim.equilibrium(rotsim.Lion(2e-3, 2.0), 64, Signal(0.2, scale_invariant=False)).rotation > 1e-4
