"""The derivations prove what they claim, and what they generate agrees with numerical routes that share no code."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq
from scipy.signal import lfilter

import derivations
import rotsim
from derivations import __main__ as command
from rotsim import closed_forms as forms
from tests import chance

EXACT = 1e-10

CONTRACT = """
adamw_leading_rotation(lr, weight_decay, beta1)
adamw_leading_norm(lr, weight_decay, dim)
adamw_exact_norm_squared(lr, weight_decay, beta1, dim)
adamw_exact_one_minus_cosine(lr, weight_decay, beta1)
adamw_relaxation_steps(lr, weight_decay)
adamw_lagged_relaxation_steps(lr, weight_decay, beta2, homogeneity, felt)
adam_l2_leading_norm(lr, weight_decay, dim, gradient_power, homogeneity)
adam_l2_leading_rotation(lr, weight_decay, beta1, dim, gradient_power, homogeneity)
adam_l2_second_moment(weight_decay, dim, norm_squared, gradient_power, homogeneity)
adam_l2_exact_norm_squared_map(lr, weight_decay, beta1, dim, norm_squared, gradient_power, homogeneity)
adam_l2_exact_one_minus_cosine(lr, weight_decay, beta1, second_moment)
adam_l2_relaxation_steps(lr, weight_decay, second_moment, homogeneity)
adam_l2_lagged_relaxation_steps(lr, weight_decay, beta2, second_moment, homogeneity, felt)
sgdm_leading_rotation(lr, weight_decay, momentum)
sgdm_leading_norm(lr, weight_decay, momentum, gradient_power, homogeneity)
sgdm_exact_norm_squared(lr, weight_decay, momentum, gradient_power, homogeneity)
sgdm_exact_one_minus_cosine(lr, weight_decay, momentum)
sgdm_relaxation_steps(lr, weight_decay, momentum, homogeneity)
lion_leading_rotation(lr, weight_decay, beta1, beta2)
lion_leading_norm(lr, weight_decay, beta1, beta2, dim)
lion_variance(beta1, beta2)
lion_covariance(beta1, beta2, lag)
lion_sign_correlation(beta1, beta2, lag)
lion_exact_norm_squared(lr, weight_decay, dim, discounted_sum)
lion_exact_one_minus_cosine(lr, weight_decay, discounted_sum)
lion_relaxation_steps(lr, weight_decay)
spectral_eigenvalue(angle, aspect)
muon_published_norm_squared(lr, weight_decay, momentum, update_power)
damped_momentum(weight_decay, beta2, momentum_overlap, damping, w_mean, m_mean, pull_power)
damped_momentum_square(weight_decay, beta1, beta2, momentum_overlap, momentum_power, damping, pull_power)
damped_overlap(weight_decay, beta1, beta2, momentum_overlap, damping, weight_power, pull_power)
damped_pull(weight_decay, dim, noise_power, weight_power)
damped_pull_mean(weight_decay, beta2, damping, w_mean, pull_power)
damped_share(beta2, damping, pull_power)
damped_share_of_mean(weight_decay, beta2, damping, w_mean, pull_power)
damped_weight(weight_decay, beta2, damping, w_mean, weight_power, pull_power)
damped_weight_square(weight_decay, beta2, damping, weight_power, pull_power)
moved_overlap(lr, weight_decay, step_length, momentum_overlap, rooted_power)
moved_weight(lr, weight_decay, step_length, w_mean, rooted_power)
moved_weight_square(lr, weight_decay, step_length, across, update_power, weight_power)
fourth_cumulant(step_length, cumulant_31, cumulant_22, cumulant_13, cumulant_04)
norm_response(old_norm, new_momentum, new_moment)
walk_mode_overlap(lr, weight_decay, step_length, mode_overlap, weight, root)
walk_along(lr, weight_decay, norm_squared, step_length, across)
walk_moved(lr, weight_decay, norm_squared, step_length, across, update_power)
sgdm_across(weight_decay, momentum, norm_squared, momentum_overlap)
sgdm_momentum_power(weight_decay, momentum, norm_squared, momentum_overlap, noise_power, momentum_power)
sgdm_momentum_overlap(step_length, across, momentum_power)
sgdm_fallen(lr, weight_decay, momentum, fallen, fallen_before)
walk_settled_overlap(lr, weight_decay, step_length, weight, root)
walk_decayed(lr, weight_decay, lag)
walk_taken(lr, weight_decay, lag, root)
walk_taken_alike(lr, weight_decay, lag)
lion_momentum_power(beta2, noise_power, momentum_power)
lion_seen(beta1, noise_power, momentum_power)
lion_entered(beta1, beta2, noise_power, momentum_power)
lion_faded(beta2, noise_power, momentum_power)
lion_sign_mode(alike, arcsine_factor, odd_power)
adamw_fixed_norm_squared(weight_decay, dim, signal_ratio)
sgdm_fixed_norm_squared(weight_decay, gradient_power, signal_ratio)
lion_sign_mean(beta1, beta2, signal_ratio)
lion_fixed_norm_squared(weight_decay, beta1, beta2, dim, signal_ratio)
sign_covariance_by_arc(arc, deviations)
adamw_takeover(lr, weight_decay)
adamw_noise_share(signal_ratio)
signal_squared_mean(norm_squared, alignment, lasting_decay)
signal_pull(alignment, lasting_decay)
lion_left_of_a_sign(slope, mean)
signal_alignment(signal_power)
sgdm_correlated_norm_squared(homogeneity, growth_factor)
adam_l2_correlated_norm_squared(homogeneity, growth_factor)
correlated_squared_rotation(power_factor, growth_factor)
adam_l2_correlated_squared_rotation(homogeneity, power_factor, growth_factor)
average_power_factor(memory, correlation)
lion_weight(beta1, beta2, lag)
lion_correlated_rotation(beta1, beta2, overlap_ratio)
remembered_power(correlation, last_power)
damped_covariance(beta2, damping, pull_power, joint, first, second)
averaged(beta1, with_old, with_new)
sgdm_projected_gain(lr, weight_decay, momentum, correlation)
sgdm_free_gain(lr, weight_decay, momentum, correlation)
sgdm_free_one_minus_cosine(lr, weight_decay, momentum, correlation)
lion_overlap_ratio(beta1, beta2, correlation)
lion_correlated_variance(beta1, beta2, correlation)
lion_correlated_covariance(beta1, beta2, lag, correlation)
lion_linear_sum(lr, weight_decay, beta1, beta2, overlap_ratio)
lion_radial_norm_squared(lr, weight_decay, beta1, beta2, dim, slope, excess, radial)
lion_radial_variance(lr, weight_decay, beta1, beta2, slope, excess, radial)
lion_one_minus_cosine(lr, weight_decay, dim, norm_squared)
lion_sign_slope(beta1, beta2)
sign_slope(variance)
turn_while_growing(radial_share, growth)
adam_l2_turn_excess(radial_share, growth, turn)
rotational_mean_length(update_norm_decay, across_power, mean_square)
rotational_squared_angle(update_norm_decay, step, rotation, across_power, mean_square)
turned_one_minus_cosine(angle)
rotational_across(across, update_power)
rotational_rate(angle, across_power)
rotational_kept(step_length, across, angle)
rotational_mode_overlap(step_length, mode_overlap, weight, root, kept_share)
rotational_sgdm_filling(memory, step)
rotational_adamw_filling(memory, step)
rotational_bias(memory, update_norm_decay, directions)
isotropic_angle_spread(dim)
adam_met_again(beta1, beta2)
decoupled_held(lr, weight_decay, memory)
coupled_held(lr, weight_decay, momentum)
eps_far_weight(eps_root)
young_angle_spread(dim, start_share)
adamw_planned_lr(beta1, dim, norm_squared, rotation)
adamw_planned_weight_decay(beta1, dim, norm_squared, rotation)
transferred_rotation(rotation, batch_factor, steps_factor)
nesterov_exact_norm_squared(lr, weight_decay, momentum, gradient_power, homogeneity)
nesterov_exact_one_minus_cosine(lr, weight_decay, momentum)
nesterov_leading_rotation(lr, weight_decay, momentum)
nesterov_along(lr, weight_decay, momentum, norm_squared, across)
nesterov_moved(lr, weight_decay, momentum, momentum_overlap, momentum_power, pull_power)
nesterov_momentum_overlap(lr, weight_decay, momentum, across, momentum_overlap, momentum_power, pull_power)
nesterov_fallen(lr, weight_decay, momentum, fallen, fallen_before)
nadamw_newest(beta1, ahead)
nadamw_filling(beta1, step, own, held, alone_power, average_power)
nadamw_leading_rotation(lr, weight_decay, beta1, ahead)
nadamw_met_again(beta1, beta2, ahead)
ademamix_shared(beta1, beta3, mix)
ademamix_leading_norm(lr, weight_decay, dim, mix)
ademamix_linear_power(beta1, beta3, mix)
ademamix_leading_rotation(lr, weight_decay, beta1, beta3, mix)
ademamix_met_twice(beta1, beta3, held_fast, held_slow)
ademamix_met_again(beta1, beta2, beta3, mix)
cautious_decayed(aligned)
cautious_overlap(aligned)
cautious_sign_overlap(aligned)
cautious_length(lr, weight_decay, across, open_decay, open_overlap)
cautious_of_weight(aligned)
cautious_of_update(aligned)
cautious_sign_of_weight(aligned)
cautious_sign_of_update(aligned)
cautious_one_minus_cosine(lr, weight_decay, norm_squared, across, open_decay)
hyperball_stretch(lr, across, update_power)
hyperball_angle(lr, across, update_power)
hyperball_lr(lr, weight_decay, discounted_sum)
"""

FUNCTIONS = {name: function for name, function in inspect.getmembers(forms, inspect.isfunction)}
FORMULAS = {formula.name: formula for name in derivations.DERIVATIONS for formula in derivations.formulas(name)}


# --- what is proved, what is committed ---------------------------------------------------------


#: Proofs of seconds in all; `python -m derivations --check` and `rotsim verify` prove the others, too.
SHORT = set(derivations.QUICK)


EVERY = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SHORT else [pytest.mark.slow]) for n in derivations.DERIVATIONS]
)


@pytest.mark.few(5)
@EVERY
def test_every_statement_holds(name):
    """One derivation a test, which processes share."""
    statements = derivations.DERIVATIONS[name].checks()
    assert [statement for statement, holds in statements if not holds] == []
    assert statements and len(dict(statements)) == len(statements)


@pytest.fixture
def proved_here(monkeypatch):
    """Proofs in this process, which knows what a test has put in the place of some."""

    @contextmanager
    def proofs(names):
        yield SimpleNamespace(results=lambda: [derivations.prove(name) for name in names])

    monkeypatch.setattr("derivations.workers.Proofs", proofs)


@pytest.mark.usefixtures("proved_here")
def test_check_asks_every_derivation_and_holds_the_committed_file_against_the_generated_one(monkeypatch):
    for name, module in derivations.DERIVATIONS.items():
        monkeypatch.setattr(module, "checks", lambda name=name: [(f"proof of {name}", name != "lion")])
    proofs = [(f"{name}: proof of {name}", name != "lion") for name in derivations.DERIVATIONS]
    files = [(f"closed_forms.{ending} is what the derivations generate", True) for ending in ("py", "js")]
    assert derivations.check() == [*proofs, *files]


def test_check_proves_in_workers(monkeypatch):
    """All of them is what `rotsim verify` does; here two, which are short."""
    short = {name: derivations.DERIVATIONS[name] for name in ("rotational_sgdm", "sgdm")}
    monkeypatch.setattr(derivations, "DERIVATIONS", short)
    monkeypatch.setattr(derivations, "prove", None)  # not in this process
    *statements, (about, same), (script, alike) = derivations.check()
    assert len(statements) > 2 and all(holds for _, holds in statements)
    assert about.startswith("closed_forms.py is what") and not same  # two have not all of its functions
    assert script.startswith("closed_forms.js is what") and not alike


@pytest.mark.few(1)
@pytest.mark.usefixtures("proved_here")
@pytest.mark.parametrize("language", derivations.LANGUAGES.values(), ids=str)
def test_check_fails_on_a_tampered_file(tmp_path, monkeypatch, capsys, language):
    copy = tmp_path / "closed_forms"
    text = language.committed_path().read_text(encoding="utf-8")
    monkeypatch.setattr(language, "committed_path", lambda: copy)
    quick = [("a proof", True)]
    for module in derivations.DERIVATIONS.values():
        monkeypatch.setattr(module, "checks", lambda: quick)
    copy.write_text(text, encoding="utf-8")
    assert command.main(["--check"]) == 0
    copy.write_text(text.replace("weight_decay", "lr", 1), encoding="utf-8")
    assert command.main(["--check"]) == 1
    assert "run `python -m derivations --write`" in capsys.readouterr().err
    copy.unlink()
    assert command.main(["--check"]) == 1


@pytest.mark.usefixtures("proved_here")
def test_check_fails_on_a_false_statement(monkeypatch, capsys):
    for module in derivations.DERIVATIONS.values():
        monkeypatch.setattr(module, "checks", lambda: [("two is three", False)])
    assert command.main(["--check"]) == 1
    assert "two is three" in capsys.readouterr().err


def test_write_restores_a_tampered_file(tmp_path, monkeypatch):
    committed = [language.committed_path() for language in derivations.LANGUAGES.values()]
    copies = [tmp_path / path.name for path in committed]
    for copy, language in zip(copies, derivations.LANGUAGES.values(), strict=True):
        copy.write_text("tampered", encoding="utf-8")
        monkeypatch.setattr(language, "committed_path", lambda copy=copy: copy)
    command.main(["--write"])
    for copy, path in zip(copies, committed, strict=True):
        assert copy.read_bytes() == path.read_bytes()  # under this process's own, random, hash seed


@pytest.mark.slow
def test_the_generated_file_does_not_depend_on_the_hash_seed():
    script = "import derivations, sys; sys.stdout.buffer.write(derivations.closed_forms().encode())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert other.stdout == Path(forms.__file__).read_bytes()


def test_signatures_are_the_contract():
    assert sorted(CONTRACT.strip().splitlines()) == sorted(
        f"{name}({', '.join(inspect.signature(function).parameters)})" for name, function in FUNCTIONS.items()
    )
    assert sorted(FORMULAS) == sorted(FUNCTIONS)


def called(root):
    """Attributes of `closed_forms` that the package asks for."""
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "closed_forms":
                yield node.attr


#: What the package replaces by a random v: the limit of constant v, which readers and tests compare with.
LIMITS = {
    "adamw_exact_norm_squared", "nesterov_exact_norm_squared", "adam_l2_exact_norm_squared_map",
    "adam_l2_exact_one_minus_cosine", "rotational_adamw_filling",
}  # fmt: skip


def test_no_formula_is_generated_that_nothing_calls(tmp_path):
    assert set(called(Path(rotsim.__file__).parent)) == set(FUNCTIONS) - LIMITS
    (tmp_path / "mentions.py").write_text('"""closed_forms.sign_slope"""\n', encoding="utf-8")
    assert list(called(tmp_path)) == []  # negative control: to be mentioned is not to be called


def test_proofs_refuse_wrong_algebra():
    from derivations import algebra, linear, sgdm
    from derivations.symbols import C, W, eta, j

    assert not algebra.vanishes(eta - 2 * eta)
    with pytest.raises(ValueError, match="not a geometric series"):
        algebra.geometric_sum(1 / (j + 1), j)
    with pytest.raises(ValueError, match="not proportional"):
        algebra.fixed_point(C, W**2, W, eta / eta)
    moments = linear.moment_map(sgdm._recursion(), 1)
    point = linear.stationary(moments)
    assert linear.fixed_by(moments, point)
    assert not linear.fixed_by(moments, 2 * point)


page = cache(derivations.render)

# --- the walk-through --------------------------------------------------------------------------


@pytest.mark.few(4)
@EVERY
def test_walkthrough_reads_in_a_terminal_and_as_markdown(name):
    steps = derivations.walkthrough(name)
    assert len(steps) >= 5
    for step in steps:
        assert len(step.explanation.split()) >= 10
        assert step.equations
    text = page(name, "text")
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "↪" not in text  # no equation is broken over lines
    assert not re.search("varrho|vartheta|varkappa|_new_|prime", text)  # letters, not their names
    markdown = page(name, "markdown")
    equations = sum(len(step.equations) for step in steps)
    assert markdown.count("$$") == 2 * equations
    assert all(f"## {i}. {step.title}" in markdown for i, step in enumerate(steps, start=1))


def pieces(latex):
    """What to parse of an equation: mathtext knows no matrices, of which it gets the entries, and no limits of ∫."""
    matrices = re.findall(r"\\left\[\\begin\{matrix\}(.*?)\\end\{matrix\}\\right\]", latex)
    whole = re.sub(r"\\left\[\\begin\{matrix\}.*?\\end\{matrix\}\\right\]", "M", latex)
    entries = [entry for matrix in matrices for entry in re.split(r"&|\\\\", matrix)]
    return [part.replace(r"\int\limits", r"\int") for part in (whole, *entries)]


@pytest.mark.few(3)
@EVERY
def test_latex_can_be_typeset(name):
    """Every equation of the Markdown page, by matplotlib's parser of TeX."""
    parser = MathTextParser("path")
    equations = re.findall(r"\$\$\n(.*?)\n\$\$", page(name, "markdown"), re.DOTALL)
    symbols = re.findall(r"^\| \$(.*?)\$ \|", page(name, "markdown"), re.MULTILINE)
    assert len(equations) == sum(len(step.equations) for step in derivations.walkthrough(name))
    assert symbols
    for equation in (*equations, *symbols):
        for piece in pieces(equation):
            assert parser.parse(f"${piece}$").width > 0


@pytest.mark.parametrize("broken", [r"\frac{1}{2", r"\sqrt{a} \left( b", r"\undefined x", "a^b^c"])
def test_broken_latex_is_refused(broken):
    with pytest.raises(ValueError):
        MathTextParser("path").parse(f"${broken}$")


def test_command_prints_and_writes(tmp_path, capsys):
    assert command.main(["sgdm"]) == 0
    assert "Leading rotation" in capsys.readouterr().out
    page = tmp_path / "page.md"
    assert command.main(["sgdm", "--markdown", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("# ")
    with pytest.raises(SystemExit):
        command.main(["adagrad"])
    with pytest.raises(ValueError, match="choose from adamw"):
        derivations.render("adagrad")
    with pytest.raises(ValueError, match="'markdown'; got 'html'"):
        derivations.render("sgdm", "html")


# --- linear optimizers: a state-space model and a Lyapunov solver -------------------------------


def adamw_system(lr, weight_decay, beta1):
    a = 1 - lr * weight_decay
    return np.array([[a, -lr * beta1], [0, beta1]]), np.array([[-lr * (1 - beta1)], [1 - beta1]])


def sgdm_system(lr, weight_decay, momentum):
    transition = [[1 - lr * weight_decay, -lr * momentum], [weight_decay, momentum]]
    return np.array(transition), np.array([[-lr], [1.0]])


def adam_l2_system(lr, weight_decay, beta1, second_moment):
    step = lr / np.sqrt(second_moment)
    new = (1 - beta1) * weight_decay
    transition = [[1 - step * new, -step * beta1], [new, beta1]]
    return np.array(transition), np.array([[-step * (1 - beta1)], [1 - beta1]])


def lyapunov(system, variance):
    """E w² and 1 - ρ of one coordinate, from the stationary covariance."""
    transition, entry = system
    covariance = solve_discrete_lyapunov(transition, entry @ entry.T * variance)
    return covariance[0, 0], 1 - (transition @ covariance)[0, 0] / covariance[0, 0]


def agrees(value, reference, tolerance=EXACT):
    return abs(value / reference - 1) < tolerance


SETTINGS = [(0.02, 0.5), (0.3, 0.4), (0.5, 1.5)]


@pytest.mark.parametrize(("lr", "weight_decay"), SETTINGS)
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.95])
def test_adamw_agrees_with_lyapunov(lr, weight_decay, beta1):
    variance, one_minus_cosine = lyapunov(adamw_system(lr, weight_decay, beta1), 1.0)
    assert agrees(forms.adamw_exact_norm_squared(lr, weight_decay, beta1, 48), 48 * variance)
    assert agrees(forms.adamw_exact_one_minus_cosine(lr, weight_decay, beta1), one_minus_cosine)


@pytest.mark.parametrize(("lr", "weight_decay"), [*SETTINGS, (1.0, 1.9)])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("homogeneity", [0, -1])
def test_sgdm_agrees_with_lyapunov(lr, weight_decay, momentum, homogeneity):
    dim, power = 48, 3.7
    norm_squared = forms.sgdm_exact_norm_squared(lr, weight_decay, momentum, power, homogeneity)
    gradient_variance = power * norm_squared**homogeneity / dim
    variance, one_minus_cosine = lyapunov(sgdm_system(lr, weight_decay, momentum), gradient_variance)
    assert agrees(norm_squared, dim * variance)
    assert agrees(forms.sgdm_exact_one_minus_cosine(lr, weight_decay, momentum), one_minus_cosine)
    # for SGDM the paper's rotation is exact in this sense
    assert agrees(forms.sgdm_leading_rotation(lr, weight_decay, momentum) ** 2 / 2, one_minus_cosine)


@pytest.mark.parametrize(("lr", "weight_decay"), [(0.02, 0.5), (0.001, 0.5), (0.05, 0.05)])
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("homogeneity", [0, -1])
def test_adam_l2_agrees_with_lyapunov(lr, weight_decay, beta1, homogeneity):
    dim, power = 48, 3.7

    def by_lyapunov(norm_squared):
        noise = power * norm_squared**homogeneity / dim
        second_moment = noise + weight_decay**2 * norm_squared / dim
        return second_moment, *lyapunov(adam_l2_system(lr, weight_decay, beta1, second_moment), noise)

    def excess(norm_squared):
        return dim * by_lyapunov(norm_squared)[1] / norm_squared - 1

    norm_squared = brentq(excess, 1e-3, 1e3, xtol=1e-14, rtol=1e-14)
    second_moment, variance, one_minus_cosine = by_lyapunov(norm_squared)
    shared = (dim, norm_squared, power, homogeneity)
    assert agrees(forms.adam_l2_second_moment(weight_decay, *shared), second_moment)
    assert agrees(forms.adam_l2_exact_norm_squared_map(lr, weight_decay, beta1, *shared), dim * variance)
    assert agrees(forms.adam_l2_exact_norm_squared_map(lr, weight_decay, beta1, *shared), norm_squared)
    assert agrees(forms.adam_l2_exact_one_minus_cosine(lr, weight_decay, beta1, second_moment), one_minus_cosine)


def test_the_comparison_rejects_wrong_formulas():
    variance, one_minus_cosine = lyapunov(adamw_system(0.02, 0.5, 0.9), 1.0)
    assert not agrees(0.02 * 0.5, one_minus_cosine)  # momentum factor dropped
    assert not agrees(forms.adamw_leading_rotation(0.02, 0.5, 0.9) ** 2 / 2, one_minus_cosine)  # finite ηλ dropped
    assert not agrees(forms.adamw_leading_norm(0.02, 0.5, 48) ** 2, 48 * variance)
    variance, _ = lyapunov(sgdm_system(0.02, 0.5, 0.9), 1.0)
    assert not agrees(forms.sgdm_leading_norm(0.02, 0.5, 0.9, 48.0, 0) ** 2, 48 * variance)


@pytest.mark.parametrize("name", ["adamw", "sgdm"])
def test_rotation_does_not_depend_on_gradient_autocorrelation_but_the_norm_does(name):
    """Strongly correlated gradients, each projected off the weights: the cosine stays, E‖w‖² does not."""
    lr, weight_decay, beta, correlation, neurons, dim, steps = 0.02, 0.5, 0.6, 0.9, 200, 32, 2500
    rng = np.random.default_rng(11)
    weights = rng.standard_normal((neurons, dim))
    momentum, noise = np.zeros_like(weights), rng.standard_normal((neurons, dim))
    squares, products = np.zeros(neurons), np.zeros(neurons)
    for step in range(steps):
        noise = correlation * noise + np.sqrt(1 - correlation**2) * rng.standard_normal((neurons, dim))
        along = np.sum(noise * weights, axis=1) / np.sum(weights**2, axis=1)
        gradient = noise - along[:, None] * weights
        before = weights
        if name == "adamw":
            momentum = beta * momentum + (1 - beta) * gradient
            weights = (1 - lr * weight_decay) * weights - lr * momentum
        else:
            momentum = beta * momentum + gradient + weight_decay * weights
            weights = weights - lr * momentum
        if step >= 800:
            squares += np.sum(before**2, axis=1)
            products += np.sum(before * (before - weights), axis=1)
    if name == "adamw":
        expected = forms.adamw_exact_one_minus_cosine(lr, weight_decay, beta)
        white = forms.adamw_exact_norm_squared(lr, weight_decay, beta, dim)
    else:
        expected = forms.sgdm_exact_one_minus_cosine(lr, weight_decay, beta)
        white = forms.sgdm_exact_norm_squared(lr, weight_decay, beta, dim, 0)
    measured = products.sum() / squares.sum()
    # standard error of a ratio of means over independent neurons
    error = np.std(products - measured * squares, ddof=1) / np.sqrt(neurons) / squares.mean()
    assert error < 0.01 * expected
    assert abs(measured - expected) < chance.errors(neurons) * error
    assert squares.mean() / (steps - 800) > 1.5 * white


# --- leading order: the limit of the exact forms, numerically ------------------------------------


@pytest.mark.parametrize("homogeneity", [0, -1])
def test_leading_forms_are_reached_linearly(homogeneity):
    """The ratio to the exact form tends to one, with an error proportional to ηλ: halving it halves the error."""

    def deviations(decay):
        lr, weight_decay = decay / 0.3, 0.3
        sgdm = forms.sgdm_exact_norm_squared(lr, weight_decay, 0.9, 2.0, homogeneity)
        adamw = forms.adamw_exact_norm_squared(lr, weight_decay, 0.9, 64)
        angle = 2 * forms.adamw_exact_one_minus_cosine(lr, weight_decay, 0.9)
        return np.array(
            [
                forms.sgdm_leading_norm(lr, weight_decay, 0.9, 2.0, homogeneity) ** 2 / sgdm - 1,
                forms.adamw_leading_norm(lr, weight_decay, 64) ** 2 / adamw - 1,
                forms.adamw_leading_rotation(lr, weight_decay, 0.9) ** 2 / angle - 1,
            ]
        )

    coarse, fine = deviations(2e-5), deviations(1e-5)
    assert np.all(np.abs(fine) < 1e-3)
    np.testing.assert_allclose(coarse / fine, 2, rtol=1e-3)


def adam_l2_fixed_point(lr, weight_decay, beta1, dim, power, homogeneity):
    leading = forms.adam_l2_leading_norm(lr, weight_decay, dim, power, homogeneity) ** 2

    def excess(norm_squared):
        shared = (dim, norm_squared, power, homogeneity)
        return forms.adam_l2_exact_norm_squared_map(lr, weight_decay, beta1, *shared) / norm_squared - 1

    return brentq(excess, leading / 3, 3 * leading, xtol=1e-300, rtol=1e-14)


@pytest.mark.parametrize("homogeneity", [0, -1])
def test_adam_l2_leading_forms_are_the_small_step_limit(homogeneity):
    lr, weight_decay, beta1, dim, power = 1e-9, 1e-3, 0.9, 64, 0.5
    norm_squared = adam_l2_fixed_point(lr, weight_decay, beta1, dim, power, homogeneity)
    second_moment = forms.adam_l2_second_moment(weight_decay, dim, norm_squared, power, homogeneity)
    angle = 2 * forms.adam_l2_exact_one_minus_cosine(lr, weight_decay, beta1, second_moment)
    small = lr * weight_decay / np.sqrt(second_moment)
    assert small < 1e-7
    leading = forms.adam_l2_leading_norm(lr, weight_decay, dim, power, homogeneity)
    rotation = forms.adam_l2_leading_rotation(lr, weight_decay, beta1, dim, power, homogeneity)
    assert abs(leading**2 / norm_squared - 1) < small
    assert abs(rotation**2 / angle - 1) < small


# --- Lion: direct sums over past gradients, and a simulated Gaussian process ----------------------

BETAS = [(0.9, 0.99), (0.95, 0.98), (0.5, 0.9), (0.0, 0.9), (0.9, 0.0)]


def filter_weights(beta1, beta2, terms):
    """What each past gradient contributes to Lion's update direction, by running the recurrence on an impulse."""
    momentum, weights = 0.0, []
    for step in range(terms):
        impulse = 1.0 if step == 0 else 0.0
        weights.append(beta1 * momentum + (1 - beta1) * impulse)
        momentum = beta2 * momentum + (1 - beta2) * impulse
    return np.array(weights)


@pytest.mark.parametrize(("beta1", "beta2"), BETAS)
def test_lion_covariances_are_sums_over_the_filter(beta1, beta2):
    weights = filter_weights(beta1, beta2, 4000)
    assert agrees(forms.lion_variance(beta1, beta2), weights @ weights)
    # linearised sign: a step of length lr·sqrt(dim) against the norm that balances (lr·slope)² with decay
    slope_squared = 2 / (np.pi * (weights @ weights))
    assert agrees(forms.lion_leading_rotation(0.1, 0.2, beta1, beta2) ** 2, 2 * 0.1 * 0.2 / slope_squared)
    for lag in (1, 2, 7):
        direct = weights[lag:] @ weights[:-lag]
        value = forms.lion_covariance(beta1, beta2, lag)
        assert abs(value - direct) < 1e-14
        correlation = direct / (weights @ weights)
        assert abs(forms.lion_sign_correlation(beta1, beta2, lag) - 2 / np.pi * np.arcsin(correlation)) < 1e-13


def test_lion_sign_correlation_agrees_with_a_simulated_process():
    beta1, beta2, batches, length = 0.9, 0.8, 100, 10_000
    noise = np.random.default_rng(7).standard_normal((batches, length))
    momentum = lfilter([1 - beta2], [1, -beta2], noise, axis=1)
    direction = np.sign(beta1 * momentum[:, :-1] + (1 - beta1) * noise[:, 1:])[:, 200:]
    k = chance.errors(batches, 3)
    for lag in (1, 3, 10):
        batch_means = (direction[:, lag:] * direction[:, :-lag]).mean(axis=1)
        error = batch_means.std(ddof=1) / np.sqrt(batches)
        value = forms.lion_sign_correlation(beta1, beta2, lag)
        assert abs(batch_means.mean() - value) < k * error
        # negative control: the linearised law, which the paper uses, is told apart from it
        linear = 2 / np.pi * forms.lion_covariance(beta1, beta2, lag) / forms.lion_variance(beta1, beta2)
        assert lag > 3 or abs(batch_means.mean() - linear) > 10 * error


@pytest.mark.parametrize(("beta1", "beta2"), BETAS)
def test_lion_moments_agree_with_the_double_sum(beta1, beta2):
    lr, weight_decay, dim, terms = 0.1, 0.2, 48, 2500
    kept = 1 - lr * weight_decay
    lags = np.arange(1, terms)
    signs = forms.lion_sign_correlation(beta1, beta2, lags)
    discounted = np.sum(kept**lags * signs)
    powers = kept ** np.arange(terms)
    correlation = np.concatenate([[1.0], signs])
    matrix = correlation[np.abs(np.subtract.outer(np.arange(terms), np.arange(terms)))]
    variance = lr**2 * powers @ matrix @ powers
    # w_{t-1} holds the signs of steps t-1, t-2, ...; the new sign is one step ahead of the first
    pull = lr * powers[:-1] @ signs
    one_minus_cosine = 1 - kept - lr * pull / variance
    assert agrees(forms.lion_exact_norm_squared(lr, weight_decay, dim, discounted), dim * variance)
    assert agrees(forms.lion_exact_one_minus_cosine(lr, weight_decay, discounted), one_minus_cosine)


def test_lion_arcsine_series_sums_to_the_discounted_sum():
    from sympy import Rational, lambdify

    from derivations import lion
    from derivations.symbols import a, beta2, n

    kept, beta = 0.98, 0.99
    ratio = forms.lion_covariance(0.9, beta, 1) / forms.lion_variance(0.9, beta)
    term = lion.arcsine_series().rhs.function.subs(lion._R, Rational(ratio))
    total = sum(lambdify((a, beta2), term.subs(n, order))(kept, beta) for order in range(40))
    lags = np.arange(1, 5000)
    assert agrees(float(total), np.sum(kept**lags * forms.lion_sign_correlation(0.9, beta, lags)))


def test_the_paper_linearises_lion_and_so_overstates_its_rotation_at_vanishing_decay():
    lags = np.arange(1, 20_000)
    for beta1, beta2 in BETAS:
        lr = weight_decay = 1e-7
        discounted = np.sum(forms.lion_sign_correlation(beta1, beta2, lags))
        exact = np.sqrt(2 * forms.lion_exact_one_minus_cosine(lr, weight_decay, discounted))
        assert forms.lion_leading_rotation(lr, weight_decay, beta1, beta2) > 1.001 * exact
        linear = np.sum(forms.lion_covariance(beta1, beta2, lags)) / forms.lion_variance(beta1, beta2)
        paper = lr / (2 * weight_decay) * 2 / np.pi * (1 + 2 * linear)
        assert agrees(forms.lion_leading_norm(lr, weight_decay, beta1, beta2, 1) ** 2, paper, 1e-9)


# --- relaxation: the slowest eigenvalue of the second-moment map ----------------------------------


def slowest_time(step, point):
    """Steps per e-fold from the Jacobian of `step` at its fixed point, by complex-step differentiation."""
    jacobian = np.empty((3, 3))
    for i in range(3):
        moved = point.astype(complex)
        moved[i] += 1e-30j
        jacobian[:, i] = step(moved).imag / 1e-30
    return -1 / np.log(np.max(np.abs(np.linalg.eigvals(jacobian))))


def moments_step(system_and_variance, dim):
    """One step of (E‖w‖², E w·m, E‖m‖²), the noise and the system following the norm."""

    def step(moments):
        (transition, entry), variance = system_and_variance(moments[0])
        state = np.array([[moments[0], moments[1]], [moments[1], moments[2]]])
        new = transition @ state @ transition.T + entry @ entry.T * variance * dim
        return np.array([new[0, 0], new[0, 1], new[1, 1]])

    return step


def stationary_moments(system, variance, dim):
    transition, entry = system
    covariance = dim * solve_discrete_lyapunov(transition, entry @ entry.T * variance)
    return np.array([covariance[0, 0], covariance[0, 1], covariance[1, 1]])


@pytest.mark.parametrize("homogeneity", [0, -1])
def test_relaxation_steps_are_those_of_the_slowest_mode(homogeneity):
    lr, weight_decay, beta, dim, power = 2e-8, 0.5, 0.9, 16, 16.0

    adamw = adamw_system(lr, weight_decay, beta)
    time = slowest_time(moments_step(lambda _: (adamw, 1.0), dim), stationary_moments(adamw, 1.0, dim))
    assert agrees(forms.adamw_relaxation_steps(lr, weight_decay), time, 1e-4)
    assert agrees(forms.lion_relaxation_steps(lr, weight_decay), time, 1e-4)

    sgdm = sgdm_system(lr, weight_decay, beta)
    norm_squared = forms.sgdm_exact_norm_squared(lr, weight_decay, beta, power, homogeneity)
    point = stationary_moments(sgdm, power * norm_squared**homogeneity / dim, dim)
    time = slowest_time(moments_step(lambda w: (sgdm, power * w**homogeneity / dim), dim), point)
    assert agrees(forms.sgdm_relaxation_steps(lr, weight_decay, beta, homogeneity), time, 1e-4)
    # negative control: the other homogeneity is a factor of two away
    assert not agrees(forms.sgdm_relaxation_steps(lr, weight_decay, beta, -1 - homogeneity), time, 0.3)


@pytest.mark.parametrize("homogeneity", [0, -1])
def test_adam_l2_relaxation_steps_are_those_of_the_slowest_mode(homogeneity):
    lr, weight_decay, beta1, dim, power = 2e-8, 0.05, 0.9, 16, 16.0
    norm_squared = adam_l2_fixed_point(lr, weight_decay, beta1, dim, power, homogeneity)

    def at(w):
        noise = power * w**homogeneity / dim
        second_moment = noise + weight_decay**2 * w / dim
        return adam_l2_system(lr, weight_decay, beta1, second_moment), noise

    point = stationary_moments(*at(norm_squared), dim)
    second_moment = forms.adam_l2_second_moment(weight_decay, dim, norm_squared, power, homogeneity)
    time = slowest_time(moments_step(at, dim), point)
    assert agrees(forms.adam_l2_relaxation_steps(lr, weight_decay, second_moment, homogeneity), time, 1e-4)
    assert not agrees(forms.adam_l2_relaxation_steps(lr, weight_decay, second_moment, -1 - homogeneity), time, 0.3)


@pytest.mark.parametrize("beta2", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("homogeneity", [0, -1])
def test_a_lagging_second_moment_slows_relaxation(homogeneity, beta2):
    """The mean-field map of (W, v), iterated: its slowest mode, from the eigenvalues of its Jacobian."""
    lr, weight_decay, dim, power = 2e-4, 0.5, 16, 16.0

    def slowest(step, point):
        jacobian = np.empty((2, 2))
        for i in range(2):
            moved = point.astype(complex)
            moved[i] += 1e-30j
            jacobian[:, i] = step(moved).imag / 1e-30
        return -1 / np.log(np.max(np.abs(np.linalg.eigvals(jacobian))))

    def follow(w, v):
        return beta2 * v + (1 - beta2) * power * w**homogeneity / dim

    def adamw(x):
        w, v = x
        return np.array([w - 2 * lr * weight_decay * w + lr**2 * power * w**homogeneity / v, follow(w, v)])

    def adam_l2(x):
        w, v = x
        effective = lr / np.sqrt(v)
        return np.array([w - 2 * effective * weight_decay * w + effective**2 * power * w**homogeneity, follow(w, v)])

    norm = forms.adamw_leading_norm(lr, weight_decay, dim) ** 2
    time = slowest(adamw, np.array([norm, power * norm**homogeneity / dim]))
    assert agrees(forms.adamw_lagged_relaxation_steps(lr, weight_decay, beta2, homogeneity, 1.0), time, 0.06)
    norm = forms.adam_l2_leading_norm(lr, weight_decay, dim, power, homogeneity) ** 2
    v = power * norm**homogeneity / dim
    time = slowest(adam_l2, np.array([norm, v]))
    assert agrees(forms.adam_l2_lagged_relaxation_steps(lr, weight_decay, beta2, v, homogeneity, 1.0), time, 0.06)
    if beta2 > 0.9999:  # negative control: without the lag both are far too fast
        assert not agrees(forms.adamw_relaxation_steps(lr, weight_decay), time, 0.9)


# --- numerics ----------------------------------------------------------------------------------

INTERIOR = {
    "ahead": (0.3, 0.8),
    "beta3": (0.95, 0.6),
    "mix": (2.0, 0.5),
    "own": (0.3, 0.1),
    "held_fast": (0.9, 0.8),
    "held_slow": (0.7, 0.6),
    "held": (1.7, 0.9),
    "alone_power": (1.2, 1.1),
    "average_power": (0.1, 0.2),
    "aligned": (-0.2, 0.6),
    "open_decay": (0.4, 0.7),
    "open_overlap": (0.3, 0.1),
    "behind": (-0.2, 0.1),
    "aspect": (0.25, 1.0),
    "lr": (0.01, 0.02),
    "weight_decay": (0.1, 0.3),
    "momentum": (0.5, 0.9),
    "beta1": (0.8, 0.95),
    "beta2": (0.9, 0.99),
    "dim": (16.0, 64.0),
    "norm_squared": (0.5, 2.0),
    "second_moment": (0.3, 3.0),
    "eps_root": (6.0, 40.0),
    "felt": (0.3, 1.0),
    "gradient_power": (0.1, 10.0),
    "homogeneity": (-1.0, 0.0),
    "lag": (1.0, 4.0),
    "discounted_sum": (0.5, 20.0),
    "memory": (0.5, 0.9),
    "update_norm_decay": (0.5, 0.9),
    "directions": (3.0, 64.0),
    "step": (1.0, 5.0),
    "slope": (0.8, 2.0),
    "excess": (0.01, 0.1),
    "signal_power": (0.1, 10.0),
    "overlap_ratio": (0.8, 3.0),
    "correlation": (-0.4, 0.6),
    "signal_ratio": (0.1, 1.0),
    "radial": (-0.05, 0.2),
    "momentum_power": (0.05, 0.5),
    "step_length": (0.01, 0.1),
    "mode_overlap": (-0.37, 0.21),
    "weight": (-0.1, 0.4),
    "root": (0.1, 0.9),
    "across": (-0.37, 0.21),
    "update_power": (0.5, 2.0),
    "momentum_overlap": (-0.37, 0.21),
    "noise_power": (0.5, 2.0),
    "batch_factor": (0.25, 4.0),
    "steps_factor": (0.5, 3.0),
    "start_share": (0.2, 0.9),
    "alike": (0.3, 0.9),
    "arc": (0.2, 1.2),
    "deviations": (0.3, 1.5),
    "arcsine_factor": (-0.2, 1.0),
    "odd_power": (1.0, 3.0),
    "rotation": (0.01, 0.2),
    "angle": (0.01, 0.5),
    "across_power": (0.4, 1.5),
    "mean_square": (0.5, 2.0),
    "kept_share": (0.8, 0.99),
    "radial_share": (-0.1, 0.7),
    "growth": (-0.3, 0.4),
    "turn": (0.7, 1.6),
    "fallen": (0.01, 0.03),
    "fallen_before": (0.003, 0.02),
    "variance": (0.02, 0.5),
    "power_factor": (0.5, 3.0),
    "growth_factor": (0.6, 5.0),
    "alignment": (0.1, 0.7),
    "lasting_decay": (0.05, 0.4),
    "mean": (0.1, 0.6),
    "damping": (0.1, 2.0),
    "w_mean": (-0.4, 0.7),
    "m_mean": (-0.2, 0.3),
    "pull_power": (0.5, 2.0),
    "weight_power": (0.1, 0.6),
    "rooted_power": (0.1, 0.6),
    "cumulant_31": (-0.1, 0.2),
    "cumulant_22": (-0.1, 0.2),
    "cumulant_13": (-0.1, 0.2),
    "cumulant_04": (-0.1, 0.2),
    "old_norm": (0.4, 0.9),
    "new_momentum": (-0.3, 0.2),
    "new_moment": (-0.5, 0.1),
    "last_power": (0.2, 0.9),
    "joint": (-0.3, 0.6),
    "first": (-0.2, 0.4),
    "second": (0.3, -0.5),
    "with_old": (-0.3, 0.6),
    "with_new": (0.2, -0.4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_broadcast(name):
    function = FUNCTIONS[name]
    names = list(inspect.signature(function).parameters)
    values = [np.array(INTERIOR[argument]) for argument in names]
    grid = function(*np.meshgrid(*values, indexing="ij", sparse=True))
    assert grid.shape == (2,) * len(names)
    for index in np.ndindex(grid.shape):
        scalar = function(*(float(value[i]) for value, i in zip(values, index, strict=True)))
        assert agrees(grid[index], scalar, 1e-14)


@pytest.mark.few(70)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_evaluate_the_derived_expressions(name):
    expression = FORMULAS[name].expression
    codes = {entry.code: symbol for symbol, entry in derivations.symbols.ARGUMENTS.items()}
    arguments = list(inspect.signature(FUNCTIONS[name]).parameters)
    for pick in (0, 1):
        values = {argument: INTERIOR[argument][pick] for argument in arguments}
        reference = expression.subs({codes[argument]: value for argument, value in values.items()})
        assert agrees(FUNCTIONS[name](**values), float(reference.evalf(30)), 1e-12)


def test_no_digits_are_lost_at_vanishing_decay():
    lr, weight_decay, beta, total = 1e-6, 1e-6, 0.9, 25.0
    with mpmath.workdps(60):
        a = 1 - mpmath.mpf(lr) * mpmath.mpf(weight_decay)
        b = mpmath.mpf(beta)
        adamw = 1 - (a + b) / (1 + a * b)
        variance = (1 - b) / (1 + b) * (1 + a * b) / ((1 - a * b) * (1 - a**2))
        sgdm = 1 - (1 + b - (1 - a)) / (1 + b)  # Yule-Walker: rho = phi1 / (1 - phi2)
        lion = 1 - a - (1 - a**2) / (1 + 2 * mpmath.mpf(total)) * total / a
    assert agrees(forms.adamw_exact_one_minus_cosine(lr, weight_decay, beta), float(adamw))
    assert agrees(forms.adamw_exact_norm_squared(lr, weight_decay, beta, 1), float(variance * mpmath.mpf(lr) ** 2))
    assert agrees(forms.sgdm_exact_one_minus_cosine(lr, weight_decay, beta), float(sgdm))
    assert agrees(forms.lion_exact_one_minus_cosine(lr, weight_decay, total), float(lion))
    # negative control: the same numbers as differences in double precision
    kept = 1 - lr * weight_decay
    assert not agrees(1 - (kept + beta) / (1 + kept * beta), float(adamw))
