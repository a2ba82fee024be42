"""Public docstrings: parameters with shapes and ranges, results, errors, and where the formulas come from."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import derivations
import rotsim
import rotsim.measure
from rotsim import balance, closed_forms, comparison, diagnosis, evidence, windows
from rotsim.measure import rotation_kernel, scales
from rotsim.measure import windows as record_windows
from rotsim.optimizers import unmodelled
from rotsim.theory import (
    adam_in_time,
    adam_l2_chain,
    bursts,
    correlated_moment,
    coupled,
    damped,
    fixed_point,
    memory,
    prediction,
    schedules,
    second_moment,
    sgdm,
    sign,
    traces,
    walk,
)

PUBLIC = {
    **{f"rotsim.{name}": getattr(rotsim, name) for name in rotsim.__all__},
    **{f"rotsim.measure.{name}": getattr(rotsim.measure, name) for name in rotsim.measure.__all__},
    **{
        f"{function.__module__}.{function.__qualname__}": function
        for function in (
            memory.projection, memory.remembering, memory.unit_steps, walk.decoupled, walk.discounted,
            walk.exponential_average, walk.fallen, sgdm.fallen_with_momentum, sign.answering_signs,
            correlated_moment.correlated_update, correlated_moment.signal_update, fixed_point.noise_variance,
            fixed_point.settled,
            adam_in_time.parts, adam_in_time.state, adam_l2_chain.steady, balance.balance,
            bursts.burst_factors, bursts.burst_moments,
            coupled.stationary, damped.beyond, damped.integral, damped.lay, damped.tables, damped.widen,
            derivations.check, derivations.closed_forms, derivations.render,
            derivations.walkthrough, diagnosis.diagnose, evidence.gather, prediction.settling,
            record_windows.Windows, record_windows.Windows.add, record_windows.Windows.stacked,
            record_windows.Windows.with_one_more, record_windows.merged, rotation_kernel.difference,
            rotation_kernel.fits, rotation_kernel.turn_, scales.ScaleSampler, scales.ScaleSampler.add,
            scales.ScaleSampler.overlap, scales.ScaleSampler.series, schedules.constant, schedules.cosine,
            schedules.linear, schedules.warmup, schedules.wsd, second_moment.adam_covariance,
            second_moment.decorrelation, second_moment.mean_inverse_root, second_moment.mean_response,
            sign.correlated_covariance, sign.discounted_excess, sign.discounted_sum,
            sign.shifted_discounted_sum,
            sign.sign_covariance, comparison.compare_with_theory, traces.predict_trace, unmodelled.Unmodelled,
            unmodelled.Unmodelled.refusal, windows.bonferroni, windows.compare_windows, windows.is_course,
        )
    },
}  # fmt: skip
CALLABLES = {name: thing for name, thing in PUBLIC.items() if callable(thing)}
ERRORS = {name for name, thing in CALLABLES.items() if inspect.isclass(thing) and issubclass(thing, BaseException)}
RESULTS = {"rotsim.Equilibrium", "rotsim.Plan", "rotsim.Report"}  # made by the package: attributes, not parameters
NEVER_RAISE = {  # they take nothing that could be wrong, or numbers that their callers have checked
    "rotsim.measure.shipped_traces", "derivations.check", "derivations.closed_forms",
    "rotsim.theory.coupled.stationary", "rotsim.theory.adam_l2_chain.steady",
    "rotsim.theory.second_moment.decorrelation", "rotsim.theory.second_moment.mean_inverse_root",
    "rotsim.theory.second_moment.mean_response", "rotsim.theory.sign.correlated_covariance",
    "rotsim.theory.sign.discounted_excess", "rotsim.theory.sign.discounted_sum",
    "rotsim.theory.sign.shifted_discounted_sum", "rotsim.theory.sign.sign_covariance",
    "rotsim.theory.adam_in_time.parts", "rotsim.theory.adam_in_time.state",
    "rotsim.theory.bursts.burst_factors", "rotsim.theory.bursts.burst_moments",
    *(f"rotsim.theory.damped.{name}" for name in ("beyond", "integral", "lay", "tables", "widen")),
    *(f"rotsim.measure.windows.{name}" for name in ("Windows", "Windows.add", "Windows.stacked", "merged")),
    "rotsim.measure.windows.Windows.with_one_more", "rotsim.windows.bonferroni", "rotsim.windows.is_course",
    *(f"rotsim.measure.rotation_kernel.{name}" for name in ("difference", "fits", "turn_")),
    *(f"rotsim.measure.scales.ScaleSampler{name}" for name in ("", ".add", ".overlap", ".series")),
    "rotsim.optimizers.unmodelled.Unmodelled.refusal",
    "rotsim.theory.memory.remembering", "rotsim.theory.memory.projection",
    "rotsim.theory.memory.unit_steps", "rotsim.theory.sign.answering_signs", "rotsim.theory.sgdm.fallen_with_momentum",
    *(f"rotsim.theory.walk.{name}" for name in ("decoupled", "discounted", "exponential_average", "fallen")),
    "rotsim.theory.correlated_moment.correlated_update",
    "rotsim.theory.correlated_moment.signal_update", "rotsim.theory.fixed_point.noise_variance",
}  # fmt: skip
SOURCE = re.compile(r"derivations\.|Kosson|arXiv|et al\.|PyTorch|torch\.optim")
#: What states formulas, and so has to say where they are from.
THEORY = [
    *(name for name in CALLABLES if name.startswith("rotsim.theory.") and "schedules" not in name),
    *(f"rotsim.{name}" for name in ("AdamW", "AdamL2", "SGDM", "Lion", "Rotational", "equilibrium", "predict", "plan")),
    *(f"rotsim.{name}" for name in ("transfer", "rotation_over", "steps_to_equilibrium", "Signal", "Autocorrelated")),
    *(f"rotsim.{name}" for name in ("Radial", "ScaleInvariant", "Isotropic")),
    *(f"rotsim.measure.Rotational{name}" for name in ("AdamW", "SGDM", "Lion")),
]  # fmt: skip
RANGE = re.compile(r">|<|≥|≤|\b[Ii]n [\[({]|[Aa]ny (sign|number|value)|[Aa]s in|[Ff]inite|one of|True")


def sections(docstring):
    """Heading to text, by numpydoc's underlines; the summary under ''."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section):
    """Name to (type, description) of a Parameters section; several names may share an entry."""
    found = {}
    for match in re.finditer(r"^(\S[^\n]*?)(?: : ([^\n]*))?\n((?:^[ ]+[^\n]*\n?|^\n)*)", section + "\n", re.MULTILINE):
        for name in match[1].split(","):
            found[name.strip().lstrip("*")] = (match[2] or "", match[3])
    return found


def parameters(thing):
    return [name for name in inspect.signature(thing).parameters if name != "self"]


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_sections(name):
    thing = CALLABLES[name]
    doc = inspect.getdoc(thing)
    assert doc and doc.splitlines()[0].strip()
    if name in ERRORS:
        return
    found = sections(doc)
    if name in RESULTS:
        assert "Attributes" in found
        return
    if parameters(thing):
        listed = entries(found.get("Parameters", ""))
        others = "Other parameters as in" in doc
        missing = [p for p in parameters(thing) if p not in listed]
        assert not missing or others, f"{name}: {missing} not in Parameters"
    if inspect.isfunction(thing) and str(inspect.signature(thing).return_annotation) != "None":
        assert "Returns" in found or "Yields" in found, f"{name} has no Returns"
    if name not in NEVER_RAISE:
        assert "Raises" in found, f"{name} has no Raises"


@pytest.mark.parametrize("name", sorted(set(CALLABLES) - ERRORS - RESULTS))
def test_numbers_have_ranges_and_arrays_shapes(name):
    for parameter, (kind, text) in entries(sections(inspect.getdoc(CALLABLES[name])).get("Parameters", "")).items():
        if re.search(r"\b(float|int)\b", kind) and "bool" not in kind:
            assert RANGE.search(kind + text), f"{name}: no range for {parameter}"
        if "array" in kind:
            assert "shape" in kind + text or "like" in text, f"{name}: no shape for {parameter}"


@pytest.mark.parametrize("name", THEORY)
def test_formulas_name_their_source(name):
    assert SOURCE.search(inspect.getdoc(CALLABLES[name])), f"{name} does not say where its formulas are from"


def test_every_closed_form_cites_its_step_and_range():
    for name, function in inspect.getmembers(closed_forms, inspect.isfunction):
        doc = inspect.getdoc(function)
        assert re.search(r"Derived in `derivations\.\w+\.\w+`", doc), name
        arguments = list(inspect.signature(function).parameters)
        valid = doc.split("Valid for")[1]
        assert all(argument in valid for argument in arguments), name


def cited():
    """Every `derivations.module.step` that a file of the package mentions."""
    for path in Path(rotsim.__file__).parent.rglob("*.py"):
        for module, step in re.findall(r"derivations\.(\w+)(?:\.(\w+))?", path.read_text(encoding="utf-8")):
            if module not in (
                "DERIVATIONS",
                "check",
                "render",
                "py",
                "walkthrough",
                "closed_forms",
                "QUICK",
                "verdicts",
            ):
                yield path.name, module, step


def test_cited_steps_exist():
    assert len(set(cited())) > 50
    for path, module, step in cited():
        found = importlib.import_module(f"derivations.{module}")
        assert not step or hasattr(found, step), f"{path} cites derivations.{module}.{step}"


def test_a_poor_docstring_is_noticed():
    poor = """Summary.

    Parameters
    ----------
    lr : float
        The learning rate.
    series : ndarray
        Values.
    """
    listed = entries(sections(inspect.cleandoc(poor))["Parameters"])
    assert listed.keys() == {"lr", "series"}
    assert not RANGE.search("".join(listed["lr"])) and "shape" not in "".join(listed["series"])
    assert not SOURCE.search(poor) and "Raises" not in sections(inspect.cleandoc(poor))
