# ruff: noqa: E501, E731
"""Calls of the whole public API with hostile arguments: each answers with rotsim's own error or with a sound result.

A call is a line of Python, made by a random number generator, so that a failure is its own reproducer. The tests let
hypothesis drive the generator (`tests/test_fuzz.py`). By hand, many more:

    python -m tests.fuzz --calls 100000 --seed 0

prints every distinct failure once, with the line that shows it. Call k of a seed is the same whatever came before it,
so ``--first K`` goes on where a run stopped.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

from rotsim.kernels import compilation
from tests.hostile import (
    Endless,
    Hostile,
    HostileFloat,
    HostileInt,
    HostileMapping,
    HostileSequence,
    looped,
    raising,
)

SECONDS = 20.0  # a call may take
MEANT = r"Rotational\w+ rotates nothing"  # a warning that is the answer
OWN = ("InvalidInput", "DatasetError", "NoEquilibrium")

# --- values, as expressions ---------------------------------------------------------------------------------------

FOREIGN = (
    "None", "True", "'a'", "b'a'", "''", "1j", "Decimal('0.1')", "Fraction(1, 3)", "10**400", "-10**400", "2**63",
    "-2**63", "2**64", "10**5000", "[]", "()", "{}", "{'a': 1}", "['a']", "[1.0, None]", "[[1.0], [1.0, 2.0]]",
    "object()", "len", "int", "Hostile()", "[Hostile()]", "HostileFloat(0.1)", "Endless()", "iter([1.0])",
    "range(2**40)", "np.array([1j])", "np.array('a')", "np.array([None])", "np.array([], float)", "np.array(0.1)",
    "np.array([True])", "np.datetime64('2020')", "np.longdouble('1e400')", "lambda *_: 'a'", "lambda *_: None",
    "lambda step: step * 1j", "lambda step: step[:-1]", "Path('a')", "float('nan')", "float('inf')", "-float('inf')",
    "np.ones((2, 3))", "np.full(3, np.nan)", "rotsim.AdamW(0.1, 0.1)", "rotsim.Isotropic()", "W", "EQ", "COURSE",
    "bytearray(b'a')", "set()", "{1.0}", "frozenset([1.0])", "(x for x in [1.0])", "OrderedDict(a=1)", "'0.1'", "'nan'",
    "np.ma.array([1.0, 2.0], mask=[True, False])", "np.ma.masked", "np.array(['0.1'])", "np.str_('a')", "1e308",
    "memoryview(b'ab')", "np.timedelta64(1)", "xr.DataArray(0.1)", "xr.DataArray([1.0])", "torch.tensor(0.1)",
    "torch.ones(3)", "torch.tensor([1j])", "...", "NotImplemented", "slice(1)", "looped()", "'\\ud800'", "HostileInt(3)",
    "Decimal('NaN')", "Decimal('1e400')", "Fraction(10**400, 3)", "np.float64('nan')", "np.zeros((0, 3))", "2**1023",
    "[[[[1.0]]]]", "lambda *_: 1 / 0", "lambda: 1", "np.ones(3, dtype='>f8')", "np.ones(9)[::-1]", "np.bool_(True)",
    "np.rec.array([(1.0, 2)])", "Hostile", "HostileMapping()", "HostileSequence()", "raising", "MODEL", "SGD",
    "np.broadcast_to(1.0, 10**10)", "np.broadcast_to(1.0, (2, 10**9, 8))", "np.array([1.0, np.nan])", "[0.5] * 10**5",
)  # fmt: skip
#: Those that answer whether they equal something, as Python asks them where ours does not know.
PEACEFUL = tuple(text for text in FOREIGN if text != "Hostile()")
ENDS = (
    "0", "0.0", "-0.0", "5e-324", "1e-308", "1e-300", "1e-150", "1e-31", "1e-30", "1e-20", "1e-16", "1e-12", "1e-8",
    "0.5", "1", "1.0", "1 - 2**-53", "1 + 2**-52", "0.999999", "2", "10", "1e3", "1e8", "1e16", "1e30", "1e31", "1e150",
    "1e200", "1e300", "1.7976931348623157e308", "-1", "-1e-300", "-1e300", "np.float32(0.1)", "np.float16(0.1)",
)  # fmt: skip
WHOLE = (
    "0", "1", "2", "3", "4", "5", "7", "8", "16", "33", "64", "100", "1000", "2**16", "2**31 - 1", "2**31", "2**32 - 1",
    "2**32", "2**53", "2**62", "2**63 - 1", "2**63", "2**64", "10**30", "10**400", "-1", "-2**63", "1.0", "2.5",
    "np.int8(3)", "np.uint64(2**63)",
)  # fmt: skip
NO_STEPS = ("0", "-1", "-2**63", "2**32", "2**63", "10**400", "1.0", "2.5", "np.int8(3)", "True")


class Maker:
    """Expressions for arguments, from one random number generator.

    Half of the arguments are sound, so that a call gets past its first check; which ones is drawn call by call.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wild = rng.choice((0.0, 0.05, 0.15, 0.4))

    def among(self, *options: str) -> str:
        return self.rng.choice(options)

    def one(self, sound: Callable[[], str] | str, ends: tuple[str, ...] = ()) -> str:
        """Sound, or an end of its range, or foreign."""
        chance = self.rng.random()
        if chance < self.wild / 2:
            return self.rng.choice(FOREIGN)
        if chance < self.wild and ends:
            return self.rng.choice(ends)
        return sound if isinstance(sound, str) else sound()

    def between(self, low: float, high: float) -> str:
        """A positive number, uniform in its logarithm."""
        return f"{low * (high / low) ** self.rng.random():.3g}"

    def number(self, low: float, high: float) -> str:
        return self.one(lambda: self.between(low, high), ENDS)

    def whole(self, *sound: int) -> str:
        return self.one(lambda: str(self.rng.choice(sound)), WHOLE)

    def share(self) -> str:
        """A number in [0, 1), as momentum."""
        return self.one(lambda: self.among("0.0", "0.5", "0.9", "0.99", "0.999", "0.3"), ENDS)

    def options(self, required: dict[str, Callable[[], str]], optional: dict[str, Callable[[], str]]) -> str:
        """Keyword arguments: those required, and some of the optional ones."""
        chosen = dict(required)
        count = self.rng.randint(0, min(3, len(optional)))
        for name in self.rng.sample(sorted(optional), count):
            chosen[name] = optional[name]
        parts = [f"{name}={make()}" for name, make in chosen.items()]
        return ", ".join(parts)

    # --- specs

    def betas(self) -> str:
        return self.one(lambda: f"({self.share()}, {self.share()})", ("(0, 0)", "(0.9,)", "(1, 1)", "'ab'", "(0.9, 0)"))

    def plain_optimizer(self, decay: str = "") -> str:
        lr, decay = self.number(1e-4, 0.3), decay or self.number(1e-3, 0.5)
        kind = self.among("AdamW", "AdamL2", "SGDM", "Lion", "Signum", "Muon", "NAdamW", "AdEMAMix")
        extra: dict[str, Callable[[], str]] = {"eps": lambda: self.number(1e-12, 1e-3), "betas": self.betas}
        if kind in ("SGDM", "Signum", "Muon"):
            extra = {"momentum": self.share}
        if kind == "SGDM":
            extra |= {"dampening": self.share, "nesterov": self.flag}
        if kind == "Lion":
            del extra["eps"]
        if kind == "AdEMAMix":
            extra |= {"betas": lambda: f"({self.share()}, {self.share()}, {self.share()})"}
            extra["alpha"] = lambda: self.number(1e-3, 20)
        if kind == "NAdamW":
            extra["momentum_decay"] = lambda: self.number(1e-4, 10)
        rest = self.options({}, extra)
        return f"rotsim.{kind}({lr}, {decay}{', ' + rest if rest else ''})"

    def optimizer(self) -> str:
        if self.rng.random() < 0.15:
            rest = self.options(
                {},
                {"update_norm_decay": self.share, "zero_mean": self.flag, "exact_angle": self.flag},
            )
            return f"rotsim.Rotational({self.one(self.plain_optimizer)}{', ' + rest if rest else ''})"
        if self.rng.random() < 0.1:
            return f"rotsim.Cautious({self.one(self.plain_optimizer)})"
        if self.rng.random() < 0.1:
            return f"rotsim.Hyperball({self.one(lambda: self.plain_optimizer('0.0'))})"
        return self.one(self.plain_optimizer)

    def scale(self) -> str:
        return self.one(lambda: self.among("1.0", "0.3", "(1.0, 2.0)", "np.array([0.5, 2.0, 1.0])"), ENDS)

    def flag(self) -> str:
        return self.one(lambda: self.among("True", "False"))

    def gradient(self, *kinds: str) -> str:
        kind = self.rng.choice(
            kinds
            or ("ScaleInvariant", "Isotropic", "Signal", "Autocorrelated", "Radial", "Bursts", "StudentT",
                "LayerInvariant", "SimpleSystem", "Replay")
        )  # fmt: skip
        shape = {"scale": self.scale, "scale_invariant": self.flag}
        required: dict[str, Callable[[], str]] = {}
        if kind in ("ScaleInvariant", "Isotropic"):
            shape = {"scale": self.scale}
        elif kind == "LayerInvariant":
            shape = {"scale": self.scale, "push": self.scale}
        elif kind == "SimpleSystem":
            shape = {"batch": lambda: self.whole(3, 8), "gain_out": self.scale, "gain_in": self.scale}
        elif kind == "Replay":
            sound = ("np.ones((9, 2, 8))", "np.zeros((9, 2, 8))", "np.random.default_rng(0).normal(size=(9, 2, 8))")
            ends = ("np.ones((1, 1))", "np.full((9, 2, 8), 1e300)", "np.full((9, 2, 8), np.nan)", "np.ones((0, 2, 8))")
            shape, required = {}, {"gradients": lambda: self.one(lambda: self.among(*sound), ends)}
        elif kind == "Bursts":
            sound = ("np.ones(50)", "[1.0, 5.0] * 25", "np.linspace(0, 1, 50)")
            ends = ("[1e300] * 50", "[0.0] * 50", "[5e-324] * 50", "[1.0]", "[-1.0]")
            required = {"series": lambda: self.one(lambda: self.among(*sound), ends)}
        else:
            name = {"Signal": "ratio", "Autocorrelated": "correlation", "Radial": "strength", "StudentT": "degrees"}
            low, high = (2.1, 50) if kind == "StudentT" else (1e-3, 0.9)
            required = {name[kind]: lambda: self.number(low, high)}
        return f"rotsim.{kind}({self.options(required, shape)})"

    def predictable(self) -> str:
        """A gradient that has a law, more often than not."""
        kinds = ("ScaleInvariant", "Isotropic", "ScaleInvariant", "Signal", "Autocorrelated", "Radial", "Bursts")
        return self.one(lambda: self.gradient(*kinds) if self.rng.random() < 0.95 else self.gradient())

    def dim(self) -> str:
        return self.whole(2, 3, 8, 64, 1024)

    def schedule(self) -> str:
        sound = ("schedules.cosine(9)", "np.ones(9)", "lambda step: 1 / step", "lambda step: 0.5", "[0.5] * 9", "None")
        ends = (
            "lambda step: -step",
            "lambda step: np.full(len(step), 1e300)",
            "np.zeros(9)",
            "[1e300] * 9",
            "'cosine'",
            "'corrected'",
            "'independent'",
        )
        return self.one(lambda: self.among(*sound), ends)

    def path(self) -> str:
        ends = ("'a\\0b'", "''", "'/'", "'no/such/folder/x.nc'", "'x' * 300", "b'x.nc'", "-1", "'/dev/full'", "FOLDER",
                "'\\ud800.nc'", "'x.nc/'", "3", "'a\\nb/x.nc'", "'no/../x.nc'", "FOLDER / ('é' * 200)", "'x.nc'.encode()",
                "bytearray(b'x.nc')", "'~nobody/x.nc'", "'\\x1b[31m.nc'")  # fmt: skip
        return self.one("FOLDER / 'x.nc'", ends)

    def dataset(self) -> str:
        return self.one(
            lambda: self.among("W", "W", "W", "TRACE", "COURSE", "SHORT"),
            ("xr.Dataset()", "W.isel(step=[])", "W.isel(neuron=[])", "W.isel(step=[0])", "W * np.nan", "W.drop_attrs()",
             "W.drop_vars('norm')", "W.assign(norm=W.norm * 0)", "W.assign(norm=('neuron', np.ones(20)))",
             "W.assign_attrs(spec='{')", "W.assign_attrs(optimizer='{}')", "W.assign_attrs(source='moon')",
             "W.assign_attrs(rotsim_schema='x')", "W.assign(norm=W.norm.astype(str))", "W.transpose()",
             "W.assign(norm=W.norm * 1j)", "TRACE.drop_vars('layer')", "TRACE.isel(step=[0])"),
        )  # fmt: skip

    def series(self) -> str:
        sound = (
            "np.random.default_rng(0).normal(1, 0.1, (3, 50))",
            "np.ones((20, 30))",
            "np.arange(60.0).reshape(2, 30)",
        )
        ends = ("np.ones((0, 5))", "np.ones((5, 0))", "np.ones(5)", "np.full((2, 30), np.nan)", "np.full((2, 30), 1e300)",
                "np.zeros((2, 30))", "np.ones((1, 1))", "np.ones((2, 2, 2))")  # fmt: skip
        return self.one(lambda: self.among(*sound), ends)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _theory(m: Maker, name: str, required: dict[str, Callable[[], str]], optional: dict[str, Callable[[], str]]) -> str:
    return f"rotsim.{name}({_joined(m.optimizer(), m.options(required, optional))})"


def _equilibrium(m: Maker) -> str:
    method = lambda: m.one(lambda: m.among("'exact'", "'leading'"), ("'Exact'", "['exact']"))
    return _theory(m, "equilibrium", {}, {"dim": m.dim, "gradient": m.predictable, "method": method})


def _equilibria(m: Maker) -> str:
    kinds = ("rotsim.AdamW", "rotsim.AdamL2", "rotsim.SGDM", "rotsim.Lion")
    kind = m.one(lambda: m.among(*kinds), ("rotsim.Rotational", "rotsim.OPTIMIZERS", "OPT"))
    column = lambda: m.one(
        lambda: m.among(m.between(1e-4, 0.1), f"np.array([{m.between(1e-4, 0.1)}, 0.5])", "np.full((2, 1), 1e-3)"),
        ("np.array([0.1, np.nan])", "np.zeros((0, 3))", "np.array([[1e300], [1e-300]])", *ENDS),
    )
    optional = {
        "dim": lambda: m.one(
            lambda: m.among("8", "np.array([8, 64])"), ("np.array([1, 8])", "np.array([8.5])", *WHOLE)
        ),
        "gradient": m.predictable,
        "betas": lambda: m.one("(0.9, 0.99)", ("(np.array([0.5, 0.9]), 0.9)", "(0.9,)", "np.ones(2)")),
    }
    return f"rotsim.equilibria({kind}, {m.options({'lr': column, 'weight_decay': column}, optional)})"


def _predict(m: Maker) -> str:
    optional = {
        "gradient": m.predictable, "initial_norm": lambda: m.number(1e-2, 1e2), "lr_schedule": m.schedule,
        "wd_schedule": m.schedule, "record_every": lambda: m.whole(1, 4, 100),
    }  # fmt: skip
    return _theory(m, "predict", {"dim": m.dim, "steps": lambda: m.whole(1, 9, 9, 9)}, optional)


def _steps(m: Maker) -> str:
    optional = {
        "gradient": m.predictable,
        "initial_norm": lambda: m.number(1e-2, 1e2),
        "within": lambda: m.number(1e-3, 0.3),
    }
    return _theory(m, "steps_to_equilibrium", {"dim": m.dim}, optional)


def _over(m: Maker) -> str:
    return _theory(m, "rotation_over", {"dim": m.dim, "lag": lambda: m.whole(1, 5, 1000)}, {"gradient": m.predictable})


def _plan(m: Maker) -> str:
    family = m.one(
        lambda: m.among("'adamw'", "'sgdm'", "'lion'", "'adam_l2'"), ("'AdamW'", "['adamw']", "'rotational'")
    )
    targets = {"rotation": lambda: m.number(1e-4, 0.1), "norm": lambda: m.number(0.1, 10)}
    optional = {
        "relaxation_steps": lambda: m.number(10, 1e5), "lr": lambda: m.number(1e-4, 0.1), "dim": m.dim,
        "weight_decay": lambda: m.number(1e-3, 0.5), "betas": m.betas, "momentum": m.share, "gradient": m.predictable,
    }  # fmt: skip
    return f"rotsim.plan({_joined(family, m.options(targets, optional))})"


def _transfer(m: Maker) -> str:
    optional = {
        "momentum": m.share, "batch_factor": lambda: m.number(0.1, 10), "steps_factor": lambda: m.number(0.1, 10),
        "dim": m.dim, "gradient": m.predictable,
    }  # fmt: skip
    return _theory(m, "transfer", {}, optional)


def _convert(m: Maker) -> str:
    to = m.one(lambda: m.among("'sgdm'", "'lion'", "'adamw'", "'adam_l2'"), ("'adam'", "rotsim.SGDM", "3", "None"))
    optional = {
        "keep": lambda: m.one(lambda: m.among("['rotation']", "('time', 'norm')", "['lr']"), ("[]", "'Norm'", "3", "[3]")),
        "convention": lambda: m.among("'independent'", "'l2'", "'decoupled'", "'Decoupled'", "3"),
        "max_lr": lambda: m.number(1e-3, 1), "dim": m.dim, "to_dim": m.dim, "gradient": m.predictable, "momentum": m.share,
        "lr": lambda: m.number(1e-3, 1),
    }  # fmt: skip
    return f"rotsim.convert({_joined(m.optimizer(), to, m.options({}, optional))})"


def _over_names(m: Maker) -> str:
    values = lambda: m.one(
        lambda: f"[{m.number(1e-3, 0.3)}, {m.number(1e-3, 0.3)}]", ("[]", "('d', [0.1])", "range(3)", "np.ones(2)")
    )
    names = m.among("'lr'", "'weight_decay'", "'lr'", "'momentum'", "'dim'"), m.among("'weight_decay'", "'seed'", "'x'")
    return m.one(
        lambda: "{" + ", ".join(f"{name}: {values()}" for name in names) + "}", ("{}", "{3: [1]}", "[('lr', [1])]")
    )


def _sweep(m: Maker) -> str:
    spec = m.one(m.optimizer, ("rotsim.SGDM", "rotsim.Lion", "rotsim.Rotational", "int"))
    measure = lambda: m.one(
        lambda: m.among("'leading'", "'equilibrium'", "'error'", "(lambda spec: spec.lr)"),
        ("'Leading'", "print", "int", "(lambda: 3)", "(lambda spec: 'x')", "(lambda spec: [1])"),
    )
    optional = {
        "measure": measure, "gradient": m.predictable, "workers": lambda: m.whole(1), "dry_run": m.flag, "dim": m.dim,
        "store": m.path, "executor": lambda: m.one("None", ("'x'", "map")), "progress": lambda: m.one("print_nothing", ("3", "lambda: 1")),
        "weight_decay": lambda: m.number(1e-3, 0.5), "lr": lambda: m.number(1e-3, 0.5), "of": lambda: m.one("'leading'"),
    }  # fmt: skip
    return f"rotsim.sweep({_joined(spec, _over_names(m), m.options({}, optional))})"


def _map(m: Maker) -> str:
    specs = m.one(lambda: m.among("rotsim.SGDM", "rotsim.Lion", f"[{m.optimizer()}]"), ("[]", "int"))
    optional = {
        "quantity": lambda: m.one("'norm'", ("'Norm'",)), "dim": m.dim, "gradient": m.predictable,
        "steps": lambda: m.whole(1, 100), "points": lambda: m.one("[(0.1, 0.1)]", ("[(1,)]", "[('a', 1)]", "3")),
        "momentum": m.share,
    }  # fmt: skip
    return f"rotsim.plot_map({_joined(specs, _over_names(m), m.options({}, optional))})"


def _animate(m: Maker) -> str:
    specs = m.one("rotsim.SGDM(0.1, 0.1)", ("[]", "5 * [rotsim.SGDM(0.1, 0.1)]", "rotsim.SGDM", "3"))
    required = {  # pictures take long
        "dim": lambda: m.whole(3, 8), "steps": lambda: m.one("3", NO_STEPS), "frames": lambda: m.one("1", NO_STEPS),
    }  # fmt: skip
    optional = {
        "neurons": lambda: m.whole(3, 4), "initial_norm": lambda: m.number(1e-2, 1e2), "lr_schedule": m.schedule,
        "seed": lambda: m.whole(0, 1, 2**63), "fps": lambda: m.whole(1, 50),
        "progress": lambda: m.one("print_nothing", ("3", "'a'", "lambda: 1")),
    }  # fmt: skip
    output = m.one("'walk.gif'", ("'walk.avi'", "'no/walk.gif'", "3", "''"))
    return f"rotsim.animate({_joined(specs, output, m.options(required, optional))})"


def _simulate(m: Maker) -> str:
    required = {  # as many steps as are asked for are walked, which may take days
        "dim": lambda: m.whole(2, 3, 8, 8), "neurons": lambda: m.whole(1, 2, 2, 3),
        "steps": lambda: m.one(lambda: m.among("1", "9", "9"), NO_STEPS),
        "engine": lambda: m.one(lambda: m.among("'numpy'", "'numpy'", "'gram'"), ("'cuda'", "'Numpy'")),
    }  # fmt: skip
    optional = {
        "gradient": lambda: m.one(m.gradient), "seed": lambda: m.whole(0, 1, 2**63), "record_every": lambda: m.whole(1, 4),
        "initial_norm": lambda: m.number(1e-2, 1e2), "dtype": lambda: m.among("'float32'", "'float64'", "np.float32"),
        "initial_weights": lambda: m.one("np.ones((2, 8))", ("np.ones((2, 8)) * 1j", "np.zeros((2, 8))", "np.ones(8)",
                                                             "np.full((2, 8), 1e200)", "np.full((2, 8), 1e-200)")),
        "lr_schedule": m.schedule, "wd_schedule": m.schedule, "keep_state": m.flag,
        "resume": lambda: m.one("SHORT", ("'walk.nc'", "W", "TRACE", "3")), "threads": lambda: m.whole(1, 2),
        "progress": lambda: m.one("print_nothing", ("3", "'a'", "lambda: 1")), "checkpoint": m.path,
        "checkpoint_seconds": lambda: m.number(1e-6, 10),
    }  # fmt: skip
    return f"rotsim.simulate({_joined(m.optimizer(), m.options(required, optional))})"


def _compare(m: Maker) -> str:
    eq = ("rotsim.Equilibrium(*['a'] * 6)", "rotsim.Equilibrium(*[np.nan] * 5, 'exact')", "EQ.to_dict()",
          "rotsim.Equilibrium(*[0.0] * 5, 'exact')", "rotsim.Equilibrium(*[1e300] * 5, 'exact')")  # fmt: skip
    predicted = m.one(lambda: m.among("EQ", "EQ", "COURSE"), (*eq, "W"))
    quantities = lambda: m.one("['norm', 'rotation']", ("'norm'", "['Norm']", "1.0", "[['norm']]", "('norm', 1)"))
    tolerance = lambda: m.one(
        lambda: m.among("0.1", "{'norm': 0.1}", "None"),
        ("'x'", "float('nan')", "{'Norm': 9}", "{'norm': 'x'}", "-1", "1e300"),
    )
    optional = {"quantities": quantities, "tolerance": tolerance, "k": lambda: m.number(1, 9)}
    return f"rotsim.compare({_joined(m.dataset(), predicted, m.options({}, optional))}).table()"


def _schedule(m: Maker) -> str:
    call = m.among(
        f"constant({m.number(0.1, 2)})", f"warmup({m.whole(0, 3)}, {m.one('schedules.cosine(9)')})",
        f"linear({m.whole(1, 9)}, {m.number(0.1, 1)})", f"cosine({m.whole(1, 9)}, {m.number(0.1, 1)})",
        f"wsd({m.whole(9, 20)}, {m.whole(0, 3)}, {m.whole(0, 3)}, {m.number(0.1, 1)})",
    )  # fmt: skip
    return f"schedules.{call}(np.arange(1, 10))"


def _statistics(m: Maker) -> str:
    return m.among(
        f"statistics.autocorrelation_time({m.series()}, {m.number(1, 9)})",
        f"statistics.mean({m.series()}, {m.flag()})",
        f"statistics.root_mean_square({m.series()}, {m.flag()})",
        f"statistics.equilibration({m.one('np.arange(1, 31)')}, {m.one(lambda: f'[{m.series()}]')}, {m.flag()}, "
        f"{m.number(1e-3, 0.1)})",
        f"bonferroni({m.number(1, 9)}, {m.whole(1, 100)}, {m.whole(2, 64)})",
    )


def _from_dict(m: Maker) -> str:
    kind = m.among("optimizer_from_dict", "gradient_from_dict")
    foreign = (
        "{'name': 'adamw'}", "{'name': 'adamw', 'lr': 1, 'weight_decay': 0.1, 'foo': 1}", "{'name': ['adamw']}",
        "{'name': 'isotropic', 'scale': [1.0, 'a']}", "{'name': 'rotational', 'inner': {}}", "{1: 2}",
        "rotsim.Replay(np.ones((1, 1, 2))).to_dict()", "{'name': 'rotational', 'inner': {'name': 'rotational'}}",
    )  # fmt: skip
    made = lambda: f"{m.plain_optimizer() if 'opt' in kind else m.gradient()}.to_dict()"
    return f"{kind}({m.one(made, foreign)})"


def _trace(m: Maker) -> str:
    what = m.among("diagnose", "balance", "predict_trace", "compare_with_theory", "gather", "optimizer_of", "spec_of",
                   "validate")  # fmt: skip
    return f"{what}({m.dataset()})"


def _plotting(m: Maker) -> str:
    quantity = m.one(lambda: m.among("'rotation'", "'norm'"), ("'moon'", "['norm']"))
    return m.among(
        f"plotting.plot_walk({m.one('AXES')}, {m.dataset()}, {m.one('EQ')}, {m.one(f'[{quantity}]')})",
        f"plotting.plot_layers({m.one('AXES')}, {m.dataset()}, {m.one('DIAGNOSIS')}, {quantity})",
        f"plotting.trace_figure({m.dataset()}, {m.one('DIAGNOSIS')})",
        f"plotting.course_figure({m.one('COURSE')}, {m.one('SETTLED')}, {m.one(repr('title'))})",
        f"plotting.save_figure({m.one('FIGURE')}, {m.path()}, {m.number(10, 30)})",
    )


def _files(m: Maker) -> str:
    return m.among(f"rotsim.save({m.dataset()}, {m.path()})", f"rotsim.load({m.path()})", "rotsim.load(SAVED)")


def _recorder(m: Maker) -> str:
    optional = {
        "interval": lambda: m.whole(1, 10), "window": lambda: m.whole(10, 100), "windows": lambda: m.whole(16, 64),
        "parameters": lambda: m.one("['0.weight']", ("['x']", "3", "lambda: 1", "lambda n, p: 'a'", "[1]", "'0.weight'")),
        "spec": lambda: m.one(m.plain_optimizer), "lags": lambda: m.whole(0, 4), "path": m.path,
        "split": lambda: m.one("{'0.weight': ('a', 'b')}", ("{'0.weight': 3}", "{'x': ('a',)}", "{1: 2}", "{'0.weight': (1, 2)}",
                                                            "{'0.weight': {'a': 1.5}}", "{'0.weight': ''}")),
        "note": lambda: m.one("{'seed': 1}", ("{'steps': 1}", "{1: object()}", "3", "[('a', 1)]", "float('nan')")),
        "save_seconds": lambda: m.number(1, 100),
    }  # fmt: skip
    model = m.one("MODEL", ("{'a': 1}", "{}", "MODEL.state_dict()", "{1: MODEL[0].weight}"))
    made = f"measure.Recorder({_joined(model, m.one('SGD'), m.options({}, optional))})"
    return m.among(
        made, f"trained({made})", f"trained({made}).dataset(command={m.one(repr('x'))})",
        f"trained({made}).save({m.path()}, {m.options({}, {'command': lambda: m.one('3')})})",
    )  # fmt: skip


def _rotational(m: Maker) -> str:
    kind = m.among("RotationalAdamW", "RotationalSGDM", "RotationalLion", "Lion")
    parameters = m.one(
        "MODEL.parameters()", ("[{'params': MODEL.parameters()}]", "[MODEL[0].weight] * 2", "[1.0]", "[{}]")
    )
    optional: dict[str, Callable[[], str]] = {
        "lr": lambda: m.number(1e-4, 0.1), "weight_decay": lambda: m.number(1e-3, 0.5)
    }  # fmt: skip
    if kind == "RotationalSGDM":
        optional |= {"momentum": m.share, "nesterov": m.flag}
    else:
        optional["betas"] = m.betas
    if kind == "RotationalLion":
        optional["exact_angle"] = m.flag
    if kind == "RotationalAdamW":
        optional["eps"] = lambda: m.number(1e-12, 1e-3)
    if kind != "Lion":
        optional |= {"per_neuron": m.flag, "zero_mean": m.flag, "update_norm_decay": m.share}
    made = f"measure.{kind}({_joined(parameters, m.options({}, optional))})"
    group = {
        "params": lambda: m.one("[torch.ones(2, 3)]", ("[]", "MODEL[0].weight", "[MODEL[0].weight] * 2"))
    } | optional
    return m.among(
        made, made, f"{made}.load_state_dict({_state(m)})", f"{made}.step({m.one('None', ('lambda: 1',))})",
        f"{made}.add_param_group({m.one(lambda: f'dict({m.options({}, group)})')})", f"loaded({made}, {_state(m)})",
    )  # fmt: skip


def _state(m: Maker) -> str:
    """A saved state of an optimizer, or what only looks like one."""
    ends = (
        "{}", "{'state': {}}", "{'state': 3, 'param_groups': 4}", "{**STATE, 'param_groups': []}",
        "{**STATE, 'param_groups': [{}]}", "{**STATE, 'param_groups': [{**STATE['param_groups'][0], 'lr': 'x'}]}",
        "{**STATE, 'param_groups': [{**STATE['param_groups'][0], 'lr': None}]}", "{**STATE, 'state': {0: 3}}",
        "{**STATE, 'state': {0: {'norm': torch.ones(99)}}}", "{**STATE, 'state': {0: {'exp_avg': torch.ones(1)}}}",
        "{**STATE, 'state': {0: {'norm': 3}}}", "SGD.state_dict()", "{**STATE, 'inner': 3}", "MODEL.state_dict()",
    )  # fmt: skip
    return m.one(lambda: m.among("STATE", "ROTATED_STATE", "{**STATE, 'inner': SGD.state_dict()}"), ends)


def _rotated(m: Maker) -> str:
    rotation = m.one(
        lambda: m.among("0.01", "rotsim.AdamW(0.1, 0.1)", "lambda group: 0.01"), (*ENDS, "rotsim.AdamL2(0.1, 0.1)")
    )
    factors = lambda: m.one(
        "{MODEL[0].weight: torch.ones(4)}", ("{1: 2}", "{MODEL[0].weight: 3}", "{MODEL[0].weight: torch.ones(3)}")
    )
    optional = {"per_neuron": m.flag, "zero_mean": m.flag, "update_norm_decay": m.share, "factors": factors}
    made = f"measure.Rotated({_joined(m.one('SGD'), rotation, m.options({}, optional))})"
    return m.among(made, made, f"{made}.load_state_dict({_state(m)})", f"loaded({made}, {_state(m)})")


def _spec(m: Maker) -> str:
    override = m.options({}, {"lr": lambda: m.number(1e-4, 0.1), "weight_decay": lambda: m.number(1e-3, 0.5)})
    return m.among(
        f"measure.optimizer_spec({_joined(m.one('SGD'), m.whole(0), override)})",
        f"measure.load_shipped({m.one(repr('digits_sgdm'), ('1', repr('x'), '[1]'))})",
        "measure.shipped_traces()",
    )


def _results(m: Maker) -> str:
    return m.among(
        "rotsim.InvalidInput('x')", "rotsim.DatasetError('x')", "rotsim.NoEquilibrium('x')", "rotsim.__version__",
        "rotsim.Interrupted(W)", "rotsim.SweepInterrupted(W, 1, 2, None)", "rotsim.OPTIMIZERS['adamw']", "rotsim.Report(()).table()", "EQ.to_dict()",
        "rotsim.plan('sgdm', rotation=0.01, norm=1.0).optimizer", "rotsim.Report(()).passed", "rotsim.Plan",
        *(f"{ours} == ({m.rng.choice(PEACEFUL)})" for ours in ("EQ", "rotsim.SGDM(0.1, 0.1)")),
    )  # fmt: skip


#: What makes a call, how often it is taken, and the public names that it calls.
def _read(m: Maker) -> str:
    """What other programs recorded: folders and files that hold none of it."""
    path = m.among("FOLDER", "FOLDER / 'absent.csv'", "SAVED", "'log.csv'", "None")
    if m.rng.random() < 0.4:
        other = m.among("TRACE", "W", "EQ", "None")
        return f"measure.join(TRACE, {other}, {m.options({}, {'at': lambda: m.whole(1, 500, 2000)})})"
    reader = m.among("read_log", "read_checkpoints")
    optional = {"schedule": lambda: m.among("'constant'", "'cosine'", "'sine'"), "steps": lambda: m.whole(1, 100)}
    return f"measure.{reader}({path}, {m.optimizer()}, {m.options({}, optional)})"


CALLS: dict[Callable[[Maker], str], tuple[int, str]] = {
    Maker.optimizer: (4, "AdamW AdamL2 SGDM Lion Signum Muon NAdamW AdEMAMix Cautious Hyperball Rotational"),
    Maker.gradient: (
        4,
        "ScaleInvariant Isotropic Signal Autocorrelated Radial Bursts StudentT LayerInvariant SimpleSystem Replay",
    ),
    _equilibrium: (6, "equilibrium Equilibrium"),
    _equilibria: (4, "equilibria"),
    _predict: (6, "predict"),
    _steps: (5, "steps_to_equilibrium"),
    _over: (5, "rotation_over"),
    _plan: (5, "plan Plan"),
    _transfer: (5, "transfer"),
    _convert: (4, "convert Conversion"),
    _sweep: (4, "sweep"),
    _map: (2, "plot_map"),
    _animate: (1, "animate"),
    _simulate: (14, "simulate"),
    _compare: (8, "compare Report"),
    _files: (4, "save load"),
    _schedule: (3, "schedules"),
    _statistics: (3, "statistics"),
    _from_dict: (3, "optimizer_from_dict gradient_from_dict"),
    _trace: (3, "diagnosis dataset traces"),
    _plotting: (2, "plotting"),
    _recorder: (4, "Recorder"),
    _rotational: (4, "RotationalAdamW RotationalSGDM RotationalLion measure.Lion"),
    _rotated: (2, "Rotated"),
    _spec: (2, "optimizer_spec load_shipped shipped_traces"),
    _read: (2, "join read_log read_checkpoints"),
    _results: (1, "InvalidInput DatasetError NoEquilibrium Interrupted SweepInterrupted OPTIMIZERS __version__"),
}


#: Of these one call in a few takes seconds.
LONG = (_predict, _steps, _plan, _transfer, _recorder, _rotational)


def make_call(rng: random.Random, long: float = 1.0) -> str:
    """One line that calls something public; what may take long is as often as `long` of its share."""
    weights = [weight * (long if make in LONG else 1.0) for make, (weight, _) in CALLS.items()]
    while (line := rng.choices(list(CALLS), weights)[0](Maker(rng))) in FOREIGN:
        pass  # calls nothing
    return line


# --- what the expressions name ------------------------------------------------------------------------------------


class Namespace(dict):
    """The names that calls use; what takes long to make is made when first named."""

    def __missing__(self, name: str) -> object:
        if name not in _MADE:
            raise KeyError(name)
        value = _MADE[name](self)
        if name not in ("AXES", "FIGURE"):  # what a call changes is made anew
            self[name] = value
        return value


def _modules() -> dict[str, object]:
    import torch

    import rotsim
    import rotsim.measure
    from rotsim import comparison, dataset, diagnosis, evidence, statistics, windows
    from rotsim.balance import balance
    from rotsim.gradients import gradient_from_dict
    from rotsim.optimizers import optimizer_from_dict
    from rotsim.show import plotting
    from rotsim.theory import prediction, schedules, traces

    return {
        "rotsim": rotsim, "measure": rotsim.measure, "dataset": dataset, "plotting": plotting, "statistics": statistics,
        "schedules": schedules, "np": np, "xr": xr, "torch": torch, "Path": Path, "Decimal": Decimal,
        "Fraction": Fraction, "Hostile": Hostile, "HostileFloat": HostileFloat, "Endless": Endless, "balance": balance,
        "diagnose": diagnosis.diagnose, "gather": evidence.gather, "predict_trace": traces.predict_trace,
        "compare_with_theory": comparison.compare_with_theory, "optimizer_of": dataset.optimizer_of,
        "spec_of": dataset.spec_of, "validate": dataset.validate, "gradient_from_dict": gradient_from_dict,
        "optimizer_from_dict": optimizer_from_dict, "bonferroni": windows.bonferroni, "settling": prediction.settling,
        "print_nothing": lambda done, steps: None, "OrderedDict": OrderedDict, "HostileInt": HostileInt,
        "HostileMapping": HostileMapping, "HostileSequence": HostileSequence, "looped": looped, "raising": raising,
        "trained": _trained, "loaded": _loaded,
    }  # fmt: skip


_MADE: dict[str, Callable[[Namespace], object]] = {
    "FOLDER": lambda n: Path(tempfile.mkdtemp(prefix="rotsim-fuzz-")),
    "W": lambda n: n["rotsim"].simulate(n["OPT"], dim=8, neurons=20, steps=900, record_every=30, engine="gram"),
    "SHORT": lambda n: n["rotsim"].simulate(n["OPT"], 8, 2, steps=5, keep_state=True, engine="numpy"),
    "OPT": lambda n: n["rotsim"].SGDM(0.1, 0.1),
    "EQ": lambda n: n["rotsim"].equilibrium(n["OPT"], 8),
    "COURSE": lambda n: n["rotsim"].predict(n["OPT"], 8, steps=900, record_every=30),
    "SETTLED": lambda n: n["settling"](n["OPT"], 8, n["rotsim"].ScaleInvariant(), n["COURSE"].step.values),
    "TRACE": lambda n: n["measure"].load_shipped("digits_sgdm"),
    "DIAGNOSIS": lambda n: n["diagnose"](n["TRACE"]),
    "SAVED": lambda n: n["rotsim"].save(n["W"], n["FOLDER"] / "saved.nc"),
    "STATE": lambda n: _state_of("RotationalAdamW")(n),
    "ROTATED_STATE": lambda n: _state_of("Rotated")(n),
    "FIGURE": lambda n: _figure(),
    "AXES": lambda n: _figure().subplots(),
    "MODEL": lambda n: n["torch"].nn.Sequential(n["torch"].nn.Linear(8, 4), n["torch"].nn.Linear(4, 2)),
    "SGD": lambda n: n["torch"].optim.SGD(n["MODEL"].parameters(), lr=0.1, weight_decay=0.1),
}


def _step(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.detach() * 0.1 + 0.01
    optimizer.step()


def _trained(recorder: Any) -> Any:
    """A recorder after twelve steps."""
    with recorder:
        for _ in range(12):
            _step(recorder.optimizer)
    return recorder


def _loaded(optimizer: Any, state: Any) -> None:
    """A step from a saved state, and one without."""
    optimizer.load_state_dict(state)
    _step(optimizer)


def _state_of(kind: str) -> Callable[[Namespace], object]:
    def made(names: Namespace) -> object:
        model = names["torch"].nn.Sequential(names["torch"].nn.Linear(8, 4), names["torch"].nn.Linear(4, 2))
        if kind == "Rotated":
            optimizer = names["measure"].Rotated(
                names["torch"].optim.SGD(model.parameters(), 0.1, weight_decay=0.1), 0.1
            )
        else:
            optimizer = getattr(names["measure"], kind)(model.parameters(), lr=0.1, weight_decay=0.1)
        _step(optimizer)
        return optimizer.state_dict()

    return made


def _figure() -> object:
    from matplotlib.figure import Figure

    return Figure()


# --- the property -------------------------------------------------------------------------------------------------


class Hangs(BaseException):
    """A call went on for longer than `SECONDS`."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `Hangs` in the main thread after so much processor time, or ten times as much on the clock."""

    def stop(number: int, *_: object) -> None:
        if compilation.depth:  # which an exception would leave half done: it is looked at again
            signal.setitimer(signal.ITIMER_PROF if number == signal.SIGPROF else signal.ITIMER_REAL, seconds)
        else:
            raise Hangs

    kinds = (signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds)
    before = [signal.signal(number, stop) for number, _, _ in kinds]
    for _, timer, limit in kinds:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(kinds, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def fault(line: str, names: Namespace, seconds: float = SECONDS) -> str | None:
    """What is wrong with the answer to a call, in one line; None for an own error or a sound result."""
    with warnings.catch_warnings(record=True) as leaked, at_most(seconds):
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", MEANT, UserWarning)
        try:
            wrong = unsound(eval(line, names))
            if ("np.nan" in line and (wrong == "nan" or line.startswith("validate("))) or line.startswith(
                "rotsim.load("
            ):
                wrong = None
        except Hangs:
            return f"takes longer than {seconds:g} s"
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("rotsim.")]
            if set(kinds) & set(OWN):
                text = str(error)
                wrong = None if "\n" not in text and len(text) < 2000 else "an error of several lines, or a long one"
            elif _callers_own(error):
                wrong = None
            else:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                wrong = f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:120]}"
    if wrong is None and leaked:
        wrong = f"leaks {leaked[0].category.__name__}: {' '.join(str(leaked[0].message).split())[:100]}"
    return wrong


def _callers_own(error: BaseException) -> bool:
    """Whether it comes from a function or a network that the call itself gave, or from the line of the call."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return last == "<string>" or last.endswith("torch/nn/modules/module.py")


def unsound(result: object) -> str | None:
    """What makes a result no answer."""
    from rotsim import dataset
    from rotsim.optimizers import Optimizer

    if isinstance(result, xr.Dataset) and "rotsim_schema" in result.attrs:
        dataset.validate(result)
        values = [result[name].values for name in dataset.QUANTITIES]
        if result.attrs["source"] == "simulation" and not all((np.isfinite(x) & (x >= 0)).all() for x in values):
            return "a walk with NaN, infinite or negative records"
        if any(np.isinf(x).any() or (x < 0).any() for x in values):
            return "infinite or negative numbers"
    if is_dataclass(result) and type(result).__name__ == "Equilibrium":
        numbers = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "method"}
        kept = (
            {"norm", "update_rms"} if np.ndim(numbers["norm"]) == 0 and np.isnan(numbers["norm"]) else set()
        )  # a rotational variant has none
        for name, number in numbers.items():
            least = 0.0 if name in ("model_error", "relaxation_steps") else 5e-324
            none = np.isnan(numbers["rotation"]) & isinstance(
                number, np.ndarray
            )  # settings of `equilibria` without one
            sound = none | ((least <= np.asarray(number)) & (np.asarray(number) < np.inf))
            if name not in kept and not sound.all() and name != "model_error":
                return f"{name} = {number}"
    if isinstance(result, float) and not np.isfinite(result):
        return f"{result}"
    if isinstance(result, Optimizer):
        hash(result), result.describe(), result.to_dict()
    return None


# --- the command line ---------------------------------------------------------------------------------------------

VERBS = (
    "equilibrium",
    "predict",
    "plan",
    "transfer",
    "convert",
    "simulate",
    "compare",
    "trace",
    "derive",
    "verify",
    "moon",
)
NUMBERS = ("0", "-1", "1", "0.1", "0.01", "1e-3", "0.9", "8", "64", "3", "1e300", "5e-324", "nan", "inf", "x", "", "1e-30",
           "9" * 30, "9" * 400, "2.5", "1e30")  # fmt: skip


def make_arguments(rng: random.Random, files: list[str]) -> list[str]:
    """Arguments of a `rotsim` command: its own options with sound and unsound values, or any words."""
    from rotsim.cli import cli

    wild = rng.choice((0.05, 0.2, 0.5))
    verb = rng.choice(VERBS[:8] if rng.random() < 0.9 else VERBS)
    if verb in ("compare", "trace"):
        middle = [] if verb == "compare" else [rng.choice(("report", "compare", "moon"))]
        words = [rng.choice(files) for _ in range(1 + (middle == ["compare"]))]
        extra = [w for w in ("--json", "--output", "--moon") if rng.random() < 0.15]
        return [
            verb,
            *middle,
            *words,
            *(x for w in extra for x in ((w, rng.choice(files)) if w == "--output" else (w,))),
        ]
    if verb in ("derive", "verify", "moon"):  # the sound ones take long
        return [verb, rng.choice(("moon", "--moon", "--style", "--seed=x", "--output=/dev/full/x", ""))]
    words, command = [verb], cli.commands[verb]
    family = rng.choice(("adamw", "adam-l2", "sgdm", "lion", "rmsprop" if rng.random() < wild else "sgdm"))
    words.append(family)
    if isinstance(command, click.Group):
        try:
            command = command.get_command(click.Context(command), family)
        except Exception:
            return words
    sound = {
        "lr": "0.1", "weight_decay": "0.1", "dim": "8", "steps": "9", "neurons": "2", "rotation": "0.01", "norm": "1",
        "engine": "numpy", "initial_norm": "1", "record_every": "3", "seed": "1",
    }  # fmt: skip
    for option in command.params:
        if not isinstance(option, click.Option) or option.name in ("help",):
            continue
        always = option.name in ("lr", "weight_decay", "steps", "engine", "dim", "neurons") and verb != "plan"
        if not always and rng.random() > (0.5 if option.name in ("rotation", "norm") else 0.12):
            continue
        words.append(option.opts[0])
        if option.is_flag:
            continue
        for _ in range(option.nargs):
            if rng.random() < wild:
                words.append(rng.choice((*NUMBERS, *files)))
            elif isinstance(option.type, click.Choice):
                words.append(str(rng.choice(option.type.choices)) if option.name != "engine" else "numpy")
            elif option.name in ("output", "figure", "resume"):
                words.append(rng.choice(files))
            elif option.name == "parameters":
                words.append(rng.choice(("ratio=0.1", "correlation=0.5", "scale=2", "x", "=", "name=1", "ratio=[1]")))
            else:
                words.append(sound.get(option.name, "0.9"))
    if rng.random() < wild:
        words.insert(rng.randrange(len(words) + 1), rng.choice((*NUMBERS, "--moon", "-h", "--")))
    return words


def command_fault(arguments: list[str], seconds: float = SECONDS) -> str | None:
    """What is wrong with the answer of a command: an exit code that means nothing, or a traceback."""
    from rotsim.cli import main

    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as leaked, at_most(seconds):
        warnings.simplefilter("always")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(arguments)
        except Hangs:
            return f"takes longer than {seconds:g} s"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:120]}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if code == 2 and not (err.getvalue().startswith("rotsim: ") and err.getvalue().count("\n") == 1):
        return f"exit code 2 without one line that says why: {err.getvalue()[:120]!r}"
    if "Traceback" in err.getvalue():
        return "a traceback"
    return f"leaks {leaked[0].category.__name__}: {str(leaked[0].message)[:100]}" if leaked else None


def command_files(names: Namespace) -> list[str]:
    """Paths for commands: a walk, a trace, and what is neither."""
    folder = names["FOLDER"]
    for name in ("W", "TRACE", "COURSE", "SHORT"):
        names["rotsim"].save(names[name], folder / f"{name}.nc")
    (folder / "text.nc").write_text("no dataset")
    found = [f"{name}.nc" for name in ("W", "TRACE", "COURSE", "SHORT", "text", "absent")]
    return [*(str(folder / name) for name in found), str(folder), str(folder / "new"), "", "\0", "x" * 300, "/dev/null"]


# --- many calls ---------------------------------------------------------------------------------------------------


@click.command()
@click.option("--calls", type=click.IntRange(1), default=100_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--first", type=int, default=0, show_default=True, help="Number of the first call; to go on from.")
@click.option("--long", type=float, default=1.0, show_default=True, help="Share left of the calls that take long.")
@click.option("--commands", is_flag=True, help="Command lines rather than calls.")
@click.option("--memory", type=float, default=10.0, show_default=True, help="Most address space, GiB.")
def run(calls: int, seed: int, first: int, long: float, commands: bool, memory: float) -> None:
    """Call rotsim with hostile arguments; exit code 1 if something else than its own errors comes out."""
    import resource

    import matplotlib

    matplotlib.use("Agg")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(memory * 2**30) if most == resource.RLIM_INFINITY else min(most, int(memory * 2**30))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.chdir(tempfile.mkdtemp(prefix="rotsim-fuzz-"))
    names = Namespace(_modules())
    files = command_files(names) if commands else []
    seen: Counter[str] = Counter()
    slowest = (0.0, "")
    for k in range(first, first + calls):
        rng = random.Random(f"{seed} {k}")
        started = time.process_time()
        if commands:
            arguments = make_arguments(rng, files)
            line, wrong = "rotsim " + " ".join(map(repr, arguments)), command_fault(arguments)
        else:
            line = make_call(rng, long)
            wrong = fault(line, names)
        slowest = max(slowest, (time.process_time() - started, line))
        if wrong is not None:
            kind = wrong.split(":")[0] + ":" + wrong.split(":")[1] if ":" in wrong else wrong
            seen[kind] += 1
            if seen[kind] == 1:
                print(f"call {k}: {wrong}\n    {line}", flush=True)
        if (k + 1 - first) % 200 == 0:
            print(f"{k + 1 - first} calls, {len(seen)} distinct failures; go on with --first {k + 1}", flush=True)
    print(
        f"{calls} calls, {sum(seen.values())} failures, {len(seen)} distinct; slowest {slowest[0]:.2f} s: {slowest[1]}"
    )
    raise SystemExit(bool(seen))


if __name__ == "__main__":
    run()
