// What translated Python needs of NumPy. Names start with a dollar, so that no local variable hides them.
"use strict";

function $square(x) {
  return x * x;
}

// Arrays of arrays, of Float64Array at the last axis; `shape` is a length or an array of them.
function $full(shape, value) {
  const [length, ...rest] = Array.isArray(shape) ? shape : [shape];
  if (length === undefined) return value;
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

function $onesLike(array) {
  return $ones($shape(array));
}

// A tuple whose items have names too.
function $named(names, values) {
  const tuple = [...values];
  names.forEach((name, place) => {
    tuple[name] = values[place];
  });
  return tuple;
}

// A course at once: the page follows it in a worker, which another question ends.
function $inParts(advance, carried, course) {
  advance(carried, 0, course.lr.length);
}

// A function of numbers, elementwise where arguments are arrays.
function $each(rule, ...given) {
  const array = given.find((one) => one instanceof Float64Array);
  if (array === undefined) return rule(...given);
  return array.map((_, place) => rule(...given.map((one) => (typeof one === "object" ? one[place] : one))));
}

function $array(list) {
  return Float64Array.from(list);
}

// Numbers from `first` on, below `end`.
function $range(first, end) {
  return Float64Array.from({ length: end - first }, (_, place) => first + place);
}

function $append(one, other) {
  return Float64Array.of(...[one, other].flatMap((part) => (typeof part === "number" ? part : [...part])));
}

function $column(rows, place) {
  return Float64Array.from(rows, (row) => row[place]);
}

function $count(mask) {
  return mask.reduce((sum, one) => sum + one, 0);
}

// What theory knows of an optimizer inside another.
function $theory(spec, rows) {
  return spec.theory(rows);
}

function $backwards(array) {
  return array.slice().reverse();
}

function $runningMaximum(array) {
  let most = -Infinity;
  return array.map((value) => (most = Math.max(most, value)));
}

// --- matrices: {rows, columns, cells}, row after row. An operand may be a number or a list of numbers as well.

function $matrix(rows, columns, cells = numbers(rows * columns)) {
  return { rows, columns, cells };
}

// A rule takes the same arrays in the same order at every step. It gets them again: a new one costs more than its sums.
const kept = [];
let taken = -1; // of those kept; negative where arrays are lasting

function numbers(length) {
  if (taken < 0) return new Float64Array(length);
  if (kept[taken]?.length !== length) kept[taken] = new Float64Array(length);
  taken += 1;
  return kept[taken - 1];
}

function $cells(a) {
  return a.cells ?? a;
}

function $like(a, cells) {
  return a.cells ? $matrix(a.rows, a.columns, cells) : cells;
}

function $add(a, b) {
  if (typeof a !== "object") return typeof b !== "object" ? a + b : $add(b, a);
  const x = $cells(a);
  const out = numbers(x.length);
  if (typeof b !== "object") for (let j = 0; j < out.length; j += 1) out[j] = x[j] + b;
  else {
    const y = $cells(b);
    for (let j = 0; j < out.length; j += 1) out[j] = x[j] + y[j];
  }
  return $like(a, out);
}

function $multiply(a, b) {
  if (typeof a !== "object") return typeof b !== "object" ? a * b : $multiply(b, a);
  const x = $cells(a);
  const out = numbers(x.length);
  if (typeof b !== "object") for (let j = 0; j < out.length; j += 1) out[j] = x[j] * b;
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
  if (typeof b === "object") return $multiply(a, $like(b, $cells(b).map((value) => 1 / value)));
  return typeof a !== "object" ? a / b : $multiply(a, 1 / b);
}

function $transposed(a) {
  const found = $matrix(a.columns, a.rows);
  for (let i = 0; i < a.rows; i += 1) {
    for (let j = 0; j < a.columns; j += 1) found.cells[j * a.rows + i] = a.cells[i * a.columns + j];
  }
  return found;
}

function $product(a, b) {
  return multiplied(a, b, false);
}

// The product with a transposed matrix, of all rows with all rows.
function $productOfRows(a, b) {
  return multiplied(a, $transposed(b), a === b);
}

// a·b. Of a symmetric product one half is computed. Rows of b are taken eight at a time, so that sums are seldom stored.
function multiplied(a, b, symmetric) {
  const found = $matrix(a.rows, b.columns);
  const left = a.cells, right = b.cells, sums = found.cells;
  const width = b.columns;
  const eight = b.rows - (b.rows % 8);
  for (let i = 0; i < a.rows; i += 1) {
    const skipped = symmetric ? i : 0;
    const to = i * width;
    sums.fill(0, to + skipped, to + width);
    for (let k = 0; k < eight; k += 8) {
      const at = i * a.columns + k;
      const c0 = left[at], c1 = left[at + 1], c2 = left[at + 2], c3 = left[at + 3];
      const c4 = left[at + 4], c5 = left[at + 5], c6 = left[at + 6], c7 = left[at + 7];
      for (let j = to + skipped, p = k * width + skipped; j < to + width; j += 1, p += 1) {
        sums[j] +=
          c0 * right[p] + c1 * right[p + width] + (c2 * right[p + 2 * width] + c3 * right[p + 3 * width]) +
          (c4 * right[p + 4 * width] + c5 * right[p + 5 * width] + (c6 * right[p + 6 * width] + c7 * right[p + 7 * width]));
      }
    }
    for (let k = eight; k < b.rows; k += 1) {
      const factor = left[i * a.columns + k];
      for (let j = skipped; j < width; j += 1) sums[to + j] += factor * right[k * width + j];
    }
    if (symmetric) for (let j = i + 1; j < width; j += 1) sums[j * width + i] = sums[to + j];
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
      taken = 0;
      const [w, m, v, g] = [W, M, V, G].map((flat) => $matrix(rows, dim, flat.subarray(start, start + rows * dim)));
      const [moved, nextM, nextV] = rule(w, m, v, g, scaled);
      D.set(moved.cells, start);
      M.set(nextM.cells, start);
      V.set(nextV.cells, start);
    }
    taken = -1;
  };
}
