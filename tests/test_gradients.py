"""Gradient models: the sampler against its NumPy twin, and against what each says it is."""

import numpy as np
import pytest
from scipy import stats

import rotsim
from rotsim.gradients import GRADIENTS
from rotsim.noise import GRADIENT_STREAM, neuron_keys
from tests import chance

pytestmark = pytest.mark.machine

NEURONS, DIM, STEPS = 4, 30, 40
SCALES = (0.5, 1.0, 1.5, 2.0)
SERIES = 1 + 0.9 * np.sin(np.arange(STEPS))
MODELS = [
    rotsim.Isotropic(SCALES),
    rotsim.ScaleInvariant(SCALES),
    rotsim.Replay(np.random.default_rng(1).normal(size=(STEPS, NEURONS, DIM))),
    rotsim.LayerInvariant(push=(-1.0, 0.0, 0.5, 2.0), scale=SCALES),
    rotsim.SimpleSystem(8, gain_out=SCALES, gain_in=tuple(np.linspace(0.5, 2, DIM))),
] + [
    model
    for invariant in (True, False)
    for model in (
        rotsim.Signal(0.3, scale=SCALES, scale_invariant=invariant),
        rotsim.Autocorrelated((-0.9, 0.0, 0.5, 0.95), scale_invariant=invariant),
        rotsim.Bursts(SERIES, scale_invariant=invariant),
        rotsim.StudentT((2.5, 4.0, 10.0, 1e6), scale_invariant=invariant),
        rotsim.Radial((-0.05, 0.0, 0.5, 2.0), scale=0.7, scale_invariant=invariant),
    )
]


def name_of(model):
    return f"{model.name}{'' if getattr(model, 'scale_invariant', True) else '_isotropic'}"


def run(optimizer, model, **changes):
    options = dict(dim=DIM, neurons=NEURONS, steps=STEPS, record_every=10, seed=5, dtype="float64", initial_norm=1.5)
    options["engine"] = "numba"  # the samplers are tested, which "auto" can leave out
    return rotsim.simulate(optimizer, gradient=model, **{**options, **changes})


def test_every_model_is_tested_here():
    assert {model.name for model in MODELS} == set(GRADIENTS)
    assert {type(model).__name__ for model in MODELS} <= set(rotsim.__all__)


@pytest.mark.few(5)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_sampler_and_numpy_twin_agree(model):
    fast = run(rotsim.SGDM(0.1, 0.1), model)
    slow = run(rotsim.SGDM(0.1, 0.1), model, engine="numpy")
    # the normals are float32 in both; log and cosine of Student's t come from two libraries
    for name in ("norm", "rotation", "update_rms"):
        np.testing.assert_allclose(fast[name], slow[name], rtol=1e-9)
    other = run(rotsim.SGDM(0.1, 0.1), model, seed=6)
    assert model.name == "replay" or abs(fast["rotation"] / other["rotation"] - 1).max() > 1e-3


@pytest.mark.parametrize("model", MODELS[3:10], ids=name_of)
def test_same_bits_for_any_threads_and_when_resumed(model):
    optimizer = rotsim.SGDM(0.1, 0.1)
    whole = run(optimizer, model, keep_state=True, threads=1)
    part = run(optimizer, model, keep_state=True, steps=17)
    again = run(optimizer, model, keep_state=True, resume=part, threads=3)
    assert whole.drop_attrs().identical(again.drop_attrs())


def draws(model, steps=400, dim=DIM, neurons=NEURONS, w=None):
    """Gradients at fixed weights, shape (steps, neurons, dim)."""
    w = np.random.default_rng(0).normal(size=(neurons, dim)) if w is None else w
    keys = neuron_keys(3, neurons, GRADIENT_STREAM)
    parameters = np.broadcast_to(model.parameters(), (neurons, model.parameters().shape[1]))
    memory = np.zeros((neurons, model.memory_slots, dim))
    found = []
    for t in range(1, steps + 1):
        data = model.given(np.array([t]), np.dtype(np.float64), w, keys)
        found.append(model.at(w, keys, t, parameters, memory, data[0] if len(data) else data))
    return np.array(found), w


def test_signal_has_the_ratio_it_says():
    found, _ = draws(rotsim.Signal(0.3, scale=2.0, scale_invariant=False))
    size = found[0].size * len(found)
    k = chance.errors(size, 2)
    assert abs(found.mean() - 0.6) < k * 2 / np.sqrt(size) < 0.1
    assert abs(found.std() - 2) < k * 2 / np.sqrt(2 * size)


def test_autocorrelated_has_the_correlation_it_says_from_the_first_step():
    found, _ = draws(rotsim.Autocorrelated(0.7, scale_invariant=False), steps=300, dim=400)
    k = chance.errors(found[0].size, 5)
    for lag in range(4):
        products = (found[: len(found) - lag] * found[lag:]).mean(axis=0).ravel()
        assert abs(products.mean() - 0.7**lag) < k * products.std() / np.sqrt(products.size)
    assert abs(found[0].var() - 1) < k * np.sqrt(2 / found[0].size)


def test_student_t_is_student_t_and_not_gaussian():
    found, _ = draws(rotsim.StudentT(5.0, scale_invariant=False), steps=200, dim=200)
    sample = found.ravel() * np.sqrt(5 / 3)
    assert stats.kstest(sample, stats.t(5).cdf).pvalue > chance.share()
    assert stats.kstest(sample / np.sqrt(5 / 3), stats.norm.cdf).pvalue < 1e-6
    assert abs(found.var() - 1) < 0.05


@pytest.mark.parametrize("model", [m for m in MODELS if getattr(m, "scale_invariant", False)], ids=name_of)
def test_scale_invariant_models_are_homogeneous_and_orthogonal(model):
    """Doubling w halves g, and g is orthogonal to w, but for the pull of Radial, which is strength·w."""
    found, w = draws(model, steps=5)
    double, _ = draws(model, steps=5, w=2 * w)
    pull = np.array(model.strength)[:, None] * w if model.name == "radial" else 0 * w
    np.testing.assert_allclose(double - 2 * pull, (found - pull) / 2, rtol=1e-6, atol=1e-9)
    assert np.abs(((found - pull) * w).sum(axis=-1)).max() < 1e-6
    if model.name == "radial":
        np.testing.assert_allclose((found * w).sum(axis=-1), (pull * w).sum(axis=-1)[None].repeat(5, 0), atol=1e-6)


def test_simple_system_is_what_autograd_gives():
    torch = pytest.importorskip("torch")
    from rotsim.noise import normals

    model, batch = MODELS[4], 8
    found, weights = draws(model, steps=3)
    keys = neuron_keys(3, NEURONS, GRADIENT_STREAM)
    gain_in = torch.tensor(model.gain_in, dtype=torch.float64)
    for t in range(3):
        drawn = torch.tensor(normals(keys, t + 1, batch * (DIM + 1)), dtype=torch.float64)
        for i in range(NEURONS):
            w = torch.tensor(weights[i], requires_grad=True)
            x, r = drawn[i, : batch * DIM].view(batch, DIM), drawn[i, batch * DIM :]
            y = (x * gain_in) @ w
            out = model.gain_out[i] * torch.nn.functional.batch_norm(y[:, None], None, None, training=True, eps=1e-14)
            (r @ out[:, 0] / batch).backward()
            np.testing.assert_allclose(found[t, i], w.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert np.abs((found * weights).sum(axis=-1)).max() < 1e-12  # scale-invariant by construction


def test_layer_invariant_is_orthogonal_as_a_whole_and_not_row_by_row():
    found, w = draws(rotsim.LayerInvariant(push=(-1.0, 0.0, 0.0, 1.0)), steps=2000)
    assert np.abs((found * w).sum(axis=(1, 2))).max() < 1e-9
    radial = (found * w).sum(axis=-1) / (w**2).sum(axis=-1)
    mean, error = radial.mean(axis=0), radial.std(axis=0) / np.sqrt(len(radial))
    row = np.sqrt((w**2).sum() / NEURONS)
    push = np.array([-1.0, 0.0, 0.0, 1.0])
    shared = (push * (w**2).sum(axis=1)).sum() / (w**2).sum()
    k = chance.errors(len(radial), NEURONS)
    assert (np.abs(mean - (push - shared) / row**2) < k * error).all()
    assert (np.abs(mean[[0, 3]]) > 20 * error[[0, 3]]).all()


def test_layer_invariant_without_push_is_scale_invariant_noise():
    """Many neurons of one scale: the layer's norm stands for each neuron's, up to 1/neurons and 1/dim."""
    options = dict(dim=100, neurons=40, steps=3000, initial_norm=1.0, record_every=100)
    layer = rotsim.simulate(rotsim.SGDM(0.1, 0.01), gradient=rotsim.LayerInvariant(), **options)
    eq = rotsim.equilibrium(rotsim.SGDM(0.1, 0.01), 100)
    tail = layer.isel(step=slice(15, None))
    assert abs(float(tail["rotation"].mean()) / eq.rotation - 1) < 0.02
    assert abs(float((tail["norm"] ** 2).mean()) ** 0.5 / eq.norm - 1) < 0.03


def test_plain_limits_are_scale_invariant_noise():
    """Ratio, correlation and strength 0, factor 1: the walk of ScaleInvariant."""
    reference = run(rotsim.SGDM(0.1, 0.1), rotsim.ScaleInvariant(0.8))
    for model in (
        rotsim.Signal(0.0, scale=0.8),
        rotsim.Autocorrelated(0.0, scale=0.8),
        rotsim.Bursts(np.ones(STEPS), scale=0.8),
        rotsim.Radial(0.0, scale=0.8),
    ):
        np.testing.assert_allclose(run(rotsim.SGDM(0.1, 0.1), model)["norm"], reference["norm"], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rotsim.Isotropic((1.0, 0.0)), r"`scale\[1\]` must be finite and > 0; got 0.0"),
        (lambda: rotsim.Isotropic(np.ones((2, 2))), r"`scale` must be one number or one per neuron; got shape"),
        (lambda: rotsim.Signal("high"), "`ratio` must be a number; got 'high'"),
        (lambda: rotsim.Autocorrelated(1.0), r"`correlation` must be in \(-1, 1\); got 1.0"),
        (lambda: rotsim.StudentT(2.0), "`degrees` must be > 2.*got 2.0"),
        (lambda: rotsim.Radial(float("nan")), "`strength` must be finite; got nan"),
        (lambda: rotsim.Radial(1.0, scale_invariant=1), "`scale_invariant` must be True or False; got 1"),
        (lambda: rotsim.Bursts([1.0, -1.0]), "`series` must be finite factors >= 0"),
        (lambda: rotsim.Bursts([[1.0]]), r"`series` must be .* got shape \(1, 1\)"),
        (lambda: rotsim.SimpleSystem(2), "`batch` must be >= 3; got 2"),
        (lambda: rotsim.SimpleSystem(4, gain_in=0.0), "`gain_in` must not be 0; got 0.0"),
        (lambda: rotsim.LayerInvariant((1.0, 2.0), scale=(1.0, 1.0, 1.0)), r"one length; got \[2, 3\]"),
        (lambda: run(rotsim.SGDM(0.1, 0.1), rotsim.Isotropic((1.0, 2.0))), "2 neurons of any dim, which contradicts"),
        (lambda: run(rotsim.SGDM(0.1, 0.1), MODELS[4], dim=31), "`gradient` has 4 neurons of dim 30"),
        (lambda: run(rotsim.SGDM(0.1, 0.1), rotsim.Bursts(np.ones(39))), "`steps` must be <= 39"),
        (lambda: rotsim.equilibrium(rotsim.SGDM(0.1, 0.1), 30, rotsim.Isotropic((1.0, 2.0))), "must be one number"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(rotsim.InvalidInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
