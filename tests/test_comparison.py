"""Verdicts: what passes, what fails, and what is honestly left open."""

from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim.comparison import Report

OPTIMIZER = rotsim.SGDM(lr=0.1, weight_decay=0.05)
EQ = rotsim.equilibrium(OPTIMIZER, 128)


@pytest.fixture(scope="module")
def walk():
    return rotsim.simulate(OPTIMIZER, dim=128, neurons=32, steps=4000, initial_norm=EQ.norm)


def test_report(walk):
    report = rotsim.compare(walk, EQ)
    assert report.passed
    assert [c.quantity for c in report] == ["norm", "rotation", "update_rms"]
    for check in report:
        assert check.relative_error == pytest.approx(check.measured / check.predicted - 1)
        assert check.z == pytest.approx((check.measured - check.predicted) / check.standard_error)
        assert check.tolerance == EQ.model_error
    lines = report.table().splitlines()
    assert len(lines) == 4 and "verdict" in lines[0] and "PASS" in lines[1]
    assert report.to_dict()["passed"] is True and len(report.to_dict()["checks"]) == 3


def test_an_empty_report_does_not_pass():
    assert not Report(()).passed


def test_fail_is_outside_both_tolerances(walk):
    far = replace(EQ, norm=EQ.norm * 1.05)
    verdicts = [c.verdict for c in rotsim.compare(walk, far)]
    assert verdicts == ["FAIL", "PASS", "PASS"]
    assert rotsim.compare(walk, far, tolerance={"norm": 0.06}).passed
    assert not rotsim.compare(walk, far, tolerance=0.001).passed
    assert rotsim.compare(walk, far, quantities=("rotation",)).passed


def test_not_equilibrated_names_the_steps_needed():
    slow = rotsim.AdamW(lr=1e-3, weight_decay=0.01)
    data = rotsim.simulate(slow, dim=128, neurons=32, steps=3000, initial_norm=0.1)
    report = rotsim.compare(data, rotsim.equilibrium(slow, 128))
    assert not report.passed
    assert {c.verdict for c in report} == {"NOT EQUILIBRATED"}
    assert "steps needed" in report.checks[0].note


def test_too_noisy_is_unresolved():
    optimizer = rotsim.SGDM(lr=0.1, weight_decay=1e-3)
    white = rotsim.Isotropic()
    eq = rotsim.equilibrium(optimizer, 16, white)
    data = rotsim.simulate(optimizer, dim=16, neurons=2, steps=3000, gradient=white, initial_norm=eq.norm)
    verdicts = {c.quantity: c.verdict for c in rotsim.compare(data, eq, tolerance=0.01)}
    assert verdicts["norm"] in ("UNRESOLVED", "NOT EQUILIBRATED")


def test_nan_never_passes(walk):
    broken = walk.copy(deep=True)
    broken["norm"].values[:, -1] = np.nan
    assert not rotsim.compare(broken, EQ).passed


@pytest.mark.parametrize("declared", [0.11, 1.0, np.inf, np.nan])
def test_a_large_declared_error_buys_no_pass(walk, declared):
    """A prediction that declares more than 10 % is refuted or left open, at any tolerance."""
    honest = replace(EQ, model_error=declared)
    assert {c.verdict for c in rotsim.compare(walk, honest)} <= {"UNRESOLVED", "FAIL"}
    assert {c.verdict for c in rotsim.compare(walk, honest, tolerance=0.01)} == {"UNRESOLVED"}
    assert "confirms nothing" in rotsim.compare(walk, honest, tolerance=0.01).checks[0].note
    far = replace(honest, norm=50 * EQ.norm, rotation=EQ.rotation / 50)
    verdicts = {c.quantity: c.verdict for c in rotsim.compare(walk, far)}
    assert verdicts["rotation"] == ("UNRESOLVED" if declared == np.inf else "FAIL")
    assert rotsim.compare(walk, replace(EQ, model_error=0.1)).passed


def test_a_large_declared_error_in_one_window_buys_no_pass():
    course = rotsim.predict(OPTIMIZER, dim=128, steps=400, initial_norm=EQ.norm, record_every=100)
    data = rotsim.simulate(OPTIMIZER, dim=128, neurons=32, steps=400, initial_norm=EQ.norm, record_every=100)
    assert rotsim.compare(data, course).passed
    for declared in (0.2, np.inf):
        doubtful = course.copy(deep=True)
        doubtful["norm_model_error"].values[0, 1] = declared
        verdicts = {c.quantity: c.verdict for c in rotsim.compare(data, doubtful)}
        assert verdicts == {"norm": "UNRESOLVED", "rotation": "PASS", "update_rms": "PASS"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: rotsim.compare(3, EQ), rotsim.InvalidInput, "`measured` must be a dataset"),
        (lambda w: rotsim.compare(w, 3), rotsim.InvalidInput, "`predicted` must be an Equilibrium or a dataset"),
        (lambda w: rotsim.compare(w, EQ, k=-1), rotsim.InvalidInput, "`k` must be finite and > 0"),
        (lambda w: rotsim.compare(w, EQ, quantities=("speed",)), rotsim.InvalidInput, "got speed"),
        (lambda w: rotsim.compare(w, w.isel(neuron=slice(3))), rotsim.InvalidInput, "predict for the same trace"),
        (lambda w: rotsim.compare(w.drop_attrs(), EQ), rotsim.DatasetError, "not a rotsim dataset"),
    ],
)
def test_bad_input(call, error, message, walk):
    with pytest.raises(error, match=message):
        call(walk)
