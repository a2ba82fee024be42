"""Prediction in time against simulation of the same schedule, window by window, and against other routes."""

from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim.theory.schedules import constant, cosine, linear, warmup, wsd
from tests import chance
from tests.conftest import COORDINATEWISE as OPTIMIZERS

DIM, NEURONS, STEPS = 512, 64, 2000
MODELS = {"scale_invariant": rotsim.ScaleInvariant(), "isotropic": rotsim.Isotropic(0.05)}
SCHEDULES = {
    "constant": None,
    "warmup-cosine": warmup(300, cosine(1700, 0.1)),
    "wsd": wsd(STEPS, 200, 600, 0.05),
    "array": 0.2 + np.abs(np.sin(np.arange(STEPS) / 150)),
}
START = {
    "adamw": 3.0,
    "adam_l2": 0.3,
    "sgdm": 4.0,
    "lion": 0.5,
    "signum": 0.5,
    "nadamw": 3.0,
    "ademamix": 9.0,
}  # all far from equilibrium
STRONG = {
    "adamw": rotsim.AdamW(0.05, 0.6, (0.9, 0.95)),
    "adam_l2": rotsim.AdamL2(2e-3, 0.05, (0.9, 0.999)),
    "sgdm": rotsim.SGDM(0.3, 0.05, 0.8),
    "lion": rotsim.Lion(0.01, 1.0, (0.95, 0.98)),
    "signum": rotsim.Signum(0.01, 1.0, 0.95),
    "nadamw": rotsim.NAdamW(0.05, 0.6, (0.9, 0.95), momentum_decay=0.1),
    "ademamix": rotsim.AdEMAMix(0.05, 0.6, (0.9, 0.95, 0.99), alpha=2.0),
}


@pytest.fixture(scope="module")
def walks():
    cache = {}

    def walk(name, model, schedule):
        key = (name, model, schedule)
        if key not in cache:
            cache[key] = rotsim.simulate(
                STRONG[name],
                dim=DIM,
                neurons=NEURONS,
                steps=STEPS,
                gradient=MODELS[model],
                initial_norm=START[name],
                record_every=50,
                lr_schedule=SCHEDULES[schedule],
                seed=11,
                engine="numba",
            )
        return cache[key]

    return walk


def course(name, model, schedule, optimizer=None, **changed):
    arguments = dict(
        dim=DIM,
        gradient=MODELS[model],
        steps=STEPS,
        initial_norm=START[name],
        lr_schedule=SCHEDULES[schedule],
        record_every=50,
    )
    return rotsim.predict(optimizer or STRONG[name], **{**arguments, **changed})


@pytest.mark.few(20)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_window_agrees_with_simulation(name, model, schedule, walks):
    report = rotsim.compare(walks(name, model, schedule), course(name, model, schedule), k=chance.errors(None, 3))
    assert report.passed, "\n" + report.table()
    if name in ("sgdm", "lion", "signum"):  # nothing but 1/dim is neglected
        assert {check.tolerance for check in report} == {1 / DIM}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_wrong_courses_are_rejected(name, walks):
    """Negative controls: another schedule, another start, a tenth more decay, momentum forgotten."""
    walk, k = walks(name, "isotropic", "wsd"), chance.errors(None, 3)

    def fails(**changed):
        report = rotsim.compare(walk, course(name, "isotropic", "wsd", **changed), k=k)
        return "FAIL" in {check.verdict for check in report}

    assert not fails()
    assert fails(lr_schedule=wsd(STEPS, 200, 500, 0.05))
    assert fails(initial_norm=START[name] * 1.04)  # Lion forgets it soon: 2 % are seen in two walks of three
    assert fails(wd_schedule=constant(1.1))
    beta = {"momentum": 0.75} if hasattr(STRONG[name], "momentum") else {"betas": (0.85, *STRONG[name].betas[1:])}
    assert fails(optimizer=replace(STRONG[name], **beta))


def test_constant_second_moment_is_rejected(walks):
    """AdamW with a v that hardly fluctuates, in the place of β2 = 0.95: 1.5 % off, outside noise and declared error."""
    constant_v = replace(STRONG["adamw"], betas=(0.9, 0.9999))
    late = dict(dim=DIM, steps=STEPS, initial_norm=START["adamw"], record_every=50)
    report = rotsim.compare(
        walks("adamw", "isotropic", "constant"),
        rotsim.predict(constant_v, gradient=MODELS["isotropic"], **late),
        k=chance.errors(None, 3),
    )
    assert {c.quantity for c in report if c.verdict == "FAIL"} >= {"update_rms"}


EXTREME = {
    "lion": (rotsim.Lion(0.01, 0.8), 0.01, 0.25),
    "adamw": (rotsim.AdamW(0.02, 0.5), 0.01, 0.25),
    "adamw small beta2": (rotsim.AdamW(0.05, 0.6, (0.9, 0.5)), 30.0, 0.15),
    "adamw no beta1": (rotsim.AdamW(0.02, 0.5, (0.0, 0.999)), 100.0, 0.3),
    "adam_l2": (rotsim.AdamL2(2e-3, 0.05, (0.9, 0.99)), 0.02, 0.5),
    "sgdm": (rotsim.SGDM(0.1, 0.05), 0.01, 0.01),
}


@pytest.mark.parametrize("case", EXTREME)
def test_far_from_equilibrium(case):
    """Scale-invariant weights 30 to 100 times too short or too long, so that the gradient's scale changes at once.

    The third number bounds what may be declared in any window: the error that is allowed must not be all there is.
    """
    optimizer, factor, declared = EXTREME[case]
    start = factor * rotsim.equilibrium(optimizer, DIM).norm
    arguments = dict(dim=DIM, steps=400, initial_norm=start, lr_schedule=warmup(100, cosine(300, 0.1)), record_every=10)
    course = rotsim.predict(optimizer, **arguments)
    walk = rotsim.simulate(optimizer, neurons=NEURONS, seed=8, dtype="float64", **arguments)
    k = chance.errors(None, 4)
    report = rotsim.compare(walk, course, k=k)
    assert "FAIL" not in {check.verdict for check in report}, "\n" + report.table()  # Lion hardly turns: unresolved
    assert max(float(course[f"{name}_model_error"].max()) for name in ("norm", "update_rms")) < declared
    longer = rotsim.predict(optimizer, **{**arguments, "initial_norm": 1.3 * start})
    assert "FAIL" in {
        check.verdict for check in rotsim.compare(walk, longer, quantities=("norm",), tolerance=0.02, k=k)
    }


@pytest.mark.parametrize("share", [0.1, 0.03])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgdm_from_short_weights_declares_that_neurons_differ(momentum, share):
    """The first gradient makes the weights. 1/dim alone is a third of what rotation is off by after it."""
    optimizer, dim = rotsim.SGDM(0.1, 0.1, momentum), 32
    start = share * rotsim.equilibrium(optimizer, dim).norm
    arguments = dict(dim=dim, steps=60, initial_norm=start, record_every=5)
    walk = rotsim.simulate(optimizer, neurons=1024, seed=8, **arguments)
    course = rotsim.predict(optimizer, **arguments)
    report = rotsim.compare(walk, course, k=chance.errors(None, 4))
    assert "FAIL" not in {check.verdict for check in report}, "\n" + report.table()
    off = abs(np.sqrt((walk["rotation"].values ** 2).mean(axis=0)) / course["rotation"].values[0] - 1)
    declared = course["rotation_model_error"].values[0]
    assert off.max() > 2 / dim and declared.max() < 2 * off.max()


@pytest.mark.parametrize("optimizer", [rotsim.SGDM(0.1, 0.02, 0.0), rotsim.Lion(0.01, 0.2)], ids=lambda o: o.name)
def test_the_spread_of_the_norm_grows_from_a_fixed_start(optimizer):
    """At dim 16 the first steps of isotropic noise turn by 1/16 less than the spread of equilibrium would have it."""
    arguments = dict(dim=16, steps=200, initial_norm=5.0, gradient=rotsim.Isotropic(0.25), record_every=20)
    data = rotsim.simulate(optimizer, neurons=1024, seed=8, **arguments)
    square = data["rotation"].values ** 2
    course = rotsim.predict(optimizer, **arguments)["rotation"].values[0]
    settled = course[0] / np.sqrt(1 - 2 / 16)  # as in equilibrium
    seen, error = np.sqrt(square.mean(axis=0)), square.std(axis=0, ddof=1) / square.mean(axis=0) / 2 / np.sqrt(1024)
    allowed = chance.errors(1024, 10) * error
    assert (np.abs(seen / course - 1) < 0.01 + allowed).all()
    assert abs(seen[0] / course[0] - 1) < 1e-3 + allowed[0] < abs(seen[0] / settled - 1) - 0.02


@pytest.mark.parametrize(
    "optimizer", [rotsim.SGDM(0.1, 0.05, 0.8), rotsim.AdamL2(0.01, 0.1, (0.9, 0.99))], ids=lambda o: o.name
)
def test_a_pull_is_decay_where_decay_is_in_the_gradient(optimizer):
    pull = rotsim.Radial(0.06)
    arguments = dict(dim=128, steps=600, record_every=100, initial_norm=1.5)
    walk = rotsim.simulate(optimizer, neurons=128, seed=5, gradient=pull, **arguments)
    k = chance.errors(None, 4)
    for gradient, fails in ((pull, False), (rotsim.ScaleInvariant(), True)):
        report = rotsim.compare(walk, rotsim.predict(optimizer, gradient=gradient, **arguments), k=k)
        assert ("FAIL" in {check.verdict for check in report}) is fails, "\n" + report.table()
    settled = rotsim.equilibrium(optimizer, 128, pull).norm
    assert float(rotsim.predict(optimizer, 128, pull, 4000, settled)["norm"][0, -1]) == pytest.approx(settled, rel=1e-6)


@pytest.mark.few(5)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_settles_on_the_equilibrium(name, model):
    """Two routes to one number that share no code: the recursion run for long, and the fixed point."""
    for optimizer in (*OPTIMIZERS[name].examples(), STRONG[name]):
        optimizer = replace(optimizer, eps=0.0) if hasattr(optimizer, "eps") else optimizer
        eq = rotsim.equilibrium(optimizer, DIM, MODELS[model])
        steps = int(20 * eq.relaxation_steps) + 20_000
        end = rotsim.predict(optimizer, DIM, MODELS[model], steps, eq.norm).isel(step=-1)
        for quantity in ("norm", "rotation", "update_rms"):
            assert float(end[quantity][0]) == pytest.approx(getattr(eq, quantity), rel=1e-6)


@pytest.mark.parametrize("betas", [(0.98, 0.9), (0.5, 0.9), (0.98, 0.5)], ids=str)
def test_adam_l2_settles_within_what_it_declares_where_its_closure_ends(betas):
    """At strong decay, where (w, m) is not Gaussian: declared, and not by a bound that covers anything."""
    optimizer = rotsim.AdamL2(0.02, 0.2, betas, eps=0)
    eq = rotsim.equilibrium(optimizer, DIM, MODELS["isotropic"])
    end = rotsim.predict(optimizer, DIM, MODELS["isotropic"], 3000, eq.norm).isel(step=-1)
    quantities = ("norm", "rotation", "update_rms")
    off = {q: abs(float(end[q][0]) / getattr(eq, q) - 1) for q in quantities}
    declared = {q: float(end[f"{q}_model_error"][0]) - 1 / DIM for q in quantities}
    assert max(off.values()) > 1e-5
    assert all(off[q] < declared[q] for q in quantities)
    assert max(declared.values()) < 0.05


def test_random_matrices_of_moments_agree_with_the_recursion():
    """SGDM over a random schedule, by propagating the 2x2 covariance of (w, m) of one coordinate."""
    generator = np.random.default_rng(2)
    lr, wd = 0.3 * generator.random(50), 0.2 * generator.random(50)
    optimizer = rotsim.SGDM(1.0, 1.0, 0.7)
    got = rotsim.predict(optimizer, 10, rotsim.Isotropic(0.3), 50, 2.0, lr, wd, record_every=1)
    covariance = np.diag([0.4, 0.0])  # (w, m), per coordinate
    for t in range(50):
        momentum = np.array([[1.0, 0.0], [wd[t], 0.7]])
        move = np.array([[1.0, -lr[t]], [0.0, 1.0]])
        covariance = move @ (momentum @ covariance @ momentum.T + np.diag([0.0, 0.09])) @ move.T
        assert float(got.norm[0, t]) == pytest.approx(np.sqrt(10 * covariance[0, 0]), rel=1e-12)


def test_su_schedule():
    """The check of Su, kexue.fm/archives/11404: simulated 0.0744, series 0.0742, mean-field closed form 0.0760.

    His simulation has 10⁴ coordinates, hence a standard error of 0.7 %; the series and the closed
    form leave momentum out.
    """
    steps, lr, wd, start, dim = 10_000, 1e-3, 0.1, 0.1, 10**9
    factor = 0.1 + 0.9 * (1 + np.cos(np.arange(steps) / steps * np.pi)) / 2

    def rms(beta2):
        optimizer = rotsim.AdamW(lr, wd, (0.9, beta2))
        end = rotsim.predict(optimizer, dim, rotsim.Isotropic(), steps, start * np.sqrt(dim), factor, record_every=1)
        return float(end.norm[0, -1]) / np.sqrt(dim)

    predicted = rms(0.95)
    assert predicted == pytest.approx(0.0744, rel=3 / np.sqrt(2e4))
    kappa = np.cumsum(wd * lr * factor)
    series = np.sqrt((np.exp(2 * kappa) * (lr * factor) ** 2).sum() + start**2) * np.exp(-kappa[-1])
    assert series == pytest.approx(0.0742, abs=5e-5)
    assert rms(0.9999) == pytest.approx(series, rel=5e-4)
    assert 0.003 < 1 - predicted / series < 0.005  # what the fluctuation of v takes, which no closed form of his has
    assert predicted != pytest.approx(0.0760, rel=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_to_equilibrium(name):
    """Counted in a simulation-free way: the predicted course is inside from there on, and outside just before."""
    optimizer, start = STRONG[name], START[name]
    steps = rotsim.steps_to_equilibrium(optimizer, DIM, initial_norm=start, within=0.02)
    data = rotsim.predict(optimizer, DIM, steps=4 * steps + 20_000, initial_norm=start, record_every=1)
    off = np.max([np.abs(data[q].values[0] / data[q].values[0, -1] - 1) for q in ("norm", "rotation")], axis=0)
    assert (off[steps:] < 0.0201).all()
    assert off[steps - 2 - steps // 100] > 0.0195


def test_steps_to_equilibrium_of_a_small_deviation_is_the_relaxation_time():
    optimizer = rotsim.SGDM(0.1, 1e-4)  # slow beside the momentum: at 100 times the decay it overshoots
    eq = rotsim.equilibrium(optimizer, 10**6)
    near, far = (
        rotsim.steps_to_equilibrium(optimizer, 10**6, initial_norm=1.5 * eq.norm, within=x) for x in (1e-3, 1e-4)
    )
    assert (far - near) / eq.relaxation_steps == pytest.approx(np.log(10), rel=0.02)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rotation_over_many_steps(name):
    """Against the angle between simulated weights k steps apart, and against the one-step rotation."""
    optimizer, gradient = STRONG[name], rotsim.Isotropic(0.05)
    eq = rotsim.equilibrium(optimizer, DIM, gradient)
    assert rotsim.rotation_over(optimizer, 10**9, 1, gradient) == pytest.approx(
        rotsim.equilibrium(optimizer, 10**9, gradient).rotation, rel=1e-6
    )
    assert rotsim.rotation_over(optimizer, DIM, 0, gradient) == pytest.approx(0.0, abs=1e-6)
    assert rotsim.rotation_over(optimizer, DIM, 10**7, gradient) == pytest.approx(np.pi / 2, abs=1e-6)
    run = dict(dim=DIM, neurons=NEURONS, gradient=gradient, initial_norm=eq.norm, seed=4, record_every=10)
    settle = 10 * int(eq.relaxation_steps) + 300
    first = rotsim.simulate(optimizer, steps=settle, keep_state=True, **run)
    k = chance.errors(NEURONS, 2)
    for lag in (5, 20):
        later = rotsim.simulate(optimizer, steps=settle + lag, keep_state=True, resume=first, **run)
        w, u = (x["state"].values[:, 0].astype(float) for x in (first, later))
        cosines = (w * u).sum(axis=1) / np.linalg.norm(w, axis=1) / np.linalg.norm(u, axis=1)
        error = cosines.std(ddof=1) / np.sqrt(NEURONS)
        expected, wrong = (np.cos(rotsim.rotation_over(optimizer, DIM, n, gradient)) for n in (lag, lag + 2))
        allowed = k * error + (1 - expected) / DIM
        assert abs(cosines.mean() - expected) < allowed
        assert abs(cosines.mean() - wrong) > allowed or expected < 0.2  # two steps more must show


def test_schedules():
    step = np.arange(1, 101)
    assert (constant(0.3)(step) == 0.3).all()
    assert warmup(10)(step)[[0, 9, 50]] == pytest.approx([0.1, 1.0, 1.0])
    assert warmup(0, linear(100))(step) == pytest.approx(1 - step / 100)
    assert cosine(100, 0.2)(step)[[49, 99]] == pytest.approx([0.6, 0.2])
    assert warmup(10, cosine(90))(step)[[54, 99]] == pytest.approx([0.5, 0.0])
    assert wsd(100, 10, 40, 0.5)(step)[[4, 9, 59, 79, 99]] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5])
    assert wsd(100)(step)[[0, 79, 89, 99]] == pytest.approx([1.0, 1.0, 0.5, 0.0])
    assert (wsd(100, 10, 0)(step)[10:] == 1).all()
    assert cosine(100)(step + 1000) == pytest.approx(0.0)


OPT = rotsim.AdamW(1e-2, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotsim.predict("adamw"), "`optimizer` must be a spec"),
        (lambda: rotsim.predict(OPT, gradient=3), "`gradient` must be a spec"),
        (lambda: rotsim.predict(OPT, dim=2), "`dim` must be >= 3; got 2"),
        (lambda: rotsim.predict(OPT, gradient=rotsim.Radial(0.1)), "got Radial, for which rotsim.equilibrium gives"),
        (lambda: rotsim.predict(rotsim.SGDM(0.1, 0.1), 8, rotsim.Radial(-0.2)), "`strength` must not push outwards by"),
        (lambda: rotsim.predict(OPT, steps=0), "`steps` must be >= 1; got 0"),
        (lambda: rotsim.predict(OPT, initial_norm=0), "`initial_norm` must be finite and > 0"),
        (lambda: rotsim.predict(OPT, steps=5, lr_schedule=np.ones(4)), r"`lr_schedule` must have shape"),
        (lambda: rotsim.predict(OPT, steps=5, wd_schedule=-np.ones(5)), r"`wd_schedule` must give finite factors"),
        (lambda: rotsim.predict(OPT, steps=5, lr_schedule=2e3 * np.ones(5)), "keep lr \\* weight_decay < 1 at every"),
        (
            lambda: rotsim.predict(OPT, 4, rotsim.Replay(np.ones((1, 1, 4)))),
            "got Replay, whose gradients follow no law",
        ),
        (lambda: rotsim.steps_to_equilibrium(OPT, within=0), "`within` must be in"),
        (lambda: rotsim.rotation_over(OPT, 64, -1), "`lag` must be >= 0"),
        (lambda: wsd(10, 8, 8), "`warmup_steps \\+ decay_steps` must be <= steps = 10; got 16"),
        (lambda: cosine(0), "`steps` must be >= 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        call()


def test_windows_must_match(walks):
    walk = walks("sgdm", "isotropic", "constant")
    with pytest.raises(rotsim.InvalidInput, match="Use the same steps and record_every"):
        rotsim.compare(walk, course("sgdm", "isotropic", "constant", record_every=100))
    with pytest.raises(rotsim.InvalidInput, match="at least 16 neurons"):
        rotsim.compare(walk.isel(neuron=slice(4)), course("sgdm", "isotropic", "constant"))


def test_nan_never_passes(walks):
    broken = walks("sgdm", "isotropic", "constant").copy(deep=True)
    broken["norm"].values[3, 7] = np.nan
    report = rotsim.compare(broken, course("sgdm", "isotropic", "constant"))
    assert [c.verdict for c in report] == ["FAIL", "PASS", "PASS"]


LONG = {
    "decay of 12 times the noise": (rotsim.AdamL2(0.05, 0.03, (0.5, 0.99)), 128, 20.0, 1.0),
    "few weights": (rotsim.AdamL2(0.0358, 0.00325, (0.5, 0.99)), 32, 31.0, 1.0),
    "long momentum": (rotsim.AdamL2(0.083, 0.004, (0.95, 0.95)), 128, 105.0, 10.0),
}


@pytest.mark.parametrize("free", [False, True], ids=["scale_invariant", "isotropic"])
@pytest.mark.parametrize("case", LONG)
def test_adam_l2_from_long_weights(case, free):
    """All weights shrink by one length. The largest of the start remain, and few directions have such large ones."""
    optimizer, dim, start, scale = LONG[case]
    noise = rotsim.Isotropic(scale / start / np.sqrt(dim)) if free else rotsim.ScaleInvariant(scale)
    arguments = dict(dim=dim, gradient=noise, steps=300, initial_norm=start, record_every=10)
    walk = rotsim.simulate(optimizer, neurons=1024, seed=6, **arguments)
    course = rotsim.predict(optimizer, **arguments)
    report = rotsim.compare(walk, course, k=chance.errors(None, 6))
    assert "FAIL" not in {check.verdict for check in report}, "\n" + report.table()
    norm = np.sqrt((walk["norm"].values ** 2).mean(axis=0))
    assert (abs(course["norm"].values[0] / norm - 1) < 0.03).all()  # by Gaussian weights it is up to 6 % off at dim 128
