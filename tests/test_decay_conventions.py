"""Conventions of decay under a schedule: what a step takes of the weights, in walks and in courses."""

import numpy as np
import pytest

import rotsim
from rotsim.schedules import CONVENTIONS, cosine, linear, warmup

STEPS = 40
FACTORS = 2 * warmup(8, linear(STEPS - 8, 0.1))(np.arange(1, STEPS + 1))
SPECS = [rotsim.AdamW(0.05, 0.4), rotsim.NAdamW(0.05, 0.4), rotsim.Lion(0.05, 0.4), rotsim.Signum(0.05, 0.4)]
RUN = dict(dim=8, steps=STEPS, lr_schedule=FACTORS, record_every=1)


def taken(convention, spec):
    """Share of the weights that each step takes, as the convention is written in words of its own."""
    lr = spec.lr * FACTORS
    return {
        "decoupled": lr * spec.weight_decay,
        "corrected": lr * spec.weight_decay * lr / lr.max(),
        "independent": np.full(STEPS, spec.lr * spec.weight_decay),
    }[convention]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_step_without_gradient_takes_the_share_that_the_convention_says(spec, convention):
    nothing = rotsim.Replay(np.zeros((STEPS, 1, 8)))
    walk = rotsim.simulate(spec, gradient=nothing, wd_schedule=convention, dtype="float64", engine="numpy", **RUN)
    norm = np.append(1.0, walk["norm"].values[0])
    np.testing.assert_allclose(1 - norm[1:] / norm[:-1], taken(convention, spec), rtol=1e-9)


@pytest.mark.parametrize("spec", [*SPECS, rotsim.SGDM(0.05, 0.4)], ids=lambda spec: spec.name)
def test_a_convention_is_a_schedule(spec):
    """Of the factors 1, f/max f and 1/f, in courses and walks to the last bit."""
    factors = {"decoupled": None, "corrected": FACTORS / FACTORS.max(), "independent": 1 / FACTORS}
    norms = []
    for convention, same in factors.items():
        for compute, more in ((rotsim.predict, {}), (rotsim.simulate, {"engine": "numpy", "neurons": 2})):
            ours, theirs = (compute(spec, wd_schedule=given, **RUN, **more) for given in (convention, same))
            assert ours.drop_attrs().identical(theirs.drop_attrs())
            assert rotsim.dataset.spec_of(ours)["wd_schedule"] == rotsim.dataset.spec_of(theirs)["wd_schedule"]
        norms.append(float(ours["norm"][0, -1]))
    assert len({round(norm, 4) for norm in norms}) == 3  # negative control: they differ


def test_corrected_decay_keeps_the_norm_and_independent_decay_shrinks_it():
    spec, steps = rotsim.AdamW(0.01, 0.1), 20_000
    start = rotsim.equilibrium(spec, 256).norm
    run = dict(dim=256, steps=steps, initial_norm=start, lr_schedule=cosine(steps, 0.1))
    last = {c: rotsim.predict(spec, wd_schedule=c, **run)["norm"].values[0, -1] / start for c in CONVENTIONS}
    assert last["corrected"] == pytest.approx(1, abs=0.02)
    assert last["independent"] < 0.5 * last["decoupled"] < 0.5


def test_a_walk_goes_on_under_the_same_convention():
    run = dict(dim=8, neurons=2, lr_schedule=lambda step: 1 / (1 + step), keep_state=True, wd_schedule="corrected")
    part = rotsim.simulate(SPECS[0], steps=7, **run)
    assert rotsim.simulate(SPECS[0], steps=9, resume=part, **run).identical(rotsim.simulate(SPECS[0], steps=9, **run))


@pytest.mark.parametrize("compute", [rotsim.predict, rotsim.simulate], ids=lambda compute: compute.__name__)
@pytest.mark.parametrize(
    ("convention", "schedule", "message"),
    [
        ("independent", cosine(STEPS), f"`lr_schedule` must be above 0 at every step .* it is 0 at step {STEPS}"),
        ("amsgrad", None, "`wd_schedule` must be .decoupled., .corrected. or .independent.; got .amsgrad."),
        ("corrected", lambda step: -step, "`lr_schedule` must give finite factors >= 0"),
    ],
)
def test_what_has_no_factors_is_refused_in_one_line(compute, convention, schedule, message):
    with pytest.raises(rotsim.InvalidInput, match=f"^{message}[^\n]*$"):
        compute(SPECS[0], dim=8, steps=STEPS, lr_schedule=schedule, wd_schedule=convention)
