"""Muon: singular values in place of a sign. Correlations of spectral updates, by free probability."""

from collections.abc import Callable, Iterator

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Integral,
    Poly,
    Rational,
    Sum,
    Symbol,
    bernoulli,
    cancel,
    chebyshevu,
    cos,
    expand,
    factor,
    integrate,
    oo,
    pi,
    series,
    simplify,
    sin,
    sqrt,
    summation,
    symbols,
)

from derivations import adamw, lion
from derivations.algebra import tidy, vanishes
from derivations.formula import step
from derivations.shapes import row_part
from derivations.symbols import *

LIMIT = "lr * weight_decay < 1"

rows, columns = symbols("p q", integer=True, positive=True)
_r, _eps = symbols("r epsilon", positive=True)
kappa_row = Symbol("kappa")
LOCAL = (rows, columns, vartheta, x, _r, kappa_row)  # with meanings of their own here
_phi, _s, _b, _U = Function("phi"), Function("s"), Function("b"), Function("U")
_d = IndexedBase("d")
_root = Symbol("√y", positive=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """All weights of a layer are one matrix. Muon averages its gradient g and replaces singular values by φ of them.

    The average m forgets with the momentum α. Nesterov's direction d mixes the newest gradient into it once more.
    Then d is divided by its Frobenius norm. A few matrix products act on its singular values as a polynomial φ that
    brings most of them near 1. Weights decay by a = 1 - ηλ, and c is a factor that depends on the shape alone.
    """
    return (
        equation(m_[t], alpha * m_[t - 1] + (1 - alpha) * g_[t]),
        equation(_d[t], alpha * m_[t] + (1 - alpha) * g_[t]),
        equation(w_[t], a * w_[t - 1] - eta * c * _phi(_d[t])),
    )


@step
def filter_of_lion() -> tuple[Eq, ...]:
    """The direction is Lion's: put the rule of m into that of d, and d is α² m + (1-α²) g.

    So Nesterov's Muon has Lion's filter with β1 = α² and β2 = α. Without Nesterov both are α. The correlation r_k of
    two directions is the one derived there.
    """
    mixed = expand(random_walk()[1].rhs.subs(m_[t], random_walk()[0].rhs))
    old, new = (tidy(mixed.coeff(term)) for term in (m_[t - 1], g_[t]))
    nesterov = {beta1: alpha**2, beta2: alpha}
    correlation = lion.covariance().rhs / lion.variance().rhs
    return (
        equation(_d[t], old * m_[t - 1] + new * g_[t]),
        equation(IndexedBase("r")[k], tidy(simplify(correlation.subs(nesterov) / alpha**k)) * alpha**k),
        equation(
            IndexedBase("r")[k], tidy(simplify(correlation.subs({beta1: alpha, beta2: alpha}) / alpha**k)) * alpha**k
        ),
    )


@step
def semicircle() -> tuple[Eq, ...]:
    """Take a matrix of p rows and q ≥ p columns, of independent Gaussians with variance 1/q, both large: y = p/q.

    The eigenvalues x of d·dᵀ, the squared singular values, follow Marchenko and Pastur's law. They lie between
    (1-√y)² and (1+√y)². Measured by an angle ϑ, as below, and each counted x times, they lie on a semicircle.
    """
    return (
        equation(x, eigenvalue().rhs),
        equation(x * Function("dMP")(x), 2 / pi * sin(vartheta) ** 2),
    )


@step(
    "spectral_eigenvalue",
    "Squared singular value of a large Gaussian matrix at an angle on its semicircle.",
    shown=False,
)
def eigenvalue() -> Eq:
    """At ϑ = 0 it is the largest, at π the smallest."""
    return equation(x, 1 + y_a + 2 * sqrt(y_a) * cos(vartheta))


@step
def words_that_fade() -> Eq:
    """Which functions of d fade as a power of r, as Hermite polynomials of one Gaussian do?

    Expand the mean of a product of matrices by pairs of equal entries. In large matrices only pairings count whose
    lines do not cross. Of each odd degree there is one word, d·dᵀ·d·…·d. Orthogonal to all shorter ones it is d·U_k(s)
    with s = (x-1-y)/(2√y), where U_k is the Chebyshev polynomial that belongs to the semicircle. Lines between two
    directions each carry r, and all 2k+1 letters have one. Different degrees never meet. A ′ marks the later direction.
    """
    met = Function("E")(_d[t] * _U(k) * _d[t + 1] * _U(k))
    return equation(met / rows, _r ** (2 * k + 1))


@step
def coefficients() -> Eq:
    """So write the update as a sum of such words. Its share b_k of the k-th is a projection on the semicircle.

    Divide φ by the singular value √x, since each word has one factor d of its own. With U_k(cos ϑ) sin ϑ = sin (k+1)ϑ
    it is a Fourier coefficient: one sine transform gives all of them, for any φ.
    """
    shape = _phi(sqrt(x)) / sqrt(x) * sin((k + 1) * vartheta) * sin(vartheta)
    return equation(_b(k), 2 / pi * Integral(shape, (vartheta, 0, pi)))


@step
def correlation_of_updates() -> tuple[Eq, ...]:
    """Each part meets its later self with its own power of r. For all rows together the factor is p.

    Only odd powers occur, with coefficients that are squares. Lag 0 is the mean of φ² over the singular values: here
    Newton and Schulz's iteration counts, which does not end at 1.
    """
    return (
        equation(_s(_r), rows * Sum(_b(k) ** 2 * _r ** (2 * k + 1), (k, 0, oo))),
        equation(_s(1), rows * Function("E")(_phi(sqrt(x)) ** 2)),
    )


@step
def square_matrices() -> tuple[Eq, ...]:
    """The polar factor, φ = 1, of a square matrix has a closed form, since √x is 2 cos(ϑ/2) there.

    The parts fall off slowly, as those of a sign. Much of a fast momentum is lost: s(r) is far below r near 1.
    """
    return equation(_b(k), polar_part(k)), equation(_s(1) / rows, _sum_of_squares())


def polar_part(degree: Expr) -> Expr:
    """b_k of the polar factor of a square matrix."""
    return (-1) ** degree * 8 * (degree + 1) / (pi * (4 * (degree + 1) ** 2 - 1))


def _sum_of_squares() -> Expr:
    """Σ b_k², by partial fractions: 4j/(4j²-1) = 1/(2j-1) + 1/(2j+1), and squares of odd numbers add up to π²/8."""
    odd = summation(1 / (2 * i + 1) ** 2, (i, 0, oo))
    crossed = summation(2 / (2 * i + 1) - 2 / (2 * i + 3), (i, 0, oo)) / 2
    return simplify(4 / pi**2 * (odd + (odd - 1) + crossed))


@step
def long_rows() -> tuple[Eq, ...]:
    """A matrix with many more columns than rows has rows that are orthogonal already, and of one length.

    All singular values are alike as y → 0, and s(r) → r: only the averaging of the filter is left. The first order in y
    takes a quarter of y from the first power and gives it to the third.
    """
    return equation(_s(_r) / rows, _thin()), equation(_s(_r) / rows, _r)


def _thin() -> Expr:
    """s(r)/p of the polar factor to first order in y."""
    shape = series((1 + _root**2 + 2 * _root * cos(vartheta)) ** Rational(-1, 2), _root, 0, 3).removeO()
    total = Integer(0)
    for degree in range(3):
        overlap = expand(shape * sin((degree + 1) * vartheta) * sin(vartheta), trig=True)
        part = simplify(2 / pi * integrate(overlap, (vartheta, 0, pi)))
        total += series(part**2, _root, 0, 3).removeO() * _r ** (2 * degree + 1)
    return sum(expand(total).coeff(_r, power).subs(_root, sqrt(y_a)) * _r**power for power in (1, 3, 5))


@step
def norm_and_rotation() -> tuple[Eq, ...]:
    """Under white noise no row differs from another: each has its share s(1)/p of E‖u‖², and turns as the matrix does.

    The sum over lags is that of every optimizer, with K the squared length c²·s(1)/p of a row's update.
    """
    in_row = {C: c**2 * _s(1) / rows}
    total = Sum(a**k * _s(IndexedBase("r")[k]), (k, 1, oo)) / _s(1)
    return (
        equation(S, total),
        equation(W, lion.exact_norm_squared().rhs.subs(in_row)),
        equation(1 - rho, lion.exact_one_minus_cosine().rhs),
    )


@step
def response_of_a_row() -> tuple[Eq, ...]:
    """Do equal rows stay equal? Gradients of scale-invariant weights shrink as 1/‖w‖, row by row.

    Let one row of d be longer by a small share. The matrix d·dᵀ changes there, and φ² of it by divided differences.
    The response κ is the relative change of E‖u‖² of this row over that share. A row whose weights are longer
    by the share ε in ‖w‖² has gradients that are shorter by ε/2. Its updates gain -κε/2, and decay takes ε. So ε
    shrinks by ηλ(2+κ) a step: below κ = -2 rows drift apart. It happens to long rows where φ falls fast with x.
    """
    x_2, mass = Symbol("x′", positive=True), Function("dMP")
    kernel = (x + x_2) * (_phi(sqrt(x)) ** 2 - _phi(sqrt(x_2)) ** 2) / (x - x_2)
    share = Integral(kernel * mass(x) * mass(x_2), (x, 0, oo), (x_2, 0, oo))
    epsilon = IndexedBase("epsilon")
    return (
        equation(kappa_row, share / Function("E")(_phi(sqrt(x)) ** 2)),
        equation(epsilon[t] / epsilon[t - 1], 1 - eta * lamda * (2 + kappa_row)),
    )


@step("muon_published_norm_squared", "E‖w‖² of a row under Muon, its updates taken as an AR(1) process.", limit=LIMIT)
def published_norm() -> Eq:
    """The published formula takes singular values as 1 and successive updates as correlated by α^k, as AdamW's are.

    It is right for long rows without Nesterov's step. Put S = aα/(1-aα) into the norm.
    """
    total = a * alpha / (1 - a * alpha)
    return equation(W, tidy(lion.exact_norm_squared().rhs.subs({S: total, C: K_0})))


@step
def published_rotation() -> Eq:
    """Its angle is that of AdamW with β1 = α: what is published as step on the sphere is the sine of that angle."""
    rotation = adamw.exact_one_minus_cosine().rhs.subs(beta1, alpha)
    return equation(1 - rho, rotation)


@step
def finite_matrices() -> tuple[Eq, ...]:
    """What is left out is finite size: pairings whose lines cross. They are of relative order 1/p.

    For words of three letters the count is short, and exact for any p and q. One row alone, p = 1, shows what is
    lost: it is a row over its length, whose law is known. At y = 1/q the first order there is y/2, here it was y/4.
    """
    return (
        equation(Function("E")(_d[t] * _U(1) * _d[t + 1] * _U(1)) / rows, _third_degree()),
        equation(_s(_r), _one_row()),
    )


def _third_degree() -> Expr:
    """⟨d U_1, d′ U_1⟩/p for any p and q, in powers of r."""
    met = expand(word_overlap(1, 1, rows / columns))
    return sum(factor(met.coeff(_r, power)) * _r**power for power in range(met.as_poly(_r).degree(), -1, -1))


def _one_row() -> Expr:
    """s(r) of one row over its length to first order in 1/q, which is y."""
    return (1 - y_a / 2) * _r + y_a / 2 * _r**3


def pairings(letters: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
    """All ways to cut letters into pairs."""
    if not letters:
        yield []
        return
    first, *others = letters
    for place, partner in enumerate(others):
        for rest in pairings(tuple(others[:place] + others[place + 1 :])):
            yield [(first, partner), *rest]


def word_mean(one: int, other: int) -> Expr:
    """E tr(d·(dᵀd)^one·d′ᵀ·(d′d′ᵀ)^other)/p, exactly: entries have variance 1/q, and d, d′ correlation r.

    Wick's theorem: letters in pairs, each of which joins its row indices and its column indices. Every free index that
    is left counts p or q, every pair of letters from both matrices r.
    """
    length = 2 * (one + other + 1)
    first = 2 * one + 1  # letters of the first matrix
    total = Integer(0)
    for pairs in pairings(tuple(range(length))):
        row, column = list(range(length // 2)), list(range(length // 2))
        for left, right in pairs:  # letter l joins row (l+1)//2 and column l//2
            _join(row, (left + 1) // 2 % (length // 2), (right + 1) // 2 % (length // 2))
            _join(column, left // 2, right // 2)
        crossing = sum((left < first) != (right < first) for left, right in pairs)
        total += _r**crossing * rows ** len(set(row)) * columns ** len(set(column))
    return total / columns ** (length // 2) / rows


def _join(classes: list[int], left: int, right: int) -> None:
    """Give two indices, and all that equal them, one name."""
    old, new = classes[right], classes[left]
    classes[:] = [new if name == old else name for name in classes]


def word_overlap(one: int, other: int, aspect: Expr) -> Expr:
    """⟨d·U_one(s), d′·U_other(s′)⟩/p, s at this ratio of sides, exactly."""
    z = Symbol("z")
    scaled = (z - 1 - aspect) / (2 * sqrt(aspect))
    polynomials = (Poly(expand(chebyshevu(degree, scaled)), z) for degree in (one, other))
    left, right = (polynomial.terms() for polynomial in polynomials)
    return sum(a_l * a_r * word_mean(l_, m) for (l_,), a_l in left for (m,), a_r in right)


def _in_large_matrices(one: int, other: int) -> Expr:
    """The same as p, q → ∞ at p = y·q."""
    met = word_overlap(one, other, y_a).subs(rows, y_a / _eps).subs(columns, 1 / _eps)
    return simplify(cancel(expand(met)).subs(_eps, 0))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    mixed = filter_of_lion()
    by_lion = lion.covariance().rhs / lion.variance().rhs
    edge = 2 * sqrt(y_a) * sin(vartheta)  # √((x₊ - x)(x - x₋))
    density = edge / (2 * pi * y_a)  # x times that of Marchenko and Pastur
    jacobian = -eigenvalue().rhs.diff(vartheta)
    spread = (eigenvalue().rhs.subs(vartheta, 0) - eigenvalue().rhs) * (
        eigenvalue().rhs - eigenvalue().rhs.subs(vartheta, pi)
    )
    decayed = (1 - a**2) * (1 - alpha**2) / (1 + a * alpha) ** 2
    turned = expand_parts(published_rotation().rhs)
    exact_norm = adamw.exact_norm_squared().rhs.subs(beta1, alpha)
    return [
        ("weights of old and new in Nesterov's direction add up to 1", vanishes(
            mixed[0].rhs.coeff(m_[t - 1]) + mixed[0].rhs.coeff(g_[t]) - 1)),
        ("Nesterov's direction is Lion's with β1 = α², β2 = α", vanishes(
            mixed[0].rhs - lion.random_walk()[1].rhs.subs(beta1, alpha**2))),
        ("without Nesterov r_k = α^k", vanishes(
            mixed[2].rhs - alpha**k) and vanishes(by_lion.subs({beta1: alpha, beta2: alpha}) - alpha**k)),
        ("the edges of the spectrum are (1±√y)²", vanishes(spread - edge**2)),
        ("x·dMP is the semicircle", vanishes(density * jacobian - semicircle()[1].rhs)),
        ("the semicircle has mass 1", vanishes(integrate(semicircle()[1].rhs, (vartheta, 0, pi)) - 1)),
        *((f"large matrices: d·U_{one} meets d′·U_{other} as {f'r^{2 * one + 1}' if one == other else 0}", vanishes(
            _in_large_matrices(one, other) - (_r ** (2 * one + 1) if one == other else 0)))
          for one, other in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))),
        ("square, φ = 1: b_k is its integral, k < 4", all(
            vanishes(_square_projection(degree) - polar_part(Integer(degree))) for degree in range(4))),
        ("square, φ = 1: Σ b_k² = 1", _sum_of_squares() == 1),
        ("partial fractions of b_k", vanishes(
            polar_part(k) - (-1) ** k * 2 / pi * (1 / (2 * k + 1) + 1 / (2 * k + 3)))),
        ("first order in y: (1 - y/4) r + (y/4) r³", vanishes(
            long_rows()[0].rhs - (1 - y_a / 4) * _r - y_a / 4 * _r**3)),
        ("y → 0: s(r) = r", vanishes(long_rows()[0].rhs.subs(y_a, 0) - _r)),
        ("response of a row: 2 for the identity, 0 for the polar factor", _response(lambda v: v) == 2
            and _response(lambda v: Integer(1)) == 0),
        ("response of long rows: that of φ² at the one singular value", vanishes(
            _response(lambda v: v**3) - 6)),
        ("published: norm² is AdamW's of an update of length 1", vanishes(
            published_norm().rhs / K_0 - exact_norm / (C * (1 - alpha) / (1 + alpha)))),
        ("published: the step on the sphere is the sine of the angle", vanishes(
            expand_parts(decayed) - (1 - (1 - turned) ** 2))),
        ("three letters: what large matrices leave out falls as 1/q", vanishes(
            cancel((_third_degree() - _r**3).subs(rows, y_a / _eps).subs(columns, 1 / _eps)).subs(_eps, 0))),
        ("one row over its length: parts 1 and 3 to first order in 1/q", _first_order_of_a_row()),
    ]  # fmt: skip


def _square_projection(degree: int) -> Expr:
    """b_k with √x = 2 cos(ϑ/2), the half-angle as variable."""
    half = Symbol("h", real=True)
    shape = sin(2 * (degree + 1) * half) * sin(half)  # sin ϑ/(2 cos ϑ/2) is the second factor
    return simplify(2 / pi * 2 * integrate(expand(shape, trig=True), (half, 0, pi / 2)))


def _response(square: Callable[[Expr], Expr]) -> Expr:
    """κ where all x are near 1, for φ² as a function of x: the kernel as both meet."""
    one, other = Symbol("v", positive=True), Symbol("v′", positive=True)
    kernel = cancel((one + other) * (square(one) - square(other)) / (one - other))
    return (kernel / square(one)).subs({one: 1, other: 1})


def _first_order_of_a_row() -> bool:
    """B_1 by Stirling's series, log Γ(z+c) - log Γ(z) = c log z + (B_2(c) - B_2(0))/(2z) + ..., at z = q/2."""
    inverse, half = Symbol("inverse", positive=True), Rational(1, 2)
    first = 1 + (bernoulli(2, half) - bernoulli(2, 0)) * 2 * inverse
    ratio = (row_part(Integer(1), 1 / inverse) / row_part(Integer(0), 1 / inverse)).expand(func=True)
    found = first * (_r + series(ratio, inverse, 0, 2).removeO() * _r**3)
    return vanishes(series(expand(found), inverse, 0, 2).removeO() - _one_row().subs(y_a, inverse))
