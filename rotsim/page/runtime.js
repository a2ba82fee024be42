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
  if (array.cells) return [array.rows, array.columns];
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

// --- matrices: {rows, columns, cells}, row after row. An operand may be a number or a list of numbers as well.

function $matrix(rows, columns, cells = new Float64Array(rows * columns)) {
  return { rows, columns, cells };
}

function $cells(a) {
  return a.cells ?? a;
}

function $like(a, cells) {
  return a.cells ? $matrix(a.rows, a.columns, cells) : cells;
}

function $add(a, b) {
  if (typeof a === "number") return typeof b === "number" ? a + b : $add(b, a);
  const x = $cells(a);
  const out = new Float64Array(x.length);
  if (typeof b === "number") for (let j = 0; j < out.length; j += 1) out[j] = x[j] + b;
  else {
    const y = $cells(b);
    for (let j = 0; j < out.length; j += 1) out[j] = x[j] + y[j];
  }
  return $like(a, out);
}

function $multiply(a, b) {
  if (typeof a === "number") return typeof b === "number" ? a * b : $multiply(b, a);
  const x = $cells(a);
  const out = new Float64Array(x.length);
  if (typeof b === "number") for (let j = 0; j < out.length; j += 1) out[j] = x[j] * b;
  else {
    const y = $cells(b);
    for (let j = 0; j < out.length; j += 1) out[j] = x[j] * y[j];
  }
  return $like(a, out);
}

function $subtract(a, b) {
  return $add(a, $multiply(-1, b));
}

function $divide(a, b) {
  if (typeof b !== "number") return $multiply(a, $like(b, $cells(b).map((value) => 1 / value)));
  return typeof a === "number" ? a / b : $multiply(a, 1 / b);
}

function $transposed(a) {
  const found = $matrix(a.columns, a.rows);
  for (let i = 0; i < a.rows; i += 1) {
    for (let j = 0; j < a.columns; j += 1) found.cells[j * a.rows + i] = a.cells[i * a.columns + j];
  }
  return found;
}

function $product(a, b) {
  const found = $matrix(a.rows, b.columns);
  const width = b.columns;
  const sums = found.cells;
  const right = b.cells;
  const four = b.rows - (b.rows % 4); // rows of b are taken four at a time
  for (let i = 0; i < a.rows; i += 1) {
    const to = i * width;
    for (let k = 0; k < four; k += 4) {
      const at = i * a.columns + k;
      const one = a.cells[at], two = a.cells[at + 1], three = a.cells[at + 2], last = a.cells[at + 3];
      let from = k * width;
      for (let j = to; j < to + width; j += 1, from += 1) {
        sums[j] +=
          one * right[from] + two * right[from + width] + (three * right[from + 2 * width] + last * right[from + 3 * width]);
      }
    }
    for (let k = four; k < b.rows; k += 1) {
      const factor = a.cells[i * a.columns + k];
      for (let j = 0; j < width; j += 1) sums[to + j] += factor * right[k * width + j];
    }
  }
  return found;
}

// The product with a transposed matrix, of all rows with all rows: once where both are the same.
function $productOfRows(a, b) {
  const found = $matrix(a.rows, b.rows);
  const width = a.columns;
  const left = a.cells;
  const right = b.cells;
  for (let i = 0; i < a.rows; i += 1) {
    for (let k = a === b ? i : 0; k < b.rows; k += 1) {
      let even = 0;
      let odd = 0;
      let from = k * width;
      const end = i * width + width;
      let at = i * width;
      for (; at + 1 < end; at += 2, from += 2) {
        even += left[at] * right[from];
        odd += left[at + 1] * right[from + 1];
      }
      if (at < end) even += left[at] * right[from];
      found.cells[i * b.rows + k] = even + odd;
      if (a === b) found.cells[k * b.rows + i] = even + odd;
    }
  }
  return found;
}

// The root of the sum of all squares.
function $size({ cells }) {
  let sum = 0;
  for (let j = 0; j < cells.length; j += 1) sum += cells[j] * cells[j];
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
      const [w, m, v, g] = [W, M, V, G].map((flat) => $matrix(rows, dim, flat.slice(start, start + rows * dim)));
      const [moved, nextM, nextV] = rule(w, m, v, g, scaled);
      D.set(moved.cells, start);
      M.set(nextM.cells, start);
      V.set(nextV.cells, start);
    }
  };
}
