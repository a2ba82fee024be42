// What a view is: the settings of every optimizer, of the walk and of the page, and how a link holds them.
"use strict";

// Scales: "log", "linear", "memory" (a β from 0 to 0.9999, even in log(1 - β)), "whole" (log, whole numbers), and
// "switch" (true or false, which has no slider).
// What a change leads to: "rates" go on, "restart" keeps the weights and forgets moments, "reset" begins anew.
const RANGES = {
  lr: { label: "Learning rate", low: 1e-4, high: 1, scale: "log", change: "rates" },
  weight_decay: { label: "Weight decay", low: 1e-3, high: 10, scale: "log", change: "rates" },
  momentum: { label: "Momentum", low: 0, high: 0.9999, scale: "memory", change: "restart" },
  "betas.0": { label: "β1", low: 0, high: 0.9999, scale: "memory", change: "restart" },
  "betas.1": { label: "β2", low: 0.5, high: 0.9999, scale: "memory", change: "restart" },
  "betas.2": { label: "β3", low: 0, high: 0.9999, scale: "memory", change: "restart" },
  eps: { label: "ε", low: 1e-12, high: 1, scale: "log", change: "restart" },
};
const COMMON = {
  scale: { label: "Gradient scale", low: 0.01, high: 100, scale: "log", change: "restart", initial: 1 },
  dim: { label: "Weights C", low: 3, high: 512, scale: "whole", change: "reset", initial: 64 },
  neurons: { label: "Neurons", low: 2, high: 256, scale: "whole", change: "reset", initial: 64 },
  rows: { label: "Matrix rows", low: 2, high: 64, scale: "whole", change: "reset", initial: 16 },
  norm: { label: "Start norm", low: 0.01, high: 100, scale: "log", change: "reset", initial: 3 },
  steps: { label: "Run length", low: 200, high: 50000, scale: "whole", change: "reset", initial: 4000 },
  warmup: { label: "Warm-up", low: 0, high: 0.5, scale: "linear", change: "rates", initial: 0 },
  final: { label: "Final rate", low: 0, high: 1, scale: "linear", change: "rates", initial: 0.1 },
};
const SPEEDS = [1 / 60, 1 / 20, 1 / 6, 1 / 2, 1, 2, 4, 8, 16, 32, 64]; // steps per frame
const SCHEDULE_NAMES = { constant: "Constant", cosine: "Cosine", wsd: "Warm-up, stable, decay", linear: "Linear" };
const BURST = { every: 200, long: 20 }; // steps

// Gradients that break the theory of white noise: the field of the law that each one sets, and its slider.
const DEPARTURES = {
  mean: { label: "Persistent mean", field: "ratio", low: 0.01, high: 1, initial: 0.1, spec: "Signal" },
  memory: { label: "Memory", field: "correlation", low: 0.05, high: 0.95, initial: 0.5, spec: "Autocorrelated" },
  radial: { label: "Radial part", field: "strength", low: 0.001, high: 1, initial: 0.05, spec: "Radial" },
  bursts: { label: "Bursts", field: "burst", low: 1.5, high: 20, initial: 5, spec: "Bursts" },
};

const FEW_WEIGHTS = 10; // below it theory errs by more than a tenth
const FIRST_SHOWN = 4; // optimizers, so that each has room on a projector

function freshState() {
  const state = {
    settings: {}, hidden: OPTIMIZERS.slice(FIRST_SHOWN).map((one) => one.name), focus: OPTIMIZERS[0].name, linked: true, seed: 0, speed: SPEEDS.indexOf(4),
    schedule: "constant", departure: "", amount: 0, cautious: false, noDecay: false, smallDim: false,
  };
  for (const name of Object.keys(TURNING)) state[name] = false;
  for (const optimizer of OPTIMIZERS) {
    state.settings[optimizer.name] = { ...structuredClone(optimizer.hyperparameters), lr: 0.01, weight_decay: 0.1 };
  }
  for (const [key, range] of Object.entries(COMMON)) state[key] = range.initial;
  return state;
}

// The sliders of an optimizer, by its fields: {key, label, ...range}; `betas` are two.
function hyperparameters(optimizer) {
  const own = Object.entries(optimizer.hyperparameters).filter(([name]) => !optimizer.fixed.includes(name));
  const keys = own.flatMap(([name, value]) =>
    Array.isArray(value) ? value.map((_, place) => `${name}.${place}`) : ["number", "boolean"].includes(typeof value) ? [name] : [],
  );
  return keys.map((key) => {
    const value = getSetting(optimizer.hyperparameters, key);
    if (typeof value === "boolean") return { key, label: key.replaceAll("_", " "), scale: "switch", change: "restart" };
    const other = { label: key, low: value / 100 || 1e-6, high: value * 100 || 1, scale: "log", change: "restart" };
    return { key, ...(RANGES[key] ?? other) };
  });
}

function getSetting(spec, key) {
  const [name, place] = key.split(".");
  return place === undefined ? spec[name] : spec[name][place];
}

function setSetting(spec, key, value) {
  const [name, place] = key.split(".");
  if (place === undefined) spec[name] = value;
  else spec[name][place] = value;
}

// Where a value stands on a slider from 0 to 1, and back.
function toSlider({ low, high, scale }, value) {
  if (scale === "linear") return (value - low) / (high - low);
  if (scale === "memory") return Math.log((1 - value) / (1 - low)) / Math.log((1 - high) / (1 - low));
  return Math.log(value / low) / Math.log(high / low);
}

function fromSlider({ low, high, scale }, place) {
  if (scale === "linear") return rounded(low + place * (high - low), 3);
  if (scale === "memory") return 1 - rounded((1 - low) * ((1 - high) / (1 - low)) ** place, 2);
  const value = low * (high / low) ** place;
  return scale === "whole" ? Math.round(value) : rounded(value, 2);
}

function rounded(value, digits) {
  return Number(value.toPrecision(digits));
}

// The dimension, decay and gradient in force, after the switches.
function inForce(state) {
  return { dim: state.smallDim ? Math.min(state.dim, 4) : state.dim, neurons: state.neurons, law: gradientLaw(state) };
}

// Neurons that make one matrix: as many as the slider says, or the next fewer that divide all of them.
function rowsOf({ neurons, rows }) {
  for (let count = Math.min(rows, neurons); count > 1; count -= 1) if (neurons % count === 0) return count;
  return neurons;
}

// What the sentence below the panels speaks of: switches that are on, and few weights by the slider too.
function spoken(state) {
  const few = state.smallDim || state.dim < FEW_WEIGHTS ? ["smallDim"] : [];
  const switches = ["noDecay", ...Object.keys(TURNING), "cautious"].filter((name) => state[name]);
  return [state.departure, ...few, ...switches].filter(Boolean);
}

// Where growth and decay lead, in words; empty where what is spoken of says it.
function outlook(state) {
  const on = spoken(state);
  const held = on.some((name) => name === "noDecay" || name in TURNING); // there is no balance that could move
  if (state.schedule !== "constant" && state.final < 1 && !held) {
    return (
      "The learning rate falls, and moves the balance of growth and decay: the norm follows ever later," +
      " and the angle falls with the rate."
    );
  }
  return on.length > 0
    ? ""
    : "Growth by noise and decay come into balance: the norm settles, and every step turns the weights by one angle.";
}

function specInForce(state, optimizer) {
  const spec = structuredClone(state.settings[optimizer.name]);
  if (!decays(state, optimizer)) spec.weight_decay = 0;
  return spec;
}

// Whether the weight decay of an optimizer plays a part.
function decays(state, optimizer) {
  const turning = turningOf(state, optimizer);
  return turning ? TURNING[turning].needs_decay : !state.noDecay;
}

// What is switched on that turns the weights along the updates of an optimizer, by name; empty where nothing does.
function turningOf(state, optimizer) {
  const on = (name) => state[name] && !(state.noDecay && TURNING[name].needs_decay);
  return optimizer.turned.find(on) ?? "";
}

// What an optimizer is turned into by the switches.
function variantOf(state, optimizer) {
  const turning = turningOf(state, optimizer);
  return { turning, cautious: state.cautious && !turning && optimizer.cautious !== null };
}

function gradientLaw(state) {
  const law = { scale: state.scale, ratio: 0, correlation: 0, strength: 0, burst: 1 };
  if (state.departure) law[DEPARTURES[state.departure].field] = state.amount;
  law.factor = (step) => ((step - 1) % BURST.every < BURST.long ? law.burst : 1);
  return law;
}

// Of a gradient's part along w, what acts as weight decay: all of it, where decay is a part of the gradient too.
function pullAsDecay(law, optimizer) {
  return optimizer.decay === "coupled" ? law.strength : 0;
}

// What a memory of the gradient makes of the paper's norm and angle, to leading order; 1 where there is none.
function rememberedFactors(law, optimizer, spec) {
  if (law.correlation === 0) return { norm: 1, rotation: 1 };
  if (optimizer.remembered === null) return { norm: NaN, rotation: NaN };
  const [rotation, norm] = optimizer.remembered({ spec }, (spec.betas ?? [spec.momentum])[0], law.correlation);
  return { norm, rotation };
}

// lr·weight_decay stays where the recurrence is stable; returns a sentence if it did not.
function keepStable(optimizer, spec) {
  const limit = optimizer.decay_limit(spec);
  if (spec.lr * spec.weight_decay < limit) return "";
  spec.weight_decay = Number(((0.99 * limit) / spec.lr).toPrecision(2));
  if (spec.lr * spec.weight_decay >= limit) spec.weight_decay *= 0.98;
  return `${optimizer.label}: learning rate × weight decay must stay below ${limit}; the decay was lowered.`;
}

// --- links

const FLAGS = ["linked", ...Object.keys(TURNING), "cautious", "noDecay", "smallDim"];
const WORDS = { schedule: SCHEDULE_NAMES, departure: DEPARTURES };

function toHash(state) {
  const plain = freshState();
  const parts = [];
  for (const optimizer of OPTIMIZERS) {
    const changed = hyperparameters(optimizer).filter(
      ({ key }) => getSetting(state.settings[optimizer.name], key) !== getSetting(plain.settings[optimizer.name], key),
    );
    const written = changed.map(({ key }) => `${key}:${getSetting(state.settings[optimizer.name], key)}`);
    if (written.length > 0) parts.push(`${optimizer.name}=${written.join(",")}`);
  }
  for (const key of [...Object.keys(COMMON), "seed", "speed", "amount", "focus", ...Object.keys(WORDS), ...FLAGS]) {
    if (state[key] !== plain[key]) parts.push(`${key}=${state[key]}`);
  }
  if (state.hidden.join() !== plain.hidden.join()) parts.push(`hidden=${state.hidden.join(",")}`);
  return parts.length > 0 ? `#${parts.join("&")}` : "";
}

// A state from a link; what is not understood or out of range is left as it is.
function fromHash(hash) {
  const state = freshState();
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const optimizer = OPTIMIZERS.find((one) => one.name === key);
    if (optimizer) {
      for (const part of text.split(",")) {
        const [name, value] = part.split(":");
        const range = hyperparameters(optimizer).find((one) => one.key === name);
        const given = { true: true, false: false }[value] ?? Number(value);
        if (range && within(range, given)) setSetting(state.settings[key], name, given);
      }
      keepStable(optimizer, state.settings[key]);
    } else if (key in COMMON) {
      if (within(COMMON[key], Number(text))) state[key] = Number(text);
    } else if (key in WORDS) {
      if (Object.hasOwn(WORDS[key], text)) state[key] = text;
    } else if (FLAGS.includes(key)) {
      state[key] = text === "true";
    } else if (key === "hidden") {
      state.hidden = text.split(",").filter((name) => OPTIMIZERS.some((one) => one.name === name));
    } else if (key === "focus") {
      if (OPTIMIZERS.some((one) => one.name === text)) state.focus = text;
    } else if (key === "seed" || key === "speed" || key === "amount") {
      const value = Number(text);
      const sound = { seed: Number.isSafeInteger(value) && value >= 0, speed: value in SPEEDS, amount: value > 0 };
      if (sound[key]) state[key] = value;
    }
  }
  if (state.departure) {
    const range = DEPARTURES[state.departure];
    state.amount = Math.min(Math.max(state.amount || range.initial, range.low), range.high);
  }
  return state;
}

function within({ low, high, scale }, value) {
  if (scale === "switch" || typeof value === "boolean") return scale === "switch" && typeof value === "boolean";
  return value >= low && value <= high && (scale !== "whole" || Number.isInteger(value));
}

// --- Python

// The call that walks the same walk, from the first step, with the settings as they are.
function pythonCall(state) {
  const optimizer = OPTIMIZERS.find((one) => one.name === state.focus);
  const { dim, law } = inForce(state);
  const spec = specInForce(state, optimizer);
  const values = Object.entries(spec).map(([name, value]) => `${name}=${pythonValue(value)}`);
  const made = `rotsim.${optimizer.python}(${values.join(", ")})`;
  const window = windowOf(state);
  const lines = ["import rotsim"];
  const schedule = scheduleCall(state);
  const bursts = state.departure === "bursts";
  if (bursts) lines.push("import numpy as np");
  if (schedule) lines.push("from rotsim.schedules import named");
  lines.push("");
  const { turning, cautious } = variantOf(state, optimizer);
  const around = turning ? TURNING[turning].python : cautious ? "Cautious" : "";
  lines.push(`optimizer = ${around ? `rotsim.${around}(${made})` : made}`);
  if (bursts) {
    lines.push(`series = np.where(np.arange(${state.steps}) % ${BURST.every} < ${BURST.long}, ${law.burst}, 1.0)`);
  }
  lines.push(`gradient = rotsim.${gradientCall(state, law)}`);
  const pull = turning ? 0 : pullAsDecay(law, optimizer);
  const foreseen = pull > 0 ? "gradient" : `rotsim.ScaleInvariant(${law.scale})`;
  if (schedule) lines.push(`schedule = ${schedule}`);
  const rows = optimizer.matrices ? `, rows=${rowsOf(state)}` : "";
  const rates = `${schedule ? ", lr_schedule=schedule" : ""}${rows}`;
  lines.push(
    "walk = rotsim.simulate(",
    `    optimizer, dim=${dim}, neurons=${state.neurons}, steps=${state.steps}, gradient=gradient, seed=${state.seed},`,
    `    initial_norm=${state.norm}${rates}, record_every=${window}, dtype="float64", engine="numba",`,
    ")",
  );
  const seen = "print(walk.rotation.mean('neuron'))";
  const held = (to) => (state.neurons < ENOUGH_NEURONS ? seen : `print(rotsim.compare(walk, ${to}).table())`);
  if (courseOf(optimizer, turning) !== null) {
    lines.push(
      "course = rotsim.predict(",
      `    optimizer, dim=${dim}, steps=${state.steps}, gradient=${foreseen},`,
      `    initial_norm=${state.norm}${rates}, record_every=${window},`,
      ")",
      held("course"),
    );
  } else if (!schedule) {
    lines.push(`rest = rotsim.equilibrium(optimizer, dim=${dim}, gradient=${foreseen}${rows})`, held("rest"));
  } else lines.push(seen);
  return `${lines.join("\n")}\n`;
}

function scheduleCall(state) {
  if (state.schedule === "constant" && state.warmup === 0) return "";
  return `named("${state.schedule}", ${state.steps}, ${warmupSteps(state)}, ${state.final})`;
}

function gradientCall(state, law) {
  if (!state.departure) return `ScaleInvariant(${law.scale})`;
  const { field, spec } = DEPARTURES[state.departure];
  return `${spec}(${state.departure === "bursts" ? "series" : `${field}=${law[field]}`}, scale=${law.scale})`;
}

function pythonValue(value) {
  if (value === null) return "None";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "boolean") return value ? "True" : "False";
  return Array.isArray(value) ? `(${value.join(", ")})` : String(value);
}

function warmupSteps(state) {
  return Math.min(Math.round(state.warmup * state.steps), state.steps - 1);
}

function windowOf(state) {
  return Math.max(1, Math.round(state.steps / 250));
}
