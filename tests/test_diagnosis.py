"""Verdicts from what a trace measured: each assumption broken on its own, and networks nobody tuned for."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import rotsim
from rotsim import dataset
from rotsim.balance import balance
from rotsim.cli import main
from rotsim.diagnosis import diagnose
from rotsim.errors import InvalidInput
from rotsim.show.plotting import _apart
from rotsim.theory.base import required_theory

ADAMW = rotsim.AdamW(lr=2e-3, weight_decay=0.5, betas=(0.9, 0.95))
LION = rotsim.Lion(lr=2e-4, weight_decay=5.0)
ADAM_L2 = rotsim.AdamL2(lr=2e-3, weight_decay=1e-2, betas=(0.9, 0.95))
RV = rotsim.Rotational(ADAMW)


def made(optimizer=ADAMW, windows=20, window=500, spec=(), correlation=None, **change):
    """A trace of ten neurons in perfect equilibrium with 1 % noise; `change` replaces or scales variables."""
    neurons, dim = 10, 64
    theory = rotsim.equilibrium(optimizer, dim)
    if optimizer is RV:  # it keeps any norm
        theory = replace(theory, norm=1.0, update_rms=theory.rotation)
    draw = np.random.default_rng(0)
    shape = (neurons, windows)
    variables = {
        "norm": theory.norm * (1 + 0.01 * draw.standard_normal(shape)),
        "rotation": theory.rotation * (1 + 0.01 * draw.standard_normal(shape)),
        "update_rms": np.full(shape, theory.update_rms),
        "gradient_norm": np.full(shape, 1 / theory.norm),
        "gradient_scale": np.ones(shape),
        "gradient_cosine": np.full(shape, 1e-4),
        "gradient_burst": np.full(shape, 1.3),
        "active": np.ones(shape),
        "radial": 0.02 * optimizer.weight_decay * draw.standard_normal(shape),
    }
    if optimizer is ADAM_L2:  # the decay itself, divided by √v
        variables["radial"] += optimizer.weight_decay * sqrt(dim) * theory.norm
    for name, value in change.items():
        variables[name] = value(variables[name]) if callable(value) else np.full(shape, value)
    trace = dataset.build(
        "trace",
        step=window * np.arange(1, windows + 1),
        variables={k: v.astype(np.float32) for k, v in variables.items()},
        optimizer=optimizer,
        layer=np.full(neurons, "body.weight"),
        fan_in=dim,
        spec={"lr_changed": False, "weight_decay_changed": False, **dict(spec)},
    ).assign_coords(
        lr=("neuron", np.full(neurons, optimizer.lr)),
        weight_decay=("neuron", np.full(neurons, optimizer.weight_decay)),
    )
    if correlation is not None:
        values = np.asarray(correlation, dtype=np.float32)[None]
        trace = trace.assign_coords(parameter=["body.weight"]).assign(
            gradient_autocorrelation=(("parameter", "lag"), values)
        )
    return trace


def only(trace):
    (layer,) = diagnose(trace).layers
    return layer


WHITE = np.eye(1, 65)[0]


def alternating(values):
    return np.broadcast_to(0.2 * (-1.0) ** np.arange(values.shape[1]), values.shape)


@pytest.mark.few(12)
@pytest.mark.parametrize(
    ("trace", "verdict", "words"),
    [
        (made(), "applies", "In equilibrium"),
        (made(correlation=WHITE), "applies", "In equilibrium"),
        (made(correlation=0.5 ** np.arange(65.0)), "applies", "make the norm 1.6"),
        (
            made(spec={"lr_changed": True}),
            "unknown",
            "The learning rate changed in training, and the trace does",
        ),
        (made(gradient_burst=6.0), "applies", ""),
        (made(LION, correlation=WHITE), "applies", ""),
        (made(LION, correlation=WHITE, gradient_cosine=0.125), "scale-sensitive", "RMS cosine 1 times"),
        (made(LION), "unknown", "record it anew"),
        (made(norm=np.nan), "not finite", "NaN"),
        (made(active=0.0), "dead", "No neuron has a gradient"),
        (made(window=20), "applies", "On the way to equilibrium, which takes about"),
        (made(windows=8, window=2000), "unknown", "7 record windows are too few"),
        (made(radial=0.5), "tilted", "λ_eff = λ + P = 1 instead of λ = 0.5"),
        (made(radial=0.5, gradient_cosine=0.1), "scale-sensitive", "λ_eff = λ + P = 1 instead of λ = 0.5"),
        (made(radial=-0.25, gradient_cosine=0.1), "scale-sensitive", "stretches the weights as negative weight decay"),
        (made(radial=alternating, gradient_cosine=0.1), "unknown", "is known only to ±"),
        (made(update_rms=lambda x: 2 * x), "scale-sensitive", "75% of the squared update is along the weights"),
        (
            made(LION, correlation=WHITE, gradient_burst=2.5),
            "unknown",
            "= 2.5), and this trace does not hold their course",
        ),
        (made(correlation=np.full(65, 0.6) + 0.4 * WHITE), "signal", "60%"),
        (made(LION, correlation=(-0.4) ** np.arange(65.0)), "autocorrelated", "anticorrelated gradients turn"),
        (made(LION, correlation=0.6 ** np.arange(65.0)), "autocorrelated", "0.7"),
        (made(ADAM_L2, correlation=0.6 ** np.arange(65.0)), "autocorrelated", "correlated gradients turn Adam+L2's"),
        (made(ADAM_L2), "applies", ""),
        (made(ADAM_L2, radial=lambda x: 2 * x), "tilted", "λ_eff = λ + P = 0.02 instead of λ = 0.01"),
        (made(ADAM_L2, gradient_burst=4.0), "bursty", "Adam+L2's rotation assumes a steady gradient"),
        (made(RV), "applies", "The optimizer turns the weights by the predicted angle"),
    ],
)
def test_each_broken_assumption_has_its_verdict(trace, verdict, words):
    layer = only(trace)
    assert layer.verdict == verdict
    assert words in layer.reason


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_verdict_does_not_look_at_agreement(factor):
    """A rotation that is wrong throughout must fail, not be explained away."""
    diagnosis = diagnose(made(rotation=lambda x: factor * x, update_rms=lambda x: factor * x))
    assert diagnosis.layers[0].applies
    assert diagnosis.layers[0].ratio == pytest.approx(factor, rel=0.01)
    assert diagnosis.passed == (factor == 1.0)
    assert diagnosis.layers[0].within == (1.0 if factor == 1.0 else 0.0)


def test_no_layer_that_applies_is_no_pass():
    assert not diagnose(made(radial=0.5)).passed


def test_the_norm_is_claimed_where_gradients_are_white():
    for correlation, claims in ((WHITE, ("rotation", "norm")), (0.5 ** np.arange(65.0), ("rotation",))):
        longer = diagnose(made(correlation=correlation, norm=longer_from(1), update_rms=lambda x: 1.3 * x))
        assert longer.layers[0].claims == claims
        assert longer.passed == (claims == ("rotation",))


@pytest.mark.parametrize(("factor", "start"), [(1.4, 0), (1 / 2.4, 0), (1.6, 500), (1 / 2.6, 500)])
def test_a_course_starts_after_a_window_in_which_the_norm_changes_too_much_to_be_followed(factor, start):
    trace = made()
    first = np.median(trace["norm"].values[:, 0]) / factor
    (layer,) = diagnose(
        trace.assign_coords(initial_norm=("neuron", np.full(10, first)), initial_step=("neuron", np.zeros(10, int)))
    ).layers
    assert layer.judged_from == start and layer.quarters[0].start == start
    assert (", from step 500 on" in layer.reason) == bool(start)


def longer_from(window):
    """Norms 1.3 times as long from a window on; the course begins in window 0."""

    def change(values):
        values[:, window:] *= 1.3
        return values

    return change


def test_lambda_eff_corrects_the_rotation():
    """Twice the decay: in equilibrium √2 times the rotation, less what is along the weights."""
    layer = only(made(radial=0.5))
    last = layer.quarters[-1]
    assert last.corrected("rotation") / last.predicted("rotation") == pytest.approx(
        sqrt(2 * (1 - layer.along)), rel=0.01
    )
    assert last.corrected("norm") / last.predicted("norm") == pytest.approx(sqrt(1 / 2), rel=0.01)
    assert layer.corrected_rotation > 1.35 * layer.predicted_rotation


def test_bursts_between_windows_count_too():
    def burst(scale):
        scale[:, ::5] *= 5
        return scale

    layer = only(made(gradient_scale=burst))
    square = np.array([25.0] + [1.0] * 4)  # a quarter, after the window in which the course begins
    assert layer.burst == pytest.approx(1.3 * np.mean(square**2) / np.mean(square) ** 2, rel=1e-6)


@pytest.mark.slow
def test_what_all_gradients_become_in_time_is_no_burst():
    """A course follows it. What each neuron does in its own time is a burst still, and so is one of all on the way."""
    fall = 0.8 ** np.arange(20.0)
    assert only(made(ADAM_L2, gradient_scale=lambda scale: scale * fall)).burst == pytest.approx(1.3, rel=1e-6)
    uneven = fall * np.where(np.arange(20) % 5 == 3, 5.0, 1.0)
    assert only(made(ADAM_L2, gradient_scale=lambda scale: scale * uneven)).burst > 3

    def each_in_its_time(scale):
        late = np.where(np.arange(20) >= 10, 4.0, 1.0)
        scale[:6] *= np.where(np.arange(20) % 2 == np.arange(6)[:, None] % 2, 4.0, 1.0)
        return scale * late

    assert only(made(ADAM_L2, gradient_scale=each_in_its_time)).burst > 2


def test_older_traces_without_the_new_variables_are_read():
    new = ["radial", "gradient_burst", "gradient_cosine"]
    trace = made(spec={"scale_invariant_layers": ["body.weight"]}).drop_vars(new)
    assert only(trace).verdict == "applies"
    assert np.isnan(only(trace).corrected_rotation)
    assert only(made(spec={"scale_invariant_layers": []}).drop_vars(new)).verdict == "scale-sensitive"
    assert only(made().drop_vars(new)).verdict == "unknown"


def test_a_simulation_is_refused():
    walk = rotsim.simulate(ADAMW, dim=8, neurons=2, steps=200)
    with pytest.raises(InvalidInput, match="diagnosis needs a recorded trace; got a simulation"):
        diagnose(walk)


# Random walks with AR(1) gradients, rotation over white noise, from an independent simulation
@pytest.mark.parametrize(("rho", "walk"), [(-0.5, 1.416), (-0.2, 1.152), (0.2, 0.920), (0.5, 0.789)])
def test_lions_correction_is_that_of_simulated_walks(rho, walk):
    predicted = required_theory(rotsim.Lion(1e-3, 1.0)).correlation_factors(rho ** np.arange(700.0))[0]
    assert abs(predicted / (walk / 1.025) - 1) < 0.02
    assert abs(predicted - 1) > 0.08  # negative control: white noise gives 1


def test_balance_is_ratio_across_and_spread_within():
    trace = made(rotation=lambda x: np.outer([1, 1, 1, 1, 1, 3, 3, 3, 3, 3], np.ones(20)))
    trace = trace.assign_coords(layer=("neuron", np.array(["a"] * 5 + ["b"] * 5)))
    found = balance(trace)
    assert found.rotation == {"a": 1.0, "b": 3.0}
    assert found.across_layers == 3.0 and found.within_layers == 0.0
    together = balance(trace.assign_coords(layer=("neuron", np.array(["a"] * 10))))
    assert together.across_layers == 1.0 and together.within_layers == pytest.approx(0.5)


def test_the_report_command_writes_what_it_says(tmp_path, capsys):
    path = dataset.save(made(), tmp_path / "good.nc")
    assert main(["trace", "report", str(path), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "applies" in printed and "agrees in 1 of them in each quarter" in " ".join(printed.split())
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["passed"] and content["layers"][0]["verdict"] == "applies"
    assert (tmp_path / "out" / "report.png").read_bytes()[:4] == b"\x89PNG"
    wrong = dataset.save(made(rotation=lambda x: 2 * x, update_rms=lambda x: 2 * x), tmp_path / "wrong.nc")
    assert main(["trace", "report", str(wrong), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]
    assert main(["trace", "compare", str(path), str(wrong)]) == 0
    assert "2.00" in capsys.readouterr().out
    assert main(["trace", "report", str(tmp_path / "absent.nc")]) == 2


def mixed(learnable, seed, path):
    """Train LSTM, fused attention, tied head, frozen table, depthwise convolution and one-neuron output."""
    import torch
    from torch import nn

    from rotsim.measure import Recorder

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(30, 8, padding_idx=0)
            self.position = nn.Embedding(12, 8)
            self.position.weight.requires_grad = False
            self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
            self.lstm = nn.LSTM(8, 8, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 30, bias=False)
            self.out.weight = self.table.weight
            self.score = nn.Linear(8, 1)

        def forward(self, tokens):
            x = self.table(tokens) + self.position.weight
            x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
            x, _ = self.lstm(x)
            x, _ = self.attention(x, x, x)
            return self.out(x), self.score(x.mean(1))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        model = Mixed()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0, betas=(0.9, 0.95))
        draw = torch.Generator().manual_seed(seed)
        split = {"in_proj_weight": "qkv"}
        with Recorder(model, optimizer, interval=5, window=50, lags=16, split=split, path=path) as recorder:
            for _ in range(900):
                tokens = torch.randint(1, 25, (8, 12), generator=draw)
                if learnable:  # else nothing can be learned and decay shrinks what the gradient does not hold
                    tokens = 1 + (tokens.cumsum(1) * tokens[:, :1]) % 24
                logits, score = model(tokens)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()) + (score - 1).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return recorder, diagnose(dataset.load(path))


# On seed 0, 0.30 is left; on others up to 0.38 (`tests.scatter`).
EXPLAINED = 0.5  # of a deviation is left at most


def numbers(diagnosis):
    """What scatters from training to training: how far off what is claimed is, and what λ_eff leaves of deviations."""
    left = [
        abs(np.log(layer.measured_rotation / layer.corrected_rotation)) / abs(np.log(layer.ratio))
        for layer in diagnosis.layers
        if layer.verdict == "scale-sensitive" and np.isfinite(layer.corrected_rotation)
    ]
    return {
        "claimed": len(diagnosis.claimed),
        "furthest claimed": max((abs(layer.ratio - 1) for layer in diagnosis.claimed), default=0.0),
        "explained": len(left),
        "median left": float(np.median(left)) if left else 0.0,
    }


def measured(seed):
    """For `tests.scatter`."""
    found = {}
    for learnable in (True, False):
        with TemporaryDirectory() as folder:
            _, diagnosis = mixed(learnable, seed, Path(folder) / "mixed.nc")
            which = "learnable" if learnable else "random"
            found |= {f"{which} {key}": value for key, value in numbers(diagnosis).items()}
            found |= {f"{which} {layer.layer} rotation": layer.ratio for layer in diagnosis.layers}
    return found


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.parametrize("learnable", [True, False])
def test_a_network_nobody_tuned_for(tmp_path, learnable):
    pytest.importorskip("torch")
    recorder, diagnosis = mixed(learnable, 0, tmp_path / "mixed.nc")
    assert recorder.skipped["position.weight"] == "frozen" and "lstm.bias_ih_l0" in recorder.skipped
    verdicts = {layer.layer: layer.verdict for layer in diagnosis.layers}
    assert {f"attention.in_proj_weight[{x}]" for x in "qkv"} <= set(verdicts)
    assert "table.weight" in verdicts and "out.weight" not in verdicts  # tied: one entry
    assert verdicts["depthwise.weight"] != "unknown" and len(verdicts) == 9
    # nothing here is scale-invariant: the plain prediction may not be claimed for layers that it misses by far
    for layer in diagnosis.layers:
        assert np.isfinite(layer.measured_rotation) and layer.reason
        assert not layer.applies or abs(layer.ratio - 1) < 0.25, layer
    assert main(["trace", "report", str(tmp_path / "mixed.nc"), "--output", str(tmp_path)]) in (0, 1)
    if learnable:  # where λ_eff > 0 it explains most of the deviation, in most layers; else 0.2 to 0.7 of it is left
        found = numbers(diagnosis)
        assert found["explained"] >= 3 and found["median left"] < EXPLAINED


def test_windows_in_which_the_learning_rate_was_0_are_no_hindrance():
    """Nothing turns there, and the course goes on; rotation at a rate of 0 is the control."""
    still = (np.arange(20) >= 6) & (np.arange(20) < 9)
    course = ("parameter", "step"), np.where(still, 0.0, ADAMW.lr)[None]

    def judged(**change):
        trace = made(**change).assign_coords(parameter=["body.weight"])
        return only(trace.assign(window_lr=course, window_lr_start=course))

    def stopped(values):
        return np.where(still, 0.0, values)

    layer = judged(rotation=stopped, update_rms=stopped)
    assert layer.verdict == "applies" and layer.outcome == "PASS"
    assert judged().outcome != "PASS"


def test_a_layer_loses_its_claim_when_gradients_stop_to_reach_it():
    """In some steps of the last quarter none of its neurons has a gradient: what it feeds is dying."""

    def late(values, of_all=True):
        values[:, -5:] = 0.7
        values[0] = 0.7 if of_all else 1.0
        return values

    layer = only(made(active=late))
    assert layer.verdict == "sparse" and not layer.claims and layer.rest is None
    assert "In 30% of the sampled steps from 7626 to 10000 none of its neurons had a gradient" in layer.reason
    assert layer.quarters[-1].silent == pytest.approx(0.3) and layer.quarters[0].silent == pytest.approx(0.0, abs=0.31)
    assert only(made(active=lambda values: late(values, of_all=False))).applies  # single neurons may be off


@pytest.mark.slow
def test_a_network_that_dies_under_a_schedule_is_not_claimed():
    """Random labels, a cosine to zero: 63 of the 64 neurons of the second layer die, and gradients of the first end."""
    torch = pytest.importorskip("torch")
    from rotsim.measure import Recorder

    nn, steps = torch.nn, 4000
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = [layer for inputs in (32, 64) for layer in (nn.Linear(inputs, 64), nn.BatchNorm1d(64), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    try:
        with Recorder(model, optimizer) as recorder:
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(torch.randn(64, 32)), torch.randint(0, 10, (64,))).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    layers = {layer.layer: layer for layer in diagnose(recorder.dataset()).layers}
    assert layers["3.weight"].dead > 32
    # on some processors all 64 die: such a layer has no quarters
    ended = {n: max((q.silent for q in layer.quarters), default=1.0) > 0.02 for n, layer in layers.items()}
    assert all(layers[name].verdict in ("dead", "sparse") for name in ended if ended[name])
    assert not any(layer.outcome == "FAIL" for layer in layers.values())  # v remembers the gradients that there were


@pytest.mark.parametrize(
    "heights", [[0.97, 0.98, 0.99, 1.0], [0.0, 0.0, 0.01], [0.2, 0.5, 0.52, 0.53, 0.9], [0.5] * 12]
)
def test_names_beside_lines_stay_within_the_axes_and_apart(heights):
    places = np.array(_apart(heights))
    assert (places >= -1e-12).all() and (places <= 1).all() and (np.diff(places) >= 1 / 16 - 1e-12).all()
    free = np.diff(heights, prepend=-1, append=2)
    alone = (free[:-1] > 0.2) & (free[1:] > 0.2)
    np.testing.assert_array_equal(places[alone], np.array(heights)[alone])  # what nothing pushes stays where it is
