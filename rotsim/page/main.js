// The view: it runs the lab frame by frame, draws what is seen, and hears keys and buttons.
"use strict";

const COLORS = ["--one", "--two", "--three", "--four", "--five", "--six", "--seven"];
const FRAME_BUDGET = 11; // ms of a frame that steps may take, of 16.7
const KEYS = [
  "Space   start, pause", "S       one step", "E       to the end", "R       reset", "1 to 9  focus on an optimizer",
  "D       light, dark", "P       Python call", "L       copy a link", "?       this list",
].join("\n");

class View {
  constructor() {
    this.state = fromHash(location.hash);
    this.warning = "";
    this.running = false;
    this.due = 0; // steps of a frame that are not yet whole
    this.grid = element("panels");
    this.frames = 0;
    this.lab = new Lab(this.state, asking(element("core").textContent));
    this.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    buildControls(this);
    this.buildPanels();
    this.connect();
    requestAnimationFrame((now) => this.frame(now));
  }

  get shown() {
    return this.lab.runs
      .map((run, place) => Object.assign(run, { place }))
      .filter((run) => !this.state.hidden.includes(run.optimizer.name));
  }

  get focused() {
    return this.lab.runs.find((run) => run.optimizer.name === this.state.focus);
  }

  // --- changes

  change(key, value, how) {
    this.state[key] = value;
    this.warning = "";
    this.changed(how);
  }

  changed(how) {
    if (how === "reset") this.lab.reset();
    else if (how === "restart") this.lab.restart();
    else this.lab.setRates();
    this.remember();
    sayOf(this);
    this.stale = true;
  }

  remember() {
    try {
      history.replaceState(null, "", toHash(this.state) || location.pathname + location.search);
    } catch {
      // some browsers forbid it to files
    }
    if (parent !== window) parent.postMessage({ rotsim: toHash(this.state) }, "*"); // a notebook, see `widget.js`
  }

  // The view of a link.
  open(hash) {
    this.state = fromHash(hash);
    this.lab.state = this.state;
    this.lab.reset();
    this.rebuilt();
  }

  focusOn(name) {
    this.state.focus = name;
    this.setHidden(this.state.hidden.filter((one) => one !== name));
  }

  toggleHidden(name) {
    const { hidden } = this.state;
    this.setHidden(hidden.includes(name) ? hidden.filter((one) => one !== name) : [...hidden, name]);
  }

  // What is hidden does not walk: where one comes into view that has not, all begin anew, on one noise.
  setHidden(hidden) {
    this.state.hidden = hidden;
    if (this.shown.some((run) => !this.lab.walking.includes(run))) this.lab.reset();
    this.rebuilt();
  }

  rebuilt() {
    buildControls(this);
    this.buildPanels();
    this.remember();
  }

  setRunning(on) {
    if (on && this.lab.finished) this.lab.reset();
    this.running = on;
    element("start").textContent = on ? "Pause" : "Start";
    this.stale = true;
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    const style = getComputedStyle(document.documentElement);
    const color = (variable) => style.getPropertyValue(variable).trim();
    const named = ["paper", "ink", "faint", "grid", "growth", "decay"].map((one) => [one, color(`--${one}`)]);
    const colors = OPTIMIZERS.map((_, place) => color(COLORS[place % COLORS.length]));
    this.look = { ...Object.fromEntries(named), colors };
    this.stale = true;
  }

  // --- panels

  buildPanels() {
    const planes = this.shown.map((run) => {
      const figure = document.createElement("figure");
      figure.classList.toggle("focus", run.optimizer.name === this.state.focus);
      figure.style.setProperty("--own", `var(${COLORS[run.place % COLORS.length]})`);
      figure.append(document.createElement("canvas"));
      figure.addEventListener("click", () => this.focusOn(run.optimizer.name));
      return figure;
    });
    element("planes").replaceChildren(...planes);
    element("planes").querySelector(".focus")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const panel = (figure, draw, words, every) => ({ figure, canvas: figure.querySelector("canvas"), draw, words, every });
    this.panels = planes.map((figure, place) => {
      const name = this.shown[place].optimizer.name;
      const run = () => this.lab.runs.find((one) => one.optimizer.name === name);
      return panel(figure, (pen, w, h) => drawPlane(pen, w, h, this.lab, run(), this.look), () => `One step of ${run().optimizer.label}`, 2);
    });
    for (const name of ["norm", "rotation"]) {
      const draw = (pen, w, h) => drawCourse(pen, w, h, this.lab, this.shown, this.look, name);
      this.panels.push(panel(element(name), draw, () => `${name} over steps, measured and predicted`, 2));
    }
    const balance = (pen, w, h) => drawBalance(pen, w, h, this.lab, this.focused, this.look);
    this.panels.push(panel(element("balance"), balance, () => `growth and decay of ${this.focused.optimizer.label}`, 4));
    const spread = (pen, w, h) => drawSpread(pen, w, h, this.lab, this.shown, this.look);
    this.panels.push(panel(element("spread"), spread, () => "norm and angle of each neuron over the prediction", 8));
    element("balance").querySelector("span").textContent = this.focused.optimizer.label;
    this.stale = true;
  }

  // While the walk runs, panels take turns: a frame has time for some, and the eye for no more.
  draw() {
    for (const [place, { canvas, draw, words, every }] of this.panels.entries()) {
      if (this.running && !this.stale && (this.frames + place) % every !== 0) continue;
      const { clientWidth: width, clientHeight: height } = canvas;
      if (width < 40 || height < 40) continue;
      const dense = window.devicePixelRatio || 1;
      if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
        canvas.width = Math.round(width * dense);
        canvas.height = Math.round(height * dense);
      }
      const context = canvas.getContext("2d");
      context.setTransform(dense, 0, 0, dense, 0, 0);
      context.clearRect(0, 0, width, height);
      draw(new CanvasPen(context), width, height);
      if (!canvas.hasAttribute("aria-label")) {
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${words()}; the table has the numbers`);
      }
    }
  }

  writeTable() {
    const rows = this.shown.map((run) => {
      const row = document.createElement("tr");
      row.style.setProperty("--own", `var(${COLORS[run.place % COLORS.length]})`);
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = run.optimizer.label;
      row.append(head);
      for (const name of ["norm", "rotation"]) row.append(...cellsOf(this.lab.agreement(run, name)));
      return row;
    });
    element("agreement").querySelector("tbody").replaceChildren(...rows);
  }

  // --- time

  frame(now) {
    this.frames += 1;
    if (this.running) {
      this.due = Math.min(this.due + SPEEDS[this.state.speed], 2 * SPEEDS.at(-1));
      const until = performance.now() + FRAME_BUDGET;
      while (this.due >= 1 && !this.lab.finished && performance.now() < until) {
        this.lab.advance();
        this.due -= 1;
      }
      if (this.lab.finished) this.setRunning(false);
    }
    const moved = this.drawn !== this.lab.done || this.stale || this.answered !== this.lab.answers;
    if (moved) {
      this.draw();
      Object.assign(this, { drawn: this.lab.done, stale: false, answered: this.lab.answers });
      element("clock").textContent = `step ${this.lab.done} of ${this.state.steps}`;
      this.untabled = true;
    }
    if (this.untabled && (!(now - this.tabled < 250) || !this.running)) {
      this.writeTable();
      sayOf(this);
      Object.assign(this, { tabled: now, untabled: false });
    }
    requestAnimationFrame((next) => this.frame(next));
  }

  stepOnce() {
    if (this.lab.finished) this.lab.reset();
    this.setRunning(false);
    this.lab.advance();
  }

  // To the end of the run, in pieces that leave the page alive.
  finish() {
    this.setRunning(false);
    const piece = () => {
      const until = performance.now() + 40;
      while (!this.lab.finished && performance.now() < until) this.lab.advance();
      if (!this.lab.finished && !this.running) requestAnimationFrame(piece);
    };
    piece();
  }

  // --- buttons and keys

  connect() {
    const on = (id, event, act) => element(id).addEventListener(event, act);
    const keys = {
      " ": () => this.setRunning(!this.running), s: () => this.stepOnce(), e: () => this.finish(),
      r: () => this.reset(), p: () => this.show("Python", pythonCall(this.state)), l: () => this.copyLink(),
      d: () => this.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
      "?": () => this.show("Keys", KEYS),
    };
    const buttons = { start: " ", step: "s", finish: "e", reset: "r", python: "p", link: "l", theme: "d", help: "?" };
    for (const [id, key] of Object.entries(buttons)) on(id, "click", keys[key]);
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input[type=number], select, dialog, button, pre");
      if (event.ctrlKey || event.metaKey || event.altKey || (typing && (event.key === " " || typing.type === "number"))) return;
      const act = keys[event.key.toLowerCase()];
      const optimizer = OPTIMIZERS[Number(event.key) - 1];
      if (act) act();
      else if (optimizer && event.key.trim()) this.focusOn(optimizer.name);
      else return;
      event.preventDefault();
    });
    on("seed", "change", () => {
      const seed = Number(element("seed").value);
      if (Number.isSafeInteger(seed) && seed >= 0) this.change("seed", seed, "reset");
      element("seed").value = this.state.seed;
    });
    on("speed", "input", () => {
      this.state.speed = Number(element("speed").value);
      saySpeed(this.state);
      this.remember();
    });
    on("linked", "change", () => {
      this.state.linked = element("linked").checked;
      if (this.state.linked) this.linkRates();
      this.rebuilt();
    });
    on("schedule", "change", () => {
      this.change("schedule", element("schedule").value, "rates");
      buildControls(this);
    });
    on("save-svg", "click", () => saveSvg(this));
    on("save-png", "click", () => savePng(this));
    on("save-csv", "click", () => download("rotsim.csv", csvOf(this.lab), "text/csv"));
    on("copy", "click", async () => {
      const done = await copied(element("dialog").querySelector("pre").textContent);
      element("copy").textContent = done ? "Copied" : "Select and copy by hand";
    });
    window.addEventListener("resize", () => (this.stale = true));
    window.addEventListener("hashchange", () => this.open(location.hash));
    window.addEventListener("message", ({ source, data }) => {
      if (source === parent && source !== window && typeof data?.rotsim === "string") this.open(data.rotsim);
    });
  }

  reset() {
    this.setRunning(false);
    this.lab.reset();
  }

  // All take the rates of the optimizer in focus.
  linkRates() {
    const { lr, weight_decay } = this.state.settings[this.state.focus];
    for (const optimizer of OPTIMIZERS) {
      Object.assign(this.state.settings[optimizer.name], { lr, weight_decay });
      keepStable(optimizer, this.state.settings[optimizer.name]);
    }
    this.lab.setRates();
  }

  show(title, text) {
    element("dialog-title").textContent = title;
    element("dialog").querySelector("pre").textContent = text;
    element("copy").textContent = "Copy";
    element("dialog").showModal();
  }

  async copyLink() {
    this.remember();
    const link = location.href.split("#")[0] + toHash(this.state);
    if (!(await copied(link))) this.show("Link", link);
    else {
      element("link").textContent = "Copied";
      setTimeout(() => (element("link").textContent = "Link"), 1500);
    }
  }
}

// Measured, and its error in per cent with a standard error; far beyond three of them and what theory declares.
function cellsOf(found) {
  const cells = [document.createElement("td"), document.createElement("td")];
  if (found) {
    cells[0].textContent = shortNumber(rounded(found.measured, 3));
    const known = Number.isFinite(found.error);
    const error = Math.abs(100 * found.error).toFixed(1);
    const sign = error === "0.0" ? "" : found.error > 0 ? "+" : "−";
    const spread = Number.isFinite(found.standardError) ? ` ±${(100 * found.standardError).toFixed(1)}` : "";
    cells[1].textContent = known ? `${sign}${error}${spread}` : "–";
    cells[1].classList.toggle("far", Math.abs(found.error) > 3 * found.standardError + found.declared);
  }
  return cells;
}

const view = new View();
