// What translated Python needs of NumPy. Names start with a dollar, so that no local variable hides them.
"use strict";

function $square(x) {
  return x * x;
}

// Arrays of arrays, of Float64Array at the last axis; `shape` is a length or an array of them.
function $full(shape, value) {
  const [length, ...rest] = Array.isArray(shape) ? shape : [shape];
  if (rest.length === 0) return new Float64Array(length).fill(value);
  return Array.from({ length }, () => $full(rest, value));
}

function $zeros(shape) {
  return $full(shape, 0);
}

function $ones(shape) {
  return $full(shape, 1);
}

function $shape(array) {
  return typeof array === "number" ? [] : [array.length, ...$shape(array[0])];
}

function $zerosLike(array) {
  return $zeros($shape(array));
}

// A tuple whose items have names too.
function $named(names, values) {
  const tuple = [...values];
  names.forEach((name, place) => {
    tuple[name] = values[place];
  });
  return tuple;
}

function $backwards(array) {
  return array.slice().reverse();
}

function $runningMaximum(array) {
  let most = -Infinity;
  return array.map((value) => (most = Math.max(most, value)));
}

// --- matrices: arrays of Float64Array, a row each. An operand may be a number as well.

function $elementwise(of) {
  const rows = (a, b) => {
    const wide = typeof a === "number" ? b : a;
    if (typeof wide === "number") return of(a, b);
    if (typeof wide[0] !== "number") {
      return wide.map((_, k) => rows(typeof a === "number" ? a : a[k], typeof b === "number" ? b : b[k]));
    }
    const found = new Float64Array(wide.length);
    for (let k = 0; k < wide.length; k += 1) {
      found[k] = of(typeof a === "number" ? a : a[k], typeof b === "number" ? b : b[k]);
    }
    return found;
  };
  return rows;
}

const $add = $elementwise((x, y) => x + y);
const $subtract = $elementwise((x, y) => x - y);
const $multiply = $elementwise((x, y) => x * y);
const $divide = $elementwise((x, y) => x / y);

function $transposed(a) {
  return Array.from({ length: a[0].length }, (_, column) => Float64Array.from(a, (row) => row[column]));
}

function $product(a, b) {
  return a.map((row) => {
    const found = new Float64Array(b[0].length);
    for (let k = 0; k < b.length; k += 1) {
      const factor = row[k];
      const added = b[k];
      for (let j = 0; j < found.length; j += 1) found[j] += factor * added[j];
    }
    return found;
  });
}

// The root of the sum of all squares.
function $size(a) {
  let sum = 0;
  for (const row of a) for (let k = 0; k < row.length; k += 1) sum += row[k] * row[k];
  return Math.sqrt(sum);
}

// A list as rows of some length.
function $rows(list, length) {
  return Array.from({ length: list.length / length }, (_, k) => list.slice(k * length, (k + 1) * length));
}

// The rule of a matrix, for all matrices of a walk one after the other; the factor is on the rate beside the decay.
function $matrices(rule, factor) {
  return (W, M, V, G, D, c, first, last, { spec, rows, dim }) => {
    const scaled = [...c];
    scaled[1] *= factor === null ? 1 : factor(spec, rows, dim);
    for (let start = first; start < last; start += rows * dim) {
      const view = (flat) => Array.from({ length: rows }, (_, k) => flat.subarray(start + k * dim, start + (k + 1) * dim));
      const [w, m, v, g, change] = [W, M, V, G, D].map(view);
      const [moved, nextM, nextV] = rule(w, m, v, g, scaled);
      for (let k = 0; k < rows; k += 1) {
        change[k].set(moved[k]);
        m[k].set(nextM[k]);
        v[k].set(nextV[k]);
      }
    }
  };
}
