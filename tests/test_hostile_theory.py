"""Whatever the theory's functions are given, they answer with rotsim's own error or a right number, in seconds."""

import contextlib
import math
import random
import re
import time

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.theory import approach, boundary, damped
from rotsim.theory.prediction import MAX_STEPS, settling

A, L, S, I, R = rotsim.AdamW, rotsim.AdamL2, rotsim.SGDM, rotsim.Lion, rotsim.Rotational  # noqa: E741
GENTLE = S(0.1, 0.1)
OWN = (rotsim.InvalidInput, rotsim.NoEquilibrium)


def scheduled(schedule, name="lr_schedule", optimizer=GENTLE):
    return rotsim.predict(optimizer, 64, steps=5, **{name: schedule})


REFUSED = {
    "a course of more steps than memory holds": (lambda: rotsim.predict(GENTLE, steps=10**12), f"at most {MAX_STEPS}"),
    "a step number beyond any course": (
        lambda: settling(GENTLE, 64, rotsim.ScaleInvariant(), np.array([10**15])),
        f"at most {MAX_STEPS}",
    ),
    "whole numbers past 64 bits": (lambda: rotsim.rotation_over(GENTLE, 64, 10**30), "`lag` must be < 2\\*\\*63"),
    "a fan-in past 64 bits": (lambda: rotsim.steps_to_equilibrium(GENTLE, 2**64), "`dim` must be < 2\\*\\*63"),
    "a norm whose square overflows": (lambda: rotsim.predict(GENTLE, 64, steps=5, initial_norm=1e300), "1e\\+30"),
    "a norm that is denormal": (lambda: rotsim.steps_to_equilibrium(GENTLE, initial_norm=5e-324), "1e-30"),
    "a share below what courses resolve": (lambda: rotsim.steps_to_equilibrium(GENTLE, within=1e-12), "1e-06, 1\\)"),
    "a schedule's name": (lambda: scheduled("cosine"), "lr_schedule"),
    "a schedule as a mapping": (lambda: scheduled({"a": 1}), "lr_schedule"),
    "a schedule of objects": (lambda: scheduled(lambda step: [None] * len(step)), "lr_schedule"),
    "a schedule that raises": (lambda: scheduled(lambda step: 1 // 0), "raised ZeroDivisionError"),
    "a schedule of no arguments": (lambda: scheduled(lambda: 1.0), "raised TypeError"),
    "a schedule of NaN": (lambda: scheduled(lambda step: np.full(len(step), np.nan)), "finite factors"),
    "a schedule of another shape": (lambda: scheduled(lambda step: np.ones((len(step), 2))), "lr_schedule"),
    "decay beyond stability": (
        lambda: scheduled(lambda step: np.full(len(step), 1e20), "wd_schedule"),
        "at every step",
    ),
    "decay beyond stability of an inner optimizer": (
        lambda: scheduled(lambda step: np.full(len(step), 1e20), "wd_schedule", R(A(3e-3, 0.1))),
        "at every step",
    ),
    "steps that are no numbers": (
        lambda: settling(GENTLE, 64, rotsim.ScaleInvariant(), np.array([np.nan])),
        "`step` must be rising",
    ),
    "steps that fall": (
        lambda: settling(GENTLE, 64, rotsim.ScaleInvariant(), np.array([5, 3])),
        "`step` must be rising",
    ),
    "a pull past the origin": (
        lambda: rotsim.transfer(A(5e-3, 0.38), gradient=rotsim.Radial(4e9)),
        "pulls .* past the origin",
    ),
    "a method in a list": (lambda: rotsim.equilibrium(GENTLE, method=["exact"]), "`method` must be"),
    "an optimizer's name": (lambda: rotsim.transfer("adamw"), "`optimizer` must be a spec"),
    "a family in a list": (lambda: rotsim.plan(["adamw"], rotation=0.01, norm=1.0), "adamw"),
    "sizes whose product overflows": (
        lambda: rotsim.equilibrium(L(1e30, 1e30, eps=0.0), 2**62, rotsim.Isotropic(1e-30)),
        "range of floating-point numbers|no equilibrium",
    ),
    "a sign's memory of 10^10 steps": (
        lambda: rotsim.equilibrium(I(1e-3, 0.1, betas=(1 - 1e-10, 1 - 1e-10))),
        "signs uncorrelated after 4000000 steps",
    ),
    "a gradient's memory of 10^8 steps": (
        lambda: rotsim.equilibrium(A(1e-3, 0.1), gradient=rotsim.Autocorrelated(1 - 1e-8)),
        "averages uncorrelated after 1000000 steps",
    ),
    "a second moment of 10^9 steps beside a mean": (
        lambda: rotsim.equilibrium(A(1e-3, 0.1, (0.9, 1 - 1e-9)), 64, rotsim.Signal(0.1, scale_invariant=False)),
        r"`betas\[1\]` must be at most 0.999998",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind):
    """One line that names the value; never another error, a warning or minutes of work."""
    call, message = REFUSED[kind]
    with pytest.raises(OWN, match=message) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda: rotsim.plan("adamw", rotation=0.01, norm=1.0),
        lambda: rotsim.transfer(A(1e-3, 0.1), batch_factor=4.0),
        lambda: rotsim.convert(A(1e-3, 0.1), "sgdm"),
        lambda: rotsim.steps_to_equilibrium(GENTLE, 64),
        lambda: settling(GENTLE, 64, rotsim.ScaleInvariant(), np.arange(1, 99), lambda step: 1 / step),
        lambda: rotsim.equilibria(rotsim.AdamW, lr=[1e-3, 1e-2], weight_decay=0.1),
        lambda: rotsim.equilibria(rotsim.AdamW, gradient=rotsim.Isotropic(), lr=1e-3, weight_decay=[0.0, 0.1]),
    ],
    ids=["plan", "transfer", "convert", "steps_to_equilibrium", "settling", "equilibria", "equilibria one by one"],
)
def test_a_call_of_many_equilibria_ends(call, monkeypatch):
    """One clock for the call and all that it calls, which is not passed over as a setting that has no answer."""
    call()
    monkeypatch.setattr(boundary, "MAX_SECONDS", 0.0)
    with pytest.raises(rotsim.InvalidInput, match="takes more than 0 s of processor time"):
        call()
    rotsim.equilibrium(GENTLE, 64)  # one that is short is not stopped, nor does the clock of the last one run on


def test_the_clock_stands_still_while_numba_compiles(monkeypatch):
    """Else the first call on a machine would be refused."""
    event = pytest.importorskip("numba.core.event")
    rotsim.predict(GENTLE, 64, steps=5)  # from here on compilations are counted
    monkeypatch.setattr(boundary, "MAX_SECONDS", 0.02)

    @boundary.within_floats
    def busy(compilations):
        with contextlib.ExitStack() as stack:
            for _ in range(compilations):
                stack.enter_context(event.trigger_event("numba:compile", data={"dispatcher": None}))
            end = time.thread_time() + 0.03
            while time.thread_time() < end:
                pass
        boundary.check_time()

    busy(1)
    busy(2)
    with pytest.raises(rotsim.InvalidInput, match=r"`busy` takes more than 0\.02 s"):
        busy(0)


def test_a_rotational_variant_at_rest_beside_any_memory():
    """A step turns by the wanted angle only where the averages are at rest, however long they remember.

    An average that outlasts many turns keeps its direction: weights arrive there, and step to and fro.
    """
    for left in (0.1, 1e-3, 1e-9, 1e-12):
        variant = R(S(1e-3, 1e-3, momentum=1 - left))
        turned = rotsim.rotation_over(variant, 64, 1)
        assert turned == pytest.approx(rotsim.equilibrium(variant, 64).rotation, rel=1e-5)
        assert (rotsim.rotation_over(variant, 64, 100) > 5 * turned) == (left >= variant.lr)


@pytest.mark.parametrize(
    ("optimizer", "factor"),
    [
        (S(0.1, 1e-4), 0.01),
        (S(0.1, 1e-4), 30.0),
        (A(3e-3, 0.03, betas=(0.5, 0.9)), 3.0),
        (L(3e-3, 1e-3, betas=(0.5, 0.9)), 3.0),
    ],
    ids=["sgdm short", "sgdm long", "adamw", "adam_l2"],
)
def test_a_slow_approach_is_extrapolated(optimizer, factor, monkeypatch):
    """Against the count in the whole course; counts at faster rates alone, without their memories, do not agree."""
    start = factor * rotsim.equilibrium(optimizer, 64).norm
    whole = rotsim.steps_to_equilibrium(optimizer, 64, initial_norm=start)
    monkeypatch.setattr(approach, "MAX_COURSE_STEPS", whole // 4)
    assert approach._followed(optimizer, 64, rotsim.ScaleInvariant(), start, 0.01)[0] is None
    assert rotsim.steps_to_equilibrium(optimizer, 64, initial_norm=start) == pytest.approx(whole, rel=0.02)
    faster = optimizer.with_rates(30 * optimizer.lr, 30 * optimizer.weight_decay)
    monkeypatch.undo()
    assert 900 * rotsim.steps_to_equilibrium(faster, 64, initial_norm=start) != pytest.approx(whole, rel=0.02)


def test_steps_without_number():
    """Relaxation over 10^35 steps is counted as fast as over a thousand: ln 10 relaxation times for a tenth of it."""
    optimizer = S(1e-20, 1e-20)
    settled = rotsim.equilibrium(optimizer, 10**6)
    near, far = (
        rotsim.steps_to_equilibrium(optimizer, 10**6, initial_norm=1.5 * settled.norm, within=share)
        for share in (1e-3, 1e-4)
    )
    assert (far - near) / settled.relaxation_steps == pytest.approx(math.log(10), rel=0.02)
    assert rotsim.steps_to_equilibrium(optimizer, 10**6, initial_norm=settled.norm) < 100


def test_decay_that_drowns_the_noise():
    """Adam+L2 from weights a thousand times too long: within a part nothing varies, and rounding may not grow there."""
    optimizer, run = L(0.0673, 0.0592), {"steps": 600, "initial_norm": 1e4, "record_every": 100}
    course = rotsim.predict(optimizer, 64, **run)
    walk = rotsim.simulate(optimizer, 64, neurons=16, seed=1, dtype="float64", **run)
    for name in ("norm", "update_rms"):
        measured = np.sqrt((walk[name].values ** 2).mean(axis=0))
        assert measured == pytest.approx(course[name].values[0], rel=1 / 64)


def test_points_enter_at_once_as_one_by_one():
    tables = damped.tables()
    together, apart = np.zeros(damped.POINTS + 1), np.zeros(damped.POINTS + 1)
    damped.lay(together, 1.0)
    apart[:] = together
    rows = np.exp(-together) * np.arange(1.0, 7.0)[None, :, None]
    other, counts, other_counts = rows.copy(), np.array([40]), np.array([40])
    damped.widen(together, rows, counts, 1, 1e15, tables.entering)
    for v in np.exp(damped.SPACING * np.arange(1, 116)):
        damped.widen(apart, other, other_counts, 1, v, tables.entering)
    damped.widen(apart, other, other_counts, 1, 1e15, tables.entering)
    assert (together == apart).all() and (rows == other).all() and (counts == other_counts).all()
    assert together[1] * 1e15 <= 0.01 < together[2] * 1e15


def beta(draw):
    return draw.choice([0.0, 0.3, 0.5, 0.9, 0.99, 0.999, 0.999, 1 - 1e-7, 1 - 1e-12, 1 - 1.2e-16, draw.random()])


def size(draw):
    usual = [10 ** draw.uniform(-4, 0) for _ in range(7)]
    return draw.choice([1.0, *usual, 10 ** draw.uniform(-30, 30), 10 ** draw.uniform(-320, 300)])


def drawn_optimizer(draw):
    kind = draw.choice([A, S, I, R])
    if kind is R:
        return R(drawn_optimizer(draw), update_norm_decay=beta(draw), zero_mean=draw.random() < 0.5)
    if kind is S:
        return S(size(draw), size(draw), momentum=beta(draw))
    return kind(size(draw), size(draw), betas=(beta(draw), beta(draw)))


def answer(draw):
    """One random call, and whether what it answers can be true; None where it is refused."""
    try:
        optimizer = drawn_optimizer(draw)
        dim = draw.choice([2, 3, 64, 10**6, 2**40, 10**4, 2**63 - 1, 2**63])
        noise = draw.choice([rotsim.ScaleInvariant, rotsim.Isotropic])(size(draw))
        kind = draw.choice(["equilibrium", "over", "steps", "predict", "plan"])
        if kind == "equilibrium":
            found = rotsim.equilibrium(optimizer, dim, noise, draw.choice(["exact", "leading"]))
            sizes = [found.rotation] + ([] if isinstance(optimizer, R) else [found.norm, found.relaxation_steps])
            return all(0 < x < math.inf for x in sizes) and found.model_error >= 0
        if kind == "over":
            lag = draw.choice([0, 1, 1000, 2**62, 10**30])
            return (lag == 0) <= (0 <= rotsim.rotation_over(optimizer, dim, lag, noise) <= math.pi)
        if kind == "steps":
            return rotsim.steps_to_equilibrium(optimizer, dim, noise, size(draw), draw.choice([0.5, 0.01])) >= 0
        if kind == "predict":
            course = rotsim.predict(optimizer, dim, noise, draw.choice([1, 50, 10**9]), size(draw))
            norm, turned = course["norm"].values, course["rotation"].values
            return bool(np.isfinite(norm).all() and (norm > 0).all() and (turned >= 0).all() and (turned < 3.2).all())
        family, wanted = draw.choice(["adamw", "sgdm", "lion"]), size(draw)
        found = rotsim.plan(family, rotation=wanted, norm=size(draw), dim=dim, gradient=noise).equilibrium
        return math.isclose(found.rotation, wanted, rel_tol=1e-6)
    except OWN as refused:
        assert re.fullmatch(r"[^\n]{1,1000}", str(refused))
        return None


@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1, 3))])
def test_random_calls(seed, monkeypatch):
    """No call raises anything else, warns, or answers with a number that cannot be; a good part is answered."""
    monkeypatch.setattr(approach, "MAX_COURSE_STEPS", 5000)  # a time, not an answer
    draw = random.Random(seed)
    found = [answer(draw) for _ in range(100)]
    assert False not in found
    assert found.count(True) > 10


@pytest.mark.parametrize(
    "words",
    [
        ["equilibrium", "adamw", "--lr", "1e-300", "--weight-decay", "1"],
        ["equilibrium", "sgdm", "--lr", "nan", "--weight-decay", "1"],
        ["predict", "lion", "--lr", "1e-3", "--weight-decay", "1", "--steps", "1000000000000"],
        ["predict", "sgdm", "--lr", "0.1", "--weight-decay", "1e-3", "--initial-norm", "1e300"],
        ["plan", "adamw", "--rotation", "1e300", "--norm", "1"],
        ["transfer", "lion", "--lr", "1e-3", "--weight-decay", "1", "--steps-factor", "1e-300"],
    ],
    ids=" ".join,
)
def test_commands_refuse_in_one_line(words, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and re.fullmatch(r"rotsim: [^\n]+\n", printed.err)


def test_memories_that_no_course_outlasts(monkeypatch, capsys):
    """The count is refused; the command prints the course all the same, and says what is not known."""
    monkeypatch.setattr(approach, "MAX_COURSE_STEPS", 2000)
    with pytest.raises(rotsim.InvalidInput, match="cannot be extrapolated"):
        rotsim.steps_to_equilibrium(S(1e-4, 1e-4, momentum=1 - 1e-9), 64)
    words = ["predict", "sgdm", "--lr", "1e-4", "--weight-decay", "1e-4", "--momentum", "0.999999999", "--steps", "50"]
    assert main(words) == 0
    assert "is not known" in capsys.readouterr().out


def test_a_pull_that_rounding_drowned_turns_as_in_equilibrium():
    given = L(5e-4, 1e-4, betas=(0.999, 0.95)), 10**6
    weak = rotsim.Isotropic(4e23)
    assert rotsim.rotation_over(*given, 1, weak) == pytest.approx(rotsim.equilibrium(*given, weak).rotation, rel=1e-5)


def test_a_course_that_leaves_the_range_is_refused_by_its_own_name_and_shortly():
    """`predict` asks another function, whose arguments are arrays that the caller never gave."""
    schedule = np.repeat([0.1, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.1, 1.0], 6)
    optimizer = rotsim.AdamL2(0.0658, 0.0043, betas=(0.95, 0.999))
    given = dict(steps=60, initial_norm=0.0466, lr_schedule=schedule)
    with pytest.raises(rotsim.InvalidInput, match=r"`predict` leaves the range of .*=an array of shape") as refused:
        rotsim.predict(optimizer, 128, rotsim.ScaleInvariant(0.01), **given)
    assert len(str(refused.value)) < 320


def test_what_outweighs_weight_decay_is_said():
    """A radial gradient is in units of its noise under Lion, and in those of weight decay under SGDM."""
    with pytest.raises(rotsim.NoEquilibrium, match=r"what Lion makes of a radial gradient of strength -0.324 beside"):
        rotsim.equilibrium(rotsim.Lion(0.013, 1.08, (0.95, 0.95)), 256, rotsim.Radial(-0.324))
    with pytest.raises(
        rotsim.NoEquilibrium, match=r"exist; a radial gradient of strength -1.3 outweighs weight_decay 1.1 "
    ):
        rotsim.equilibrium(rotsim.SGDM(0.013, 1.1, 0.9), 256, rotsim.Radial(-1.3))
