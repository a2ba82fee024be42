"""The numbers of the page of `rotsim explore` are rotsim's: noise, walks, courses and closed forms in JavaScript."""

import inspect
import zlib
from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms, noise, schedules
from rotsim.optimizers import OPTIMIZERS, WRAPPERS
from rotsim.page.expressions import Untranslatable
from rotsim.page.numerics import walked as on_the_page
from rotsim.page.translate import Program
from rotsim.theory import second_moment
from rotsim.theory.betas import adam_covariance
from rotsim.theory.walk import UpdateCovariance
from tests.javascript import answer, needs_node

pytestmark = needs_node

SPECS = {name: kind.examples()[1] for name, kind in OPTIMIZERS.items() if on_the_page(kind)}
COORDINATEWISE = {name: spec for name, spec in SPECS.items() if spec.acts_on == "coordinate"}
#: Whose updates turn weights at a norm that is held, with the decay that this takes.
HELD = {
    "rotational": {name: spec for name, spec in COORDINATEWISE.items() if name in ("adamw", "sgdm", "lion", "signum")},
    "hyperball": {name: spec.with_rates(spec.lr, 0.0) for name, spec in SPECS.items() if name != "ademamix"},
}
HELD = {turning: {**specs, "nesterov": replace(specs["sgdm"], nesterov=True)} for turning, specs in HELD.items()}
FOLLOWED = [(t, name) for t, specs in HELD.items() for name in specs]
MASKED = [name for name, spec in COORDINATEWISE.items() if spec.decay == "decoupled"]
LAWS = {
    "white": (rotsim.ScaleInvariant(0.7), {}),
    "mean": (rotsim.Signal(0.2, scale=0.7), {"ratio": 0.2}),
    "memory": (rotsim.Autocorrelated(0.5, scale=0.7), {"correlation": 0.5}),
    "radial": (rotsim.Radial(0.03, scale=0.7), {"strength": 0.03}),
    "bursts": (rotsim.Bursts(np.where(np.arange(100) % 50 < 5, 4.0, 1.0), scale=0.7), {"burst": 4}),
}
NEURONS, ROWS, DIM = 4, 2, 70  # ROWS neurons make one matrix

WALK = """({seed, neurons, rows, dim, steps, norm, spec, law, turning, cautious, rates}) => {
  const optimizer = OPTIMIZERS.find((one) => one.name === spec.name);
  const given = { scale: 0.7, ratio: 0, correlation: 0, strength: 0, ...law };
  given.factor = (step) => (given.burst && (step - 1) % 50 < 5 ? given.burst : 1);
  const walker = new Walker(optimizer, spec, { turning, cautious }, rows);
  walker.begin(initialWeights(seed, neurons, dim, norm), neurons, dim);
  const source = new Noise(seed, neurons, dim);
  for (let step = 1; step <= steps; step += 1) {
    const factor = rates[step - 1];
    walker.step(source.draw(step, given), source.size, given, spec.lr * factor, spec.weight_decay);
  }
  return { weights: [...walker.W], sums: [...walker.takeSums()] };
}"""

COURSE = """({dim, rows, steps, norm, spec, scale, turning, cautious, rates, window}) => {
  const optimizer = OPTIMIZERS.find((one) => one.name === spec.name);
  const lr = Float64Array.from(rates, (factor) => spec.lr * factor);
  const decay = new Float64Array(steps).fill(spec.weight_decay);
  const variant = { turning, cautious };
  const found = predictCourse(optimizer, spec, variant, dim, { scale }, norm, lr, decay, window, rows);
  delete found.declared;
  return Object.fromEntries(Object.entries(found).map(([name, values]) => [name, [...values]]));
}"""


def rates(steps):
    return schedules.named("cosine", steps, steps // 10, 0.1)(np.arange(1, steps + 1))


def walked(spec, law="white", turning="", seed=12345678901, core=None, steps=100, dim=DIM, cautious=False):
    """The walk in JavaScript, and by the NumPy twin: weights, RMS norm and RMS angle of each neuron."""
    gradient, departure = LAWS[law]
    given = {
        "seed": seed, "neurons": NEURONS, "rows": ROWS, "dim": dim, "steps": steps, "norm": 1.3, "spec": spec.to_dict(),
        "law": departure, "turning": turning, "rates": rates(steps).tolist(),
        "cautious": cautious,
    }  # fmt: skip
    found = answer(WALK, given, core)
    weights = np.array(found["weights"]).reshape(NEURONS, dim)
    rms = np.sqrt(np.array(found["sums"]).reshape(NEURONS, 3) / steps)
    optimizer = WRAPPERS[turning](spec) if turning else rotsim.Cautious(spec) if cautious else spec
    twin = rotsim.simulate(
        optimizer, dim, NEURONS, steps, gradient, seed=12345678901, initial_norm=1.3, record_every=steps,
        lr_schedule=rates(steps), dtype="float64", engine="numpy", keep_state=True,
        rows=ROWS if spec.acts_on == "matrix" else None,
    )  # fmt: skip
    records = np.stack([twin[name].values[:, 0] for name in ("norm", "rotation", "update_rms")], axis=1)
    return (weights, rms), (twin["state"].values[:, 0], records)


def close(found, twin):
    size = np.sqrt((twin[0] ** 2).mean())
    return np.abs(found[0] - twin[0]).max() < 1e-6 * size and np.allclose(found[1], twin[1], rtol=1e-6)


def test_words_are_the_same_bits_and_normals_the_same_floats():
    keys = noise.neuron_keys(2**40 + 17, 5, noise.GRADIENT_STREAM)
    function = """({seed, neurons, dim, steps}) => {
      const keys = neuronKeys(seed, neurons, GRADIENT_STREAM);
      const source = new Noise(seed, neurons, dim);
      const law = { ratio: 0, correlation: 0, factor: () => 1 };
      const drawn = steps.map((step) => [...source.draw(step, law)]);
      const raw = steps.map((step) => [...randomWords(keys[0], keys[1], 7, step)]);
      return { keys: [...keys], raw, drawn, size: source.size };
    }"""
    steps = [1, 2, 1000, 2**31 + 5]
    found = answer(function, {"seed": 2**40 + 17, "neurons": 5, "dim": 100, "steps": steps})
    assert found["keys"] == keys.ravel().tolist()
    with np.errstate(over="ignore"):
        raw = [[int(w) for w in noise.random_words(*keys[0], np.uint32(7), np.uint32(step))] for step in steps]
    assert found["raw"] == raw
    for step, drawn in zip(steps, found["drawn"], strict=True):
        normals = np.array(drawn).reshape(5, found["size"])[:, :100]
        assert np.array_equal(normals, noise.normals(keys, step, 100))


@pytest.mark.few(3)
@pytest.mark.parametrize("name", SPECS)
def test_a_walk_is_that_of_the_numpy_twin(name):
    assert close(*walked(SPECS[name], steps=1000))


@pytest.mark.few(4)
@pytest.mark.parametrize(("turning", "name"), [(turning, name) for turning in HELD for name in HELD[turning]])
def test_a_walk_at_a_norm_that_is_held_is_that_of_the_numpy_twin(turning, name):
    spec = HELD[turning][name]
    found, twin = walked(spec, turning=turning)
    assert close(found, twin)
    plain, _ = walked(spec)
    assert not close(plain, twin)  # negative control


@pytest.mark.few(2)
@pytest.mark.parametrize("name", MASKED)
def test_a_cautious_walk_is_that_of_the_numpy_twin(name):
    assert close(*walked(SPECS[name], cautious=True))
    found, twin = walked(SPECS[name], cautious=True)[0], walked(SPECS[name])[1]
    assert not close(found, twin)  # negative control


def test_a_neuron_whose_signs_are_all_alike_keeps_its_weights():
    """An eighth of all steps at dim 4; what is left of such an update across the vector of ones is nothing."""
    found, twin = walked(SPECS["lion"], turning="rotational", dim=4)
    assert np.isfinite(found[0]).all() and close(found, twin)


@pytest.mark.parametrize("law", [law for law in LAWS if law != "white"])
def test_a_walk_under_other_gradients_is_that_of_the_numpy_twin(law):
    assert close(*walked(SPECS["adamw"], law))


def test_another_seed_is_noticed():
    """Negative control."""
    assert not close(*walked(SPECS["adamw"], seed=12345678902))


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("name", "cautious"), [*((name, False) for name in SPECS), *((name, True) for name in MASKED[::-1])]
)
def test_a_course_is_what_rotsim_predicts(name, cautious):
    spec, steps, rows = SPECS[name], 700, 32
    matrices = spec.acts_on == "matrix"  # parts of their shape are summed, where Python fits fewer powers to 1e-6
    given = {
        "rows": rows, "dim": DIM, "steps": steps, "norm": 0.5, "spec": spec.to_dict(), "scale": 3.0,
        "turning": "", "cautious": cautious, "rates": rates(steps).tolist(), "window": 50,
    }  # fmt: skip
    found = answer(COURSE, given)
    course = rotsim.predict(
        rotsim.Cautious(spec) if cautious else spec, DIM, rotsim.ScaleInvariant(3.0), steps, 0.5,
        lr_schedule=rates(steps), record_every=50,
        rows=rows if matrices else None,
    )  # fmt: skip
    for ours, theirs in (("norm", "norm"), ("rotation", "rotation"), ("update", "update_rms")):
        assert found[ours] == pytest.approx(course[theirs].values[0].tolist(), rel=1e-5 if matrices else 1e-8)
    other = answer(COURSE, {**given, "scale": 3.1, "norm": 0.51})
    assert other["norm"] != pytest.approx(found["norm"], rel=1e-3)  # negative control


def turned_course(name, spec, rows=None, dim=DIM, steps=700):
    """Of what turns weights along the updates of an optimizer, in JavaScript and in Python, under a schedule."""
    given = {
        "dim": dim, "steps": steps, "norm": 0.5, "spec": spec.to_dict(), "scale": 3.0, "turning": name,
        "cautious": False, "rates": rates(steps).tolist(), "window": 50, "rows": rows,
    }  # fmt: skip
    course = rotsim.predict(
        WRAPPERS[name](spec), dim, rotsim.ScaleInvariant(3.0), steps, 0.5, lr_schedule=rates(steps), record_every=50
    )
    return answer(COURSE, given), course


@pytest.mark.few(4)
@pytest.mark.parametrize(("turning", "name"), FOLLOWED)
def test_a_course_at_a_norm_that_is_held_is_what_rotsim_predicts(turning, name):
    """From empty averages on."""
    found, course = turned_course(turning, HELD[turning][name])
    for ours, theirs in (("norm", "norm"), ("rotation", "rotation"), ("update", "update_rms")):
        assert found[ours] == pytest.approx(course[theirs].values[0].tolist(), rel=1e-6)
    other = HELD[turning][name]
    plain = other.with_beta1(0.5)  # negative control: another memory turns otherwise
    changed, _ = turned_course(turning, plain)
    assert changed["rotation"] != pytest.approx(found["rotation"], rel=1e-4)


@pytest.mark.few(2)
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.9), (0.99, 0.999), (0.95, 0.6), (0.9999, 0.5)])
def test_the_autocovariance_of_adam_is_that_of_theory(betas):
    """What the course of a hyperball rests on; the page sums the same integrand on the same grid."""
    found = answer(
        "(betas) => { const k = $adamCovariance(...betas); return [k.lag_0, [...k.weights], [...k.roots]]; }", betas
    )
    ours, theirs = UpdateCovariance(found[0], *map(np.array, found[1:])), adam_covariance(*betas)
    lags = np.array([0, 1, 2, 5, 10, 100])
    fitted = betas[1] >= second_moment.LEAST_BETA2_BY_CHEBYSHEV  # else Python fits lags, the page all of [0, 1]
    assert ours(lags) == pytest.approx(theirs(lags), rel=1e-6 if fitted else 1e-5, abs=1e-12)
    other = adam_covariance(betas[0], betas[1] - 0.05)  # negative control
    assert ours(lags) != pytest.approx(other(lags), rel=1e-4, abs=1e-12)


def test_schedules_are_rotsims():
    function = """(cases) => cases.map(([name, steps, warmup, final]) =>
      Array.from({ length: steps + 3 }, (_, t) => scheduleFactor(name, t + 1, steps, warmup, final)))"""
    cases = [
        (name, steps, warmup, final) for name in schedules.NAMES for steps in (1, 4, 97) for warmup in {0, steps // 3}
        for final in (0.0, 0.25)
    ]  # fmt: skip
    for case, found in zip(cases, answer(function, cases), strict=True):
        steps = case[1]
        assert found == pytest.approx(schedules.named(*case)(np.arange(1, steps + 4)).tolist(), abs=1e-12), case


def test_closed_forms_are_the_same_numbers():
    functions = dict(inspect.getmembers(closed_forms, inspect.isfunction))
    names = answer("() => Object.keys(closed_forms)", None)
    assert len(names) > 0.9 * len(functions)  # all but those with an error function
    points = {}
    for name in names:
        draws = np.random.default_rng(zlib.crc32(name.encode())).uniform(0.05, 0.5, (4, 9))
        points[name] = draws[:, : len(inspect.signature(functions[name]).parameters)].tolist()
    found = answer(
        "(points) => Object.entries(points).map(([name, rows]) => rows.map((row) => closed_forms[name](...row)))",
        points,
    )
    compared = 0
    for (name, rows), values in zip(points.items(), found, strict=True):
        for row, value in zip(rows, values, strict=True):
            with np.errstate(all="ignore"):
                expected = float(functions[name](*np.array(row)))
            if np.isfinite(expected):
                assert value == pytest.approx(expected, rel=1e-9, abs=1e-12), name
                compared += 1
    assert compared > 3 * len(names)


def test_what_no_kernel_needs_is_refused_with_its_line():
    def strange(x):
        return {key: x for key in "ab"}

    with pytest.raises(Untranslatable, match=r"strange, line 2: no JavaScript for \{key: x"):
        Program().function(strange)
