// rotsim/theory/spectral.py in JavaScript: correlations of updates whose singular values polynomials shape.
"use strict";

const SPECTRAL_ANGLES = 4096; // on the semicircle
const SPECTRAL_LEFT_OUT = 1e-8; // of all parts
const spectralKnown = new Map();

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
    let value = root / Math.sqrt(shorter);
    for (const [a, b, c] of polynomials) {
      const square = value * value;
      value *= a + square * (b + square * c);
    }
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
