"""From a PyTorch optimizer to the spec that rotsim's theory and simulator take.

Each entry of `FAMILIES` is one recurrence, whatever package the class is of. An optimizer is recognised by the name of
its class and by the hyperparameters of its groups. Where groups follow several rules, each group names its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from rotsim.errors import InvalidInput, instance, integer, mapping
from rotsim.measure.arguments import taken_by_torch
from rotsim.optimizers import SGDM, AdamL2, AdamW, AdEMAMix, Cautious, Lion, Muon, NAdamW, Rotational, Signum
from rotsim.optimizers.base import Optimizer

SUPPORTED = (
    "AdamW, Adam, SGD, Lion and Signum of PyTorch and other packages, without amsgrad or maximize, Muon of PyTorch "
    "and of its author, torch.optim.NAdam with decoupled decay, AdEMAMix without schedules of its own, and "
    "rotsim.measure's RotationalAdamW, RotationalSGDM, RotationalLion and Rotated"
)
#: Options that change a recurrence, and the value with which they do not.
NEUTRAL: dict[str, Any] = {
    "amsgrad": False,
    "maximize": False,
    "nesterov": False,
    "caution": False,
    "cautious_factor": 1.0,
    "corrected_weight_decay": False,
    "bias_correction": True,
    "correct_bias": True,
    "max_unorm": 0.0,
    "fixed_decay": False,
}
#: Options of cautious decay: other packages' names.
CAUTIOUS = ("cautious_wd", "cautious_weight_decay")
_NESTEROV = {name: value for name, value in NEUTRAL.items() if name != "nesterov"}  # where the spec has it
# what a class name says of the storage of averages, which does not change what they are
_STORAGE = re.compile(r"paged|fused|deepspeed|cpu|legacy|_?(4|8|32)_?bit|fp8")
_HOLDERS = {"zeroredundancyoptimizer": "optim"}  # classes that pass steps on, and where they keep the optimizer


class Values(dict[str, Any]):
    """The hyperparameters of one group, and plain attributes of the optimizer that hold for all groups.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
    rates : dict of float
        ``lr`` and ``weight_decay`` for the spec, in PyTorch's units: a step multiplies weights by 1 - lr·weight_decay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> None:
        options = getattr(optimizer, "args", None)  # where bitsandbytes has them
        super().__init__(_plain(getattr(options, "__dict__", {})) | _plain(vars(optimizer)) | dict(group))
        self.optimizer = optimizer
        self.rates: dict[str, float] = {}

    @property
    def betas(self) -> tuple[float, float]:
        """β1 and β2."""
        return float(self["betas"][0]), float(self["betas"][1])


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if isinstance(value, bool | int | float | str)}


def _rates_in_group(values: Values) -> tuple[Any, Any]:
    """Learning rate and weight decay as PyTorch has them."""
    return values.get("lr", 0.0), values.get("weight_decay", 0.0)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Optimizers of one recurrence.

    Attributes
    ----------
    names : tuple of str
        Class names in lower case, without what they say of storage (8bit, paged, fused).
    fields : tuple of str
        Hyperparameters that a group of it has.
    make : callable
        ``make(values) -> Optimizer``, with the rates of ``values.rates``; raises `Variant` where no spec follows.
    neutral : mapping
        As `NEUTRAL`.
    rates : callable
        ``rates(values) -> (lr, weight_decay)`` in force, where a group holds them in other units.
    """

    names: tuple[str, ...]
    fields: tuple[str, ...]
    make: Callable[[Values], Optimizer]
    neutral: Mapping[str, Any] = field(default_factory=lambda: NEUTRAL)
    rates: Callable[[Values], tuple[Any, Any]] = _rates_in_group


class Variant(Exception):
    """Raised by `Family.make`: why this group follows no spec, as a clause."""


def _sgdm(values: Values) -> SGDM:
    momentum = float(values["momentum"])
    if values.get("nesterov") and not momentum:  # a schedule may end there
        raise Variant("its Nesterov momentum is 0")
    dampening = float(values.get("dampening") or 0.0) if momentum else 0.0  # PyTorch's has none without momentum
    return SGDM(
        **values.rates, momentum=momentum, dampening=dampening, nesterov=bool(values.get("nesterov") and momentum)
    )


def _adam(values: Values) -> Optimizer:
    # bitsandbytes (which names its kernel) decays beside the update in either class, Apex where adam_w_mode says so
    decoupled = any(values.get(name) for name in ("decoupled_weight_decay", "adam_w_mode", "optimizer_name"))
    return (AdamW if decoupled else AdamL2)(**values.rates, betas=values.betas, eps=float(values["eps"]))


def _adamw(values: Values) -> AdamW:
    return AdamW(**values.rates, betas=values.betas, eps=float(values["eps"]))


def _nadam(values: Values) -> NAdamW:
    if values.rates["weight_decay"] and not values.get("decoupled_weight_decay"):
        raise Variant("its weight decay is in the gradient, where decoupled_weight_decay=True has it beside the update")
    own = {"eps": float(values["eps"]), "momentum_decay": float(values["momentum_decay"])}
    return NAdamW(**values.rates, betas=values.betas, **own)


def _ademamix(values: Values) -> AdEMAMix:
    """Of its authors, who call the schedules of α and β3 warmups, and of bitsandbytes."""
    for name in ("alpha_warmup", "beta3_warmup", "t_alpha", "t_beta3", "t_alpha_beta3"):
        if values.get(name) is not None:
            raise Variant(f"{name}={values[name]} makes its slow average change in training")
    if values.rates["weight_decay"] and values.get("weight_decouple") is False:
        raise Variant("its weight decay is in the gradient")
    beta1, beta2, beta3 = (float(beta) for beta in values["betas"])
    own = {"alpha": float(values["alpha"]), "eps": float(values["eps"])}
    return AdEMAMix(**values.rates, betas=(beta1, beta2, beta3), **own)


def _lion(values: Values) -> Lion:
    return Lion(**values.rates, betas=values.betas)


def _signum(values: Values) -> Signum:
    decoupled = any(values.get(name) for name in ("weight_decouple", "decoupled_weight_decay"))
    if values.rates["weight_decay"] and not decoupled:
        raise Variant("nothing says that its weight decay is beside the sign and not in it")
    return Signum(**values.rates, momentum=float(values["momentum"]))


def _muon(values: Values) -> Muon:
    given: dict[str, Any] = {**values.rates, **{name: values[name] for name in _MUON_FIELDS}}
    return Muon(**given)


def _published_muon(values: Values) -> Muon:
    """Keller Jordan's, whose coefficients, ε and factor are PyTorch's; others of the name have more fields than he."""
    more = [name for name in values if name not in _JORDAN_FIELDS and not name.startswith("_")]
    if more:
        raise Variant(f"{', '.join(more)} may make it another one than its author's")
    if any(weight.ndim != 2 for weight in values["params"]):
        raise Variant("the factor of weights of more than two dimensions is that of their last two")
    given: dict[str, Any] = {**values.rates, **{name: values[name] for name in _PUBLISHED_FIELDS}}
    return Muon(**given)


def _lion_rates(values: Values) -> tuple[Any, Any]:
    """Those of lion-pytorch, whose `decoupled_weight_decay` takes the decay at the first learning rate."""
    lr, decay = _rates_in_group(values)
    return lr, decay / values["_init_lr"] if values.get("decoupled_wd") else decay


def _rotational(inner: Callable[[Values], Optimizer]) -> Callable[[Values], Optimizer]:
    def make(values: Values) -> Optimizer:
        if not values["per_neuron"]:
            raise Variant("per_neuron=False sets the angle of whole weights, not of neurons")
        plain = inner(values)
        if not plain.weight_decay or values.get("rotational") is False:  # it does not rotate
            return plain
        options = {name: values[name] for name in ("update_norm_decay", "zero_mean", "exact_angle") if name in values}
        return Rotational(plain, **options)

    return make


def _rotated(values: Values) -> Optimizer:
    spec = getattr(values.optimizer, "rotation_spec", None)
    if spec is None:
        raise Variant("its angle is a number or a function of yours, so there is nothing to predict")
    options = Values(values.optimizer, {**values, **vars(values.optimizer)["_options"]})
    return _rotational(lambda _: spec.with_rates(**values.rates))(options)


def _rotated_rates(values: Values) -> tuple[Any, Any]:
    """Those of the spec that sets the angle, which no schedule moves; in a group without decay, the group's."""
    spec, (lr, decay) = getattr(values.optimizer, "rotation_spec", None), _rates_in_group(values)
    return (spec.lr, spec.weight_decay) if spec is not None and decay else (lr, decay)


_SGDM_FIELDS, _LION_FIELDS, _ADAM_FIELDS = ("momentum",), ("betas", "weight_decay"), ("betas", "eps")
_MUON_FIELDS = ("momentum", "nesterov", "ns_coefficients", "ns_steps", "eps", "adjust_lr_fn")
_PUBLISHED_FIELDS = ("momentum", "nesterov", "ns_steps")
_JORDAN_FIELDS = {
    *_PUBLISHED_FIELDS, "params", "lr", "initial_lr", "weight_decay", "rank", "world_size", "update_buffer",
    "update_buffer_views",
}  # fmt: skip
_ROTATIONAL_FIELDS = ("per_neuron", "zero_mean", "update_norm_decay")
FAMILIES: tuple[Family, ...] = (
    Family(names=("adamw",), fields=_ADAM_FIELDS, make=_adamw),
    Family(names=("adam",), fields=_ADAM_FIELDS, make=_adam),
    Family(names=("nadam",), fields=(*_ADAM_FIELDS, "momentum_decay"), make=_nadam),
    Family(
        names=("ademamix",),
        fields=(*_ADAM_FIELDS, "alpha"),
        make=_ademamix,
        neutral=NEUTRAL | {"cautious": False, "stable_adamw": False},
    ),
    Family(names=("sgd",), fields=_SGDM_FIELDS, make=_sgdm, neutral=_NESTEROV),
    Family(names=("lion",), fields=_LION_FIELDS, make=_lion, rates=_lion_rates),
    Family(names=("signum",), fields=("momentum",), make=_signum),
    Family(names=("muon",), fields=_MUON_FIELDS, make=_muon, neutral=_NESTEROV),
    Family(names=("muon",), fields=_PUBLISHED_FIELDS, make=_published_muon, neutral=_NESTEROV),
    Family(names=("rotationaladamw",), fields=(*_ADAM_FIELDS, *_ROTATIONAL_FIELDS), make=_rotational(_adamw)),
    Family(
        names=("rotationalsgdm",),
        fields=(*_SGDM_FIELDS, *_ROTATIONAL_FIELDS),
        make=_rotational(_sgdm),
        neutral=_NESTEROV,
    ),
    Family(names=("rotationallion",), fields=(*_LION_FIELDS, *_ROTATIONAL_FIELDS), make=_rotational(_lion)),
    Family(names=("rotated",), fields=(), make=_rotated, rates=_rotated_rates),
)


class NoSpec(InvalidInput):
    """No spec follows the optimizer's recurrence; ``why`` says it in a clause, ``nearest`` what may stand for it."""

    def __init__(self, optimizer: torch.optim.Optimizer, why: str, nearest: str) -> None:
        super().__init__(
            f"no spec describes this {type(optimizer).__name__}: {why}; supported are {SUPPORTED}. "
            f"To compare with the theory of the closest one, pass that: Recorder(..., spec={nearest})"
        )
        self.why, self.nearest = why, nearest


def _simple(name: str) -> str:
    return _STORAGE.sub("", name.lower())


def _rule_names(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Iterator[str]:
    """What its rule may be called, the likeliest first: by the group, by the class, by the classes that it extends."""
    if isinstance(kind := group.get("kind", group.get("algorithm")), str):  # nanochat's, Dion's
        yield kind
    elif isinstance(muon := group.get("use_muon"), bool):  # Keller Jordan's Muon with auxiliary Adam: AdamW
        yield "muon" if muon else "adamw"
    else:
        yield from (cls.__name__ for cls in type(_stepping(optimizer)).__mro__)


def _stepping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose rule moves the weights: that inside ZeRO's, for example."""
    inner = getattr(optimizer, _HOLDERS.get(_simple(type(optimizer).__name__), ""), None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def _family_of(optimizer: torch.optim.Optimizer, values: Values, group: Mapping[str, Any]) -> Family | str:
    """The family that a group follows, or why none is known."""
    for place, name in enumerate(_rule_names(optimizer, group)):
        known = [family for family in FAMILIES if _simple(name) in family.names]
        if known and place:  # only a class itself is taken at its word
            return f"a subclass may change the update rule of {name}"
        for family in known:
            if all(need in values for need in family.fields):
                return family
    return "its update rule is unknown to rotsim"


def rates_in_force(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], defaults: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float]:
    """Learning rate and weight decay of a group in PyTorch's units, whatever its package keeps them in.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    group : mapping
        Of ``optimizer.param_groups``.
    defaults : (float, float)
        Taken where the group has none.
    """
    values = Values(_stepping(optimizer), {**dict(zip(("lr", "weight_decay"), defaults, strict=True)), **group})
    family = _family_of(optimizer, values, group)
    lr, decay = (family.rates if isinstance(family, Family) else _rates_in_group)(values)
    return float(lr or 0.0), float(decay or 0.0)  # some optimizers set the step by themselves, and have None here


def state_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> Mapping[str, Any]:
    """What the optimizer keeps for a parameter; empty before its first step."""
    found: Mapping[str, Any] = _stepping(optimizer).state.get(parameter, {})
    return found


def optimizer_spec(optimizer: torch.optim.Optimizer, group: int = 0, **override: float) -> Optimizer:
    """The spec with the hyperparameters now in force in one parameter group.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        ``AdamW``, ``Adam`` (`rotsim.AdamL2`, or `rotsim.AdamW` with ``decoupled_weight_decay``), ``SGD``, ``Lion``,
        ``Signum``, PyTorch's ``NAdam``, ``AdEMAMix``, or ``Muon`` of PyTorch and of its author. It may be of PyTorch,
        timm, lion-pytorch, bitsandbytes or Apex: names are the same. ``cautious_wd`` or ``cautious_weight_decay`` in a
        group makes it `rotsim.Cautious`. Or a rotational variant, and
        `rotsim.measure.Rotated` with a spec. In a group without weight decay, a variant is the optimizer that it is a
        variant of.
        ``ZeroRedundancyOptimizer`` is what it holds. Where a group names its rule (``kind="adamw"``,
        ``use_muon=False``), that rule counts.
    group : int
        Index into ``optimizer.param_groups``, as in a list.
    **override : float
        Hyperparameters (``lr`` > 0, ``weight_decay`` >= 0) to use in place of those of the group.

    Returns
    -------
    Optimizer

    Raises
    ------
    NoSpec, InvalidInput
        If no spec follows the optimizer's recurrence, or its hyperparameters are outside the spec's range.
    """
    instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
    group = integer("group", group, low=0, high=max(1, len(optimizer.param_groups)))
    override = mapping("override", override, ("lr", "weight_decay", "momentum", "betas", "eps"))
    own = optimizer.param_groups[group]
    with taken_by_torch("optimizer", "have numbers for hyperparameters in its groups"):
        lr, decay = rates_in_force(optimizer, own)
        values = Values(_stepping(optimizer), {**own, **override})
        values.rates = {"lr": lr, "weight_decay": decay} | {
            k: override[k] for k in ("lr", "weight_decay") if k in override
        }
        family = _family_of(optimizer, values, own)
        if isinstance(family, str):
            raise NoSpec(optimizer, family, _nearest(values))
        for option, neutral in family.neutral.items():
            if values.get(option, neutral) not in (neutral, None):
                raise NoSpec(optimizer, f"{option}={values[option]} changes the recurrence", _nearest(values))
        try:
            return _cautious(family.make(values), values)
        except Variant as variant:
            raise NoSpec(optimizer, str(variant), _nearest(values)) from None


def _cautious(plain: Optimizer, values: Values) -> Optimizer:
    """With cautious decay, where the group says so."""
    found = next((f"{option}={values[option]}" for option in CAUTIOUS if values.get(option)), "")
    if not found:
        return plain
    try:
        return Cautious(plain)
    except InvalidInput:
        raise Variant(f"{found} changes the recurrence, which is not known of {plain.label}") from None


def _nearest(values: Values) -> str:
    """A spec with the hyperparameters of a group as code, to stand for a rule that is not known."""
    numbers = {name: f"{value:g}" for name, value in values.rates.items()}
    if isinstance(values.get("betas"), tuple | list) and len(values["betas"]) >= 2:
        numbers["betas"] = "({:g}, {:g})".format(*values.betas)
        sign = "eps" not in values or "lion" in type(values.optimizer).__name__.lower()
        if not sign:
            numbers["eps"] = f"{float(values['eps']):g}"
        name = "Lion" if sign else "AdamW"
    else:
        momentum = values.get("momentum", 0.0)
        numbers["momentum"] = f"{momentum if isinstance(momentum, int | float) else 0.0:g}"
        name = "SGDM"
    return f"rotsim.{name}({', '.join(f'{key}={number}' for key, number in numbers.items())})"
