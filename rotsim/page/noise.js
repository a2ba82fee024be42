// rotsim/noise.py in JavaScript: words to the bit, normals as float32 has them.
// A draw is a function of seed, neuron, stream, step and coordinate alone; rotsim/noise.py says how.
"use strict";

const GRADIENT_STREAM = 0;
const INITIAL_WEIGHTS_STREAM = 1;

const words = new Uint32Array(4); // of the last `randomWords`

// Four words from a key and a counter of two words each: ChaCha's quarter round, four times.
function randomWords(key0, key1, counter, step) {
  let a = key0 ^ NOISE.key[0];
  let b = key1 ^ NOISE.key[1];
  let c = counter | 0;
  let d = step | 0;
  for (let round = 0; round < 4; round += 1) {
    a = (a + b) | 0;
    d ^= a;
    d = (d << 16) | (d >>> 16);
    c = (c + d) | 0;
    b ^= c;
    b = (b << 12) | (b >>> 20);
    a = (a + b) | 0;
    d ^= a;
    d = (d << 8) | (d >>> 24);
    c = (c + d) | 0;
    b ^= c;
    b = (b << 7) | (b >>> 25);
  }
  words[0] = a;
  words[1] = b;
  words[2] = c;
  words[3] = d;
  return words;
}

const float32 = new Float32Array(1);
const int32 = new Int32Array(float32.buffer);

// a·b + c of float32, rounded once but for one case in 2^29, where it is rounded from halfway.
function fma(a, b, c) {
  return Math.fround(a * b + c);
}

// Normals of coordinates `near` and `far` from one word, by Box and Muller.
function boxMuller(word, z, near, far) {
  const c = NOISE.constants;
  float32[0] = (word & 0x7fffffff) | 1;
  const shifted = (int32[0] - NOISE.shift_bits) | 0;
  int32[0] = (shifted & 0x007fffff) + NOISE.sqrt_half_bits;
  const f = Math.fround(float32[0] - 1);
  let p = fma(f, c[6], c[5]);
  p = fma(f, p, c[4]);
  p = fma(f, p, c[3]);
  p = fma(f, p, c[2]);
  p = fma(f, p, c[1]);
  p = fma(f, p, c[0]);
  p = fma(f, p, Math.fround((shifted >> 23) * c[16]));
  const length = Math.fround(Math.sqrt(p));
  const radius = word >>> 31 ? -length : length;
  const y = Math.fround(Math.fround(Math.imul(word, NOISE.golden)) * c[17]);
  const q = Math.fround(y * y);
  const sine = fma(q, fma(q, fma(q, c[10], c[9]), c[8]), c[7]);
  const cosine = fma(q, fma(q, fma(q, fma(q, c[15], c[14]), c[13]), c[12]), c[11]);
  z[near] = Math.fround(radius * cosine);
  z[far] = Math.fround(Math.fround(radius * y) * sine);
}

// How many normals the counters of one neuron give, at least dim.
function places(dim) {
  return 64 * Math.ceil(dim / 64);
}

// Fill z, of `places` numbers from `first` on, with the normals of one neuron at one step.
function drawNormals(z, first, size, key0, key1, step) {
  const count = size / 8;
  for (let j = 0; j < count; j += 1) {
    randomWords(key0, key1, j, step);
    for (let k = 0; k < 4; k += 1) boxMuller(words[k], z, first + k * count + j, first + (4 + k) * count + j);
  }
}

// Two words per neuron, hashed from the seed, a whole number below 2^53.
function neuronKeys(seed, neurons, stream) {
  const keys = new Uint32Array(2 * neurons);
  for (let neuron = 0; neuron < neurons; neuron += 1) {
    randomWords(seed >>> 0, Math.floor(seed / 2 ** 32), neuron, stream);
    keys[2 * neuron] = words[0];
    keys[2 * neuron + 1] = words[1];
  }
  return keys;
}
