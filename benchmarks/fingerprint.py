"""Every number that a change of structure must leave alone: hashes of walks, predictions, reports on traces.

Run it before and after on one machine and compare: `python -m benchmarks.fingerprint > before.txt`. Walks are
compared bit for bit. Another processor may sum in another order, so no file of hashes is kept. Without a GPU the
CUDA engine walks in numba's simulator if NUMBA_ENABLE_CUDASIM=1 is set; otherwise its lines say that it refused.
"""

import argparse
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np

import rotsim
from experiments.harness.claim import RESULTS
from rotsim.diagnosis import diagnose
from rotsim.gradients import LayerInvariant, Replay
from rotsim.optimizers import OPTIMIZERS
from rotsim.theory.schedules import cosine, warmup

DIM, NEURONS, STEPS = 50, 3, 300
ON_GPU = {"dim": 7, "neurons": 2, "steps": 4, "record_every": 3}  # the simulator takes a second for a few steps


def _optimizers() -> list[Any]:
    plain = [spec.examples()[0] for spec in OPTIMIZERS.values() if spec.acts_on == "coordinate"]
    return [*plain, *(rotsim.Rotational(o) for o in plain if o.name != "adam_l2")]


def _gradients() -> list[Any]:
    generator = np.random.default_rng(0)
    return [
        rotsim.ScaleInvariant(1.3),
        rotsim.Isotropic(0.7),
        rotsim.Signal(0.2),
        rotsim.Autocorrelated(0.5),
        rotsim.Bursts(generator.uniform(0.5, 2.0, STEPS)),
        rotsim.StudentT(degrees=5.0),
        rotsim.Radial(0.01),
        LayerInvariant(0.1),
        rotsim.SimpleSystem(batch=8),
        Replay(generator.normal(size=(STEPS, NEURONS, DIM))),
    ]


def walks() -> Iterator[str]:
    """One line per optimizer, gradient model, engine and format: the digest of its records and final state."""
    for optimizer in _optimizers():
        for gradient in _gradients():
            for engine in ("numba", "numpy", "gram", "cuda"):
                for dtype in ("float32", "float64"):
                    shape = ON_GPU if engine == "cuda" else {}
                    found = _digest(optimizer, gradient, engine=engine, dtype=dtype, **shape)
                    yield f"{_name(optimizer)} {gradient.name} {engine} {dtype} {found}"
    yield from _arguments()


def _arguments() -> Iterator[str]:
    """What else `simulate` takes, for the engines that need no compilation of their own."""
    plain, rotational = rotsim.AdamW(1e-2, 0.1), rotsim.Rotational(rotsim.SGDM(0.1, 0.01))
    weights = np.random.default_rng(1).normal(size=(NEURONS, DIM))
    for optimizer in (plain, rotsim.SGDM(0.1, 0.01), rotational):
        for engine in ("auto", "numba", "numpy", "gram"):
            for what, given in {
                "schedules": {"lr_schedule": cosine(STEPS), "wd_schedule": warmup(100)},
                "weights": {"initial_weights": weights},
                "norms": {"initial_norm": [1.0, 2.0, 3.0]},
                "scales": {"gradient": rotsim.ScaleInvariant((1.0, 2.0, 3.0))},
                "sizes": {"dim": 5, "neurons": 33, "record_every": STEPS},
                "no state": {"keep_state": False},
                "resumed": {"resumed_after": 101, "lr_schedule": cosine(STEPS)},
            }.items():
                given = {"gradient": rotsim.ScaleInvariant(), **given}
                yield f"{_name(optimizer)} {what} {engine} {_digest(optimizer, engine=engine, **given)}"


def _name(optimizer: Any) -> str:
    return f"{optimizer.label} {getattr(optimizer, 'inner', optimizer).name}"


def _digest(optimizer: Any, gradient: Any, *, resumed_after: int | None = None, **given: Any) -> str:
    shape = {"dim": DIM, "neurons": NEURONS, "steps": STEPS, "record_every": 7}
    run = {"gradient": gradient, "seed": 5, "keep_state": True, "threads": 2, **shape, **given}
    try:
        if resumed_after is not None:
            run["resume"] = rotsim.simulate(optimizer, **{**run, "steps": resumed_after})
        data = rotsim.simulate(optimizer, **run)
    except ValueError as refused:
        return f"refused: {type(refused).__name__}"
    arrays = [np.ascontiguousarray(data[name].values).tobytes() for name in sorted(data)]
    return sha256(b"".join([*arrays, data.attrs["spec"].encode()])).hexdigest()[:16]


def _settings() -> list[Any]:
    """Both examples of every optimizer, rotational variants, and what the examples leave at its default."""
    betas = [(0.0, 0.5), (0.95, 0.6), (0.8, 0.99)]
    adams = [spec(0.01, 0.3, b, eps) for spec in (rotsim.AdamW, rotsim.AdamL2) for b in betas for eps in (1e-12, 1e-2)]
    others = [*(rotsim.Lion(0.01, 0.3, b) for b in betas), *(rotsim.SGDM(0.1, 0.3, b[0]) for b in betas)]
    return [*(o for spec in OPTIMIZERS.values() for o in spec.examples()), *_optimizers()[4:], *adams, *others]


def predictions() -> Iterator[str]:
    """One line per prediction, with all of its digits."""
    departures = [
        rotsim.Signal(0.05, scale_invariant=False),
        rotsim.Autocorrelated(-0.3, scale_invariant=False),
        rotsim.Radial(-1e-3),
        rotsim.Radial(0.1, scale_invariant=False),
    ]
    for optimizer in _settings():
        named = optimizer.describe()
        for gradient in _gradients() + departures:
            for method in ("exact", "leading"):
                yield _line("equilibrium", lambda: rotsim.equilibrium(optimizer, 128, gradient, method).to_dict(),  # noqa: B023
                            named, str(gradient.to_dict())[:90], method)  # fmt: skip
        for gradient in _gradients()[:2]:
            yield _line("predict", lambda: _course(optimizer, gradient), named, gradient.name)  # noqa: B023
            yield _line("arrives", lambda: rotsim.steps_to_equilibrium(optimizer, 128, gradient, 2.0), named)  # noqa: B023
            for lag in (0, 1, 30, 1000):
                yield _line("over", lambda: rotsim.rotation_over(optimizer, 128, lag, gradient), named, f"{lag}")  # noqa: B023
        for change in ({"batch_factor": 4.0}, {"momentum": 0.5, "steps_factor": 2.0}):
            yield _line("transfer", lambda: _plan(rotsim.transfer(optimizer, **change)), named)  # noqa: B023
    for name in (*OPTIMIZERS, "rotational", "sgd"):
        for wanted in ({"rotation": 0.01, "norm": 1.0}, {"rotation": 0.02, "relaxation_steps": 500.0, "lr": 0.01}):
            yield _line("plan", lambda: _plan(rotsim.plan(name, **wanted)), name, str(wanted))  # noqa: B023


def reports() -> Iterator[str]:
    """One line per layer of the committed traces: what is measured, expected and claimed of it."""
    for path in sorted(RESULTS.glob("suite_*/*.nc")):
        found = diagnose(rotsim.load(path))
        yield f"{path.stem}: {found.summary()}"
        yield from (f"{path.stem} {layer}" for layer in found.layers)


def _course(optimizer: Any, gradient: Any) -> dict[str, Any]:
    factors = warmup(50, cosine(350))
    course = rotsim.predict(optimizer, 128, gradient, 400, 2.0, factors, record_every=50)
    return {name: course[name].values.tolist() for name in sorted(course)}


def _plan(found: Any) -> dict[str, Any]:
    return {"optimizer": found.optimizer.describe(), **found.equilibrium.to_dict()}


def _line(kind: str, compute: Any, *names: str) -> str:
    try:
        return f"{kind} {' '.join(names)}: {compute()}"
    except ValueError as refused:
        return f"{kind} {' '.join(names)}: {type(refused).__name__} {refused}"


PARTS = {"walks": walks, "predictions": predictions, "reports": reports}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fingerprint", description=__doc__)
    parser.add_argument("what", choices=list(PARTS), nargs="?", help="default: all")
    what = parser.parse_args(arguments).what
    for name, lines in PARTS.items():
        if what in (None, name):
            for line in lines():
                print(line, flush=True)


if __name__ == "__main__":
    main()
