"""Radial projection, bursts, autocorrelation, fused weights, and what training throws at a recorder."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
import rotsim.measure  # noqa: E402
from rotsim.dataset import load, optimizer_of, spec_of  # noqa: E402
from rotsim.diagnosis import diagnose  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Lion, Recorder  # noqa: E402
from tests import chance  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]

nn = torch.nn


def noise_steps(model, optimizer, steps, make=None, seed=0):
    """Steps on gradients that are not from a loss: white noise, or ``make(step, parameter, draw)``."""
    draw = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        for parameter in model.parameters():
            if parameter.requires_grad:
                white = torch.randn(parameter.shape, generator=draw)
                parameter.grad = white if make is None else make(step, parameter, white)
        optimizer.step()


def linear(inputs=6, outputs=5, seed=0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=False)


ADAMS = {
    "adamw": (lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.3, betas=(0.9, 0.8)), 0.0),
    "adam": (lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.3, betas=(0.9, 0.8)), 0.3),
    "adamw fused": (lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.3, betas=(0.9, 0.8), fused=True), 0.0),
}


@pytest.mark.parametrize("kind", ADAMS)
def test_the_radial_projection_of_adam_is_that_of_numpy(kind):
    make, coupled = ADAMS[kind]
    model = linear()
    optimizer = make(model.parameters())
    v, products, squares = np.zeros((5, 6)), [], []

    def gradient(step, parameter, white):
        nonlocal v
        w, g = parameter.detach().double().numpy(), white.double().numpy()
        g = g + coupled * w
        v = 0.8 * v + 0.2 * g**2
        preconditioned = g / (np.sqrt(v / (1 - 0.8**step)) + 1e-8)
        products.append((w * preconditioned).sum(1))
        squares.append((w * w).sum(1))
        return white

    with Recorder(model, optimizer, interval=2, window=6, lags=0) as recorder:
        noise_steps(model, optimizer, 6, gradient)
    # the weights before steps 2, 4, 6, their squares after
    squares.append((model.weight.detach().double().numpy() ** 2).sum(1))
    expected = np.mean(products[1::2], axis=0) / np.mean(squares[2::2], axis=0)
    np.testing.assert_allclose(recorder.dataset()["radial"].values[:, 0], expected, rtol=1e-4)


def test_the_radial_projection_of_sgd_has_its_sign_and_lion_has_none():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Recorder(model, optimizer, interval=1, window=1, lags=0) as recorder:
        noise_steps(model, optimizer, 1, lambda step, p, white: -2.5 * p.detach())
    np.testing.assert_allclose(recorder.dataset()["radial"].values, -2.5 / 1.0025**2, rtol=1e-6)
    optimizer = Lion(model.parameters(), lr=1e-3, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=1, lags=0) as recorder:
        noise_steps(model, optimizer, 1)
    assert np.isnan(recorder.dataset()["radial"].values).all()


def test_lambda_eff_predicts_the_rotation_of_scale_sensitive_weights():
    """A radial pull as strong as the decay doubles λ: rotation √2 larger, and P says so."""
    model = linear(200, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05)
    with Recorder(model, optimizer, interval=2, window=50, lags=0) as recorder:
        noise_steps(model, optimizer, 1500, lambda step, p, white: 0.1 * white + 0.05 * p.detach())
    late = recorder.dataset().isel(step=slice(15, None))
    square = (late["rotation"].values.astype(float) ** 2).mean(axis=1)
    decay = 0.05 + late["radial"].values.mean(axis=1)
    for each, mean in ((square / (2 * 0.1 * decay / 1.9), 1.0), (square / (2 * 0.1 * 0.05 / 1.9), 2.0)):
        error = each.std(ddof=1) / np.sqrt(64)
        # λ alone, the negative control, is half of what it must be
        assert abs(each.mean() - mean) < 0.02 * mean + chance.errors(64, 2) * error < 0.3


def test_bursts_are_the_fourth_moment_of_the_gradient_scale():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)  # weights stand still: only g varies
    sizes = [1.0, 3.0, 1.0, 1.0]
    with Recorder(model, optimizer, interval=1, window=4, lags=0) as recorder:
        noise_steps(model, optimizer, 4, lambda step, p, white: sizes[step - 1] * torch.ones_like(white))
    squares = np.square(sizes)
    np.testing.assert_allclose(
        recorder.dataset()["gradient_burst"].values, np.mean(squares**2) / np.mean(squares) ** 2, rtol=1e-6
    )


def test_autocorrelation_of_an_ar1_gradient_and_of_white_noise():
    model = nn.Sequential(linear(20, 20), linear(20, 20))
    state = {}

    def gradient(step, parameter, white):
        if parameter is model[1].weight:
            return white
        state["g"] = 0.6 * state.get("g", white) + 0.8 * white
        return state["g"]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(model, optimizer, interval=10, window=100, lags=16) as recorder:
        noise_steps(model, optimizer, 32 * 60 + 5, gradient)
    trace = recorder.dataset()
    assert trace["parameter"].values.tolist() == ["0.weight", "1.weight"]
    found = trace["gradient_autocorrelation"].values
    assert found.shape == (2, 17) and (found[:, 0] == 1).all()
    # 64 coordinates and the last 960 steps; correlated ones have an error up to √2.2 times as large (Bartlett), and
    # normalising a block of 32 steps by its own mean square biases them by a few per cent
    noise = chance.errors(None, 16) / np.sqrt(64 * 960)
    np.testing.assert_allclose(found[1, 1:9], 0, atol=noise)
    np.testing.assert_allclose(found[0, 1:9], 0.6 ** np.arange(1, 9), atol=0.04 + 1.5 * noise)
    assert len(recorder._every_step.coordinates._block) == 5  # bounded memory: one open block


def test_fused_rows_fall_into_named_layers():
    model = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": linear(4, 12)}), "out": linear(4, 3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def layers(split):
        with Recorder(model, optimizer, interval=1, window=1, split=split, lags=0) as recorder:
            noise_steps(model, optimizer, 1)
        return recorder.dataset()["layer"].values.tolist()

    name = "attn.qkv.weight"
    thirds = [f"{name}[{x}]" for x in "qkv" for _ in range(4)]
    assert layers({"qkv.weight": ("q", "k", "v")}) == [*thirds, *["out.weight"] * 3]
    grouped = [f"{name}[q]"] * 8 + [f"{name}[k]"] * 2 + [f"{name}[v]"] * 2
    assert layers({name: {"q": 8, "k": 2, "v": 2}})[:12] == grouped
    with pytest.raises(InvalidInput, match=r"`split\['qkv.weight'\]` must add up to the 12 rows"):
        layers({"qkv.weight": "qkvgh"})
    with pytest.raises(InvalidInput, match=r"`split` names 'kv.weight', which no recorded parameter ends in"):
        layers({"kv.weight": ("k", "v")})


def test_what_is_left_out_is_said_and_why():
    model = nn.ModuleDict(
        {"a": nn.Linear(3, 2), "b": linear(3, 2), "c": linear(3, 2), "d": nn.ParameterDict({"w": torch.ones(0, 3)})}
    )
    model["b"].weight.requires_grad = False
    optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if not n.startswith("c")], lr=0.1)
    recorder = Recorder(model, optimizer, interval=1, window=1)
    assert recorder.skipped == {
        "a.bias": "1-D: not a weight of neurons",
        "b.weight": "frozen",
        "c.weight": "not updated by this optimizer",
        "d.w": "empty",
    }
    with recorder:
        noise_steps(model, optimizer, 1)
    assert spec_of(recorder.dataset())["skipped"] == recorder.skipped


def test_a_layer_that_is_unfrozen_or_added_is_recorded_from_the_next_window():
    model = nn.ModuleDict({"first": linear(6, 5), "frozen": linear(6, 4)})
    model["frozen"].weight.requires_grad = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=4, lags=2) as recorder:
        noise_steps(model, optimizer, 6)
        model["frozen"].weight.requires_grad = True
        model["late"] = linear(3, 2)
        optimizer.add_param_group({"params": model["late"].parameters(), "lr": 0.5, "weight_decay": 0.25})
        noise_steps(model, optimizer, 26)
    trace = recorder.dataset()
    assert trace["step"].values.tolist() == [4, 8, 12, 16, 20, 24, 28, 32]
    norms = {name: trace["norm"].values[trace["layer"].values == f"{name}.weight"] for name in model}
    assert np.isfinite(norms["first"]).all()
    for name in ("frozen", "late"):
        assert np.isnan(norms[name][:, :2]).all() and np.isfinite(norms[name][:, 2:]).all()
    assert trace["lr"].values[-1] == 0.5 and trace["weight_decay"].values[-1] == 0.25
    assert trace["gradient_autocorrelation"].sizes == {"parameter": 3, "lag": 3}
    assert recorder.skipped == {}


def test_samples_that_are_not_finite_count_for_nothing():
    traces = []
    for poisoned in (False, True):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)

        def gradient(step, parameter, white, poisoned=poisoned):
            white[2] = 1.0
            if poisoned and step in (2, 3):
                white[2, 0] = [torch.nan, torch.inf][step - 2]
            return white

        with Recorder(model, optimizer, interval=1, window=6, lags=1) as recorder:
            # NaN and inf reach the weights: put the weights back as a GradScaler would have kept them
            keep = model.weight.detach().clone()
            optimizer.register_step_post_hook(lambda *a, keep=keep, model=model: model.weight.data.copy_(keep))
            noise_steps(model, optimizer, 6, gradient)
        traces.append(recorder.dataset())
    for name in traces[0].data_vars:
        if "neuron" in traces[0][name].dims:
            np.testing.assert_allclose(traces[1][name].values, traces[0][name].values, rtol=1e-6, err_msg=name)


def test_weights_lost_to_nan_leave_a_dataset_that_says_so():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=1, window=2) as recorder:
        noise_steps(model, optimizer, 4, lambda step, p, white: white * (torch.nan if step > 2 else 1))
    norm = recorder.dataset()["norm"].values
    assert np.isfinite(norm[:, 0]).all() and np.isnan(norm[:, 1]).all()


def test_a_crash_leaves_the_file(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(ZeroDivisionError),
        Recorder(model, optimizer, interval=1, window=2, path=tmp_path / "trace.nc"),
    ):
        noise_steps(model, optimizer, 5)
        raise ZeroDivisionError
    assert load(tmp_path / "trace.nc")["step"].values.tolist() == [2, 4, 5]


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (2, 1, 1, 3), (1, 1), (3, 2, 0 + 1)])
def test_odd_shapes(shape):
    model = nn.ParameterDict({"w": nn.Parameter(torch.ones(shape))})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=1, lags=1) as recorder:
        noise_steps(model, optimizer, 5)
    trace = recorder.dataset()
    assert trace.sizes["neuron"] == np.prod(shape[:2] if len(shape) == 3 else shape[:1])  # a stack of matrices
    assert all(np.isfinite(variable.values).all() for variable in trace.data_vars.values())


def test_lags_must_be_a_whole_number():
    model = linear()
    with pytest.raises(InvalidInput, match="`lags` must be >= 0; got -1"):
        Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), lags=-1)


def test_a_run_too_short_for_a_sample_is_said_and_not_written(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.warns(UserWarning, match="is not written: nothing was recorded: 3 optimizer steps were seen"),
        Recorder(model, optimizer, interval=10, path=tmp_path / "short.nc"),
    ):
        noise_steps(model, optimizer, 3)
    assert not (tmp_path / "short.nc").exists()


def test_an_optimizer_without_decay_takes_the_rates_of_a_given_spec():
    model = linear()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=1, window=2, spec=rotsim.SGDM(lr=0.5, weight_decay=0.01)) as recorder:
        for _ in range(4):
            optimizer.step(lambda: _backward(model))
    trace = recorder.dataset()
    assert set(trace["lr"].values) == {0.1} and set(trace["weight_decay"].values) == {0.01}


def _backward(model):
    model.zero_grad()
    loss = model.weight.square().sum()
    loss.backward()
    return loss


def test_the_spec_of_a_run_is_that_of_the_first_group_with_decay():
    model = nn.Sequential(linear(), linear())
    groups = [{"params": model[0].parameters(), "betas": (0.9, 0.99)}, {"params": model[1].parameters(), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    trace_of = Recorder(model, optimizer, interval=1, window=1).start()
    noise_steps(model, optimizer, 1)
    assert optimizer_of(trace_of.dataset()) == rotsim.AdamW(lr=0.1, weight_decay=0.1)


@pytest.mark.parametrize("kind", ["AdamW", "SGDM", "Lion"])
def test_rotational_variants_have_their_spec(kind):
    optimizer = getattr(rotsim.measure, f"Rotational{kind}")(linear().parameters(), lr=0.01, weight_decay=0.1)
    spec = rotsim.measure.optimizer_spec(optimizer)
    assert isinstance(spec, rotsim.Rotational) and spec.inner == rotsim.OPTIMIZERS[kind.lower()](
        lr=0.01, weight_decay=0.1
    )
    optimizer.param_groups[0]["weight_decay"] = 0.0
    assert rotsim.measure.optimizer_spec(optimizer).name == kind.lower()
    optimizer.param_groups[0]["per_neuron"] = False
    with pytest.raises(InvalidInput, match="per_neuron=False sets the angle of whole weights"):
        rotsim.measure.optimizer_spec(optimizer)


def test_a_layer_that_joined_late_or_never_moved_is_said(tmp_path):
    from rotsim.cli import main

    model = nn.Sequential(linear(), linear())
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.0, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=10, lags=0, path=tmp_path / "late.nc") as recorder:
        noise_steps(model, optimizer, 100)
        optimizer.add_param_group({"params": model[1].parameters(), "lr": 0.01})
        noise_steps(model, optimizer, 50)
    first, second = diagnose(recorder.dataset()).layers
    assert first.verdict == "unknown" and "learning rate was 0 throughout" in first.reason
    assert second.verdict == "unknown" and second.recorded_from == 110 and "5 record windows are" in second.reason
    assert main(["trace", "report", str(tmp_path / "late.nc"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_a_wrapper_whose_own_step_never_runs_is_said_at_once():
    class SAM(torch.optim.Optimizer):
        """As published: first_step and second_step, of which the second steps the base optimizer."""

        def __init__(self, params, **kwargs):
            super().__init__(params, kwargs)
            self.base_optimizer = torch.optim.SGD(self.param_groups, **kwargs)
            self.param_groups = self.base_optimizer.param_groups

        def second_step(self):
            self.base_optimizer.step()

    model = torch.nn.Linear(4, 3)
    optimizer = SAM(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"SAM.base_optimizer has stepped.*Recorder\(model, optimizer.base"):
        recorder = Recorder(model, optimizer, interval=1, window=2, lags=0).start()
        for _ in range(2):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.second_step()
    recorder.close()
    with Recorder(model, optimizer.base_optimizer, interval=1, window=2, lags=0) as recorder:
        optimizer.second_step()
    assert recorder.steps == 1


def test_a_step_that_calls_that_of_its_base_class_counts_once():
    class Twice(torch.optim.SGD):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("no step")
            return super().step(closure)

    model = torch.nn.Linear(4, 3)
    optimizer = Twice(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=1, window=2, lags=0) as recorder:
        for step in range(6):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.fails = step == 2
            if optimizer.fails:
                with pytest.raises(RuntimeError, match="no step"):
                    optimizer.step()
            else:
                optimizer.step()
    trace = recorder.dataset()
    assert recorder.steps == 5 and trace["step"].values.tolist() == [2, 4, 5] and (trace["update_rms"] > 0).all()
