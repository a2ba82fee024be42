"""The rotational variant as a spec: the walk against its twin, against torch, and against what it promises."""

import json

import numpy as np
import pytest

import rotsim
from rotsim.optimizers import optimizer_from_dict
from tests import chance

pytestmark = pytest.mark.machine

INNER = [rotsim.AdamW(1e-2, 0.1), rotsim.SGDM(0.1, 1e-2), rotsim.SGDM(0.1, 1e-2, nesterov=True), rotsim.Lion(1e-3, 1.0)]
SMALL = dict(dim=40, neurons=6, steps=300, record_every=50, initial_norm=2.0, seed=4, engine="numba")


@pytest.fixture(params=INNER, ids=lambda o: "nesterov" if getattr(o, "nesterov", False) else o.name)
def inner(request):
    return request.param


@pytest.mark.few(3)
@pytest.mark.parametrize("zero_mean", [True, False])
def test_kernel_and_twin_agree(inner, zero_mean):
    optimizer = rotsim.Rotational(inner, update_norm_decay=0.8, zero_mean=zero_mean)
    options = dict(SMALL, dtype="float64", lr_schedule=np.linspace(0, 1, 300))
    fast = rotsim.simulate(optimizer, **options)
    slow = rotsim.simulate(optimizer, **{**options, "engine": "numpy"})
    for name in ("norm", "rotation", "update_rms"):
        np.testing.assert_allclose(fast[name], slow[name], rtol=1e-10)
    other = rotsim.simulate(rotsim.Rotational(inner, update_norm_decay=0.8, zero_mean=not zero_mean), **options)
    assert np.abs(other["rotation"] / fast["rotation"] - 1).max() > 1e-6


def test_norm_stays_and_rotation_is_that_of_theory_without_transient(inner):
    optimizer = rotsim.Rotational(inner)
    data = rotsim.simulate(optimizer, dim=512, neurons=64, steps=400, record_every=40, initial_norm=3.0, seed=1)
    assert np.abs(data["norm"].values / 3 - 1).max() < 1e-6
    square = data["rotation"].values ** 2
    rotation, error = np.sqrt(square.mean(axis=0)), square.std(axis=0, ddof=1) / square.mean(axis=0) / 2 / np.sqrt(64)
    predicted = rotsim.equilibrium(optimizer, 512)
    # the update's size needs its own memory to settle: it grows under SGDM, falls under AdamW's bias correction
    assert abs(rotation[0] / predicted.rotation - 1) < 0.25 and abs(rotation[1] / predicted.rotation - 1) < 0.03
    assert (np.abs(rotation / predicted.rotation - 1) < 1 / 512 + chance.errors(64, 8) * error)[2:].all()
    assert error.max() < 1e-3
    # a running mean that holds the newest length costs a share of order 1/dim; Lion's length is constant
    leading = rotsim.equilibrium(inner, 512, method="leading").rotation
    assert predicted.rotation == pytest.approx(leading, rel=1 / 512)
    assert (predicted.rotation == leading) == (inner.name == "lion")
    assert np.isnan(predicted.norm) and predicted.relaxation_steps == 0
    plain = rotsim.simulate(inner, dim=512, neurons=64, steps=400, record_every=40, initial_norm=0.1, seed=1)
    assert abs(np.sqrt((plain["rotation"].values[:, 3] ** 2).mean()) / predicted.rotation - 1) > 0.1


def test_comparison_judges_the_rotation_alone(inner):
    optimizer = rotsim.Rotational(inner)
    data = rotsim.simulate(optimizer, dim=512, neurons=32, steps=3000, record_every=50, seed=2)
    k = chance.errors(32)
    report = rotsim.compare(data, rotsim.equilibrium(optimizer, 512), k=k)
    assert report.passed and "nan" not in report.table().lower()
    wrong = rotsim.Rotational(inner.with_rates(1.1 * inner.lr, inner.weight_decay))
    assert not rotsim.compare(data, rotsim.equilibrium(wrong, 512), k=k).passed


def test_same_bits_when_resumed(inner):
    optimizer = rotsim.Rotational(inner)
    whole = rotsim.simulate(optimizer, keep_state=True, **SMALL)
    part = rotsim.simulate(optimizer, keep_state=True, **{**SMALL, "steps": 133})
    again = rotsim.simulate(optimizer, keep_state=True, resume=part, threads=1, **SMALL)
    assert whole.drop_attrs().identical(again.drop_attrs())


@pytest.mark.parametrize("zero_mean", [True, False])
def test_walk_takes_the_steps_of_the_torch_optimizers(inner, zero_mean):
    torch = pytest.importorskip("torch")
    from rotsim import measure

    rng = np.random.default_rng(3)
    weights, gradients = rng.normal(size=(6, 40)), rng.normal(size=(50, 6, 40))
    weights -= weights.mean(axis=1, keepdims=True)  # in training the first turn takes the mean out
    kind = {"adamw": measure.RotationalAdamW, "sgdm": measure.RotationalSGDM, "lion": measure.RotationalLion}
    options = {key: value for key, value in inner.to_dict().items() if key not in ("name", "dampening")}
    if not options.get("nesterov"):
        options.pop("nesterov", None)
    parameter = torch.nn.Parameter(torch.tensor(weights))
    reference = kind[inner.name]([parameter], **options, zero_mean=zero_mean, update_norm_decay=0.7)
    for g in gradients:
        parameter.grad = torch.tensor(g)
        reference.step()
    walk = rotsim.simulate(
        rotsim.Rotational(inner, update_norm_decay=0.7, zero_mean=zero_mean),
        steps=50, gradient=rotsim.Replay(gradients), initial_weights=weights, dtype="float64", keep_state=True,
    )  # fmt: skip
    np.testing.assert_allclose(walk["state"].values[:, 0], parameter.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_spec_round_trips(inner):
    optimizer = rotsim.Rotational(inner, update_norm_decay=0.5, zero_mean=False)
    assert optimizer_from_dict(json.loads(json.dumps(optimizer.to_dict()))) == optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (inner.lr, inner.weight_decay)
    assert optimizer.with_rates(1e-3, 0.5).inner == inner.with_rates(1e-3, 0.5)
    assert inner.describe() in optimizer.describe()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rotsim.Rotational("adamw"), "`inner` must be a spec such as"),
        (lambda: rotsim.Rotational(rotsim.Rotational(INNER[0])), "`inner` must be a spec such as"),
        (lambda: rotsim.Rotational(rotsim.AdamL2(1e-3, 0.1)), "depends on the gradient's size.*AdamW, SGDM or Lion"),
        (lambda: rotsim.Rotational(rotsim.AdamW(1e-3, 0.0)), "`weight_decay` must be > 0"),
        (lambda: rotsim.Rotational(INNER[0], update_norm_decay=1.0), r"`update_norm_decay` must be in \[0, 1\)"),
        (lambda: rotsim.Rotational(INNER[0], zero_mean=1), "`zero_mean` must be True or False"),
        (lambda: rotsim.Rotational(INNER[0], exact_angle=True), "`exact_angle=True` is for Lion; got inner=AdamW"),
        (lambda: rotsim.simulate(rotsim.Rotational(INNER[0]), dim=2), "`dim` must be >= 3"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        make()
