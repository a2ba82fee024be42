"""Inverse design: the plan's own equilibrium is the target, and impossible targets are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rotsim
from rotsim import closed_forms
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.theory import planning
from tests import chance
from tests.conftest import COORDINATEWISE

OPTIMIZERS = list(COORDINATEWISE)


@pytest.mark.few(5)
@pytest.mark.parametrize("gradient", [ScaleInvariant(), Isotropic(0.05)], ids=lambda g: g.name)
@pytest.mark.parametrize("family", OPTIMIZERS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(rotation=st.floats(1e-4, 0.05), norm=st.floats(0.05, 50.0))
def test_rotation_and_norm(family, gradient, rotation, norm):
    found = rotsim.plan(family, rotation=rotation, norm=norm, dim=512, gradient=gradient)
    again = rotsim.equilibrium(found.optimizer, 512, gradient)
    assert again == found.equilibrium
    assert again.rotation == pytest.approx(rotation, rel=1e-8)
    assert again.norm == pytest.approx(norm, rel=1e-8)


@pytest.mark.parametrize("family", OPTIMIZERS)
def test_time_scale_at_given_lr(family):
    found = rotsim.plan(family, relaxation_steps=4000, lr=1e-3)
    assert found.optimizer.lr == 1e-3
    assert found.equilibrium.relaxation_steps == pytest.approx(4000, rel=1e-8)


@pytest.mark.parametrize(("family", "fixed"), [("adamw", {"betas": (0.9, 0.99)}), ("sgdm", {}), ("lion", {})])
def test_rotation_and_time_scale_determine_momentum(family, fixed):
    found = rotsim.plan(family, rotation=0.01, relaxation_steps=2000, lr=1e-2, **fixed)
    assert found.equilibrium.rotation == pytest.approx(0.01, rel=1e-8)
    assert found.equilibrium.relaxation_steps == pytest.approx(2000, rel=1e-8)


def test_a_plan_simulates_as_planned():
    found = rotsim.plan("lion", rotation=0.03, norm=2.0, dim=256)
    data = rotsim.simulate(found.optimizer, dim=256, neurons=48, steps=6000, initial_norm=2.0)
    report = rotsim.compare(data, found.equilibrium, k=chance.errors(48, 3))
    assert report.passed, report.table()


@pytest.mark.parametrize("family", OPTIMIZERS)
def test_transfer_keeps_the_pace(family):
    start = rotsim.OPTIMIZERS[family].examples()[0]
    before = rotsim.equilibrium(start)
    slower = rotsim.transfer(start, momentum=0.8)
    assert (slower.optimizer.to_dict().get("momentum") or slower.optimizer.betas[0]) == 0.8
    assert slower.equilibrium.rotation == pytest.approx(before.rotation, rel=1e-8)
    assert slower.equilibrium.norm == pytest.approx(before.norm, rel=1e-8)
    larger = rotsim.transfer(start, batch_factor=4)
    assert larger.equilibrium.rotation == pytest.approx(2 * before.rotation, rel=1e-8)
    if family == "sgdm":  # θ² is proportional to lr·wd at any size, and no second moment slows relaxation
        ratio = larger.equilibrium.relaxation_steps / before.relaxation_steps
        assert ratio == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(rotation=0.01), "1 targets .rotation. cannot determine 2 unknowns .lr, weight_decay."),
        (dict(rotation=0.01, norm=1.0, lr=0.1), "2 targets .* cannot determine 1 unknowns"),
        (dict(), "0 targets .none."),
        (dict(lr=1e-3, weight_decay=0.1), "nothing is left to find"),
        (dict(rotation=0.01, norm=1.0, lr=1e-3, weight_decay=0.1), "nothing is left to find"),
        (dict(relaxation_steps=1000, norm=1.0), "no AdamW reaches .* up to 2/.1-β2."),
        (dict(rotation=0.01, norm=1.0, dim=1), "`dim` must be >= 2; got 1"),
        (dict(rotation=0.01, norm=1.0, dim=2.5), "`dim` must be a whole number; got 2.5"),
        (dict(rotation=0.01, norm=1.0, gradient="white"), "`gradient` must be a spec"),
        (dict(rotation=0.01, norm=1.0, gradient=rotsim.StudentT(4.0)), "got StudentT, whose gradients follow no law"),
        (dict(rotation=0.01, norm=1.0, gradient=ScaleInvariant((1.0, 2.0))), "`scale` must be one number"),
        (dict(rotation=-1.0, norm=1.0), "`rotation` must be finite and > 0"),
        (dict(rotation=2.5, norm=1.0), "no AdamW reaches rotation=2.5"),
        (dict(rotation=0.1, relaxation_steps=5000, lr=1e-3), "no AdamW reaches .* Momentum trades the two"),
        (dict(rotation=0.01, norm=1.0, momentum=0.9), "AdamW has no hyperparameter 'momentum'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        rotsim.plan("adamw", **arguments)


def test_what_allows_no_equilibrium_says_so():
    with pytest.raises(rotsim.NoEquilibrium, match="infinite variance"):
        rotsim.plan("adamw", rotation=0.01, norm=1.0, betas=(0.9, 0.0), eps=0.0)
    with pytest.raises(rotsim.InvalidInput, match="`momentum` is solved for"):
        rotsim.plan("sgdm", rotation=0.01, relaxation_steps=2000, norm=1.0, momentum=0.5)
    with pytest.raises(rotsim.NoEquilibrium, match="`weight_decay` must be > 0"):
        rotsim.transfer(rotsim.AdamW(1e-3, 0.0), batch_factor=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(batch_factor=0), "`batch_factor` must be finite and > 0; got 0"),
        (dict(steps_factor=float("inf")), "`steps_factor` must be finite and > 0; got inf"),
        (dict(steps_factor="half"), "`steps_factor` must be a number; got 'half'"),
        (dict(batch_factor=1e9), "no AdamW reaches rotation=102.6.* Ask for a smaller rotation"),
        (dict(momentum=1.0), r"`momentum` must be in \[0, 1\); got 1.0"),
        (dict(batch_factor=2, gradient=rotsim.Replay(np.ones((1, 1, 4)))), "got Replay, whose gradients follow no law"),
    ],
)
def test_transfer_refusals(arguments, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        rotsim.transfer(rotsim.AdamW(1e-3, 0.1), **arguments)


# At gentle decay and β2 near 1 the exact rates follow the rules that derivations.planning proves at leading order.
GENTLE = {
    "adamw": rotsim.AdamW(1e-4, 0.01, (0.9, 1 - 1e-7)),
    "adam_l2": rotsim.AdamL2(1e-4, 1e-3, (0.9, 1 - 1e-7)),
    "sgdm": rotsim.SGDM(0.01, 1e-4),
    "lion": rotsim.Lion(1e-6, 0.1),
}
RULES = {  # lr and weight decay, over what they were, at batch_factor f and steps_factor s
    "adamw": lambda f, s: ((f / s) ** 0.5, (f / s) ** 0.5),
    "adam_l2": lambda f, s: ((f / s) ** 0.5, s**-0.5),
    "sgdm": lambda f, s: (f / s**0.5, s**-0.5),
    "lion": lambda f, s: ((f / s) ** 0.5, (f / s) ** 0.5),
}


@pytest.mark.parametrize(("batch", "steps"), [(4.0, 1.0), (1.0, 3.0), (0.5, 2.0)])
@pytest.mark.parametrize("family", GENTLE)
def test_transfer_rules(family, batch, steps):
    """The square-root rule for AdamW and Lion, the linear rule for SGDM's batch; and the pace is kept."""
    opt = GENTLE[family]
    before = rotsim.equilibrium(opt)
    found = rotsim.transfer(opt, batch_factor=batch, steps_factor=steps)
    ratios = found.optimizer.lr / opt.lr, found.optimizer.weight_decay / opt.weight_decay
    assert ratios == pytest.approx(RULES[family](batch, steps), rel=2e-3)
    assert found.equilibrium.norm == pytest.approx(before.norm, rel=1e-8)
    turned = found.equilibrium.rotation**2 * steps / batch  # N·θ², in units of the old number of steps
    assert turned == pytest.approx(before.rotation**2, rel=1e-8)
    other = RULES["adamw" if family == "sgdm" else "sgdm"](batch, steps)  # negative control
    assert batch == 1 or ratios != pytest.approx(other, rel=0.1)


@pytest.mark.parametrize("family", ["adamw", "sgdm", "lion"])
def test_transfer_of_momentum(family):
    """ηλ follows θ²τ as derivations.planning.turn_within_memory has it."""
    opt = GENTLE[family]
    found = rotsim.transfer(opt, momentum=0.5).optimizer
    product = found.lr * found.weight_decay / opt.lr / opt.weight_decay
    if family == "lion":
        variances = [closed_forms.lion_variance(b, 0.99) for b in (0.9, 0.5)]
        assert product == pytest.approx(variances[0] / variances[1], rel=0.15)  # the linearised sign
    else:
        new, old = (1 + 0.5) / (1 - 0.5), (1 + 0.9) / (1 - 0.9)
        wanted = new / old if family == "adamw" else (1 + 0.5) / (1 + 0.9)
        assert product == pytest.approx(wanted, rel=2e-3)


def test_a_transferred_batch_simulates_as_promised():
    """SGDM at 4 times the batch: noise of half the scale, four times the rate; 4 times as far in a step, squared."""
    opt, gradient = rotsim.SGDM(0.1, 0.02), ScaleInvariant(2.0)
    before, found = (
        rotsim.equilibrium(opt, 256, gradient),
        rotsim.transfer(opt, batch_factor=4, dim=256, gradient=gradient),
    )
    walk = rotsim.simulate(found.optimizer, 256, 32, 2000, ScaleInvariant(1.0), initial_norm=before.norm, seed=1)
    eq = found.equilibrium
    k = chance.errors(32, 3)
    assert rotsim.compare(walk, eq, k=k).passed
    assert eq.rotation == pytest.approx(2 * before.rotation, rel=1e-8)
    same_noise = rotsim.equilibrium(found.optimizer, 256, gradient)  # negative control: the batch averages nothing
    assert not rotsim.compare(walk, same_noise, k=k).passed


def test_unknown_family():
    with pytest.raises(rotsim.InvalidInput, match="optimizer 'rmsprop' is unknown"):
        rotsim.plan("rmsprop", rotation=0.01, norm=1.0)


# --- symmetries and monotonicity of the equilibrium ---------------------------------------------

rates = st.floats(1e-4, 1e-2)
decays = st.floats(1e-3, 1.0)
factors = st.floats(0.1, 10.0)


@pytest.mark.parametrize("method", ["exact", "leading"])
@pytest.mark.parametrize("family", ["adamw", "sgdm", "lion"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(lr=rates, weight_decay=decays, c=factors)
def test_equal_products_rotate_equally(family, method, lr, weight_decay, c):
    """(lr, wd) -> (c lr, wd/c): rotation unchanged, norm times c, or its root for scale-invariant SGDM."""
    spec = rotsim.OPTIMIZERS[family]
    eps = {"eps": 0.0} if family == "adamw" else {}  # which sees the gradient's size, and so the norm
    before, after = (
        rotsim.equilibrium(spec(lr=a, weight_decay=b, **eps), 256, method=method)
        for a, b in ((lr, weight_decay), (c * lr, weight_decay / c))
    )
    assert after.rotation == pytest.approx(before.rotation, rel=1e-9)
    assert after.norm == pytest.approx(before.norm * (c**0.5 if family == "sgdm" else c), rel=1e-9)


def test_adam_l2_rotation_does_change_with_lr_over_wd():
    """Negative control of the symmetry: only the product counts for the others, not for Adam+L2."""
    one, other = (rotsim.equilibrium(rotsim.AdamL2(*v), 256).rotation for v in ((1e-3, 0.1), (1e-2, 0.01)))
    assert abs(other / one - 1) > 0.5


@pytest.mark.parametrize("family", OPTIMIZERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(lr=rates, weight_decay=decays, more=st.floats(1.01, 3.0))
def test_more_decay_turns_faster_and_shrinks(family, lr, weight_decay, more):
    spec = rotsim.OPTIMIZERS[family]
    less, stronger = (rotsim.equilibrium(spec(lr=lr, weight_decay=w), 256) for w in (weight_decay, more * weight_decay))
    assert stronger.rotation > less.rotation
    assert stronger.norm < less.norm
    assert stronger.relaxation_steps < less.relaxation_steps


@pytest.mark.parametrize("family", ["adamw", "sgdm"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(lr=rates, weight_decay=decays, beta=st.floats(0.0, 0.9))
def test_more_momentum_turns_more_slowly(family, lr, weight_decay, beta):
    spec = rotsim.OPTIMIZERS[family]

    def rotation(b):
        more = {"momentum": b} if family == "sgdm" else {"betas": (b, 0.999)}
        return rotsim.equilibrium(spec(lr=lr, weight_decay=weight_decay, **more), 256).rotation

    assert rotation(beta + 0.05) < rotation(beta)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scale=st.floats(1e-2, 1e2))
def test_gradient_scale(scale):
    """d log rotation / d log scale: 0 for AdamW, SGDM, Lion; -1/3 for Adam+L2; norms follow their own powers."""
    powers = {"adamw": (0, 0), "lion": (0, 0), "sgdm": (0, 0.5), "adam_l2": (-1 / 3, 1 / 3)}
    for family, (on_rotation, on_norm) in powers.items():
        optimizer = rotsim.OPTIMIZERS[family](lr=1e-4, weight_decay=1e-3)
        one, scaled = (rotsim.equilibrium(optimizer, 256, ScaleInvariant(s), "leading") for s in (1.0, scale))
        assert scaled.rotation / one.rotation == pytest.approx(scale**on_rotation, rel=1e-9)
        assert scaled.norm / one.norm == pytest.approx(scale**on_norm, rel=1e-9)


SCALED = {name: spec.examples()[0] for name, spec in COORDINATEWISE.items()}
SCALED |= {f"rotational {name}": rotsim.Rotational(SCALED[name]) for name in ("adamw", "sgdm", "lion")}


@pytest.mark.parametrize("name", SCALED)
def test_gradient_scale_by_simulation(name):
    """d log rotation / d log scale from walks over four decades of gradient scale: -1/3 for Adam+L2 alone."""
    optimizer = SCALED[name]
    scales = np.array([1e-2, 1.0, 1e2])
    seen = []
    for scale in scales:
        gradient = ScaleInvariant(scale)
        eq = rotsim.equilibrium(optimizer, 128, gradient)
        steps = int(min(max(4000, 4 * eq.relaxation_steps), 20_000)) if eq.relaxation_steps else 1000
        norm = eq.norm if np.isfinite(eq.norm) else 1.0  # a rotational variant keeps any
        data = rotsim.simulate(optimizer, dim=128, neurons=16, steps=steps, gradient=gradient, initial_norm=norm)
        seen.append(np.sqrt((data["rotation"].values[:, data.sizes["step"] // 2 :] ** 2).mean()))
    slope = np.polyfit(np.log(scales), np.log(seen), 1)[0]
    assert slope == pytest.approx(-1 / 3 if name == "adam_l2" else 0.0, abs=0.01)
    assert abs(slope - (0.0 if name == "adam_l2" else -1 / 3)) > 0.3


@pytest.mark.parametrize("family", OPTIMIZERS)
def test_two_searches_find_the_same_rates(family, monkeypatch):
    """Where Broyden's method does not converge, scipy's does: both find the same rates."""
    wanted = dict(rotation=0.02, norm=3.0, dim=64)
    found = rotsim.plan(family, **wanted).optimizer
    monkeypatch.setattr(planning, "_MOST_STEPS", 0)
    other = rotsim.plan(family, **wanted).optimizer
    assert (other.lr, other.weight_decay) == pytest.approx((found.lr, found.weight_decay), rel=1e-9)


@pytest.mark.parametrize(
    ("optimizer", "form"),
    [
        (rotsim.Hyperball(rotsim.AdamW(0.01, 0.0)), {"dim": 256}),
        (rotsim.Hyperball(rotsim.Lion(0.01, 0.0)), {"dim": 256}),
        (rotsim.Hyperball(rotsim.Muon(0.01, 0.0)), {"dim": 64, "rows": 16}),
        (rotsim.Cautious(rotsim.AdamW(1e-3, 0.1)), {"dim": 256}),
        (rotsim.Cautious(rotsim.Muon(1e-2, 0.1)), {"dim": 64, "rows": 16}),
    ],
)
def test_wrapped_optimizers_turn_twice_as_fast_with_four_times_the_batch(optimizer, form):
    """By the course of `predict`, which knows nothing of plans. The old rates are the control."""
    found = rotsim.transfer(optimizer, batch_factor=4, momentum=0.8, **form)
    new, before = found.optimizer, rotsim.equilibrium(optimizer, **form)
    assert type(new) is type(optimizer) and new.beta1 == 0.8
    assert found.equilibrium.rotation == pytest.approx(2 * before.rotation, rel=1e-9)
    assert found.equilibrium.norm == pytest.approx(before.norm, rel=1e-9, nan_ok=True)
    run = dict(steps=8000, record_every=8000, initial_norm=float(np.nan_to_num(before.norm, nan=1.0)), **form)
    for spec, holds in ((new, True), (new.with_rates(optimizer.lr, optimizer.weight_decay), False)):
        turned = rotsim.predict(spec, **run)["rotation"].values[0, -1]
        assert (abs(turned / (2 * before.rotation) - 1) < 0.02) == holds


def test_a_cautious_plan_decays_more_for_the_same_equilibrium():
    """Decay acts on half of the coordinates, nearly; `rotsim.equilibrium` of the cautious spec is the other route."""
    plain, cautious = (rotsim.plan("adamw", rotation=0.01, norm=1.0, cautious=flag) for flag in (False, True))
    reached = rotsim.equilibrium(rotsim.Cautious(cautious.optimizer.inner))
    assert (reached.rotation, reached.norm) == pytest.approx((0.01, 1.0), rel=1e-9)
    assert 1.9 < cautious.optimizer.weight_decay / plain.optimizer.weight_decay < 2.6
    with pytest.raises(rotsim.InvalidInput, match="whose gradient holds its decay"):
        rotsim.plan("adam_l2", rotation=0.01, norm=1.0, cautious=True)
