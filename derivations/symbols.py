"""The table that ties every symbol of the derivations to its name in the code."""

from __future__ import annotations

from typing import NamedTuple

from sympy import Basic, Eq, Expr, Function, IndexedBase, Symbol, symbols


class Entry(NamedTuple):
    """What the generated code calls a symbol, what it means and where it may lie."""

    code: str
    meaning: str
    valid: str


def _positive(name: str) -> Symbol:
    return Symbol(name, positive=True)


eta = _positive("eta")
lamda = _positive("lambda")
alpha = _positive("alpha")
beta1 = _positive("beta1")
beta2 = _positive("beta2")
C = _positive("C")
W = _positive("W")
v = _positive("v")
G = _positive("G")
p = Symbol("p", real=True)
k = Symbol("k", integer=True, positive=True)
S = _positive("S")
phi = Symbol("phi", real=True)
r = _positive("r")
P = Symbol("P", real=True)
q = _positive("q")
chi = _positive("chi")
beta = _positive("beta")
gamma = _positive("gamma")
n_free = _positive("n")
t = Symbol("t", integer=True)
varsigma = _positive("varsigma")
x_e = _positive("x_e")
m_power = _positive("M")
h = _positive("h")
X_n = Symbol("X_n", real=True)
p_n = Symbol("p_n", real=True)
mu_n = _positive("mu_n")
y = Symbol("y", real=True)
x_m = Symbol("x", real=True)
K_0 = _positive("K_0")
Gamma = _positive("Gamma")
s_v = _positive("s_v")
c_v = _positive("c_v")
R = _positive("R")
a_n = Symbol("a_n", real=True)
nu_n = _positive("nu_n")
theta = _positive("theta")
vartheta = _positive("vartheta")
X_u = _positive("X")
s_u = _positive("s_u")
a_turn = Symbol("a_t", real=True)
varrho = Symbol("varrho", real=True)
g_W = Symbol("Lambda", real=True)
z_theta = _positive("psi")
tau = _positive("tau")
varkappa = Symbol("varkappa", real=True)
psi, h_s = Symbol("psi", real=True), _positive("h_s")
f_B, f_T = _positive("f_B"), _positive("f_T")
F, F_0 = _positive("F"), _positive("F_0")
Y, mu, ell = _positive("Y"), _positive("mu"), _positive("ell")
P_g = Symbol("P_g", real=True)
I_0, I_1, w_square, m_square = symbols("I_0 I_1 w_2 m_2", real=True)
f_1, f_2 = Symbol("f_1", real=True), Symbol("f_2", real=True)
zeta = _positive("zeta")
w_mean = Symbol("A_1", real=True)
m_mean = Symbol("M_1", real=True)
y_power = _positive("Y_2")
w_power = _positive("A_2")
u_m = _positive("U")
c_31, c_22, c_13, c_04 = (Symbol(f"c_{name}", real=True) for name in ("31", "22", "13", "04"))
z_power = _positive("Z_2")
c_joint, c_one, c_two = (Symbol(name, real=True) for name in ("c_fg", "c_f", "c_g"))
f_mean, n_mean = Symbol("f_0", real=True), Symbol("f_y", real=True)
x_root = _positive("x_eps")
f_w, q_m, q_v = _positive("f"), _positive("q_m"), _positive("q_v")

delta = _positive("delta")
a = _positive("a")
eta_step = _positive("etaprime")
A = _positive("A")
T = _positive("T")
D = _positive("D")
gamma_k = _positive("gamma_k")
gamma_0 = _positive("gamma_0")
b_0 = _positive("b_0")
B_0 = _positive("B_0")
epsilon = _positive("epsilon")
b_y = Symbol("b", nonnegative=True)
Q_y = _positive("Q")
c_m, d_m = Symbol("c_m", real=True), Symbol("d_m", real=True)

#: Arguments of generated functions, in the order in which those functions take them.
ARGUMENTS: dict[Symbol, Entry] = {
    eta: Entry("lr", "learning rate", "lr > 0"),
    lamda: Entry("weight_decay", "weight decay, multiplied by the learning rate", "weight_decay > 0"),
    alpha: Entry("momentum", "heavy-ball momentum of SGDM", "0 <= momentum < 1"),
    beta1: Entry("beta1", "decay of the average that makes the update", "0 <= beta1 < 1"),
    beta2: Entry("beta2", "decay of Adam's second moment, of Lion's momentum", "0 <= beta2 < 1"),
    C: Entry("dim", "fan-in: the number of weights of one neuron", "dim >= 1"),
    W: Entry("norm_squared", "mean square norm of the weights, E‖w‖²", "norm_squared > 0"),
    v: Entry("second_moment", "Adam's second moment of one coordinate", "second_moment > 0"),
    G: Entry("gradient_power", "G in E‖g‖² = G·W^p", "gradient_power > 0"),
    p: Entry("homogeneity", "p in E‖g‖² = G·W^p: 0 isotropic, -1 scale-invariant", "homogeneity < 1"),
    k: Entry("lag", "distance in steps", "whole lag >= 1"),
    S: Entry("discounted_sum", "sum over k >= 1 of (1 - lr·weight_decay)^k s_k", "discounted_sum >= 0"),
    chi: Entry("signal_power", "signal_ratio² over its value at takeover", "signal_power > 0"),
    beta: Entry("memory", "decay of the average that makes the update", "0 <= memory < 1"),
    gamma: Entry("update_norm_decay", "decay of the running mean of ‖u⊥‖²", "0 <= update_norm_decay < 1"),
    t: Entry("step", "number of the step, from 1", "whole step >= 1"),
    n_free: Entry("directions", "number of directions that an update is free to take", "directions >= 1"),
    varsigma: Entry("slope", "mean response of Lion's sign to a small shift of its argument", "slope > 0"),
    x_e: Entry("excess", "what the arcsine adds to the discounted sum of straight lines", "excess >= 0"),
    q: Entry("overlap_ratio", "E[c·g]/E[c²] of Lion's update direction", "overlap_ratio > 0"),
    phi: Entry("correlation", "correlation of successive gradients, R_k = φ^k", "-1 < correlation < 1"),
    r: Entry("signal_ratio", "mean over standard deviation of a gradient coordinate", "signal_ratio > 0"),
    h: Entry("step_length", "what a step multiplies the update by", "step_length >= 0"),
    X_n: Entry("mode_overlap", "overlap of the weights with one mode of the updates to come", "any mode_overlap"),
    p_n: Entry("weight", "size of one mode of the update's autocovariance", "any weight"),
    mu_n: Entry("root", "what a mode keeps in one step", "0 <= root < 1"),
    y: Entry("across", "overlap of the weights with the next update, E w·u", "any across"),
    K_0: Entry("update_power", "mean square of the update, E‖u‖²", "update_power > 0"),
    x_m: Entry("momentum_overlap", "overlap of weights and momentum, E w·m", "any momentum_overlap"),
    Gamma: Entry("noise_power", "mean square of the gradient now, E‖g‖²", "noise_power > 0"),
    m_power: Entry("momentum_power", "mean square of the momentum", "momentum_power > 0"),
    s_v: Entry("spread", "half the variance of v", "spread >= 0"),
    c_v: Entry("shared", "half the covariance of m² and v", "shared >= 0"),
    R: Entry("alike", "correlation of two Gaussians", "0 <= alike <= 1"),
    a_n: Entry("arcsine_factor", "factor of one power in the arcsine", "any arcsine_factor"),
    nu_n: Entry("odd_power", "a power in the arcsine", "odd_power >= 1"),
    theta: Entry("rotation", "RMS angle per step", "rotation > 0"),
    vartheta: Entry("angle", "angle of one step", "0 <= angle < pi"),
    X_u: Entry("across_power", "mean square of the update's part across the weights", "across_power > 0"),
    s_u: Entry("mean_square", "running mean of that", "mean_square > 0"),
    a_turn: Entry("kept_share", "share of the weights that a turn keeps", "any kept_share"),
    varrho: Entry("radial_share", "P/λ, radial part over weight decay", "any radial_share"),
    g_W: Entry("growth", "growth of ‖w‖² over its decay", "any growth"),
    gamma_0: Entry("variance", "variance of Lion's update direction", "variance > 0"),
    F: Entry("power_factor", "E‖m‖² over that under white noise", "power_factor > 0"),
    F_0: Entry("growth_factor", "growth of ‖w‖² over that under white noise", "growth_factor > 0"),
    Y: Entry("alignment", "squared cosine between weights and mean gradient", "0 < alignment < 1"),
    ell: Entry("lasting_decay", "λ/κ, weight decay in units of a lasting gradient", "lasting_decay > 0"),
    mu: Entry("mean", "length of the mean gradient", "mean >= 0"),
    tau: Entry("relaxation_steps", "steps in which a deviation of ‖w‖² shrinks e-fold", "relaxation_steps > 0"),
    varkappa: Entry("start_share", "share of E‖w‖² that is still the given start", "0 <= start_share <= 1"),
    psi: Entry("arc", "arcsine of a correlation", "-pi/2 < arc < pi/2"),
    h_s: Entry("deviations", "mean of a sign's argument, in its standard deviations", "deviations >= 0"),
    f_B: Entry("batch_factor", "new batch size over old", "batch_factor > 0"),
    f_T: Entry("steps_factor", "new length of the training over old, at equal batch", "steps_factor > 0"),
    z_theta: Entry("turn", "rotation over that of equilibrium", "turn > 0"),
    f_1: Entry("fallen", "1 - ρ one step less apart", "fallen >= 0"),
    f_2: Entry("fallen_before", "1 - ρ two steps less apart", "fallen_before >= 0"),
    zeta: Entry("damping", "ζ in the weight e^(-ζv)", "damping >= 0"),
    w_mean: Entry("w_mean", "mean of a weight", "any w_mean"),
    m_mean: Entry("m_mean", "mean of its momentum", "any m_mean"),
    w_power: Entry("weight_power", "mean square of a weight", "weight_power > 0"),
    y_power: Entry("pull_power", "mean square of what Adam averages, gradient and decay", "pull_power > 0"),
    z_power: Entry("last_power", "variance of the last gradient coordinate under the weight", "last_power >= 0"),
    c_joint: Entry("joint", "covariance of two variables, or the mean of the first", "any joint"),
    c_one: Entry("first", "covariance of the first with what Adam averages", "any first"),
    c_two: Entry("second", "covariance of the second with it, or its mean", "any second"),
    f_mean: Entry("with_old", "covariance of something with the old momentum, or its mean", "any with_old"),
    n_mean: Entry("with_new", "covariance of the same with what Adam averages, or its mean", "any with_new"),
    u_m: Entry("rooted_power", "mean of m²/√v", "rooted_power >= 0"),
    c_31: Entry("cumulant_31", "joint fourth cumulant of w, w, w and the update u", "any cumulant_31"),
    c_22: Entry("cumulant_22", "of w, w, u, u", "any cumulant_22"),
    c_13: Entry("cumulant_13", "of w, u, u, u", "any cumulant_13"),
    c_04: Entry("cumulant_04", "of u, four times", "any cumulant_04"),
    x_root: Entry("eps_root", "ε√s, with e^(-sv) the weight that stands for a root", "eps_root > 5"),
    f_w: Entry("old_norm", "share of E‖w‖² that is left of the one before", "0 <= old_norm <= 1"),
    q_m: Entry("new_momentum", "share of the newest gradient in m², times its exponent", "any new_momentum"),
    q_v: Entry("new_moment", "share of the newest gradient in v, times its exponent", "any new_moment"),
    P: Entry("radial", "share of the weights that the normalised gradient contains", "weight_decay + radial > 0"),
}

#: Names for parts of a formula; generated functions compute them on a line of their own.
PARTS: dict[Symbol, Entry] = {
    delta: Entry("decay", "share of the weights that decays in one step", "0 < decay < 1"),
    a: Entry("kept", "share of the weights that survives one step", "0 < kept < 1"),
    eta_step: Entry("step_size", "learning rate of the equivalent SGDM", "step_size > 0"),
    A: Entry("gain", "W in units of E‖g‖²", "gain > 0"),
    T: Entry("rate_sum", "sum of the rates at which W and v relax", "rate_sum > 0"),
    D: Entry("rate_product", "product of these rates", "rate_product > 0"),
    gamma_k: Entry("covariance", "autocovariance of Lion's update direction", "covariance >= 0"),
    b_0: Entry("overlap", "covariance of an average with the newest gradient in it", "overlap > 0"),
    B_0: Entry("power", "variance of an average of correlated gradients", "power > 0"),
    c_m: Entry("met", "overlap of Lion's direction with the momentum after it", "any met"),
    d_m: Entry("driven", "what correlated gradients keep up of that", "any driven"),
    P_g: Entry("pull", "radial part before the sign", "any pull"),
    I_0: Entry("pulled", "E w·m of weights of no length", "any pulled"),
    I_1: Entry("carrying", "what E w·m gains per E w²", "any carrying"),
    w_square: Entry("square", "E w² of a coordinate", "square > 0"),
    m_square: Entry("remembered", "E m² of a coordinate", "remembered > 0"),
    b_y: Entry("weight", "what y² is multiplied by, twice, in the exponent", "weight >= 0"),
    Q_y: Entry("thinned", "what that makes of the inverse variance of y", "thinned >= 1"),
    epsilon: Entry("share", "share of the raw noise that lies along the weights", "0 <= share < 1"),
}

TABLE: dict[Symbol, Entry] = ARGUMENTS | PARTS

# Quantities that the equations define or mention but no generated function takes.
sigma = _positive("sigma")
W_0 = _positive("W_0")
theta_0 = _positive("theta_0")
W_new = _positive("Wprime")
rho_new = _positive("rhoprime")
rho = _positive("rho")
eta_e = _positive("eta_e")
kappa = _positive("kappa")
c = _positive("c")
nu = Symbol("nu", real=True)
w_fixed = Symbol("w̄", real=True)
s = _positive("s")
xi = _positive("xi")
x = Symbol("x", real=True)
X = Function("X")
norm_m = Symbol("‖m‖", positive=True)
j = Symbol("j", integer=True, nonnegative=True)
n = Symbol("n", integer=True, nonnegative=True)
i = Symbol("i", integer=True, nonnegative=True)
l_ = Symbol("l", integer=True, nonnegative=True)

w_, m_, g_, u_, c_, v_, x_, y_, z_, W_ = (
    IndexedBase(name) for name in ("w", "m", "g", "u", "c", "v", "x", "y", "z", "W")
)
E = Function("E")


def equation(left: Expr, right: Expr) -> Eq:
    """An equation that stays one: sympy would turn ``Eq(x, x)`` into ``True``."""
    return Eq(left, right, evaluate=False)


#: δ = ηλ is the small parameter; a = 1 - δ is kept apart from it so that 1 - a is never computed as a difference.
SHORTHAND: tuple[Eq, ...] = (equation(delta, eta * lamda), equation(a, 1 - delta))


def expand_parts(expression: Expr, definitions: tuple[Basic, ...] = ()) -> Expr:
    """Replace every named part by its definition, so that only arguments are left."""
    for definition in (*reversed(definitions), *reversed(SHORTHAND)):
        expression = expression.subs(definition.lhs, definition.rhs)
    return expression
