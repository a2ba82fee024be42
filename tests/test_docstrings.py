"""Public docstrings: parameters with shapes and ranges, results, errors, and where the formulas come from."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import derivations
import rotsim
import rotsim.gradients
import rotsim.measure
import rotsim.sweeps
from rotsim import closed_forms
from tests import prose


def _public(module):
    """What a module defines for others: its functions and classes, and the functions of its classes."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for key, method in vars(thing).items():
                if not key.startswith("_") and inspect.isfunction(method):
                    yield f"{module.__name__}.{name}.{key}", method


#: Seconds of import each; a slow test reads them.
FRAMEWORKS = ("rotsim.measure.lightning", "rotsim.measure.transformers")


def _modules():
    yield derivations
    for found in pkgutil.walk_packages(rotsim.__path__, "rotsim."):
        if not found.name.endswith("__main__") and found.name not in FRAMEWORKS:
            yield importlib.import_module(found.name)


MODULES = list(_modules())
#: What is meant for users.
EXPORTED = {
    f"{package.__name__}.{name}": thing
    for package in (rotsim, rotsim.gradients, rotsim.measure, rotsim.sweeps)
    for name in package.__all__
    if callable(thing := getattr(package, name))
}
#: What explains its parameters, wherever it is: then it explains all of them.
EXPLAINED = {
    name: thing
    for module in MODULES
    for name, thing in _public(module)
    if thing not in EXPORTED.values() and re.search(r"^Parameters\n-{3,}$", inspect.getdoc(thing) or "", re.MULTILINE)
}
CALLABLES = {**EXPORTED, **EXPLAINED}
ERRORS = {name for name, thing in CALLABLES.items() if inspect.isclass(thing) and issubclass(thing, BaseException)}
#: Made by the package, or the base of what users make: attributes, or the words of the class, not parameters.
RESULTS = {
    f"rotsim.{name}"
    for name in ("Conversion", "Equilibrium", "Plan", "Report", "gradients.GradientPower", "sweeps.Estimate")
}
BASES = {"rotsim.gradients.Gradient"}
NEVER_RAISE = {"rotsim.measure.shipped_traces"}
#: Where numbers have ranges, and arrays shapes.
EXACT = {name for name in CALLABLES if name in EXPORTED or name.startswith("rotsim.theory.")}
SOURCE = re.compile(r"derivations\.|Kosson|arXiv|et al\.|PyTorch|torch\.optim|scipy")
#: Beginnings of what states no formula.
TOOLS = (
    "rotsim.theory.base.",
    "rotsim.theory.boundary.",
    "rotsim.theory.traces.layer_bursts",
    "rotsim.theory.planning.",
)
#: What states formulas, and so has to say where they are from.
THEORY = [
    *(name for name in EXPLAINED if name.startswith("rotsim.theory.") and not name.startswith(TOOLS)),
    *(f"rotsim.{name}" for name in ("AdamW", "AdamL2", "SGDM", "Lion", "Rotational", "equilibrium", "predict", "plan")),
    *(f"rotsim.{name}" for name in ("transfer", "rotation_over", "steps_to_equilibrium", "Signal", "Autocorrelated")),
    *(f"rotsim.{name}" for name in ("Radial", "ScaleInvariant", "Isotropic")),
    *(f"rotsim.measure.Rotational{name}" for name in ("AdamW", "SGDM", "Lion")),
]
RANGE = re.compile(r">|<|≥|≤|\b[Ii]n [\[({]|[Aa]ny (sign|number|value)|[Aa]s in|[Ff]inite|one of|True|from 1e-30 to")


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
    if name in ERRORS | BASES:
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
    if name in EXACT and inspect.isfunction(thing) and str(inspect.signature(thing).return_annotation) != "None":
        assert "Returns" in found or "Yields" in found, f"{name} has no Returns"
    if name in EXPORTED and name not in NEVER_RAISE:
        assert "Raises" in found, f"{name} has no Raises"


@pytest.mark.parametrize("name", sorted(EXACT - ERRORS - RESULTS - BASES))
def test_numbers_have_ranges_and_arrays_shapes(name):
    for parameter, (kind, text) in entries(sections(inspect.getdoc(CALLABLES[name])).get("Parameters", "")).items():
        if re.search(r"\b(float|int)\b", kind) and "bool" not in kind:
            assert RANGE.search(kind + text), f"{name}: no range for {parameter}"
        if "array" in kind:
            assert "shape" in kind + text or "like" in text, f"{name}: no shape for {parameter}"


@pytest.mark.parametrize("name", THEORY)
def test_formulas_name_their_source(name):
    assert SOURCE.search(inspect.getdoc(CALLABLES[name])), f"{name} does not say where its formulas are from"


def test_inherited_methods_are_explained_by_the_base_class():
    missing = [name for module in MODULES for name, thing in _public(module) if not _explained(module, name, thing)]
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_callbacks_of_frameworks_are_explained(framework, monkeypatch):
    pytest.importorskip(framework.rsplit(".", 1)[1])
    module = importlib.import_module(framework)
    assert any(inspect.isclass(thing) for _, thing in _public(module))
    for name, thing in _public(module):
        assert _explained(module, name, thing), name
        if "Parameters" in sections(inspect.getdoc(thing) or ""):
            monkeypatch.setitem(CALLABLES, name, thing)
            test_sections(name)


def _explained(module, name, thing):
    """A method's own docstring, or that of the method that it overrides."""
    _, *owner, last = name.removeprefix(module.__name__).split(".")
    return bool(inspect.getdoc(getattr(getattr(module, owner[0]), last) if owner else thing))


@pytest.mark.parametrize("module", [m for m in MODULES if ">>>" in inspect.getsource(m)], ids=lambda m: m.__name__)
def test_examples_of_docstrings(module):
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried and not failed


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


ROOT = Path(__file__).parents[1]
READ = sorted(
    str(path.relative_to(ROOT))
    for folder in ("rotsim", "derivations", "experiments", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "closed_forms.py"  # which is generated
)


def test_sentences_of_docstrings_are_short():
    assert len(READ) > 100
    sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in READ}
    docstrings = ((name, *found) for name, source in sources.items() for found in prose.docstrings(source))
    long = [f"{name}:{line}: {found}" for name, line, text in docstrings for found in prose.too_long(text)]
    assert not long, "\n".join(long)


def test_a_long_sentence_of_a_docstring_is_counted():
    words = " ".join(26 * ["word"])
    quiet = f"One.\n\n    {words}\n\nParameters\n----------\nx : {words}\n    Two.\n\n.. math::\n    {words}\n"
    for text, count in ((f"One. {words}.", 1), (f"x : float\n    {words}.", 1), (quiet, 0)):
        [(_, found)] = prose.docstrings(f'"""{text}"""\n')
        assert len(prose.too_long(found)) == count, text


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
