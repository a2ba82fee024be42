// Sliders, switches and words: they change the state, and say so to the view.
"use strict";

const element = (id) => document.getElementById(id);
let named = 0;

// A slider with its label and value; `set` gets the value it is moved to.
function slider(range, value, set) {
  const label = document.createElement("label");
  label.className = "slider";
  const words = document.createElement("span");
  words.textContent = range.label;
  const output = document.createElement("output");
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: 0, max: 1, step: "any", value: toSlider(range, value) });
  named += 1;
  input.id = `slider-${named}`;
  label.htmlFor = input.id; // an output could be labelled too
  output.htmlFor = input.id;
  const say = (now) => {
    output.textContent = shortNumber(now);
    input.setAttribute("aria-valuetext", `${range.label} ${shortNumber(now)}`);
  };
  input.addEventListener("input", () => {
    const moved = fromSlider(range, Number(input.value));
    say(moved);
    set(moved);
  });
  // arrows move by a hundredth of the way, whatever the browser's own step
  input.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    input.value = Number(input.value) + by / 100;
    input.dispatchEvent(new Event("input"));
  });
  say(value);
  label.append(words, output, input);
  return label;
}

function tick(words, on, set, id) {
  const label = document.createElement("label");
  label.className = "tick";
  const input = document.createElement("input");
  Object.assign(input, { type: "checkbox", checked: on, id });
  input.addEventListener("change", () => set(input.checked));
  label.append(input, words);
  return label;
}

// Everything that depends on which optimizer is in focus.
function buildControls(view) {
  const { state } = view;
  element("linked").checked = state.linked;
  buildChips(view);
  buildOwn(view);
  const sliders = (keys) => keys.map((key) => slider(COMMON[key], state[key], (value) => view.change(key, value, COMMON[key].change)));
  element("schedule").replaceChildren(
    ...Object.entries(SCHEDULE_NAMES).map(([name, words]) => new Option(words, name, false, name === state.schedule)),
  );
  element("schedule-sliders").replaceChildren(...sliders(state.schedule === "constant" ? ["warmup"] : ["warmup", "final"]));
  element("walk-sliders").replaceChildren(...sliders(["scale", "dim", "neurons", "rows", "norm", "steps"]));
  buildSwitches(view);
  element("seed").value = state.seed;
  element("speed").max = SPEEDS.length - 1;
  element("speed").value = state.speed;
  saySpeed(state);
  sayOf(view);
}

function saySpeed(state) {
  const speed = SPEEDS[state.speed];
  element("speed-words").textContent = speed >= 1 ? `${speed} a frame` : `1 in ${Math.round(1 / speed)} frames`;
}

function buildChips(view) {
  const { state } = view;
  const chips = OPTIMIZERS.map((optimizer, place) => {
    const chip = document.createElement("span");
    const hidden = state.hidden.includes(optimizer.name);
    chip.className = `chip${optimizer.name === state.focus ? " focus" : ""}${hidden ? " hidden" : ""}`;
    chip.style.setProperty("--own", `var(${COLORS[place % COLORS.length]})`);
    const choose = document.createElement("button");
    choose.append(document.createElement("i"), optimizer.label);
    choose.title = `${place + 1}: settings of ${optimizer.label}`;
    choose.setAttribute("aria-pressed", optimizer.name === state.focus);
    choose.addEventListener("click", () => view.focusOn(optimizer.name));
    const hide = document.createElement("button");
    hide.textContent = hidden ? "+" : "−";
    hide.setAttribute("aria-label", `${hidden ? "Show" : "Hide"} ${optimizer.label}`);
    hide.addEventListener("click", () => view.toggleHidden(optimizer.name));
    chip.append(choose, hide);
    return chip;
  });
  element("chips").replaceChildren(...chips);
}

function buildOwn(view) {
  const { state } = view;
  const optimizer = OPTIMIZERS.find((one) => one.name === state.focus);
  const spec = state.settings[optimizer.name];
  const rows = hyperparameters(optimizer).map((range) => {
    const shared = state.linked && (range.key === "lr" || range.key === "weight_decay");
    const control = range.scale === "switch" ? (...given) => tick(range.label, ...given.slice(1), `own-${range.key}`) : slider;
    const row = control(range, getSetting(spec, range.key), (value) => {
      const of = shared ? OPTIMIZERS : [optimizer];
      for (const one of of) setSetting(state.settings[one.name], range.key, value);
      view.warning = of.map((one) => keepStable(one, state.settings[one.name])).find(Boolean) ?? "";
      view.changed(range.change);
    });
    if (range.key === "weight_decay" && !decays(state, optimizer)) {
      row.querySelector("input").disabled = true;
      row.title = "Plays no part under the switch that is on";
    }
    return row;
  });
  element("own-name").textContent = optimizer.label;
  element("own").replaceChildren(...rows);
}

function buildSwitches(view) {
  const { state } = view;
  const rows = [];
  for (const [name, range] of Object.entries(DEPARTURES)) {
    const toggle = (on) => {
      state.departure = on ? name : "";
      state.amount = on ? range.initial : 0;
      view.changed("restart");
      buildSwitches(view);
      element(`break-${name}`).focus();
    };
    rows.push(tick(range.label, state.departure === name, toggle, `break-${name}`));
    if (state.departure === name) {
      rows.push(slider({ ...range, scale: "log", label: STRENGTHS[name] }, state.amount, (value) => view.change("amount", value, "restart")));
    }
  }
  const turning = Object.fromEntries(Object.entries(TURNING).map(([name, { label }]) => [name, label]));
  const exclusive = { noDecay: "No decay", ...turning, cautious: "Cautious" }; // one goes off where another goes on
  for (const [name, words] of Object.entries({ smallDim: "Small dim: 4", ...exclusive })) {
    const toggle = (on) => {
      if (on && name in exclusive) for (const other of Object.keys(exclusive)) state[other] = false;
      view.change(name, on, name in exclusive ? "restart" : "reset");
      buildOwn(view);
      buildSwitches(view);
      element(`break-${name}`).focus();
    };
    rows.push(tick(words, state[name], toggle, `break-${name}`));
  }
  element("switches").replaceChildren(...rows);
}

const STRENGTHS = {
  mean: "mean / noise", memory: "correlation", radial: "pull / w", bursts: "size",
};

// What theory says of what is switched on, a sentence each.
const SENTENCES = {
  mean: () =>
    "Persistent mean: behind a normalisation the weights turn until the mean points along them, where it moves nothing." +
    " Norm and angle hardly change.",
  memory: (state) => {
    const { label, name } = OPTIMIZERS.find((one) => one.name === state.focus);
    const { betas, momentum } = state.settings[name];
    const power = closed_forms.average_power_factor((betas ?? [momentum])[0], state.amount);
    return (
      `Memory: steps that resemble each other add up. The average of ${label} has ${power.toFixed(2)} times the square` +
      " that white noise gives it, and norms grow. The angle of AdamW and SGDM stays: growth and decay balance as before."
    );
  },
  radial: () =>
    "Radial part: a gradient along w is weight decay under another name. Norms fall and angles rise, though λ is the same.",
  bursts: () =>
    "Bursts: v rises with a burst and remembers it for 1/(1-β2) steps, in which Adam hardly moves. SGDM takes the burst" +
    " as it is. No closed form says where that ends.",
  smallDim: (state) =>
    `Small dim: theory averages over many weights, and errs by about 1/C = ${(100 / inForce(state).dim).toFixed(0)} %.` +
    " Neurons differ widely.",
  noDecay: () =>
    "No decay: growth has no counterpart. The norm grows for ever, as √t under Adam and Lion and as the fourth root" +
    " under SGDM, and the angle falls for ever. There is no equilibrium.",
  rotational: () =>
    "Rotational variant: every norm is held, and every step turns by the equilibrium angle from the first on." +
    " There is no transient. Adam+L2 has none: its angle depends on the gradient's size.",
  hyperball: () => {
    const others = OPTIMIZERS.filter(({ turned }) => !turned.includes("hyperball")).map(({ label }) => label);
    return (
      "Hyperball: every norm is held, under Muon that of a matrix, and a step is as long as the learning rate times that" +
      " norm. So the learning rate alone sets the angle, and weight decay plays no part." +
      ` ${others.join(" and ")} walks as it is: an optimizer of more than two averages has no hyperball.`
    );
  },
  cautious: () =>
    "Cautious decay: only weights decay which the update, too, makes smaller. That is about half of them, so norms are" +
    " longer by √2 and angles smaller. SGDM, Adam+L2 and Muon have no such decay here.",
};

// Which lines follow the gradient that is switched on.
const DASHED = {
  mean: "To leading order the equilibrium is that of white noise, as the lines have it.",
  memory:
    "The dotted lines of the equilibrium count the memory. rotsim.predict knows no course in time under it, so the dashed" +
    " lines are those of white noise.",
  bursts: "All lines are those of white noise.",
};

function sayOf(view) {
  const { state } = view;
  const said = spoken(state).map((name) => SENTENCES[name](state));
  const following = view.lab.walking.filter((run) => view.lab.pull(run) > 0).map(({ optimizer }) => optimizer.label);
  const counted = `The dashed lines of ${following.join(" and ")} count the pull as decay; the others are those of white noise.`;
  const dashed = { ...DASHED, radial: following.length > 0 ? counted : DASHED.bursts };
  const refused = view.lab.walking.filter((run) => run.refused).map((run) => `${run.optimizer.label}: no prediction here.`);
  const words = [view.warning, ...said, dashed[state.departure], outlook(state), ...refused].filter(Boolean).join(" ");
  if (element("sentence").textContent !== words) element("sentence").textContent = words;
}
