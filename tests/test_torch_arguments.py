"""Groups and saved states of optimizers for PyTorch: what does not fit is refused whole, before a step reads it."""

import copy
import warnings

import pytest

import rotsim

torch = pytest.importorskip("torch")
from rotsim.measure import Lion, Rotated, RotationalAdamW, RotationalLion, RotationalSGDM  # noqa: E402
from rotsim.measure.arguments import taken_by_torch  # noqa: E402

OWN = {kind.__name__: kind for kind in (Lion, RotationalAdamW, RotationalLion, RotationalSGDM)}


def weights():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, 8)), torch.nn.Parameter(torch.randn(2, 4))]


def made(kind, parameters):
    if kind == "Rotated":
        return Rotated(torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1), 0.01)
    return OWN[kind](parameters, lr=0.1, weight_decay=0.1)


def stepped(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.sin(parameter.detach())
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [*OWN, "Rotated"])
def test_a_state_of_its_own_continues_bit_for_bit(kind):
    """The control: what is refused below is refused for what is wrong with it."""
    first = stepped(made(kind, weights()))
    second = made(kind, [torch.nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(first), stepped(second)
    for one, two in zip(first.param_groups[0]["params"], second.param_groups[0]["params"], strict=True):
        assert torch.equal(one, two)


def damage(state, where, value):
    """A state with one entry changed: of the state of the first parameter, or of the first group."""
    state = copy.deepcopy(state)
    if where in ("state", "param_groups"):
        state[where] = value
    elif where in state["param_groups"][0]:
        state["param_groups"][0][where] = value
    else:
        state["state"][0][where] = value
    return state


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("state", 3), ("state", {0: 3}), ("state", {0: {"norm": "x"}}), ("param_groups", []), ("param_groups", 3),
        ("param_groups", [{}]), ("param_groups", [{"params": [0, 1]}]), ("params", [0]), ("params", None), ("lr", "x"),
        ("lr", None), ("lr", -1.0), ("betas", 0.9), ("weight_decay", float("nan")), ("weight_decay", 20.0),
        ("per_neuron", 1), ("update_norm_decay", 1.0), ("norm", torch.ones(99)), ("norm", 1.0),
        ("exp_avg", torch.ones(4)), ("exp_avg", torch.ones(8, 8)), ("exp_avg", None), ("exp_avg_sq", torch.ones(1)),
        ("update_norm_squared", torch.ones(5)), ("rotation_step", -1), ("rotation_step", "x"), ("step", -1.0),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(where, value):
    optimizer = stepped(made("RotationalAdamW", weights()))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(rotsim.InvalidInput) as caught:
        optimizer.load_state_dict(damage(before, where, value))
    assert "\n" not in str(caught.value)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, parts in before["state"].items():
        for name, part in parts.items():
            same = torch.equal if isinstance(part, torch.Tensor) else (lambda a, b: a == b)
            assert same(part, after["state"][index][name])


@pytest.mark.parametrize("kind", [*OWN, "Rotated"])
@pytest.mark.parametrize("state", [None, 3, {}, [], "state", {"state": {}}, {"state": {}, "param_groups": []}])
def test_what_is_no_state_is_refused(kind, state):
    with pytest.raises(rotsim.InvalidInput, match="state"):
        made(kind, weights()).load_state_dict(state)


def test_a_state_of_another_optimizer_is_refused():
    saved = {kind: stepped(made(kind, weights())).state_dict() for kind in OWN}
    for one in OWN:
        for other in OWN:
            needed, there = (OWN[kind]([torch.zeros(1)], 0.1).defaults.keys() for kind in (one, other))
            own = {"per_neuron", "zero_mean", "update_norm_decay", "rotational", "nesterov", "exact_angle"}
            if needed - there - own:  # those have defaults
                with pytest.raises(rotsim.InvalidInput, match="of another optimizer"):
                    made(one, weights()).load_state_dict(saved[other])


@pytest.mark.parametrize("kind", [*OWN, "Rotated"])
@pytest.mark.parametrize(
    "group",
    [
        None, 3, [], {}, {"params": 3}, {"params": [1.0]}, {"params": "x"}, {"params": [torch.zeros(2), "x"]},
        {"params": {torch.zeros(2)}}, {1: 2},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_group_is_refused(kind, group):
    optimizer = made(kind, weights())
    with pytest.raises(rotsim.InvalidInput):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_a_parameter_given_twice_is_an_error_and_no_warning():
    twice = [weights()[0]] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(rotsim.InvalidInput, match=r"`params` must be .*duplicate"):
            Lion(twice, lr=0.1)


def test_weights_that_change_their_rows_are_refused_not_read_beyond_their_end():
    optimizer = stepped(made("RotationalAdamW", weights()))
    parameter = optimizer.param_groups[0]["params"][0]
    parameter.data = torch.randn(4000, 8)
    parameter.grad = None
    with pytest.raises(rotsim.InvalidInput, match=r"had 4 vectors .* has 4000 now"):
        stepped(optimizer)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def test_errors_of_torch_are_one_line_with_their_cause():
    for error, said in (
        (KeyError("params"), "params"),
        (TypeError("two\nlines"), "two lines"),
        (Unprintable(), "Unprint"),
    ):
        with (
            pytest.raises(rotsim.InvalidInput, match=f"^`x` must be .*: .*{said}[^\n]*$") as caught,
            taken_by_torch("x"),
        ):
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(rotsim.InvalidInput, match=r"^as it was$"), taken_by_torch("x"):
        raise rotsim.InvalidInput("as it was")


@pytest.mark.parametrize("angle", ["x", None, -0.1, float("nan"), torch.ones(2), 1j])
def test_an_angle_that_a_function_gives_is_checked(angle):
    optimizer = Rotated(torch.optim.SGD(weights(), lr=0.1, weight_decay=0.1), lambda group: angle)
    with pytest.raises(rotsim.InvalidInput, match="rotation"):
        stepped(optimizer)
    assert Rotated(torch.optim.SGD(weights(), lr=0.1), lambda group: torch.tensor(0.5)).rotation({}) == 0.5


def test_a_closure_that_is_no_function_is_refused():
    with pytest.raises(rotsim.InvalidInput, match="`closure` must be a function"):
        made("Lion", weights()).step(3)
