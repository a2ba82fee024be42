"""The diagnosis at its bounds: evidence perfect but for one number, just inside and just beyond what is allowed."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from scipy import stats

import rotsim
from rotsim import checks, dataset, diagnosis
from rotsim.diagnosis import Diagnosis, LayerDiagnosis, diagnose
from rotsim.evidence import Evidence, Quarter
from rotsim.optimizers import Unmodelled
from rotsim.theory.base import required_theory

ADAMW = rotsim.AdamW(lr=2e-3, weight_decay=0.5)
SGDM = rotsim.SGDM(lr=0.1, weight_decay=1e-2)
LION = rotsim.Lion(lr=2e-4, weight_decay=5.0)
ADAM_L2 = rotsim.AdamL2(lr=2e-3, weight_decay=1e-2)
MUON = Unmodelled(lr=0.1, weight_decay=0.1, kind="Muon", why="it is new")
NAME, LAST = "body.weight", 10_000

AGREEING = Quarter(
    start=0, end=2500, predicted_rotation=0.04, measured_rotation=0.04, predicted_norm=2.0, measured_norm=2.0,
    rotation_noise=1e-6, norm_noise=1e-6, pulled_rotation=1.0, pulled_norm=1.0, remembered_rotation=1.0,
    remembered_norm=1.0, burst=1.0, silent=0.0,
)  # fmt: skip
QUARTERS = tuple(replace(AGREEING, start=2500 * k, end=2500 * (k + 1)) for k in range(4))
PERFECT = Evidence(
    layer=NAME, fan_in=64, neurons=10, dead=0, lost=0, active=1.0, lr=2e-3, weight_decay=0.5, largest_lr=2e-3,
    quarters=QUARTERS, predicted_rotation=0.04, measured_rotation=0.04, rotation_error=1e-4, corrected_rotation=0.04,
    predicted_norm=2.0,
    measured_norm=2.0, corrected_norm=2.0, rotation_factor=1.0, spread=0.01, within=1.0, radial=0.0, radial_error=0.0,
    norm_change=1.0, cosine=0.0, along=0.0, burst=1.0, burst_rotation=nan, burst_norm=nan, burst_error=nan,
    overlap=nan, signal=0.0, stable_rank=nan, white_rank=nan, relaxation_steps=500.0, steps_needed=1000.0,
    drowned_decay=0.0, drowned_rotation=0.0,
    scheduled=False, judged_from=0, recorded_from=500, windows=20,
)  # fmt: skip
OF_A_QUARTER = (
    "measured_rotation",
    "measured_norm",
    "rotation_noise",
    "norm_noise",
    "pulled_rotation",
    "remembered_rotation",
    "remembered_norm",
    "silent",
)


def perfect(**change):
    """`PERFECT` but for what is given; what belongs to a quarter is given to the third."""
    third = {name: change.pop(name) for name in OF_A_QUARTER if name in change}
    first, second, third_quarter, last = QUARTERS
    quarters = (first, second, replace(third_quarter, **third), last)
    return replace(PERFECT, **{"quarters": quarters} | change)


@pytest.fixture
def judged(monkeypatch):
    """The diagnosis of a run of `LAST` steps whose one layer is `PERFECT` but for what is given."""

    def judge(optimizer=ADAMW, spec=(), **change):
        evidence = perfect(**change)
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


PULLED = {"pulled_rotation": 1.051, "radial": 0.2}


def memory(factor):
    return {"remembered_rotation": factor}


KNOWN_BURSTS = {"burst_rotation": 0.9, "burst_norm": 1.1, "burst_error": 0.0, "overlap": 0.0}


@pytest.mark.parametrize(
    ("optimizer", "inside", "beyond", "verdict", "words"),
    [
        # was it there, and is there a theory?
        (ADAMW, {"lost": 9}, {"lost": 10}, "not finite", "NaN or infinite"),
        (ADAMW, {"lost": 3, "dead": 6}, {"lost": 3, "dead": 7, "active": 0.0}, "dead", "No neuron has a gradient"),
        (ADAMW, {"dead": 9, "active": 0.1}, {"dead": 10, "active": 0.1}, "sparse", "average one in 10.0% of them"),
        (ADAMW, {"fan_in": 2}, {"fan_in": 1}, "unknown", "no direction to turn in"),
        # a course?
        (ADAMW, {"lr": 1e-12}, {"lr": 0.0}, "unknown", "learning rate was 0 throughout"),
        (ADAMW, {"weight_decay": 0.1}, {"weight_decay": 0.0, "norm_change": 1.25}, "no decay", "changed by +25.0%."),
        (ADAMW, {}, {"predicted_rotation": nan}, "unknown", "No prediction"),
        (ADAMW, {"windows": 8}, {"windows": 7}, "unknown", "7 record windows are too few"),
        (ADAMW, {}, {"quarters": ()}, "unknown", "some in each quarter"),
        (ADAMW, {"drowned_decay": 0.05}, {"drowned_decay": 0.06}, "rounded", "have shortened them by 6%."),
        (ADAMW, {"drowned_rotation": 0.05}, {"drowned_rotation": 0.06}, "rounded", "6% of the squared rotation of a q"),
        # a radial part?
        (ADAMW, {"along": 0.2}, {"along": 0.21}, "scale-sensitive", "21% of the squared update"),
        (ADAMW, {"radial": 9.0}, PULLED | {"radial": 0.2}, "tilted", "divided by √v, which differs between"),
        (ADAMW, {"pulled_rotation": 0.951}, {"pulled_rotation": 0.949, "radial": 0.1}, "tilted", "it shrinks the weig"),
        (ADAMW, {"pulled_rotation": 1.049}, PULLED | {"radial": -0.1}, "tilted", "stretches the weights as neg"),
        (SGDM, {"pulled_rotation": 1.049}, PULLED, "tilted", "large beside the decay, and what radial part it has"),
        (ADAMW, {"cosine": 0.1}, PULLED | {"cosine": 0.1}, "scale-sensitive", "has a radial part and shrinks th"),
        (ADAMW, {"cosine": 0.2}, PULLED | {"cosine": 0.099}, "tilted", "= 0.6 instead of λ = 0.5."),
        (ADAMW, {}, PULLED | {"radial": -1.0}, "tilted", "= 0 instead of λ = 0.5. Noise alone would let the norm"),
        (ADAM_L2, {}, PULLED, "tilted", "it shrinks the weights as extra weight decay"),
        (ADAMW, {"radial_error": 9.0}, {"radial_error": 0.051, "cosine": 0.1}, "unknown", "only to ±10%"),
        (ADAMW, {"radial_error": 0.05, "cosine": 0.1}, {"radial_error": 0.1, "cosine": nan}, "unknown", "known only t"),
        (LION, {"cosine": 0.099}, {"cosine": 0.1}, "scale-sensitive", "(RMS cosine 0.1 times that of a random directi"),
        (ADAMW, {"radial": nan}, {"radial": nan, "cosine": nan}, "unknown", "does not tell whether the gradient is or"),
        # noise?
        (LION, {}, {"burst": nan}, "unknown", "for 1.5 · lags steps or 96"),
        (LION, {}, {"rotation_factor": nan}, "unknown", "for 1.5 · lags steps or 96"),
        (ADAMW, {"burst": nan, "rotation_factor": nan}, {"signal": 0.51}, "signal", "51% of the gradient's correlatio"),
        (ADAMW, {"signal": 0.5}, {"signal": 0.6}, "signal", "60%"),
        (LION, {"signal": 0.0138}, {"signal": 0.0145}, "signal", "is 51% of what Lion takes the sign of"),
        (LION, memory(1.099), memory(1.101), "autocorrelated", "anticorrelated gradients tu"),
        (LION, memory(0.901), memory(0.899), "autocorrelated", "ive correlated gradients tu"),
        (ADAM_L2, memory(1.099), memory(1.101), "autocorrelated", "ive correlated gradients"),
        (ADAM_L2, memory(0.901), memory(0.85), "autocorrelated", "0.85 times as fast as white noise would (ste"),
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
    ],
)  # fmt: skip
@pytest.mark.parametrize("block", ["", "[q]"])
def test_what_the_run_says_of_a_layer_and_its_blocks(judged, inside, beyond, verdict, words, block):
    assert judged(spec=inside, layer=NAME + block).verdict == "applies"
    layer = judged(spec=beyond, layer=NAME + block)
    assert layer.verdict == verdict and words in layer.reason


@pytest.mark.parametrize(
    ("dtype", "way_out"),
    [
        ("bfloat16", "Keep float32 master weights."),
        ("float16", "Keep float32"),
        ("float32", "Raise lr or weight_decay."),
    ],
)
def test_a_rounding_that_is_noticed_names_the_way_out(judged, dtype, way_out):
    layer = judged(spec={"dtypes": {NAME: dtype}}, drowned_decay=0.3)
    assert layer.verdict == "rounded" and f"kept in {dtype}" in layer.reason and way_out in layer.reason
    assert "by 26%" in layer.reason  # 1 - exp(-0.3)


def test_an_optimizer_without_theory_and_a_rotational_one(judged):
    layer = judged(MUON)
    assert layer.verdict == "no theory" and "this Muon: it is new. It is only measured" in layer.reason
    turning = judged(rotsim.Rotational(ADAMW), along=0.9, radial=9.0, cosine=9.0)
    assert turning.applies and "turns the weights by the predicted angle" in turning.reason


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
        (ADAMW, {"radial": -0.02}, "In equilibrium; the gradient's radial part, -2% of the decay, hardly acts."),
        (LION, {"radial": 0.02, "remembered_norm": 1.099}, "In equilibrium; the gradient has no radial part."),
        (
            ADAMW, {"remembered_norm": 1.101},
            "In equilibrium; the gradient has no radial part; gradients that are correlated from step to step make the "
            "norm 1.10 times that of white noise.",
        ),
        (
            ADAMW, {"remembered_norm": 0.85},
            "In equilibrium; the gradient has no radial part; gradients that burst in single coordinates or alternate "
            "make the norm 0.85 times that of white noise.",
        ),
        (ADAMW, {"steps_needed": 5000.0}, "In equilibrium; the gradient has no radial part."),
        (
            ADAMW, {"steps_needed": 5001.0},
            "On the way to equilibrium, which takes about 5e+03 steps; the gradient has no radial part.",
        ),
        (ADAMW, {"scheduled": True}, "On the course that its rates set; the gradient has no radial part."),
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
        ({"measured_norm": 2.301, "remembered_norm": 1.101}, True),  # then the norm is not claimed
    ):
        layer = judged(**change)
        assert layer.agrees == agrees
        assert layer.claims == (("rotation",) if "remembered_norm" in change else ("rotation", "norm"))
    assert layer.error("norm") == pytest.approx(0.1505) and layer.error("rotation") == 0.0
    rotation, norm = judged(measured_rotation=0.05).checks()  # one quarter of four is off
    assert (rotation.verdict, norm.verdict) == ("FAIL", "PASS") and rotation.note.startswith(
        "steps 5001 to 7500, the q"
    )
    assert judged(measured_rotation=nan).agrees is False


@pytest.mark.parametrize(
    ("quantity", "change", "verdict", "words"),
    [
        ("rotation", {"measured_rotation": 0.0448, "rotation_noise": 0.0067}, "UNRESOLVED", "may explain the miss"),
        ("rotation", {"measured_rotation": 0.0448, "rotation_noise": 0.0066}, "FAIL", "the quarter furthest off"),
        ("rotation", {"measured_rotation": 0.06, "rotation_noise": 0.1}, "FAIL", "the quarter furthest off"),
        ("rotation", {"measured_rotation": 0.1, "rotation_noise": nan}, "UNRESOLVED", "nan%"),
        ("rotation", {"rotation_noise": 0.033}, "PASS", "the quarter furthest off"),
        (
            "rotation",
            {"rotation_noise": 0.034},
            "UNRESOLVED",
            "steps 5001 to 7500: 3 standard errors are 10%, which may",
        ),
        ("norm", {"measured_norm": 2.4, "norm_noise": 0.0168}, "UNRESOLVED", "may explain the miss"),
        ("norm", {"measured_norm": 2.4, "norm_noise": 0.0165}, "FAIL", "the quarter furthest off"),
        ("norm", {"norm_noise": 0.034}, "UNRESOLVED", "may hide a miss"),
    ],
)
def test_noise_may_explain_a_miss_or_hide_one(judged, quantity, change, verdict, words):
    layer = judged(**change)
    (check,) = (check for check in layer.checks() if check.quantity == quantity)
    assert check.verdict == verdict == layer.outcome and words in check.note
    assert layer.agrees == (verdict == "PASS")


def test_how_often_a_layer_at_the_edge_of_its_tolerance_fails_by_chance():
    """In one claim of 180, as the constant says: four quarters, each one-sided."""
    chance = 4 * stats.norm.sf(diagnosis.STANDARD_ERRORS)
    assert 1 / 190 < chance < 1 / 180
    inside = 4 * stats.norm.sf(diagnosis.STANDARD_ERRORS * (1 + 0.5 * 0.1 / checks.resolution(0.1)))
    assert inside < 1e-4  # off by half of it, with the most noise that is taken


def test_a_noisy_layer_neither_passes_nor_refutes():
    good, noisy, bad = layer(), layer(rotation_noise=0.05), layer(measured_rotation=0.05)
    for layers, passed, refuted in (
        ((good, noisy), True, ()),
        ((noisy,), False, ()),
        ((good, noisy, bad), False, (bad,)),
    ):
        found = Diagnosis(ADAMW, layers)
        assert found.passed == passed and found.refuted == refuted
        assert found.summary().endswith(" 1 measured with too much noise to tell.")
    content = found.to_dict()["layers"]
    assert [one["outcome"] for one in content] == ["PASS", "UNRESOLVED", "FAIL"]
    assert [one["agrees"] for one in content] == [True, False, False]


def test_the_title_gives_the_largest_rate_of_the_optimizers_own_layers():
    own, other = layer(largest_lr=4e-3), layer(lr=1e-3, largest_lr=0.1)
    assert (
        Diagnosis(ADAMW, (own, other)).rates() == f"{rotsim.AdamW(lr=4e-3, weight_decay=0.5).describe()}, last lr 0.002"
    )
    assert Diagnosis(ADAMW, (layer(), other)).rates() == ADAMW.describe()


def layer(verdict="applies", **change):
    return LayerDiagnosis(**vars(perfect(**change)), verdict=verdict, reason="because")


def test_the_summary_counts_layers():
    good, bad, other = layer(), layer(measured_rotation=0.05), layer("dead", radial=nan)
    two = Diagnosis(ADAMW, (good, bad, other))
    assert two.summary() == (
        "The prediction applies to 2 of 3 layers and agrees in 1 of them in each quarter of the run "
        "(rotation within 10%, norm within 15%)."
    )
    assert two.claimed == (good, bad) and not two.passed and Diagnosis(ADAMW, (good, other)).passed
    none = Diagnosis(ADAMW, (other, other))
    assert none.summary() == "The prediction applies to none of 2 layers; see the reasons." and not none.passed
    assert (
        Diagnosis(MUON, (layer("no theory"),)).summary()
        == "There is no theory for Muon: 1 layers are measured, none predicted."
    )
    content = two.to_dict()
    assert content["passed"] is False and content["optimizer"] == ADAMW.to_dict()
    assert [one["agrees"] for one in content["layers"]] == [True, False, None]
    assert content["layers"][2]["radial"] is None and content["layers"][2]["claims"] == []
    assert content["layers"][1]["quarters"][2]["measured_rotation"] == 0.05 and "curves" not in content["layers"][0]
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


@pytest.mark.parametrize("level", [0.0, 0.014, 0.1])
def test_the_share_of_signal_in_what_lion_takes_the_sign_of(level):
    """A constant and white noise through Lion's two averages, step by step."""
    draw = np.random.default_rng(0)
    beta1, beta2, m, found = *LION.betas, 0.0, []
    noise = np.sqrt(1 - level) * draw.normal(size=(3000, 400))
    for g in noise:
        found.append(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
    power = np.mean(np.square(found[600:]))
    assert required_theory(LION).signal_share(level) == pytest.approx(level / (level + power), abs=0.01)
    assert required_theory(ADAMW).signal_share(level) == level


def test_each_rule_of_a_run_is_named_with_its_layers():
    muon = rotsim.Muon(0.02, 0.05)
    layers = tuple(layer(layer=name, lr=0.02, largest_lr=0.1, weight_decay=0.05) for name in ("a", "b"))
    found = Diagnosis(ADAMW, (*layers, layer()), (muon, muon, ADAMW))
    first = muon.with_rates(0.1, 0.05).describe()
    assert found.rates() == f"{first}, last lr 0.02, on 2 layers; {ADAMW.describe()}, on 1 layer"
    assert [kind["name"] for kind in found.to_dict()["optimizers"]] == ["muon", "muon", "adamw"]
    alone = Diagnosis(ADAMW, (layer(), layer()), (ADAMW, ADAMW))
    assert alone.rates() == ADAMW.describe() and "optimizers" not in alone.to_dict()
