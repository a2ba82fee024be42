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
