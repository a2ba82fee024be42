"""Trainings that change under the recorder: it must go on, and say what became of what it recorded."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rotsim.diagnosis import diagnose  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Recorder  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]

nn = torch.nn


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.5)


def drop_parameter(model, optimizer):
    optimizer.param_groups[0]["params"] = [p for p in optimizer.param_groups[0]["params"] if p is not model[0].weight]


def drop_group(model, optimizer):
    optimizer.param_groups.pop(0)


def resize(model, optimizer):
    for parameter in model[0].parameters():
        parameter.data, parameter.grad = torch.randn(3, *parameter.shape[1:]), None
    model[1].weight.data, model[1].weight.grad = torch.randn(2, 3), None
    optimizer.state.clear()


def replace(model, optimizer):
    old, model[0].weight = model[0].weight, nn.Parameter(torch.randn(8, 4))
    for group in optimizer.param_groups:
        group["params"] = [model[0].weight if p is old else p for p in group["params"]]


def everything(model, optimizer):
    optimizer.param_groups[0]["params"] = []
    optimizer.param_groups[1]["params"] = []


@pytest.mark.parametrize(
    ("change", "left", "layers"),
    [
        (drop_parameter, {"0.weight": 24}, ["0.weight", "1.weight"]),
        (drop_group, {"0.weight": 24}, ["0.weight", "1.weight"]),
        (resize, {"0.weight": 24, "1.weight": 24}, ["0.weight", "1.weight"]),
        (replace, {"0.weight": 24}, ["0.weight", "1.weight", "0.weight (2)"]),
        (everything, {"0.weight": 24, "1.weight": 24}, ["0.weight", "1.weight"]),
    ],
)
def test_what_leaves_the_optimizer_is_recorded_until_then(change, left, layers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=0.1, weight_decay=0.1)
    with Recorder(model, optimizer, interval=5, window=10, lags=4) as recorder:
        for step in range(80):
            optimizer.zero_grad()
            model(torch.randn(5, 4)).square().mean().backward()
            if step == 22:
                change(model, optimizer)
            optimizer.step()
    trace = recorder.dataset()
    found = {layer.layer: layer for layer in diagnose(trace).layers}
    assert list(found) == layers
    for name in layers:
        here = trace["norm"].values[trace["layer"].values == name]
        if name in left:
            assert found[name].reason.startswith(f"It left the optimizer or changed its shape about step {left[name]}")
            assert (here[:, :2] > 0).all() and (here[:, 3:] != here[:, 3:]).all()
        else:
            assert (here[:, -1] > 0).all()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_models_keep_the_names_of_what_they_wrap(wrap):
    model = wrap(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)))
    recorder = Recorder(model, adamw(model.parameters()), parameters=["0.weight"])
    assert [entry.name for entry in recorder._recorded.entries] == ["0.weight"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: nn.LayerNorm(4), "weight: 1-D"),
        (lambda: nn.Linear(4, 2, dtype=torch.complex64), "weight: complex"),
        (lambda: nn.LazyLinear(4), "weight: lazy: has no shape before the first batch"),
        (lambda: nn.Linear(4, 2, device="meta"), "weight: on the meta device"),
    ],
)
def test_nothing_to_record_says_why(model, reason):
    model = model()
    with pytest.raises(InvalidInput, match=f"nothing to record.*{reason}"):
        Recorder(model, adamw(model.parameters()))


@pytest.mark.parametrize(("split", "rule"), [("weight", "must be a mapping"), ({"weight": 4}, "must list blocks")])
def test_a_split_of_another_kind_is_refused(split, rule):
    model = nn.Linear(4, 8)
    with pytest.raises(InvalidInput, match=rule):
        Recorder(model, adamw(model.parameters()), split=split)
