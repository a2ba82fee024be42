"""The notation: every symbol of the derivations, and its name in the code. Derivations import all of it by ``*``."""

from typing import NamedTuple

from sympy import Basic, Eq, Expr, Function, IndexedBase, Symbol


class Entry(NamedTuple):
    """What the generated code calls a symbol, what it means and where it may lie."""

    code: str
    meaning: str
    valid: str


#: Arguments of generated functions, in the order in which those functions take them.
ARGUMENTS: dict[Symbol, Entry] = {}
#: Names for parts of a formula; generated functions compute them on a line of their own.
PARTS: dict[Symbol, Entry] = {}


def _entered(
    table: dict[Symbol, Entry], letter: str, code: str, meaning: str, valid: str, kind: dict[str, bool]
) -> Symbol:
    """A symbol that `table` explains: positive and of any size, unless `kind` and `valid` say something else."""
    symbol = Symbol(letter, **(kind or {"positive": True}))
    table[symbol] = Entry(code, meaning, valid or (f"{code} > 0" if symbol.is_positive else f"any {code}"))
    return symbol


def argument(letter: str, code: str, meaning: str, valid: str = "", **kind: bool) -> Symbol:
    """The next argument of generated functions."""
    return _entered(ARGUMENTS, letter, code, meaning, valid, kind)


def part(letter: str, code: str, meaning: str, valid: str = "", **kind: bool) -> Symbol:
    """A name for a part of a formula."""
    return _entered(PARTS, letter, code, meaning, valid, kind)


eta = argument("eta", "lr", "learning rate")
lamda = argument("lambda", "weight_decay", "weight decay, multiplied by the learning rate")
alpha = argument("alpha", "momentum", "heavy-ball momentum of SGDM", "0 <= momentum < 1")
beta1 = argument("beta1", "beta1", "decay of the average that makes the update", "0 <= beta1 < 1")
beta2 = argument("beta2", "beta2", "decay of Adam's second moment, of Lion's momentum", "0 <= beta2 < 1")
C = argument("C", "dim", "fan-in: the number of weights of one neuron", "dim >= 1")
W = argument("W", "norm_squared", "mean square norm of the weights, E‖w‖²")
v = argument("v", "second_moment", "Adam's second moment of one coordinate")
G = argument("G", "gradient_power", "G in E‖g‖² = G·W^p")
p = argument("p", "homogeneity", "p in E‖g‖² = G·W^p: 0 isotropic, -1 scale-invariant", "homogeneity < 1", real=True)
f_v = argument("f_v", "felt", "share of the denominator √v + ε that is √v", "0 < felt <= 1")
k = argument("k", "lag", "distance in steps", "whole lag >= 1", integer=True, positive=True)
S = argument("S", "discounted_sum", "sum over k >= 1 of (1 - lr·weight_decay)^k s_k", "discounted_sum >= 0")
chi = argument("chi", "signal_power", "signal_ratio² over its value at takeover")
beta = argument("beta", "memory", "decay of the average that makes the update", "0 <= memory < 1")
gamma = argument("gamma", "update_norm_decay", "decay of the running mean of ‖u⊥‖²", "0 <= update_norm_decay < 1")
t = argument("t", "step", "number of the step, from 1", "whole step >= 1", integer=True)
n_free = argument("n", "directions", "number of directions that an update is free to take", "directions >= 1")
varsigma = argument("varsigma", "slope", "mean response of Lion's sign to a small shift of its argument")
x_e = argument("x_e", "excess", "what the arcsine adds to the discounted sum of straight lines", "excess >= 0")
q = argument("q", "overlap_ratio", "E[c·g]/E[c²] of Lion's update direction")
phi = argument(
    "phi", "correlation", "correlation of successive gradients, R_k = φ^k", "-1 < correlation < 1", real=True
)
r = argument("r", "signal_ratio", "mean over standard deviation of a gradient coordinate")
h = argument("h", "step_length", "what a step multiplies the update by", "step_length >= 0")
X_n = argument("X_n", "mode_overlap", "overlap of the weights with one mode of the updates to come", real=True)
p_n = argument("p_n", "weight", "size of one mode of the update's autocovariance", real=True)
mu_n = argument("mu_n", "root", "what a mode keeps in one step", "0 <= root < 1")
y = argument("y", "across", "overlap of the weights with the next update, E w·u", real=True)
K_0 = argument("K_0", "update_power", "mean square of the update, E‖u‖²")
x_m = argument("x", "momentum_overlap", "overlap of weights and momentum, E w·m", real=True)
Gamma = argument("Gamma", "noise_power", "mean square of the gradient now, E‖g‖²")
m_power = argument("M", "momentum_power", "mean square of the momentum")
s_v = argument("s_v", "spread", "half the variance of v", "spread >= 0")
c_v = argument("c_v", "shared", "half the covariance of m² and v", "shared >= 0")
R = argument("R", "alike", "correlation of two Gaussians", "0 <= alike <= 1")
a_n = argument("a_n", "arcsine_factor", "factor of one power in the arcsine", real=True)
nu_n = argument("nu_n", "odd_power", "a power in the arcsine", "odd_power >= 1")
theta = argument("theta", "rotation", "RMS angle per step")
vartheta = argument("vartheta", "angle", "angle of one step", "0 <= angle < pi")
X_u = argument("X", "across_power", "mean square of the update's part across the weights")
s_u = argument("s_u", "mean_square", "running mean of that")
a_turn = argument("a_t", "kept_share", "share of the weights that a turn keeps", real=True)
varrho = argument("varrho", "radial_share", "P/λ, radial part over weight decay", real=True)
g_W = argument("Lambda", "growth", "growth of ‖w‖² over its decay", real=True)
gamma_0 = argument("gamma_0", "variance", "variance of Lion's update direction")
F = argument("F", "power_factor", "E‖m‖² over that under white noise")
F_0 = argument("F_0", "growth_factor", "growth of ‖w‖² over that under white noise")
Y = argument("Y", "alignment", "squared cosine between weights and mean gradient", "0 < alignment < 1")
ell = argument("ell", "lasting_decay", "λ/κ, weight decay in units of a lasting gradient")
mu = argument("mu", "mean", "length of the mean gradient", "mean >= 0")
tau = argument("tau", "relaxation_steps", "steps in which a deviation of ‖w‖² shrinks e-fold")
varkappa = argument(
    "varkappa", "start_share", "share of E‖w‖² that is still the given start", "0 <= start_share <= 1", real=True
)
psi = argument("psi", "arc", "arcsine of a correlation", "-pi/2 < arc < pi/2", real=True)
h_s = argument("h_s", "deviations", "mean of a sign's argument, in its standard deviations", "deviations >= 0")
f_B = argument("f_B", "batch_factor", "new batch size over old")
f_T = argument("f_T", "steps_factor", "new length of the training over old, at equal batch")
z_theta = argument("psi", "turn", "rotation over that of equilibrium")
f_1 = argument("f_1", "fallen", "1 - ρ one step less apart", "fallen >= 0", real=True)
f_2 = argument("f_2", "fallen_before", "1 - ρ two steps less apart", "fallen_before >= 0", real=True)
zeta = argument("zeta", "damping", "ζ in the weight e^(-ζv)", "damping >= 0")
w_mean = argument("A_1", "w_mean", "mean of a weight", real=True)
m_mean = argument("M_1", "m_mean", "mean of its momentum", real=True)
w_power = argument("A_2", "weight_power", "mean square of a weight")
y_power = argument("Y_2", "pull_power", "mean square of what Adam averages, gradient and decay")
z_power = argument("Z_2", "last_power", "variance of the last gradient coordinate under the weight", "last_power >= 0")
c_joint = argument("c_fg", "joint", "covariance of two variables, or the mean of the first", real=True)
c_one = argument("c_f", "first", "covariance of the first with what Adam averages", real=True)
c_two = argument("c_g", "second", "covariance of the second with it, or its mean", real=True)
f_mean = argument("f_0", "with_old", "covariance of something with the old momentum, or its mean", real=True)
n_mean = argument("f_y", "with_new", "covariance of the same with what Adam averages, or its mean", real=True)
u_m = argument("U", "rooted_power", "mean of m²/√v", "rooted_power >= 0")
c_31 = argument("c_31", "cumulant_31", "joint fourth cumulant of w, w, w and the update u", real=True)
c_22 = argument("c_22", "cumulant_22", "of w, w, u, u", real=True)
c_13 = argument("c_13", "cumulant_13", "of w, u, u, u", real=True)
c_04 = argument("c_04", "cumulant_04", "of u, four times", real=True)
x_root = argument("x_eps", "eps_root", "ε√s, with e^(-sv) the weight that stands for a root", "eps_root > 5")
f_w = argument("f", "old_norm", "share of E‖w‖² that is left of the one before", "0 <= old_norm <= 1")
q_m = argument("q_m", "new_momentum", "share of the newest gradient in m², times its exponent", "any new_momentum")
q_v = argument("q_v", "new_moment", "share of the newest gradient in v, times its exponent", "any new_moment")
P = argument(
    "P", "radial", "share of the weights that the normalised gradient contains", "weight_decay + radial > 0", real=True
)
y_a = argument("y", "aspect", "shorter over longer side of a matrix", "0 < aspect <= 1")
mu_a = argument("mu_a", "ahead", "weight of the average in NAdamW's update", "0 <= ahead < 1")
o_u = argument("o_t", "own", "weight of the newest gradient itself in an update, corrections included", "own >= 0")
h_u = argument("h_t", "held", "weight of the average in an update, corrections included", "held >= 0")
D_a = argument("D_0", "alone_power", "mean square of an update that is the newest gradient alone")
D_m = argument("D_m", "average_power", "mean square of an update that is a full average alone")
beta3 = argument("beta3", "beta3", "decay of AdEMAMix's slow average", "0 <= beta3 < 1")
alpha_s = argument("alpha_s", "mix", "what AdEMAMix's slow average counts", "mix >= 0")
held = argument("H_1", "held_fast", "mean correlation of the weights with those of all gradients in one average")
held_3 = argument("H_3", "held_slow", "the same of another average")
r_w = argument("r_w", "aligned", "correlation of a weight with its update", "-1 <= aligned <= 1", real=True)
f_o = argument("f_o", "open_decay", "share of E w² in coordinates that decay", "0 < open_decay <= 1")
H_o = argument("H_o", "open_overlap", "what of it stands in coordinates that decay", real=True)

delta = part("delta", "decay", "share of the weights that decays in one step", "0 < decay < 1")
a = part("a", "kept", "share of the weights that survives one step", "0 < kept < 1")
eta_step = part("etaprime", "step_size", "learning rate of the equivalent SGDM")
A = part("A", "gain", "W in units of E‖g‖²")
T = part("T", "rate_sum", "sum of the rates at which W and v relax")
D = part("D", "rate_product", "product of these rates")
gamma_k = part("gamma_k", "covariance", "autocovariance of Lion's update direction", "covariance >= 0")
b_0 = part("b_0", "overlap", "covariance of an average with the newest gradient in it")
B_0 = part("B_0", "power", "variance of an average of correlated gradients")
c_m = part("c_m", "met", "overlap of Lion's direction with the momentum after it", real=True)
d_m = part("d_m", "driven", "what correlated gradients keep up of that", real=True)
P_g = part("P_g", "pull", "radial part before the sign", real=True)
I_0 = part("I_0", "pulled", "E w·m of weights of no length", real=True)
I_1 = part("I_1", "carrying", "what E w·m gains per E w²", real=True)
w_square = part("w_2", "square", "E w² of a coordinate", "square > 0", real=True)
m_square = part("m_2", "remembered", "E m² of a coordinate", "remembered > 0", real=True)
b_y = part("b", "weight", "what y² is multiplied by, twice, in the exponent", "weight >= 0", nonnegative=True)
Q_y = part("Q", "thinned", "what that makes of the inverse variance of y", "thinned >= 1")
epsilon = part("epsilon", "share", "share of the raw noise that lies along the weights", "0 <= share < 1")

TABLE: dict[Symbol, Entry] = ARGUMENTS | PARTS

# Quantities that the equations define or mention but no generated function takes.
sigma = Symbol("sigma", positive=True)
W_0 = Symbol("W_0", positive=True)
theta_0 = Symbol("theta_0", positive=True)
W_new = Symbol("Wprime", positive=True)
rho_new = Symbol("rhoprime", positive=True)
rho = Symbol("rho", positive=True)
eta_e = Symbol("eta_e", positive=True)
kappa = Symbol("kappa", positive=True)
c = Symbol("c", positive=True)
nu = Symbol("nu", real=True)
w_fixed = Symbol("w̄", real=True)
s = Symbol("s", positive=True)
xi = Symbol("xi", positive=True)
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
