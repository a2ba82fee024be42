"""Every verdict on a case whose truth is known: gradients made to order, real torch optimizers, a real Recorder."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
from rotsim.diagnosis import diagnose  # noqa: E402
from rotsim.measure import Lion, Recorder, RotationalAdamW  # noqa: E402
from rotsim.theory import courses  # noqa: E402
from rotsim.theory.traces import start_of  # noqa: E402
from tests import chance  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]

DIM, NEURONS, STEPS = 48, 96, 1000
MAKE = {  # ηλ = 5e-3: the norm relaxes in 100 steps, AdamW's with the lag of v in 140
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.5, betas=(0.9, 0.95)),
    "adam_l2": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-1, betas=(0.9, 0.95)),
    "sgdm": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01, momentum=0.9),
    "lion": lambda p: Lion(p, lr=1e-3, weight_decay=5.0),
    "rotational": lambda p: RotationalAdamW(p, lr=1e-2, weight_decay=0.5, betas=(0.9, 0.95)),
}


def invariant(raw, w):
    """What a scale-invariant loss makes of raw noise: orthogonal to each row, in inverse proportion to its length."""
    square = (w * w).sum(1, keepdim=True)
    return (raw - (raw * w).sum(1, keepdim=True) / square * w) / square.sqrt()


def white(step, w, draw):
    return invariant(torch.randn(w.shape, generator=draw), w)


def radial(step, w, draw):
    """Half as much decay again, from the gradient."""
    return white(step, w, draw) + 0.005 * w


def signal(step, w, draw):
    return torch.randn(w.shape, generator=draw) + 3.0


BURST, CALM, OFTEN = 3.0, 0.5, 0.1


def bursts(step, w, draw):
    return white(step, w, draw) * (BURST if torch.rand((), generator=draw) < OFTEN else CALM)


def nothing(step, w, draw):
    return torch.zeros_like(w)


class Correlated:
    """AR(1) noise."""

    def __init__(self, rho):
        self.rho, self.last = rho, None

    def __call__(self, step, w, draw):
        new = torch.randn(w.shape, generator=draw)
        self.last = new if self.last is None else self.rho * self.last + (1 - self.rho**2) ** 0.5 * new
        return invariant(self.last, w)


def record(kind, gradient, steps=STEPS, initial=1.0, window=40, schedule=None, lags=32, spec=None):
    """Layer diagnosis after `steps` on gradients of a kind, from rows of length `initial`, and the trace."""
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(DIM, NEURONS, bias=False)
    with torch.no_grad():
        rows = torch.randn(NEURONS, DIM, generator=draw)
        layer.weight.copy_(initial * torch.nn.functional.normalize(rows))
    optimizer = MAKE[kind](layer.parameters())
    most = optimizer.param_groups[0]["lr"]
    if schedule is not None:
        optimizer.param_groups[0]["lr"] = most * schedule(0)
    recorder = Recorder(layer, optimizer, interval=4, window=window, lags=lags, spec=spec)
    with recorder:
        for step in range(1, steps + 1):
            layer.weight.grad = gradient(step, layer.weight.detach(), draw)
            optimizer.step()
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = most * schedule(step)
    trace = recorder.dataset()
    return diagnose(trace).layers[0], trace


def noise(trace, quantity, rows=slice(None)):
    """How far chance may put the median over rows, which are independent, of a quantity over the last quarter."""
    late = trace[quantity].values[rows, 3 * trace.sizes["step"] // 4 :].astype(float)
    each = np.sqrt((late**2).mean(axis=1))
    of_median = np.sqrt(np.pi / 2) * each.std(ddof=1) / each.mean() / np.sqrt(len(each))
    return chance.errors(len(each)) * of_median


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", MAKE)
def test_white_noise_is_what_the_prediction_is_for(kind):
    layer, trace = record(kind, white)
    assert layer.verdict == "applies", layer.reason
    for quarter in layer.quarters:
        assert abs(quarter.error("rotation")) < 2 / DIM + noise(trace, "rotation") < 0.08
        assert abs(quarter.error("norm")) < 2 / DIM + noise(trace, "norm") < 0.12
    assert layer.cosine < 1e-4 and layer.claims == ("rotation", "norm")


@pytest.mark.parametrize("kind", ["adamw", pytest.param("sgdm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("gradient", [bursts, Correlated(0.6), pytest.param(Correlated(-0.4), marks=pytest.mark.slow)])
def test_bursts_and_correlations_leave_the_rotation_of_averages_alone(kind, gradient):
    layer, trace = record(kind, gradient)
    assert layer.applies, layer.reason
    assert abs(layer.ratio - 1) < 0.04 + noise(trace, "rotation")
    if isinstance(gradient, Correlated):  # but not the norm, whose factor the trace gives
        assert layer.claims == ("rotation",)
        last, allowed = layer.quarters[-1], 0.04 + noise(trace, "norm")
        assert (
            abs(last.error("norm")) < allowed < abs(last.measured_norm / last.predicted_norm * last.remembered_norm - 1)
        )


def test_bursts_are_said_where_the_prediction_assumes_none():
    size = {}

    def remembered(step, w, draw):
        size[step] = BURST if torch.rand((), generator=draw) < OFTEN else CALM
        return white(step, w, draw) * size[step]

    layer, _ = record("adam_l2", remembered, steps=3000)
    # they tilt it as well: on average 1/√v of a v that follows them is more, by 13 % of the decay, which is the limit
    assert layer.verdict in ("bursty", "tilted") and layer.radial < 0.5
    assert layer.verdict == "tilted" or "come in bursts" in layer.reason
    ends = np.arange(40, 3001, 40)
    for quarter in layer.quarters:
        inside = ends[(ends > quarter.start) & (ends <= quarter.end)]
        square = np.array([size[step] for step in range(inside[0] - 36, inside[-1] + 1, 4)]) ** 2  # sampled
        truth = np.mean(square**2) / np.mean(square) ** 2 * (1 + 2 / (DIM - 1))  # lengths of white noise besides
        assert abs(quarter.burst / truth - 1) < 0.1  # rows differ by 7 %: ten standard errors of their median


@pytest.mark.slow
def test_lions_prediction_holds_the_bursts_that_were_recorded():
    layer, trace = record("lion", bursts, steps=3000)
    assert layer.verdict == "applies" and "Bursts of the gradient are in the prediction" in layer.reason
    assert abs(layer.ratio - 1) < 1 / DIM + noise(trace, "rotation")
    assert abs(layer.norm_ratio - 1) < 1 / DIM + noise(trace, "norm")
    assert layer.burst_rotation < 0.9 and f"rotation {layer.burst_rotation:.2f} times" in layer.reason
    # negative controls: a course that was not this one, and a trace without any
    flat = trace.assign(gradient_log2=trace["gradient_log2"] * 0)
    (flattened,), (old,) = (diagnose(t).layers for t in (flat, trace.drop_vars("gradient_log2")))
    assert flattened.applies and not flattened.agrees and flattened.ratio < 0.9
    assert old.verdict == "unknown" and "does not hold their course" in old.reason and old.ratio < 0.9


@pytest.mark.slow
def test_gradients_of_few_dimensions_are_no_bursts_and_not_claimed():
    """Their norms fluctuate, and Lion's signs do not feel it; but the projection off the weights takes one of five."""
    mix = torch.randn(5, DIM, generator=torch.Generator().manual_seed(1))
    layer, trace = record(
        "lion", lambda step, w, draw: invariant(torch.randn(len(w), 5, generator=draw) @ mix, w), steps=4000
    )
    assert layer.burst > 1.4 and abs(layer.burst_rotation - 1) < 0.02
    raw = diagnose(trace.drop_vars("gradient_overlap")).layers[0]  # negative control: norms taken for scales
    assert raw.burst_rotation < 0.94
    assert layer.verdict == "unknown" and "directions only" in layer.reason
    assert layer.ratio < 0.95


def test_rows_without_gradients_do_not_speak_for_the_others():
    """As in an embedding: the median of what is measured is over live rows, and so is that of what is predicted."""

    def rarely(step, w, draw):
        rare = (torch.arange(len(w)) % 2 > 0) & (torch.rand(len(w), generator=draw) < 0.9)
        return torch.where(rare[:, None], 0.0, white(step, w, draw))

    layer, trace = record("lion", rarely, steps=3000)
    assert layer.dead == NEURONS / 2 and abs(layer.burst_rotation - 1) < 0.02
    assert abs(layer.ratio - 1) < 0.03 + noise(trace, "rotation", np.arange(NEURONS) % 2 == 0)
    alive = [row for row in range(trace.sizes["row"]) if (trace["gradient_log2"][row] > -1000).mean() > 0.5]
    few = trace.isel(row=[row for row in range(trace.sizes["row"]) if row not in alive[:-2]])
    assert len(alive) > 2 and np.isnan(diagnose(few).layers[0].burst_rotation)  # two rows have no spread


@pytest.mark.slow
def test_rows_that_burst_each_in_its_own_way_are_not_claimed():
    def unequal(step, w, draw):
        size = torch.where(torch.rand((), generator=draw) < 0.03, 10.0, 0.1)
        return white(step, w, draw) * torch.where(torch.arange(len(w)) < len(w) // 2, size, 1.0)[:, None]

    layer, _ = record("lion", unequal, steps=3000)
    assert layer.verdict == "bursty" and "from row to row" in layer.reason
    assert layer.burst_error > 0.05


@pytest.mark.parametrize(
    ("kind", "rho", "word"),
    [
        ("lion", 0.6, "Successive correlated"),
        pytest.param("lion", -0.5, "Successive anticorrelated", marks=pytest.mark.slow),
        pytest.param("adam_l2", 0.6, "Successive correlated", marks=pytest.mark.slow),
        pytest.param("adam_l2", -0.5, "Successive anticorrelated", marks=pytest.mark.slow),
    ],
)
def test_correlations_change_the_rotation_of_lion_and_adam_l2_as_said(kind, rho, word):
    layer, trace = record(kind, Correlated(rho), steps=2000)
    assert layer.verdict == "autocorrelated" and word in layer.reason
    last, allowed = layer.quarters[-1], 0.06 + noise(trace, "rotation")
    assert kind != "lion" or abs(layer.burst_rotation - 1) < 5e-3  # there are none
    white = last.measured_rotation / last.predicted_rotation * last.remembered_rotation
    assert abs(last.error("rotation")) < allowed < abs(white - 1)


def test_a_radial_pull_is_scale_sensitive_and_lambda_eff_is_right():
    layer, trace = record("sgdm", radial)
    assert layer.verdict == "scale-sensitive"
    assert "λ_eff = λ + P = 0.015 instead of λ = 0.01" in layer.reason and "extra weight decay" in layer.reason
    last = layer.quarters[-1]
    assert abs((1 + last.error("rotation")) / 1.5**0.5 - 1) < 1 / DIM + noise(trace, "rotation")
    assert abs(last.measured("rotation") / last.corrected("rotation") - 1) < 0.01 + noise(trace, "rotation")
    assert abs(last.measured("norm") / last.corrected("norm") - 1) < 0.01 + noise(trace, "norm")


@pytest.mark.parametrize(
    ("kind", "pace"),
    [
        ("sgdm", 2e-3),
        pytest.param("adam_l2", 3e-4, marks=pytest.mark.slow),
        pytest.param("sgdm", -3e-3, marks=pytest.mark.slow),
        pytest.param("adamw", -2e-3, marks=pytest.mark.slow),
    ],
)
def test_gradients_that_change_their_size_are_followed(kind, pace):
    """Gradients that grow without end keep the norm behind: it never decays as much as it is lengthened."""
    layer, trace = record(kind, lambda step, w, draw: white(step, w, draw) * np.exp(pace * step), steps=2000)
    assert layer.applies, layer.reason
    for quarter in layer.quarters:
        for name in ("rotation", "norm"):
            assert abs(quarter.error(name)) < 0.02 + 1 / DIM + noise(trace, name)
    still = trace.assign(gradient_scale=trace["gradient_scale"] * 0 + 1)  # negative control: of one size
    last, assumed = layer.quarters[-1], diagnose(still).layers[0].quarters[-1]
    assert kind == "adamw" or abs(assumed.measured_norm / assumed.predicted_norm - 1) > 0.1 > abs(last.error("norm"))


def test_a_gradient_that_is_mostly_its_mean_is_signal():
    layer, _ = record("adamw", lambda step, w, draw: invariant(signal(step, w, draw), w) + 0 * w, lags=64)
    assert layer.signal < 0.5  # scale-invariant weights turn until the mean is radial: no signal is left
    layer, _ = record(
        "lion", lambda step, w, draw: invariant(torch.randn(w.shape, generator=draw), w) + 9 * turning(step, w)
    )
    assert layer.verdict in ("signal", "autocorrelated")


def turning(step, w):
    """A direction orthogonal to the weights that stays for good: half of each row, rotated in its plane."""
    a, b = w[:, 0::2], w[:, 1::2]
    return torch.stack([-b, a], dim=2).reshape(w.shape) / (w * w).sum(1, keepdim=True)


def test_a_layer_that_is_frozen_is_not_dead():
    layer = torch.nn.Linear(DIM, NEURONS, bias=False)
    optimizer, draw = MAKE["adamw"](layer.parameters()), torch.Generator().manual_seed(0)
    with Recorder(layer, optimizer, interval=4, window=20, lags=0) as recorder:
        for step in range(400):
            if step == 200:
                layer.weight.requires_grad_(False)
            layer.weight.grad = white(step, layer.weight.detach(), draw) if step < 200 else None
            optimizer.step()
    (found,) = diagnose(recorder.dataset()).layers
    assert found.verdict == "frozen" and "In 50% of the sampled steps" in found.reason


def test_no_gradient_is_dead_and_no_decay_is_said():
    layer, _ = record("sgdm", nothing, steps=400)
    assert layer.verdict == "dead" and layer.dead == NEURONS
    MAKE["undecayed"] = lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0)
    try:
        assert record("undecayed", white, steps=400)[0].verdict == "no decay"
    finally:
        del MAKE["undecayed"]


SCHEDULES = {
    "cosine": lambda t: min(1.0, (t + 1) / 100) * (1 + np.cos(np.pi * t / STEPS)) / 2,
    "steps": lambda t: 0.2 ** (t // 350),
    "restarts": lambda t: (1 + np.cos(np.pi * (t % 300) / 300)) / 2 + 0.05,
}


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("adamw", "cosine"), ("adam_l2", "steps"), ("sgdm", "restarts"), ("lion", "cosine"), ("rotational", "steps")],
)
def test_a_schedule_is_followed(kind, shape):
    """From three times the norm of equilibrium at the largest rate, in every quarter."""
    layer, trace = record(kind, white, schedule=SCHEDULES[shape], initial=3.0, window=20)
    assert layer.applies and layer.scheduled, layer.reason
    assert kind == "rotational" or "On the course that its rates set" in layer.reason
    for quarter in layer.quarters:
        for name in ("rotation", "norm"):
            assert abs(quarter.error(name)) < 0.03 + 1 / DIM + noise(trace, name)
    # negative controls: other rates than those in force
    for wrong in ("window_lr", "window_weight_decay"):
        names = [key for key in trace if key.startswith(wrong)]
        if kind == "adam_l2" and wrong == "window_weight_decay":
            names.append("radial")  # of which the decay in force is a part
        told = trace.assign({name: trace[name] * 1.5 for name in names})
        assert diagnose(told).layers[0].outcome == "FAIL"


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["adamw", "sgdm"])
def test_a_transient_ends_when_the_report_says(kind):
    """Stopped early, the report names a number of steps; the same run is within 5 % from there on, and not before."""
    theory = rotsim.equilibrium(rotsim.measure.optimizer_spec(MAKE[kind]([torch.nn.Parameter(torch.ones(2, 2))])), DIM)
    early, _ = record(kind, white, steps=200, initial=4 * theory.norm, window=20)
    assert early.applies and early.agrees, early.reason  # the transient is part of the course
    expected = early.steps_needed
    assert f"On the way to equilibrium, which takes about {expected:.2g} steps" in early.reason
    _, trace = record(kind, white, steps=2000, initial=4 * theory.norm, window=20)
    norm = np.sqrt((trace["norm"].values ** 2).mean(axis=0))
    settled = norm[len(norm) // 2 :].mean()
    off = np.abs(norm / settled - 1)
    last_off = trace["step"].values[np.flatnonzero(off > 0.05)[-1]]
    assert 0.7 * expected < last_off < 1.3 * expected


@pytest.mark.parametrize("how", ["decay is not applied", "clipped after the optimizer"])
def test_an_optimizer_that_does_something_else_fails(how):
    """Its rates say AdamW: without its decay norms grow on, with shorter steps they are too short."""
    MAKE["other"] = lambda p: Otherwise(p, how)
    try:
        layer, _ = record("other", white, initial=2.0, spec=rotsim.AdamW(1e-2, 0.5, betas=(0.9, 0.95)))
    finally:
        del MAKE["other"]
    assert layer.outcome == "FAIL", layer.reason


class Otherwise(torch.optim.AdamW):
    """AdamW that says it has a decay, but leaves it out; or that cuts its steps to half their length."""

    def __init__(self, params, how):
        super().__init__(params, lr=1e-2, weight_decay=0.5, betas=(0.9, 0.95))
        self.how = how

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            before = [p.clone() for p in group["params"]]
            decay = group["weight_decay"]
            if self.how == "decay is not applied":
                group["weight_decay"] = 0.0
            super().step()
            group["weight_decay"] = decay
            if self.how == "clipped after the optimizer":
                for parameter, old in zip(group["params"], before, strict=True):
                    decayed = old * (1 - group["lr"] * decay)
                    parameter.copy_(decayed + 0.5 * (parameter - decayed))


@pytest.mark.parametrize(("kind", "judged_from"), [("sgdm", 280), ("lion", 0)])
def test_a_record_that_does_not_weigh_its_first_steps_is_judged_from_its_second_era_on(kind, judged_from):
    """Older recorders took the averages of the late steps of the first era over the gradients of all."""
    layer, trace = record(kind, white, initial=10.0, lags=128)
    assert layer.judged_from == 0 and trace["era"][0] == 256
    older = trace.copy()
    if "era_square_step" in trace:  # of Lion the correlation tells
        wrong = trace["era_square_step"].copy()
        wrong[:, 0] /= 4
        older["era_square_step"] = wrong.copy()
        del older["era_square_step"].attrs["weights"]
        taken = trace.assign(era_square_step=wrong)  # the control: it would be off where it is taken for the new one
        assert abs(diagnose(taken).layers[0].quarters[0].error("rotation")) > 0.15
    (found,) = diagnose(older).layers
    assert found.judged_from == judged_from and found.applies and found.outcome == layer.outcome
    assert start_of(older, found.layer) == 0  # what is foreseen does not depend on the averages
    assert abs(found.error("rotation")) < abs(layer.error("rotation")) + 0.01


@pytest.mark.parametrize("kind", ["adamw", pytest.param("adam_l2", marks=pytest.mark.slow), "rotational"])
def test_a_course_that_starts_late_has_full_averages(kind, monkeypatch):
    """At the first steps of a run averages are empty, so that Adam turns faster; in later ones they are not."""
    _, trace = record(kind, white)
    late = trace.drop_vars([name for name in ("initial_norm", "initial_step") if name in trace.variables])

    def first() -> float:
        (layer,) = diagnose(late).layers
        assert layer.judged_from == 40
        return float(abs(layer.curves.ratio["rotation"][0] - 1))

    assert first() < 0.05
    monkeypatch.setattr(courses, "_lead", lambda spec, begun: 0)  # negative control
    assert first() > 0.15
