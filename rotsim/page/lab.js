// The run: walks of all optimizers that are shown on one noise, window by window, beside what is predicted of them.
"use strict";

const JUDGED = 0.1; // share of the run over which measured and predicted are compared, or what has passed since a change

class Lab {
  // `ask(question, answer)` computes a course somewhere and calls back; see `predictions.js`.
  constructor(state, ask) {
    this.state = state;
    this.ask = ask;
    this.answers = 0; // courses that have come in
    this.reset();
  }

  // A new walk with all settings.
  reset() {
    const { state } = this;
    const { dim, neurons, law } = inForce(state);
    this.window = windowOf(state);
    this.windows = Math.ceil(state.steps / this.window);
    this.done = 0;
    this.changed = 0; // the window in which settings last changed
    this.law = law;
    this.dim = dim;
    this.neurons = neurons;
    this.noise = new Noise(state.seed, neurons, dim);
    const weights = initialWeights(state.seed, neurons, dim, state.norm);
    this.runs = OPTIMIZERS.map((optimizer) => this.begin(optimizer, weights));
    this.walking = this.runs.filter((run) => !state.hidden.includes(run.optimizer.name));
    this.setRates();
  }

  begin(optimizer, weights) {
    const { state, windows } = this;
    const walker = new Walker(optimizer, specInForce(state, optimizer), variantOf(state, optimizer), rowsOf(state));
    walker.begin(weights, this.neurons, this.dim);
    const curves = () => ({
      norm: new Float64Array(windows).fill(NaN), rotation: new Float64Array(windows).fill(NaN),
      update: new Float64Array(windows).fill(NaN),
    });
    return {
      optimizer, walker, start: 0, startNorm: state.norm, lr: new Float64Array(state.steps),
      decay: new Float64Array(state.steps), sums: [], measured: curves(), low: curves(), high: curves(),
      predicted: curves(), heading: curves(), refused: "", declared: 0,
    };
  }

  // Moments are forgotten and the law changes; the weights stay, and so does what was recorded.
  restart() {
    while (this.done % this.window !== 0 && this.done < this.state.steps) this.advance();
    this.law = gradientLaw(this.state);
    this.noise.remembers = false;
    for (const run of this.walking) {
      run.walker.spec = specInForce(this.state, run.optimizer);
      Object.assign(run.walker, variantOf(this.state, run.optimizer));
      run.walker.forget();
      run.start = Math.floor(this.done / this.window);
      run.startNorm = this.normNow(run);
    }
    this.changed = Math.floor(this.done / this.window);
    this.setRates();
  }

  // Rates from the next step on; what is predicted of the whole course follows.
  setRates() {
    const { state, done } = this;
    const warmup = warmupSteps(state);
    for (const run of this.walking) {
      const spec = specInForce(state, run.optimizer);
      run.walker.spec = spec;
      for (let t = done; t < state.steps; t += 1) {
        run.lr[t] = spec.lr * scheduleFactor(state.schedule, t + 1, state.steps, warmup, state.final);
        run.decay[t] = spec.weight_decay;
      }
      this.head(run, spec);
      this.foresee(run, spec);
    }
    this.changed = Math.max(this.changed, Math.ceil(done / this.window));
  }

  // The paper's equilibrium at the rates of each window to come, with what a memory of the gradient makes of it.
  head(run, spec) {
    const power = this.law.scale ** 2 * (1 - 1 / this.dim);
    for (let place = Math.floor(this.done / this.window); place < this.windows; place += 1) {
      const t = Math.min(place * this.window + (this.window >> 1), this.state.steps - 1);
      const rates = { ...spec, lr: run.lr[t], weight_decay: run.decay[t] + this.pull(run) };
      const found = this.paper(run, rates, power);
      const by = run.walker.turning ? { norm: NaN, rotation: 1 } : rememberedFactors(this.law, run.optimizer, spec);
      const acts = this.actingShare(run);
      run.heading.norm[place] = (found.norm * by.norm) / Math.sqrt(acts);
      run.heading.rotation[place] = found.rotation * by.rotation * Math.sqrt(acts);
    }
  }

  paper({ optimizer, walker: { turning } }, rates, power) {
    const spec = turning ? turningSpec(optimizer, rates, turning) : rates;
    if (turning) return { norm: NaN, rotation: TURNING[turning].leading_rotation(spec, rates.lr, rates.weight_decay) };
    const known = rates.lr > 0 && rates.weight_decay > 0 && optimizer.equilibrium !== null;
    return known ? optimizer.equilibrium(rates, this.dim, power, -1) : { norm: NaN, rotation: NaN };
  }

  // What adds to the decay of a run.
  pull({ optimizer, walker }) {
    return walker.turning ? 0 : pullAsDecay(this.law, optimizer);
  }

  // The share of decay that acts, to leading order: half of it, if it is cautious.
  actingShare({ walker }) {
    return walker.cautious ? closed_forms.cautious_decayed(0) : 1;
  }

  foresee(run, spec) {
    const first = run.start * this.window;
    run.asked = (run.asked ?? 0) + 1;
    const { asked } = run;
    const heard = (found) => {
      run.refused = found.refused ?? "";
      run.declared = found.declared ?? 0;
      for (const [name, curve] of Object.entries(run.predicted)) {
        curve.fill(NaN, run.start);
        if (!found.refused) curve.set(found[name], run.start);
      }
    };
    if (courseOf(run.optimizer, run.walker.turning) === null) {
      heard({ refused: "theory has no course" });
      return;
    }
    const question = {
      name: run.optimizer.name, spec, variant: variantOf(this.state, run.optimizer), dim: this.dim, scale: this.law.scale,
      norm: run.startNorm, lr: run.lr.slice(first), window: this.window, rows: run.walker.rows,
      decay: run.decay.slice(first).map((one) => one + this.pull(run)),
    };
    this.ask(question, (found) => {
      if (asked !== run.asked) return;
      this.answers += 1;
      heard(found);
    });
  }

  normNow(run) {
    let sum = 0;
    for (let neuron = 0; neuron < this.neurons; neuron += 1) sum += run.walker.square(neuron);
    return Math.sqrt(sum / this.neurons);
  }

  get finished() {
    return this.done >= this.state.steps;
  }

  // One step of all.
  advance() {
    const t = this.done;
    const z = this.noise.draw(t + 1, this.law);
    for (const run of this.walking) run.walker.step(z, this.noise.size, this.law, run.lr[t], run.decay[t]);
    this.done += 1;
    if (this.done % this.window === 0 || this.finished) this.close();
  }

  // The window that ends here: RMS over neurons, and the tenth and ninetieth percentile of neurons.
  close() {
    const place = Math.ceil(this.done / this.window) - 1;
    const steps = this.done - place * this.window;
    for (const run of this.walking) {
      const sums = run.walker.takeSums();
      run.sums[place] = { sums, steps };
      ["norm", "rotation", "update"].forEach((name, column) => {
        const each = new Float64Array(this.neurons);
        for (let neuron = 0; neuron < this.neurons; neuron += 1) each[neuron] = sums[neuron * RECORDED + column] / steps;
        run.measured[name][place] = Math.sqrt(each.reduce((a, b) => a + b, 0) / this.neurons);
        each.sort();
        run.low[name][place] = Math.sqrt(each[Math.floor(0.1 * (this.neurons - 1))]);
        run.high[name][place] = Math.sqrt(each[Math.ceil(0.9 * (this.neurons - 1))]);
      });
    }
  }

  // Measured and predicted over the last windows: RMS of each, their ratio, its standard error, and each neuron's RMS.
  agreement(run, name) {
    const column = ["norm", "rotation", "update"].indexOf(name);
    const last = run.sums.length;
    const first = Math.max(last - Math.ceil(JUDGED * this.windows), Math.min(this.changed, last - 1), 0);
    const each = new Float64Array(this.neurons);
    let expected = 0;
    let steps = 0;
    for (let place = first; place < last; place += 1) {
      const record = run.sums[place];
      for (let neuron = 0; neuron < this.neurons; neuron += 1) each[neuron] += record.sums[neuron * RECORDED + column];
      expected += run.predicted[name][place] ** 2 * record.steps;
      steps += record.steps;
    }
    if (steps === 0) return null;
    const mean = each.reduce((a, b) => a + b, 0) / this.neurons;
    const variance = each.reduce((a, b) => a + (b - mean) ** 2, 0) / (this.neurons - 1);
    const measured = Math.sqrt(mean / steps);
    const predicted = Math.sqrt(expected / steps);
    return {
      measured, predicted, error: measured / predicted - 1, declared: run.declared + 1 / this.dim,
      standardError: ((measured / predicted) * Math.sqrt(variance / this.neurons)) / (2 * mean),
      neurons: each.map((square) => Math.sqrt(square / steps)),
    };
  }

  // The share of ‖w‖ that decay takes in a step at these rates; where decay is divided by √v, by v at this norm.
  decayShare(run, norm, lr, weightDecay) {
    const { optimizer, walker } = run;
    const share = optimizer.lasting_decay?.({ spec: walker.spec }, lr * weightDecay * this.actingShare(run));
    const second = closed_forms[`${optimizer.name}_second_moment`];
    if (share !== undefined || !second) return share ?? NaN;
    const power = this.law.scale ** 2 * (1 - 1 / this.dim);
    return (lr * weightDecay) / Math.sqrt(second(weightDecay, this.dim, norm * norm, power, -1));
  }

  // The same, or what is taken to hold the norm after an update of some length.
  lostShare(run, norm, update, lr, weightDecay) {
    return run.walker.turning ? (update / norm) ** 2 / 2 : this.decayShare(run, norm, lr, weightDecay);
  }

  // Decay of ‖w‖² per step in each window, and growth, which is its change without decay; `run.measured` or `.predicted`.
  balance(run, { norm, update }) {
    const growth = new Float64Array(norm.length).fill(NaN);
    const decay = new Float64Array(norm.length).fill(NaN);
    for (let k = 0; k < norm.length; k += 1) {
      const before = Math.max(k - 1, 0);
      const after = k + 1 < norm.length && norm[k + 1] > 0 ? k + 1 : k;
      const t = Math.min(k * this.window + (this.window >> 1), this.state.steps - 1);
      const share = this.lostShare(run, norm[k], update[k], run.lr[t], run.decay[t]);
      decay[k] = share * (2 - share) * norm[k] ** 2;
      growth[k] = decay[k] + (norm[after] ** 2 - norm[before] ** 2) / ((after - before || 1) * this.window);
    }
    return { growth, decay };
  }

  // The latest step of the first neuron over its ‖w‖: angle, its parts across and outwards, and what decay took.
  latestStep(run) {
    const { walker } = run;
    if (!walker.latest) return null;
    const { before, along, moved } = walker.latest;
    const outward = along / before;
    const t = Math.max(this.done - 1, 0);
    const share = walker.turning ? 0 : this.decayShare(run, Math.sqrt(before), run.lr[t], run.decay[t]);
    return {
      angle: Math.sqrt(squaredAngle(before, before + 2 * along + moved, along, moved)), outward,
      across: Math.sqrt(Math.max(moved / before - outward * outward, 0)), shrink: Number.isFinite(share) ? share : 0,
    };
  }

  // Of the last windows and all neurons, over ‖w‖²: what updates add in a step, and what decay takes; and the RMS angle.
  recent(run) {
    const last = run.sums.length - 1;
    if (last < 0) return null;
    const first = Math.max(last - 15, Math.min(run.start, last));
    const mean = (curve) => {
      let sum = 0;
      for (let k = first; k <= last; k += 1) sum += curve[k] * curve[k];
      return sum / (last - first + 1);
    };
    const [angle, norm, update] = [run.measured.rotation, run.measured.norm, run.measured.update].map(mean);
    const change = run.measured.norm[last] ** 2 - run.measured.norm[first] ** 2;
    const grown = last > first ? change / ((last - first) * run.sums[first].steps * norm) : 0;
    const t = Math.max(this.done - 1, 0);
    const share = this.lostShare(run, Math.sqrt(norm), Math.sqrt(update), run.lr[t], run.decay[t]);
    const decay = share * (2 - share);
    return { angle: Math.sqrt(angle), decay, growth: grown + decay };
  }
}
