// rotsim/theory/second_moment.py in JavaScript: Adam's update beside no ε, v being random. The integrand and its grid are
// translated; here it is summed, at the points of a polynomial.
"use strict";

const LAST_END = 300; // of the grid, whose e^(2 y) is a float yet
const adamKnown = new Map();

// E[u u'] of u = m/√v at all lags, as modes; gradients are of unit variance.
function $adamCovariance(beta1, beta2) {
  const key = `${beta1} ${beta2}`;
  if (!adamKnown.has(key)) adamKnown.set(key, adamModes(beta1, beta2));
  return adamKnown.get(key);
}

function adamModes(beta1, beta2) {
  const grid = adamGrid(beta1, beta2);
  const weights = polynomial((b) => decorrelation(grid, b, beta1, beta2), SECOND_MOMENT);
  return {
    lag_0: weights.reduce((sum, weight) => sum + weight, 0), weights,
    roots: weights.map((_, n) => beta1 * beta2 ** n), error: 0,
  };
}

// Coefficients of the polynomial that is a smooth function on [0, 1], by its Chebyshev series.
function polynomial(value, { degree, trimmed }) {
  const angles = Array.from({ length: degree + 1 }, (_, k) => ((k + 0.5) * Math.PI) / (degree + 1));
  const values = angles.map((angle) => value((1 + Math.cos(angle)) / 2));
  const series = angles.map((_, m) => {
    const sum = angles.reduce((total, angle, k) => total + values[k] * Math.cos(m * angle), 0);
    return ((m === 0 ? 1 : 2) * sum) / (degree + 1);
  });
  while (Math.abs(series.at(-1)) < trimmed * Math.abs(series[0])) series.pop();
  const powers = new Float64Array(series.length);
  let [before, term] = [[], [1]]; // Chebyshev's polynomials of 2b - 1, whose coefficients are whole numbers
  series.forEach((share, m) => {
    for (let n = 0; n <= m; n += 1) powers[n] += share * term[n];
    const factor = m === 0 ? 1 : 2;
    const next = Array.from({ length: m + 2 }, (_, n) => factor * (2 * (term[n - 1] ?? 0) - (term[n] ?? 0)) - (before[n] ?? 0));
    [before, term] = [term, next];
  });
  return powers;
}

// Where the integrand is known: s, log P(s) and the weight of what is summed.
function adamGrid(beta1, beta2) {
  const { step, left, negligible, substituted, logProductAndSum } = SECOND_MOMENT;
  const grid = [];
  let largest = -Infinity;
  for (let y = -left; y < LAST_END; y += step) {
    const [root, weight] = substituted(y, 0);
    const [logProduct, sum] = logProductAndSum(root * root, beta1, beta2, 2);
    grid.push({ s: root * root, logProduct, weight: step * weight });
    const size = logProduct + Math.log(sum * weight);
    largest = Math.max(largest, size);
    if (size < largest - negligible) break;
  }
  return grid;
}

// D(b): over all pairs of the grid.
function decorrelation(grid, b, beta1, beta2) {
  let total = 0;
  for (const other of grid) {
    const alone = Math.exp(other.logProduct - SECOND_MOMENT.logProductAndSum(b * other.s, beta1, beta2, 2)[0]) * other.weight;
    for (const { s, weight } of grid) {
      const [logProduct, sum] = SECOND_MOMENT.logProductAndSum(s + b * other.s, beta1, beta2, 2);
      total += weight * alone * Math.exp(logProduct) * sum;
    }
  }
  return total;
}
