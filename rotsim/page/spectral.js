// rotsim/theory/spectral.py in JavaScript: correlations of updates whose singular values polynomials shape.
"use strict";

const SPECTRAL_ANGLES = 4096; // on the semicircle
const SPECTRAL_LEFT_OUT = 1e-8; // of all parts
const spectralKnown = new Map();

function afterPolynomials(polynomials, singular) {
  let value = singular;
  for (const [a, b, c] of polynomials) {
    const square = value * value;
    value *= a + square * (b + square * c);
  }
  return value;
}

// Mean square of the shape, and the powers and factors of the correlation of updates: parts of odd degree.
function $spectral(polynomials, shorter, longer) {
  const key = JSON.stringify([polynomials, shorter, longer]);
  if (!spectralKnown.has(key)) spectralKnown.set(key, spectralParts(polynomials, shorter, longer));
  return spectralKnown.get(key);
}

function spectralParts(polynomials, shorter, longer) {
  const shaped = new Float64Array(SPECTRAL_ANGLES);
  const twice = new Float64Array(SPECTRAL_ANGLES); // 2 cos of the angle
  let sine = new Float64Array(SPECTRAL_ANGLES);
  let before = new Float64Array(SPECTRAL_ANGLES); // the sine of no angle
  let power = 0;
  for (let n = 0; n < SPECTRAL_ANGLES; n += 1) {
    const angle = ((n + 0.5) * Math.PI) / SPECTRAL_ANGLES;
    const root = Math.sqrt(closed_forms.spectral_eigenvalue(angle, shorter / longer));
    const value = afterPolynomials(polynomials, root / Math.sqrt(shorter));
    sine[n] = Math.sin(angle);
    twice[n] = 2 * Math.cos(angle);
    shaped[n] = (value / root) * sine[n];
    power += (2 / SPECTRAL_ANGLES) * shaped[n] * shaped[n];
  }
  const parts = [];
  for (let left = 1; left > SPECTRAL_LEFT_OUT && parts.length < SPECTRAL_ANGLES; left -= parts.at(-1)) {
    let sum = 0;
    for (let n = 0; n < SPECTRAL_ANGLES; n += 1) {
      sum += shaped[n] * sine[n];
      const next = twice[n] * sine[n] - before[n];
      before[n] = sine[n];
      sine[n] = next;
    }
    parts.push(((2 / SPECTRAL_ANGLES) * sum) ** 2 / power);
  }
  const odd = Float64Array.from(parts, (_, k) => 2 * k + 1);
  return { power, modes: () => [odd, Float64Array.from(parts)] };
}

const SPECTRAL_PAIRS = 512; // points on each of two grids of angles
const rowResponseKnown = new Map();

// Relative change of the update of a row over that of its gradient: two sums over singular values, which never meet.
function $rowResponse(polynomials, rows, columns) {
  const key = JSON.stringify([polynomials, rows, columns]);
  if (!rowResponseKnown.has(key)) rowResponseKnown.set(key, rowResponse(polynomials, rows, columns));
  return rowResponseKnown.get(key);
}

function rowResponse(polynomials, rows, columns) {
  const shorter = Math.min(rows, columns);
  const aspect = shorter / Math.max(rows, columns);
  const points = Array.from({ length: 2 * SPECTRAL_PAIRS - 1 }, (_, n) => {
    const angle = ((n + 1) * Math.PI) / (2 * SPECTRAL_PAIRS);
    const x = closed_forms.spectral_eigenvalue(angle, aspect);
    const value = afterPolynomials(polynomials, Math.sqrt(x / shorter));
    return { x, square: value * value, mass: Math.sin(angle) ** 2 / x };
  });
  let [pairs, masses, squares] = [0, 0, 0];
  for (let n = 0; n < points.length; n += 2) {
    const one = points[n];
    squares += one.mass * one.square;
    for (let m = 1; m < points.length; m += 2) {
      const other = points[m];
      pairs += (one.mass * other.mass * (one.x + other.x) * (one.square - other.square)) / (one.x - other.x);
    }
  }
  for (let m = 1; m < points.length; m += 2) masses += points[m].mass;
  const found = pairs / masses / squares;
  return rows <= columns ? found : aspect * found + 2 * (1 - aspect);
}
