"""The diagnosis at its bounds: evidence perfect but for one number, just inside and just beyond what is allowed."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest

import rotsim
from rotsim import dataset, diagnosis
from rotsim.diagnosis import Diagnosis, LayerDiagnosis, diagnose
from rotsim.evidence import Evidence
from rotsim.optimizers import Unmodelled
from rotsim.theory.base import required_theory

ADAMW = rotsim.AdamW(lr=2e-3, weight_decay=0.5)
SGDM = rotsim.SGDM(lr=0.1, weight_decay=1e-2)
LION = rotsim.Lion(lr=2e-4, weight_decay=5.0)
ADAM_L2 = rotsim.AdamL2(lr=2e-3, weight_decay=1e-2)
MUON = Unmodelled(lr=0.1, weight_decay=0.1, kind="Muon", why="it is new")
NAME, LAST = "body.weight", 10_000

PERFECT = Evidence(
    layer=NAME, fan_in=64, neurons=10, dead=0, lost=0, lr=2e-3, weight_decay=0.5, predicted_rotation=0.04,
    measured_rotation=0.04, rotation_error=1e-4, corrected_rotation=0.04, predicted_norm=2.0, measured_norm=2.0,
    norm_factor=1.0, rotation_factor=1.0, spread=0.01, within=1.0, radial=0.0, radial_error=0.0, growth=0.0,
    norm_change=1.0, cosine=0.0, along=0.0, burst=1.0, burst_rotation=nan, burst_norm=nan, burst_error=nan,
    overlap=nan, signal=0.0, relaxation_steps=500.0, steps_needed=1000.0, recorded_from=500, settled=True, windows=20,
)  # fmt: skip


@pytest.fixture
def judged(monkeypatch):
    """The diagnosis of a run of `LAST` steps whose one layer is `PERFECT` but for what is given."""

    def judge(optimizer=ADAMW, spec=(), **change):
        evidence = replace(PERFECT, **change)
        monkeypatch.setattr(diagnosis, "gather", lambda trace: [evidence])
        ones = np.ones((1, 10))
        trace = dataset.build(
            "trace",
            step=LAST // 10 * np.arange(1, 11),
            variables={name: ones for name in dataset.QUANTITIES},
            optimizer=optimizer,
            fan_in=64,
            spec=dict(spec),
        )
        (layer,) = diagnose(trace).layers
        return layer

    return judge


KNOWN_BURSTS = {"burst_rotation": 0.9, "burst_norm": 1.1, "burst_error": 0.0, "overlap": 0.0}


@pytest.mark.parametrize(
    ("optimizer", "inside", "beyond", "verdict", "words"),
    [
        # was it there, and is there a theory?
        (ADAMW, {"lost": 9, "recorded_from": 5001}, {"lost": 10, "recorded_from": 5001}, "unknown", "about step 5001"),
        (ADAMW, {"lost": 9}, {"lost": 10, "recorded_from": 5000}, "not finite", "NaN or infinite"),
        (ADAMW, {"lost": 9}, {"lost": 10, "recorded_from": LAST}, "not finite", "NaN or infinite"),
        (ADAMW, {"lost": 3, "dead": 6}, {"lost": 3, "dead": 7}, "dead", "No neuron has a gradient"),
        (ADAMW, {"fan_in": 2}, {"fan_in": 1}, "unknown", "no direction to turn in"),
        # an equilibrium, reached?
        (ADAMW, {"lr": 1e-12}, {"lr": 0.0}, "unknown", "learning rate was 0 throughout"),
        (ADAMW, {"weight_decay": 0.1}, {"weight_decay": 0.0, "norm_change": 1.25}, "no decay", "changed by +25.0%."),
        (ADAMW, {}, {"predicted_rotation": nan}, "unknown", "No prediction"),
        (ADAMW, {"steps_needed": 5000.0}, {"steps_needed": 5001.0}, "transient", "about 5e+03. Training lasted 10000"),
        (ADAMW, {"windows": 8}, {"windows": 7}, "unknown", "7 record windows are too few"),
        (ADAMW, {}, {"settled": False}, "drifting", "drifts at step 10000, though the norm relaxes in 5e+02 steps"),
        # a radial part?
        (ADAMW, {"along": 0.2}, {"along": 0.21}, "scale-sensitive", "21% of the squared update"),
        (ADAMW, {"radial": 0.102}, {"radial": 0.103}, "tilted", "divided by √v, which differs between coordinates, it"),
        (ADAMW, {"radial": -0.097}, {"radial": -0.098}, "tilted", "it stretches the weights as negative weight decay:"),
        (SGDM, {"radial": 0.102}, {"radial": 0.103}, "tilted", "large beside the decay, and what radial part it has s"),
        (ADAMW, {"cosine": 0.1}, {"cosine": 0.1, "radial": 0.2}, "scale-sensitive", "has a radial part and shrinks th"),
        (ADAMW, {"cosine": 0.2}, {"cosine": 0.099, "radial": 0.2}, "tilted", "= 0.6 instead of λ = 0.5."),
        (ADAMW, {"radial": 0.1}, {"radial": -1.0}, "tilted", "= 0 instead of λ = 0.5. Noise alone would let the norm"),
        (ADAM_L2, {"radial": 0.157}, {"radial": 0.158}, "tilted", "it shrinks the weights as extra weight decay"),
        (ADAMW, {"radial_error": 9.0}, {"radial_error": 0.051, "cosine": 0.1}, "unknown", "only to ±10%"),
        (ADAMW, {"radial_error": 0.05, "cosine": 0.1}, {"radial_error": 0.1, "cosine": nan}, "unknown", "known only t"),
        (LION, {"cosine": 0.099}, {"cosine": 0.1}, "scale-sensitive", "(RMS cosine 0.1 times that of a random directi"),
        (ADAMW, {"radial": nan}, {"radial": nan, "cosine": nan}, "unknown", "does not tell whether the gradient is or"),
        # on its way?
        (ADAMW, {"growth": 0.102}, {"growth": 0.103}, "drifting", "still grows, by 10% of what decay takes from it: t"),
        (ADAMW, {"growth": -0.097}, {"growth": -0.098}, "drifting", "still shrinks, by 10% of what"),
        (
            ADAMW, {"growth": 0.06, "radial": 0.042}, {"growth": 0.061, "radial": 0.042}, "drifting",
            "from it, and a radial part of the gradient acts as +4% of the decay: the weights turn 1.05 times",
        ),
        (ADAMW, {"growth": 0.09, "radial": 0.01}, {"growth": 0.1, "radial": 0.01}, "drifting", "from it: the weights"),
        (LION, {"growth": 0.06, "radial": 0.09}, {"growth": 0.103}, "drifting", "from it: the weights turn 1.05"),
        # noise?
        (LION, {}, {"burst": nan}, "unknown", "for at least 4 · lags steps"),
        (LION, {}, {"rotation_factor": nan}, "unknown", "for at least 4 · lags steps"),
        (ADAMW, {"burst": nan, "rotation_factor": nan}, {"signal": 0.51}, "signal", "51% of the gradient's correlatio"),
        (ADAMW, {"signal": 0.5}, {"signal": 0.6}, "signal", "60%"),
        (LION, {"rotation_factor": 1.099}, {"rotation_factor": 1.101}, "autocorrelated", "anticorrelated gradients tu"),
        (LION, {"rotation_factor": 0.901}, {"rotation_factor": 0.899}, "autocorrelated", "ive correlated gradients tu"),
        (ADAM_L2, {"rotation_factor": 1.099}, {"rotation_factor": 1.101}, "autocorrelated", "ive correlated gradients"),
        (ADAM_L2, {"rotation_factor": 0.901}, {"rotation_factor": 0.85}, "autocorrelated", "Adam+L2's weights 0.85 ti"),
        (ADAM_L2, {"burst": 3.0}, {"burst": 3.1}, "bursty", "(E‖g̃‖⁴/(E‖g̃‖²)² = 3.1), as when a network memorises"),
        (LION, {"burst": 2.0}, {"burst": 2.1}, "unknown", "= 2.1), and this trace does not hold their course"),
        (LION, KNOWN_BURSTS | {"burst": 9.0, "overlap": 0.1}, KNOWN_BURSTS | {"overlap": 0.125}, "unknown", "about 8"),
        (
            LION, KNOWN_BURSTS | {"burst_error": 0.05}, KNOWN_BURSTS | {"burst_error": 0.051}, "bursty",
            "turn Lion's weights 0.90 times as fast as steady gradients would, give or take 0.10.",
        ),
    ],
)  # fmt: skip
def test_each_bound_is_where_it_is_said_to_be(judged, optimizer, inside, beyond, verdict, words):
    layer = judged(optimizer, **inside)
    assert layer.verdict == "applies" and layer.applies, layer.reason
    layer = judged(optimizer, **beyond)
    assert layer.verdict == verdict and not layer.applies and layer.claims == ()
    assert words in layer.reason


@pytest.mark.parametrize(
    ("inside", "beyond", "verdict", "words"),
    [
        ({}, {"left": {NAME: 77}}, "unknown", "about step 77; before"),
        ({"left": {"other": 77}}, {"left": {NAME: 0}}, "unknown", "about step 0;"),
        ({"changed_outside": {NAME: 0.02}}, {"changed_outside": {NAME: 0.03}}, "changed outside", "After 3% of the sa"),
        ({"changed": {NAME: {"lr": 4000}}}, {"changed": {NAME: {"lr": 4001}}}, "schedule", "The learning rate changed"),
        (
            {"changed": {NAME: {"lr": 4000, "weight_decay": 5}}}, {"changed": {NAME: {"lr": 5, "weight_decay": 9499}}},
            "schedule", "rate and the weight decay changed until step 9499, too late for an equilibrium in the last ha",
        ),
        ({"changed": {}}, {"changed": {NAME: {"momentum": 9500}}}, "schedule", "Momentum (or betas) changed in the ru"),
        ({"lr_changed": False}, {"momentum_changed": True}, "schedule", "Momentum (or betas) changed in the run"),
        ({"changed": {}, "lr_changed": True}, {"lr_changed": True}, "schedule", "The learning rate changed in the run"),
        ({"dtypes": {NAME: "float32"}}, {"dtypes": {NAME: "bfloat16"}}, "rounded", "differ by up to 0.0078 of their s"),
        ({"dtypes": {"other": "bfloat16"}}, {"dtypes": {NAME: "float16"}}, "rounded", "= 0.001 per step drowns in rou"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block", ["", "[q]"])
def test_what_the_run_says_of_a_layer_and_its_blocks(judged, inside, beyond, verdict, words, block):
    assert judged(spec=inside, layer=NAME + block).verdict == "applies"
    layer = judged(spec=beyond, layer=NAME + block)
    assert layer.verdict == verdict and words in layer.reason


@pytest.mark.parametrize(("dtype", "spacing"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10), ("float32", 2.0**-23)])
def test_two_spacings_are_the_least_that_decay_or_rotation_may_be(judged, dtype, spacing):
    for optimizer, change in (
        (ADAMW, "lr"),
        (LION, "lr"),
        (SGDM, "predicted_rotation"),
        (ADAM_L2, "predicted_rotation"),
    ):
        scale = 0.5 if change == "lr" else 1.0
        for factor, verdict in ((2.0, "applies"), (1.99, "rounded")):
            layer = judged(optimizer, spec={"dtypes": {NAME: dtype}}, **{change: factor * spacing / scale})
            assert layer.verdict == verdict
        assert ("lr·wd" if change == "lr" else "rotation") + " = " in layer.reason


def test_an_optimizer_without_theory_and_a_rotational_one(judged):
    layer = judged(MUON)
    assert layer.verdict == "no theory" and "this Muon: it is new. It is only measured" in layer.reason
    turning = judged(rotsim.Rotational(ADAMW), along=0.9, radial=9.0, cosine=9.0)
    assert turning.applies and "turns the weights by the predicted angle" in turning.reason
    # but an equilibrium it must have
    assert judged(rotsim.Rotational(ADAMW), settled=False).verdict == "drifting"


def test_a_declared_invariance_counts_where_none_was_measured(judged):
    for names, verdict in (([NAME], "applies"), (["other"], "scale-sensitive")):
        layer = judged(LION, spec={"scale_invariant_layers": names}, cosine=nan)
        assert layer.verdict == verdict and "RMS cosine" not in layer.reason
    assert judged(LION, spec={"scale_invariant_layers": []}, cosine=0.0).applies


@pytest.mark.parametrize(
    ("optimizer", "change", "reason"),
    [
        (ADAMW, {}, "In equilibrium; the gradient has no radial part."),
        (ADAMW, {"radial": 0.0049}, "In equilibrium; the gradient has no radial part."),
        (ADAMW, {"radial": -0.02}, "In equilibrium; the gradient's radial part, -2% of the decay, is small."),
        (LION, {"radial": 0.02, "norm_factor": 1.099}, "In equilibrium; the gradient has no radial part."),
        (
            ADAMW, {"norm_factor": 1.101},
            "In equilibrium; the gradient has no radial part; gradients that are correlated from step to step make the "
            "norm 1.10 times the predicted one.",
        ),
        (
            ADAMW, {"norm_factor": 0.85},
            "In equilibrium; the gradient has no radial part; gradients that burst in single coordinates or alternate "
            "make the norm 0.85 times the predicted one.",
        ),
        (
            LION, KNOWN_BURSTS,
            "In equilibrium; the gradient has no radial part. Bursts of the gradient are in the prediction: rotation "
            "0.90 times, norm 1.10 times that of steady gradients.",
        ),
    ],
)  # fmt: skip
def test_the_reason_of_a_layer_that_applies(judged, optimizer, change, reason):
    assert judged(optimizer, **change).reason == reason


def test_rotation_may_be_off_by_a_tenth_and_the_norm_by_more(judged):
    for change, agrees in (
        ({"measured_rotation": 0.0439}, True),
        ({"measured_rotation": 0.0441}, False),
        ({"measured_rotation": 0.0359}, False),
        ({"measured_norm": 2.299}, True),
        ({"measured_norm": 2.301}, False),
        ({"measured_norm": 2.301, "norm_factor": 1.101}, True),  # then the norm is not claimed
    ):
        layer = judged(**change)
        assert layer.agrees == agrees
        assert layer.claims == (("rotation",) if "norm_factor" in change else ("rotation", "norm"))
    assert layer.error("norm") == pytest.approx(0.1505) and layer.error("rotation") == 0.0


def layer(verdict="applies", **change):
    return LayerDiagnosis(**vars(replace(PERFECT, **change)), verdict=verdict, reason="because")


def test_the_summary_counts_layers():
    good, bad, other = layer(), layer(measured_rotation=0.05), layer("dead", radial=nan)
    two = Diagnosis(ADAMW, (good, bad, other))
    assert two.summary() == (
        "The prediction applies to 2 of 3 layers and agrees in 1 of them (rotation within 10%, norm within 15%)."
    )
    assert two.claimed == (good, bad) and not two.passed and Diagnosis(ADAMW, (good, other)).passed
    none = Diagnosis(ADAMW, (other, other))
    assert none.summary() == "The prediction applies to none of 2 layers; see the reasons." and not none.passed
    assert Diagnosis(MUON, (other,)).summary() == "There is no theory for Muon: 1 layers are measured, none predicted."
    content = two.to_dict()
    assert content["passed"] is False and content["optimizer"] == ADAMW.to_dict()
    assert [one["agrees"] for one in content["layers"]] == [True, False, None]
    assert content["layers"][2]["radial"] is None and content["layers"][2]["claims"] == []
    assert content["layers"][0]["radial"] == 0.0 and content["layers"][0]["layer"] == NAME


@pytest.mark.parametrize(
    ("radial", "growth"), [(0.3, 0.0), (-0.5, 0.2), (0.0, -0.4), (1.5, 2.0), (-1.0, 0.3), (-1.2, 3.0)]
)
def test_adam_l2_turns_by_the_largest_root_of_its_balance(radial, growth):
    """Turn³ = 1 + P/λ + growth · turn, by NumPy's companion matrix."""
    roots = np.roots([1.0, 0.0, -growth, -(1 + radial)])
    largest = max(root.real for root in roots if abs(root.imag) < 1e-9)
    if largest > 0:
        assert required_theory(ADAM_L2).balance_factor(radial, growth) == pytest.approx(largest, rel=1e-9)
    assert required_theory(ADAMW).balance_factor(0.3, 0.2) == pytest.approx(1.5**0.5)


def test_without_anything_to_make_up_for_there_is_no_turn():
    for optimizer in (ADAMW, ADAM_L2, SGDM):
        for radial, growth in ((-1.0, 0.0), (-0.9, -0.2), (-2.0, 0.5), (nan, 0.0), (0.0, nan)):
            if optimizer is ADAM_L2 and radial + growth == -1.1:
                continue  # its decay follows the norm: there is one
            assert np.isnan(required_theory(optimizer).balance_factor(radial, growth))
