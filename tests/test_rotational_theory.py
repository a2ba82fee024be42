"""Rotational variants in theory: the bias of the running mean, courses in time, and what does not apply."""

import numpy as np
import pytest

import rotsim
from rotsim.errors import InvalidInput
from rotsim.gradients import Autocorrelated, Isotropic
from rotsim.theory.base import required_theory
from rotsim.theory.schedules import cosine
from tests import chance


@pytest.mark.parametrize(
    ("inner", "dim", "decay"),
    [
        (rotsim.SGDM(0.1, 0.01, 0.0), 16, 0.4),
        (rotsim.SGDM(0.1, 0.01), 16, 0.9),
        (rotsim.AdamW(0.01, 0.1), 12, 0.4),
        (rotsim.SGDM(0.1, 0.01, 0.9, nesterov=True), 16, 0.4),
    ],
    ids=["no memory", "momentum", "adamw", "nesterov"],
)
def test_bias_of_the_running_mean(inner, dim, decay):
    """A walk turns by less than θ, by what the derivation says to first order in 1/n."""
    opt = rotsim.Rotational(inner, update_norm_decay=decay)
    data = rotsim.simulate(opt, dim=dim, neurons=128, steps=4000, record_every=500, seed=1)
    square = (data["rotation"].values[:, 2:] ** 2).mean(axis=1) / opt.leading_rotation(opt.lr, opt.weight_decay) ** 2
    error, bias = (
        square.std(ddof=1) / np.sqrt(len(square)),
        required_theory(opt).angle_bias(dim, rotsim.ScaleInvariant().power(dim)),
    )
    k = chance.errors(len(square))
    assert abs(square.mean() - 1 - bias) < k * error + 3 * abs(bias) / dim
    if decay == 0.4:
        assert abs(square.mean() - 1) > k * error + 3 * abs(bias) / dim  # without the bias


@pytest.mark.parametrize("gradient", [None, Isotropic(), Autocorrelated(0.6)], ids=str)
def test_equilibrium_is_the_inner_leading_rotation(gradient):
    inner = rotsim.AdamW(1e-2, 0.1)
    eq = rotsim.equilibrium(rotsim.Rotational(inner), 4096, gradient)
    assert eq.rotation == pytest.approx(rotsim.equilibrium(inner, 4096, method="leading").rotation, rel=1e-4)
    assert np.isnan(eq.norm)


def test_course_follows_the_schedule_without_transient():
    opt = rotsim.Rotational(rotsim.SGDM(0.1, 0.02))
    arguments = dict(dim=256, steps=600, initial_norm=3.0, lr_schedule=cosine(600), record_every=50)
    course = rotsim.predict(opt, **arguments)
    data = rotsim.simulate(opt, neurons=32, seed=2, **arguments)
    k = chance.errors(None, 3)
    report = rotsim.compare(data, course, k=k)
    assert report.passed, "\n" + report.table()
    assert course["norm"].values == pytest.approx(3.0)
    constant = rotsim.predict(opt, **{**arguments, "lr_schedule": None})
    assert not rotsim.compare(data, constant.assign_attrs(course.attrs), k=k).passed


@pytest.mark.parametrize("inner", [rotsim.AdamW(1e-2, 0.1), rotsim.SGDM(0.1, 0.02), rotsim.Lion(1e-3, 1.0)], ids=str)
def test_the_angle_settles_when_the_moments_are_full(inner):
    """Only the norm has no transient: `steps_to_equilibrium` against the single steps of a walk."""
    opt = rotsim.Rotational(inner)
    steps = rotsim.steps_to_equilibrium(opt, 256, within=0.05)
    assert steps == 0 if inner.name == "lion" else 10 < steps < 60
    walk = rotsim.simulate(opt, 256, neurons=256, steps=steps + 40, record_every=1, dtype="float64", seed=4)
    square = walk["rotation"].values ** 2 / rotsim.equilibrium(opt, 256).rotation ** 2
    k = chance.errors(len(square), steps + 40)
    error = k * square.std(axis=0, ddof=1) / np.sqrt(len(square)) / 2
    off = np.abs(np.sqrt(square.mean(axis=0)) - 1)
    assert (off[steps:] < 0.05 + error[steps:]).all()
    filling = slice(1, steps // 2)  # the very first step turns by θ: its update is its own mean
    assert (off[filling] > 0.05 - error[filling]).all()


def test_what_does_not_apply_says_so():
    opt = rotsim.Rotational(rotsim.SGDM(0.1, 0.02))
    with pytest.raises(InvalidInput, match="inner optimizer"):
        rotsim.transfer(opt, batch_factor=2)
    with pytest.raises(InvalidInput, match="inner optimizer"):
        rotsim.plan("rotational", rotation=0.1, norm=1.0)
    with pytest.raises(InvalidInput, match="predicted in time"):
        rotsim.predict(rotsim.SGDM(0.1, 0.02), 64, Autocorrelated(0.5), 100)


@pytest.mark.parametrize("inner", [rotsim.SGDM(0.1, 0.05), rotsim.AdamW(0.02, 0.5, (0.9, 0.99))], ids=lambda o: o.name)
def test_the_running_mean_lags_where_a_schedule_jumps(inner):
    """Weights that turn fast lose more of the update: at a jump of θ the angle overshoots by what the course says."""
    opt, jump = rotsim.Rotational(inner), np.where(np.arange(600) < 300, 3.0, 0.2)
    arguments = dict(dim=1024, steps=600, wd_schedule=jump, record_every=10)
    course, data = rotsim.predict(opt, **arguments), rotsim.simulate(opt, neurons=32, seed=2, **arguments)
    k = chance.errors(None, 3)
    report = rotsim.compare(data, course, k=k)
    assert report.passed, "\n" + report.table()
    after = course["rotation"].sel(step=310).item() / opt.leading_rotation(opt.lr, 0.2 * opt.weight_decay)
    assert after > 1.02
    flat = course.copy(deep=True)
    flat["rotation"].loc[{"step": 310}] /= after
    assert {c.quantity for c in rotsim.compare(data, flat, k=k) if c.verdict == "FAIL"} == {"rotation"}


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(rotsim.AdamW(1e-2, 0.2, betas=(0.9, 0.99)), marks=pytest.mark.slow),
        rotsim.SGDM(0.05, 0.01, momentum=0.9),
    ],
)
def test_rotation_over_many_steps(inner):
    """Of walks: by weights some steps apart. And nearly that of the inner optimizer, by whose angle it turns."""
    torch = pytest.importorskip("torch")
    from rotsim.measure import RotationalAdamW, RotationalSGDM

    spec, dim, neurons = rotsim.Rotational(inner, zero_mean=False), 256, 64
    noise = torch.Generator().manual_seed(5)
    parameter = torch.nn.Parameter(torch.randn(neurons, dim, generator=noise))
    kind = RotationalAdamW if isinstance(inner, rotsim.AdamW) else RotationalSGDM
    extra = {"betas": inner.betas} if isinstance(inner, rotsim.AdamW) else {"momentum": inner.momentum}
    optimizer = kind([parameter], lr=inner.lr, weight_decay=inner.weight_decay, zero_mean=False, **extra)
    kept = []
    for _ in range(700):
        w = parameter.detach()
        gradient = torch.randn(w.shape, generator=noise)
        parameter.grad = gradient - (gradient * w).sum(1, keepdim=True) / w.square().sum(1, keepdim=True) * w
        optimizer.step()
        kept.append(torch.nn.functional.normalize(parameter.detach().double(), dim=1))
    for lag in (1, 3, 10, 30, 100):
        pairs = ((kept[i], kept[i + lag]) for i in range(200, 700 - lag, max(1, lag // 2)))
        cosines = torch.stack([(one * other).sum(1).mean() for one, other in pairs])
        measured = float(1 - cosines.mean())
        predicted = 1 - np.cos(rotsim.rotation_over(spec, dim, lag))
        assert predicted == pytest.approx(measured, rel=0.03)
        if lag == 1:
            assert predicted == pytest.approx(1 - np.cos(rotsim.equilibrium(spec, dim).rotation), rel=1e-6)
        if lag >= 30:
            assert predicted == pytest.approx(1 - np.cos(rotsim.rotation_over(inner, dim, lag)), rel=0.05)
