"""The rules that arguments are held to: what they return, and that nothing but `InvalidInput` comes out of them."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from rotsim import Bursts, Isotropic, Muon, equilibrium, errors
from rotsim.errors import InvalidInput
from rotsim.gradients import gradient_from_dict
from rotsim.optimizers import optimizer_from_dict
from tests.hostile import Endless, Hostile, HostileFloat, HostileInt

ITSELF = [1.0]
ITSELF.append(ITSELF)
FOREIGN = [
    None, True, "1", b"1", 1j, np.complex128(1), Decimal("0.1"), 10**400, -(10**5000), Fraction(10**400), float("nan"),
    float("inf"), 1e31, np.float64("nan"), np.longdouble("1e400"), [], (), {}, [1.0, "x"], [[1.0], [1.0, 2.0]], ITSELF,
    object(), object, len, Hostile(), [Hostile()], HostileFloat(1), HostileInt(1), Endless(), [Endless()], range(2**70),
    range(2**40), np.array([1j]), np.array([None]), np.array(["a"]), np.array([True]), np.array(0), iter([1.0]),
    np.array(["2020"], "datetime64[D]"), [np.ma.masked, 1.0], np.ma.array([1.0, 2.0], mask=[True, False]),
    np.broadcast_to(1.0, 10**10),
]  # fmt: skip
RULES = {
    "real": lambda value: errors.real("x", value, "be in [0, 1)", low=0.0, high=1.0),
    "positive": lambda value: errors.positive("x", value),
    "nonnegative": lambda value: errors.nonnegative("x", value),
    "integer": lambda value: errors.integer("x", value, low=0),
    "flag": lambda value: errors.flag("x", value),
    "text": lambda value: errors.text("x", value),
    "choice": lambda value: errors.choice("x", value, ("exact", "leading")),
    "function": lambda value: errors.function("x", value, "of nothing", 0),
    "mapping": lambda value: errors.mapping("x", value, ["norm"]),
    "sequence": lambda value: errors.sequence("x", value),
    "names": lambda value: errors.names("x", value, ("norm", "rotation")),
    "array": lambda value: errors.array("x", value, "be an array of numbers"),
    "instance": lambda value: errors.instance("x", value, Fraction, "a fraction"),
    "registered": lambda value: errors.registered("optimizer", value, {"adamw": 1}),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_answers_with_its_own_error_in_one_line(rule):
    refused = 0
    for value in FOREIGN:
        try:
            RULES[rule](value)
        except InvalidInput as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < 600, str(error)
            refused += 1
    assert refused >= len(FOREIGN) - 14  # a rule that lets most of these through rules nothing


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (errors.real("x", Fraction(1, 2), "be"), 0.5),
        (errors.real("x", np.float32(0.5), "be"), 0.5),
        (errors.positive("x", 1e-30), 1e-30),
        (errors.nonnegative("x", 0), 0.0),
        (errors.integer("x", np.int8(5), low=5), 5),
        (errors.integer("x", 2**64 - 1, low=0, high=2**64), 2**64 - 1),
        (errors.choice("x", "exact", ("exact", "leading")), "exact"),
        (errors.mapping("x", {"a": 1}, ["a", "b"]), {"a": 1}),
        (errors.sequence("x", np.array([1, 2])), [1, 2]),
        (errors.names("x", ["norm", "norm"], ["norm", "rotation"]), ("norm",)),
        (errors.array("x", [[1, 2.5], range(2)], "be").tolist(), [[1.0, 2.5], [0.0, 1.0]]),
        (errors.array("x", np.float16(2), "be").tolist(), 2.0),
        (errors.array("x", np.ma.array([1.0, 2.0]), "be").tolist(), [1.0, 2.0]),
        (errors.array("x", np.broadcast_to(1.0, (2, 1)), "be").tolist(), [[1.0], [1.0]]),
    ],
)
def test_a_rule_returns_what_it_was_given(returned, expected):
    assert returned == expected and type(returned) is type(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: errors.positive("lr", 5e-324), "`lr` must be at least 1e-30; got 5e-324"),
        (lambda: errors.positive("lr", 1e300), "`lr` must be at most 1e+30 in size; got 1e+300"),
        (lambda: errors.positive("lr", 10**400), "`lr` must be a number that a float can hold; got 1000"),
        (lambda: errors.integer("dim", 2**63, low=2), "`dim` must be < 2**63; got 9223372036854775808"),
        (lambda: errors.integer("k", 7, low=0, high=5), "`k` must be < 5; got 7"),
        (
            lambda: errors.choice("method", "Exact", ("exact", "leading")),
            "'exact' or 'leading'; got 'Exact'. Did you m",
        ),
        (lambda: errors.mapping("tolerance", {"Norm": 9}, ["norm"]), "`tolerance` takes norm; got Norm. Did you mean"),
        (lambda: errors.names("quantities", "norm", ["norm"]), "be a sequence of names among norm; got 'norm'"),
        (lambda: optimizer_from_dict({}), "`optimizer` must have a 'name' among its fields; got {}"),
        (lambda: optimizer_from_dict("adamw"), "`optimizer` must be a mapping; got 'adamw'"),
        (lambda: optimizer_from_dict({"name": "adamw", "lr": 1}), "optimizer 'adamw' needs a value for weight_decay"),
        (
            lambda: optimizer_from_dict({"name": "lion", "lr": 1, "weight_decay": 0, "eps": 1}),
            "'lion' takes lr, weight_decay, betas; got eps",
        ),
        (lambda: optimizer_from_dict({"name": ["adamw"]}), "optimizer ['adamw'] is unknown; choose from adamw"),
        (lambda: optimizer_from_dict({"name": "rotational"}), "optimizer 'rotational' needs a value for inner"),
        (
            lambda: optimizer_from_dict({"name": "rotational", "inner": {"name": "rotational"}}),
            "'rotational' is unknown",
        ),
        (lambda: gradient_from_dict({}), "`gradient` must have a 'name' among its fields"),
        (lambda: gradient_from_dict({"name": "isotropic", "scael": 1}), "takes scale; got scael. Did you mean 'scale'"),
        (lambda: Isotropic(np.broadcast_to(1.0, 10**10)), "`scale` must have at most 16777216 entries unless all are"),
        (
            lambda: equilibrium(Muon(0.1, 0.1), gradient=Bursts([1.0, 5.0] * 25)),
            "predicted under Muon; got one with bursts. Simulate",
        ),
        (lambda: gradient_from_dict({"name": "signal", 3: 1}), "`gradient` must have strings as keys; got 3"),
    ],
)
def test_the_message_names_value_rule_and_way_out(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert message in str(caught.value)
