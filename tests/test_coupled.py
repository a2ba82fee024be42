"""Adam+L2 with a fluctuating v: linear response against its limits, Monte Carlo and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

import rotsim
from rotsim import closed_forms
from rotsim.theory import coupled, second_moment, walk
from tests import chance


@pytest.mark.parametrize("decay", [1e-8, 1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
def test_constant_second_moment_gives_the_closed_form(beta1, decay):
    """With one noise mode, that of the momentum, the walk is the AR(2) of derivations.adam_l2."""
    noise = walk.exponential_average(beta1)
    lr = 0.01
    found = coupled.stationary(lr, decay / lr, beta1, noise)
    if decay * (1 - beta1) >= 2 * (1 + beta1):
        assert found.norm_squared == np.inf
        return
    step = lr * (1 - beta1)
    gain = step * (1 + beta1) / (decay / lr * (1 - beta1) * (2 * (1 + beta1) - step * decay / lr))
    assert found.norm_squared == pytest.approx(gain, rel=1e-12)
    assert found.one_minus_cosine == pytest.approx(
        closed_forms.adam_l2_exact_one_minus_cosine(lr, decay / lr, beta1, 1.0), rel=1e-12
    )


@pytest.mark.parametrize("betas", [(0.9, 0.5), (0.0, 0.9), (0.9, 0.99), (0.0, 0.0)], ids=str)
def test_mean_response_agrees_with_a_shifted_gradient(betas):
    """E[u] under a small lasting shift of the gradient, antithetic so that the noise cancels."""
    beta1, beta2 = betas
    shift, generator = 0.02, np.random.default_rng(3)
    g = generator.standard_normal((400, 12_000))

    def update(gradient):
        m = lfilter([1 - beta1], [1, -beta1], gradient)
        v = lfilter([1 - beta2], [1, -beta2], gradient**2)
        return (m / np.sqrt(v))[:, 2000:]

    slope = ((update(g + shift) - update(g - shift)) / (2 * shift)).mean(axis=1)
    error = slope.std(ddof=1) / np.sqrt(len(slope))
    expected, _ = second_moment.mean_response(beta1, beta2)
    k = chance.errors(len(slope))
    assert abs(slope.mean() - expected) < k * error + shift**2
    assert abs(slope.mean() - 1) > k * error + shift**2 or betas == (0.9, 0.99)  # constant v fails


@pytest.mark.few(3)
@pytest.mark.parametrize("betas", [(0.0, 0.5), (0.5, 0.5), (0.8, 0.9), (0.9, 0.95)], ids=str)
@pytest.mark.parametrize("decay", [0.01, 0.03])
def test_walks_agree_where_constant_v_fails(betas, decay):
    opt = rotsim.AdamL2(lr=0.01, weight_decay=decay / 0.01, betas=betas, eps=0)
    dim, gradient = 512, rotsim.Isotropic()
    eq = rotsim.equilibrium(opt, dim, gradient)
    walk = rotsim.simulate(
        opt, dim=dim, neurons=64, steps=4000, gradient=gradient, initial_norm=eq.norm, seed=8, record_every=20
    )
    k = chance.errors(64, 3)
    report = rotsim.compare(walk, eq, k=k)
    assert report.passed, "\n" + report.table()
    assert eq.model_error < 1 / dim + 1e-4
    v = 1 + opt.weight_decay**2 * eq.norm**2 / dim
    half = closed_forms.adam_l2_exact_one_minus_cosine(opt.lr, opt.weight_decay, betas[0], v)
    frozen = replace(eq, rotation=float(2 * np.arcsin(np.sqrt(half / 2))))
    assert "FAIL" in {c.verdict for c in rotsim.compare(walk, frozen, k=k)}
