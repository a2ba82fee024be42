"""The walk: same bits however it is cut up, same numbers as its NumPy twin, clear refusals."""

import signal

import numpy as np
import pytest
import xarray as xr
from numba import njit
from numba.core import caching

import rotsim
from rotsim import memory, noise
from rotsim.dataset import QUANTITIES
from rotsim.simulation import Diverged, walk
from tests import chance
from tests.conftest import chunks_of, press_ctrl_c

pytestmark = pytest.mark.machine

SMALL = dict(dim=33, neurons=5, steps=600, record_every=50, initial_norm=2.0, seed=11, engine="numba")


def same_bits(a: xr.Dataset, b: xr.Dataset) -> bool:
    return a.drop_attrs().identical(b.drop_attrs())


@pytest.mark.few(6)
def test_same_bits_for_any_threads_and_chunks(optimizer, gradient, monkeypatch):
    reference = rotsim.simulate(optimizer, gradient=gradient, keep_state=True, threads=1, **SMALL)
    assert same_bits(reference, rotsim.simulate(optimizer, gradient=gradient, keep_state=True, threads=3, **SMALL))
    for longest in (1, 7, 64):
        chunks_of(monkeypatch, longest)
        again = rotsim.simulate(optimizer, gradient=gradient, keep_state=True, **SMALL)
        assert same_bits(reference, again), f"chunks of {longest}"


@pytest.mark.few(5)
def test_same_bits_when_resumed_through_a_file(optimizer, gradient, tmp_path):
    whole = rotsim.simulate(optimizer, gradient=gradient, keep_state=True, **SMALL)
    part = rotsim.simulate(optimizer, gradient=gradient, keep_state=True, **{**SMALL, "steps": 250})
    path = rotsim.save(part, tmp_path / "part.nc")
    resumed = rotsim.simulate(optimizer, gradient=gradient, keep_state=True, resume=rotsim.load(path), **SMALL)
    assert same_bits(whole, resumed)


@pytest.mark.parametrize("done", [1, 49, 50, 333])
def test_same_bits_when_resumed_in_the_middle_of_a_window(done):
    optimizer = rotsim.AdamW(1e-2, 0.1)
    whole = rotsim.simulate(optimizer, keep_state=True, **SMALL)
    part = rotsim.simulate(optimizer, keep_state=True, **{**SMALL, "steps": done})
    assert same_bits(whole, rotsim.simulate(optimizer, keep_state=True, resume=part, **SMALL))


def interrupt_after(steps):
    def progress(done, total):
        if done >= steps:
            press_ctrl_c()

    return progress


def test_ctrl_c_leaves_what_a_shorter_run_returns(monkeypatch):
    chunks_of(monkeypatch, 77)
    optimizer = rotsim.AdamW(1e-2, 0.1)
    with pytest.raises(rotsim.Interrupted, match="after 231 steps") as caught:
        rotsim.simulate(optimizer, progress=interrupt_after(200), **SMALL)
    assert isinstance(caught.value, KeyboardInterrupt)
    shorter = rotsim.simulate(optimizer, keep_state=True, **{**SMALL, "steps": 231})
    assert same_bits(caught.value.dataset, shorter)
    assert caught.value.dataset.attrs["spec"] == shorter.attrs["spec"]
    whole = rotsim.simulate(optimizer, **SMALL)
    assert same_bits(whole, rotsim.simulate(optimizer, resume=caught.value.dataset, **SMALL))


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    chunks_of(monkeypatch, 77)

    def twice(done, total):
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(KeyboardInterrupt) as caught:
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), progress=twice, **SMALL)
    assert not isinstance(caught.value, rotsim.Interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_background_job_goes_on(monkeypatch):
    chunks_of(monkeypatch, 77)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        rotsim.simulate(
            rotsim.SGDM(0.1, 0.01), progress=lambda done, total: signal.raise_signal(signal.SIGINT), **SMALL
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_checkpoint_is_a_valid_run_so_far(tmp_path, monkeypatch):
    chunks_of(monkeypatch, 130)
    path, seen = tmp_path / "walk.nc", []

    def progress(done, total):  # called before the checkpoint of the same chunk
        if path.exists():
            seen.append(int(rotsim.load(path).step[-1]))

    whole = rotsim.simulate(
        rotsim.AdamW(1e-2, 0.1), progress=progress, checkpoint=path, checkpoint_seconds=1e-9, **SMALL
    )
    assert seen == [130, 260, 390, 520]
    again = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **SMALL)
    assert same_bits(whole, again)
    part = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), checkpoint=path, checkpoint_seconds=1e-9, **{**SMALL, "steps": 390})
    assert same_bits(again, rotsim.simulate(rotsim.AdamW(1e-2, 0.1), resume=rotsim.load(path), **SMALL))
    assert part.step.values[-1] == 390


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dim": 10**9, "neurons": 10**5, "engine": "numba"}, "or take engine='gram'"),
        ({"steps": 2**32 - 1, "record_every": 1}, "records 1.44e"),
    ],
)
def test_a_run_too_large_for_memory_is_refused_with_the_estimate(options, part):
    with pytest.raises(rotsim.InvalidInput, match=r"needs about .* GiB") as caught:
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), **{**SMALL, **options})
    assert part in str(caught.value)


def test_memory_limit_is_the_available_one(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    memory.check_fits(600, 400)
    with pytest.raises(rotsim.InvalidInput):
        memory.check_fits(600, 401)


@pytest.mark.slow
def test_without_any_place_for_a_cache(monkeypatch):
    """A read-only installation and home: numba finds no cache directory and says so at decoration."""
    expected = rotsim.simulate(rotsim.SGDM(0.1, 0.01), **SMALL)
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        njit(cache=True)(lambda x: x)
    uncached = walk.kernel.__wrapped__
    monkeypatch.setattr(walk, "kernel", uncached)
    assert same_bits(expected, rotsim.simulate(rotsim.SGDM(0.1, 0.01), **SMALL))


def test_another_seed_neuron_or_step_is_other_noise(optimizer):
    """Negative control of the two tests above: they could not pass on constants."""
    a = rotsim.simulate(optimizer, **SMALL)
    b = rotsim.simulate(optimizer, **{**SMALL, "seed": 12})
    assert np.isclose(a["norm"], b["norm"], rtol=1e-6).mean() < 0.1  # one of many may be as near
    assert len(np.unique(a["rotation"])) == a["rotation"].size


def test_first_neurons_do_not_depend_on_how_many_there_are(optimizer):
    many = rotsim.simulate(optimizer, **SMALL)
    few = rotsim.simulate(optimizer, **{**SMALL, "neurons": 2})
    for name in QUANTITIES:
        assert np.array_equal(many[name][:2], few[name])


@pytest.mark.draws
@pytest.mark.parametrize("make", [rotsim.AdamW, rotsim.AdamL2])
def test_a_normal_of_exactly_zero_is_no_step(make):
    """Without ε, Adam's first step on a zero gradient would be 0/0."""
    zero = noise.normals(noise.neuron_keys(4045, 1, noise.GRADIENT_STREAM), 1, 4096)[0] == 0
    assert zero.sum() == 2  # one pair whose radius rounds to 0, about once in 3e7 pairs
    start = np.ones((1, 4096))
    options = dict(steps=1, seed=4045, initial_weights=start, gradient=rotsim.Isotropic(), keep_state=True)
    for engine in ("numba", "numpy"):
        data = rotsim.simulate(make(0.125, 0.0, eps=0.0), engine=engine, **options)
        moved = np.abs(data["state"].values[0, 0] - 1)
        assert (moved[zero] == 0).all()
        np.testing.assert_allclose(moved[~zero], 0.125, rtol=1e-4)  # Adam's first step has size lr


@pytest.mark.few(20)
@pytest.mark.parametrize("dim", [2, 3, 64, 257])
def test_numpy_twin(optimizer, gradient, dim):
    options = {**SMALL, "dim": dim, "steps": 200, "dtype": "float64"}
    kernel = rotsim.simulate(optimizer, gradient=gradient, **options)
    twin = rotsim.simulate(optimizer, gradient=gradient, **{**options, "engine": "numpy"})
    for name in QUANTITIES:
        np.testing.assert_allclose(kernel[name], twin[name], rtol=1e-10, err_msg=name)


def single_over_double(optimizer, **options):
    """Largest relative deviation of float32 records from float64 ones on the same noise; the float64 rotation."""
    single, double = (rotsim.simulate(optimizer, dtype=dtype, **options) for dtype in ("float32", "float64"))
    return max(np.abs(single[name] / double[name] - 1).max().item() for name in QUANTITIES), double["rotation"].values


def bound_of_float32(optimizer):
    """As `simulate` states it."""
    if optimizer.shape == "sign":  # rounding turns the sign of a momentum near zero, and then its step
        return 1e-3
    rounded = 1.5e-8 / (1 - optimizer.betas[1]) if hasattr(optimizer, "betas") else 0.0  # 1 - β2 in float32
    return 1e-5 + rounded


@pytest.mark.few(5)
def test_float32_follows_float64_on_the_same_noise(optimizer, gradient):
    options = {**SMALL, "dim": 256, "steps": 5000}
    assert single_over_double(optimizer, gradient=gradient, **options)[0] < bound_of_float32(optimizer)


def test_float32_errs_as_its_beta2_does():
    """The bound follows 1/(1-β2), and would not hold without that term."""
    optimizer = rotsim.AdamW(1e-3, 0.1, betas=(0.9, 0.99999))
    assert 1e-4 < single_over_double(optimizer, **SMALL)[0] < bound_of_float32(optimizer)


TINY = [
    rotsim.AdamW(lr=1e-6, weight_decay=1e-3),
    rotsim.AdamL2(lr=1e-6, weight_decay=1e-3),
    rotsim.SGDM(lr=1e-5, weight_decay=1e-3),
    rotsim.Lion(lr=1e-6, weight_decay=1e-3),
]


@pytest.mark.parametrize("tiny", TINY, ids=lambda o: o.name)
def test_rotations_of_a_microradian_are_right_in_float32(tiny):
    options = dict(dim=512, neurons=4, steps=2000, record_every=100, initial_norm=15.0)
    deviation, rotation = single_over_double(tiny, **options)
    assert 1e-7 < rotation[:, -1].mean() < 2e-6
    assert deviation < 1e-2


def test_initial_weights_and_norm():
    weights = np.random.default_rng(0).normal(size=(3, 10))
    optimizer = rotsim.AdamW(lr=1e-9, weight_decay=0.0)
    given = rotsim.simulate(optimizer, steps=1, initial_weights=weights, dtype="float64")
    np.testing.assert_allclose(given["norm"].values[:, 0], np.linalg.norm(weights, axis=1), rtol=1e-6)
    drawn = rotsim.simulate(optimizer, dim=10, neurons=3, steps=1, initial_norm=[1.0, 2.0, 3.0], dtype="float64")
    np.testing.assert_allclose(drawn["norm"].values[:, 0], [1, 2, 3], rtol=1e-6)


def test_schedule_scales_the_learning_rate(optimizer):
    constant = rotsim.simulate(optimizer, **SMALL)
    ones = rotsim.simulate(optimizer, lr_schedule=np.ones(SMALL["steps"]), **SMALL)
    function = rotsim.simulate(optimizer, lr_schedule=lambda step: np.where(step > 300, 0.0, 1.0), **SMALL)
    for name in QUANTITIES:
        assert np.array_equal(constant[name], ones[name])
        assert np.array_equal(constant[name][:, :6], function[name][:, :6])
    assert (function["update_rms"][:, 6:] == 0).all() and (function["rotation"][:, 6:] == 0).all()


@pytest.mark.parametrize("engine", ["numba", "gram"])
def test_schedule_scales_the_weight_decay(engine):
    """Three halves of one decay is half of the threefold one; and `resume` asks for the same schedule."""
    weaker, stronger = rotsim.SGDM(0.1, 0.01), rotsim.SGDM(0.1, 0.03)
    half, three_halves = (lambda step, factor=factor: np.full(step.shape, factor) for factor in (0.5, 1.5))
    part = rotsim.simulate(
        weaker, wd_schedule=three_halves, keep_state=True, **{**SMALL, "engine": engine, "steps": 130}
    )
    assert same_bits(
        rotsim.simulate(weaker, wd_schedule=three_halves, resume=part, **{**SMALL, "engine": engine}),
        rotsim.simulate(stronger, wd_schedule=half, **{**SMALL, "engine": engine}),
    )
    with pytest.raises(rotsim.InvalidInput, match="`resume` was run with wd_schedule="):
        rotsim.simulate(weaker, wd_schedule=half, resume=part, **{**SMALL, "engine": engine})


def test_weight_decay_zero_grows_without_bound():
    optimizer = rotsim.AdamW(lr=0.01, weight_decay=0.0)
    white = rotsim.Isotropic()
    data = rotsim.simulate(optimizer, dim=64, neurons=1024, steps=4000, gradient=white, initial_norm=0.1)
    half, whole = (data["norm"].values[:, window] ** 2 for window in (19, 39))
    growth = whole / half.mean() - 2 * (half / half.mean() - 1)  # of each neuron, what its half had more taken off
    error = growth.std(ddof=1) / 32
    assert abs(growth.mean() - 2) < 0.03 + chance.errors(1024) * error < 0.2  # ‖w‖² grows in proportion to time


def test_progress_counts_to_the_end():
    seen = []
    rotsim.simulate(rotsim.SGDM(0.1, 0.01), progress=lambda done, total: seen.append((done, total)), **SMALL)
    assert seen[-1] == (600, 600)


def test_divergence_is_an_error():
    explosive = rotsim.AdamL2(lr=10.0, weight_decay=0.0)
    with pytest.raises(Diverged, match=r"infinite or NaN by step"):
        rotsim.simulate(explosive, lr_schedule=lambda step: np.full(step.shape, 1e30), **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 1}, r"`dim` must be >= 2; got 1"),
        ({"dim": 2.5}, r"`dim` must be a whole number; got 2.5"),
        ({"neurons": 0}, r"`neurons` must be >= 1"),
        ({"steps": 0}, r"`steps` must be >= 1"),
        ({"steps": 2**32}, r"`steps` must be < 2\*\*32"),
        ({"seed": -1}, r"`seed` must be >= 0"),
        ({"record_every": 0}, r"`record_every` must be >= 1"),
        ({"dtype": "float16"}, r"`dtype` must be 'float32' or 'float64'; got 'float16'"),
        ({"initial_norm": 0.0}, r"`initial_norm` must be finite and > 0"),
        ({"initial_norm": float("nan")}, r"`initial_norm` must be finite and > 0"),
        ({"initial_norm": [1.0, 2.0]}, r"one number or one per neuron \(5\)"),
        ({"initial_weights": np.zeros((5, 33))}, r"no zero row"),
        ({"initial_weights": np.ones(33)}, r"shape \(neurons, dim\)"),
        ({"initial_weights": np.ones((4, 33))}, r"contradicts neurons=5"),
        ({"lr_schedule": np.ones(3)}, r"`lr_schedule` must have shape \(steps,\) = \(600,\)"),
        ({"lr_schedule": lambda step: -1.0}, r"`lr_schedule` must give finite factors >= 0; it does not at step 1"),
        ({"wd_schedule": np.full(600, np.nan)}, r"`wd_schedule` must give finite factors >= 0; it does not at step 1"),
        ({"gradient": rotsim.Replay(np.ones((10, 5, 33)))}, r"`steps` must be <= 10"),
        ({"gradient": 3}, r"`gradient` must be a spec"),
        ({"engine": "gpu"}, r"`engine` must be 'auto', 'gram', 'numba', 'numpy' or 'cuda'; got 'gpu'"),
        ({"threads": 0}, r"`threads` must be >= 1"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), **{**SMALL, **options})


def test_resume_refuses_another_run():
    optimizer = rotsim.SGDM(0.1, 0.01)
    part = rotsim.simulate(optimizer, keep_state=True, **{**SMALL, "steps": 300})
    with pytest.raises(rotsim.InvalidInput, match="seed=11, not 12"):
        rotsim.simulate(optimizer, resume=part, **{**SMALL, "seed": 12})
    with pytest.raises(rotsim.InvalidInput, match=r"momentum=0\.8"):
        rotsim.simulate(rotsim.SGDM(0.1, 0.01, 0.8), resume=part, **SMALL)
    with pytest.raises(rotsim.InvalidInput, match="`steps` must be >= 300"):
        rotsim.simulate(optimizer, resume=part, **{**SMALL, "steps": 299})
    with pytest.raises(rotsim.InvalidInput, match="keep_state=True"):
        rotsim.simulate(optimizer, resume=part.drop_vars("state"), **SMALL)
    with pytest.raises(rotsim.InvalidInput, match="made by an older rotsim"):
        rotsim.simulate(optimizer, resume=part.drop_vars("open_window"), **SMALL)
    part["state"].attrs["moments"] = "averages"
    with pytest.raises(rotsim.InvalidInput, match="made by an older rotsim"):
        rotsim.simulate(optimizer, resume=part, **SMALL)


@pytest.mark.parametrize("array", [np.ones((3, 4)), np.full((2, 2, 2), np.nan), "text", np.ones((0, 2, 2))])
def test_replay_refuses(array):
    with pytest.raises(rotsim.InvalidInput, match="`gradients` must"):
        rotsim.Replay(array)


@pytest.mark.parametrize("steps", [600, 625])
def test_a_finished_walk_that_is_resumed_is_returned(steps):
    walk = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), keep_state=True, **{**SMALL, "steps": steps})
    again = {**SMALL, "steps": steps, "resume": walk}
    assert rotsim.simulate(rotsim.AdamW(1e-2, 0.1), keep_state=True, **again).identical(walk)
    records = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **{**SMALL, "steps": steps})
    assert rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **again).drop_attrs().identical(records.drop_attrs())
    with pytest.raises(rotsim.InvalidInput, match=f"`steps` must be >= {steps}, the steps that the resumed run has"):
        rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **{**again, "steps": 599})


def test_a_damaged_state_is_not_resumed():
    run = {**SMALL, "engine": "numpy", "steps": 100}
    walk = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), keep_state=True, **run)
    for damaged in (
        walk.isel(slot=[0, 1]),
        walk.isel(step=[0]),
        walk.assign(state=walk.state * np.nan),
        walk.assign(norm_squared=walk.norm_squared.astype("float32")),
        walk.drop_vars("open_window").assign(open_window=walk.open_window.isel(quantity=[0, 1])),
        walk.assign_attrs(spec=walk.attrs["spec"].replace('"engine": "numpy"', '"engine": "abacus"')),
    ):
        with pytest.raises((rotsim.DatasetError, rotsim.InvalidInput), match="resume"):
            rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **{**run, "steps": 200, "resume": damaged, "engine": "auto"})


def test_a_full_disk_at_a_checkpoint_does_not_end_the_walk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("rotsim.files.write_atomically", full)
    chunks_of(monkeypatch, 50)
    run = {**SMALL, "engine": "numpy", "steps": 100}
    with pytest.warns(UserWarning, match="No space left on device; the walk goes on"):
        walk = rotsim.simulate(rotsim.AdamW(1e-2, 0.1), checkpoint=tmp_path / "x.nc", checkpoint_seconds=1e-9, **run)
    assert walk.drop_attrs().identical(rotsim.simulate(rotsim.AdamW(1e-2, 0.1), **run).drop_attrs())


@pytest.mark.parametrize("wrong", [3, lambda: 1, lambda done: done, lambda *, done, total: done])
def test_a_progress_that_cannot_be_called_is_refused_before_the_walk(wrong):
    for call in (
        lambda: rotsim.simulate(rotsim.SGDM(0.1, 0.01), progress=wrong, **SMALL),
        lambda: rotsim.sweep(rotsim.SGDM, {"lr": [0.1]}, weight_decay=0.1, progress=wrong),
    ):
        with pytest.raises(rotsim.InvalidInput, match=r"`progress` must be a function of .* done and "):
            call()
