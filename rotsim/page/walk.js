// The random walk of some optimizers on the same noise, in float64: rotsim/simulation/engines/readable.py in JavaScript.
// The update of a coordinate is rotsim's own, translated: `optimizer.move`.
"use strict";

const TINY = 2 ** -1022; // of a neuron whose signs are all alike no update is left, and it stays
const RECORDED = 3; // ‖w‖², squared angle and ‖Δw‖² of a step, summed over a window

// What turns weights along the updates of an optimizer, as a Python spec: `inner` has the methods that are asked of it.
function turningSpec(optimizer, spec, turning) {
  const inner = {
    ...spec, shape: optimizer.shape,
    leading_rotation: (...rates) => $each((lr, decay) => optimizer.leading_rotation(spec, lr, decay), ...rates),
    theory: (rows) => ({ filling: (...given) => optimizer.filling({ spec, rows, cautious: 0 }, ...given) }),
  };
  return { ...TURNING[turning].own, lr: spec.lr, weight_decay: spec.weight_decay, inner };
}

// One optimizer's weights and moments. `law` is a gradient model with its scale. `turning` names what turns the weights
// along its updates, or is empty; `cautious` takes its cautious decay.
class Walker {
  constructor(optimizer, spec, { turning, cautious }, rows) {
    this.optimizer = optimizer;
    this.spec = spec;
    this.turning = turning;
    this.cautious = cautious;
    this.rows = rows; // neurons of one matrix, for a rule that acts on matrices
  }

  begin(weights, neurons, dim) {
    this.neurons = neurons;
    this.dim = dim;
    this.W = weights.slice();
    this.M = new Float64Array(neurons * dim);
    this.V = new Float64Array(neurons * dim);
    this.S = new Float64Array(neurons * dim); // one more average, for an update that keeps one
    this.G = new Float64Array(neurons * dim);
    this.D = new Float64Array(neurons * dim);
    this.sums = new Float64Array(neurons * RECORDED);
    this.forget();
  }

  // Fresh optimizer state at the weights as they are.
  forget() {
    this.M.fill(0);
    this.V.fill(0);
    this.S.fill(0);
    this.age = 0;
    const held = this.W.length / this.together;
    this.meanSquare = new Float64Array(held);
    this.length = Float64Array.from({ length: held }, (_, place) => Math.sqrt(this.square(place, this.together)));
  }

  // Weights whose norm is held together: those of a neuron, or of a matrix.
  get together() {
    return this.optimizer.matrices ? this.rows * this.dim : this.dim;
  }

  square(place, size = this.dim) {
    let sum = 0;
    for (let i = place * size; i < (place + 1) * size; i += 1) sum += this.W[i] * this.W[i];
    return sum;
  }

  // One step on raw noise z, of `size` numbers per neuron, at these rates; adds to `sums`.
  step(z, size, law, lr, weightDecay) {
    this.age += 1;
    this.draw(z, size, law);
    const { optimizer, spec, dim } = this;
    const inner = this.turning ? [1, 0] : [lr, weightDecay];
    const c = optimizer.coefficients(spec, this.age, ...inner);
    const move = this.cautious ? optimizer.cautious : optimizer.move;
    move(this.W, this.M, this.V, this.G, this.D, c, 0, this.W.length, this);
    if (this.turning) this.turn(TURNING[this.turning], lr, weightDecay);
    for (let neuron = 0; neuron < this.neurons; neuron += 1) this.advance(neuron, neuron * dim, (neuron + 1) * dim);
  }

  // The gradient of every neuron: noise across the weights over their length, and a pull along them.
  draw(z, size, law) {
    const { W, G, dim } = this;
    for (let neuron = 0; neuron < this.neurons; neuron += 1) {
      const first = neuron * dim;
      const shift = neuron * size - first;
      let overlap = 0;
      let square = 0;
      for (let i = first; i < first + dim; i += 1) {
        overlap += z[i + shift] * W[i];
        square += W[i] * W[i];
      }
      const a = law.scale / Math.sqrt(dim * square);
      const b = (-a / square) * overlap + law.strength;
      for (let i = first; i < first + dim; i += 1) G[i] = a * z[i + shift] + b * W[i];
    }
  }

  advance(neuron, first, last) {
    const { W, D, sums } = this;
    let before = 0;
    let along = 0;
    let moved = 0;
    for (let i = first; i < last; i += 1) {
      before += W[i] * W[i];
      along += W[i] * D[i];
      moved += D[i] * D[i];
      W[i] += D[i];
    }
    const after = before + 2 * along + moved;
    const place = neuron * RECORDED;
    sums[place] += after;
    sums[place + 1] += squaredAngle(before, after, along, moved);
    sums[place + 2] += moved;
    if (neuron === 0) this.latest = { before, along, moved }; // for its picture
  }

  // Weights turn at one length: along the update's direction across w, and across the vector of ones if asked for.
  turn({ holding, turn }, lr, weightDecay) {
    const { W, D, together } = this;
    const spec = turningSpec(this.optimizer, this.spec, this.turning);
    const [rate, forget, filled, zeroMean] = holding(spec, this.age, lr, weightDecay);
    for (let place = 0; place < this.length.length; place += 1) {
      const first = place * together;
      const last = first + together;
      let mean = 0;
      let meanW = 0;
      for (let i = first; zeroMean && i < last; i += 1) {
        mean += D[i];
        meanW += W[i];
      }
      mean /= together; // of equal signs exactly their sign
      meanW /= together;
      let overlap = 0;
      let centred = 0;
      let square = 0;
      for (let i = first; i < last; i += 1) {
        const w = W[i] - meanW;
        D[i] -= mean;
        overlap += D[i] * w;
        centred += w * w;
        square += W[i] * W[i];
      }
      const along = overlap / Math.max(centred, 1e-6 * square); // of equal weights nothing is left
      let size = 0;
      for (let i = first; i < last; i += 1) {
        D[i] -= along * (W[i] - meanW);
        size += D[i] * D[i];
      }
      this.meanSquare[place] = forget * this.meanSquare[place] + (1 - forget) * size;
      const turned = turn(rate, size, along * Math.sqrt(square), Math.max(this.meanSquare[place] / filled, TINY));
      const keep = (this.length[place] * Math.cos(turned)) / Math.sqrt(square);
      const add = (this.length[place] * Math.sin(turned)) / Math.sqrt(Math.max(size, TINY));
      for (let i = first; i < last; i += 1) D[i] = keep * W[i] + add * D[i] - W[i];
    }
  }

  // The sums of a window, which starts anew.
  takeSums() {
    const taken = this.sums;
    this.sums = new Float64Array(taken.length);
    return taken;
  }
}

// Raw noise of all neurons at a step, before scale invariance shapes it, and what it remembers.
class Noise {
  constructor(seed, neurons, dim) {
    this.size = places(dim);
    this.neurons = neurons;
    this.dim = dim;
    this.keys = neuronKeys(seed, neurons, GRADIENT_STREAM);
    this.z = new Float64Array(neurons * this.size);
    this.memory = new Float64Array(neurons * this.size);
    this.remembers = false;
  }

  // `law` has a mean (`ratio`), a memory (`correlation`) and a size at each step (`factor`); one of them is not plain.
  draw(step, law) {
    const { z, memory, size, keys } = this;
    for (let neuron = 0; neuron < this.neurons; neuron += 1) {
      drawNormals(z, neuron * size, size, keys[2 * neuron], keys[2 * neuron + 1], step);
    }
    const factor = law.factor(step);
    const fresh = Math.sqrt(1 - law.correlation * law.correlation);
    for (let i = 0; i < z.length; i += 1) {
      if (law.correlation !== 0) {
        if (this.remembers) z[i] = law.correlation * memory[i] + fresh * z[i];
        memory[i] = z[i];
      }
      z[i] = (z[i] + law.ratio) * factor;
    }
    this.remembers = law.correlation !== 0;
    return z;
  }
}

// Weights of uniform directions and one length.
function initialWeights(seed, neurons, dim, norm) {
  const size = places(dim);
  const keys = neuronKeys(seed, neurons, INITIAL_WEIGHTS_STREAM);
  const z = new Float64Array(size);
  const weights = new Float64Array(neurons * dim);
  for (let neuron = 0; neuron < neurons; neuron += 1) {
    drawNormals(z, 0, size, keys[2 * neuron], keys[2 * neuron + 1], 0);
    let square = 0;
    for (let i = 0; i < dim; i += 1) square += z[i] * z[i];
    for (let i = 0; i < dim; i += 1) weights[neuron * dim + i] = (z[i] * norm) / Math.sqrt(square);
  }
  return weights;
}
