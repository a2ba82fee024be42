// The panels: each draws a part of the run with a pen, into a width and a height.
"use strict";

const EDGE = { left: 52, right: 12, top: 10, bottom: 30 }; // pixels about a plot
const SHORT = { rotational: "RV", hyperball: "ball" }; // beside the name of an optimizer
const DASH = { predicted: [7, 5], heading: [1.5, 4] };

// --- axes

function ticksOf(low, high, logarithmic) {
  const ticks = [];
  if (logarithmic) {
    const decades = Math.log10(high / low);
    const steps = decades > 2.5 ? [1] : decades > 1 ? [1, 3] : decades > 0.4 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const step of steps) ticks.push(step * 10 ** power);
    }
    const found = ticks.filter((tick) => tick >= low && tick <= high);
    return found.length > 1 ? found : ticksOf(low, high, false);
  }
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  return ticks;
}

function shortNumber(value) {
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(3)));
  const [digits, power] = value.toExponential(1).split("e");
  const raised = [...String(Number(power))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
  return digits === "1.0" ? `10${raised}` : `${Number(digits)}·10${raised}`;
}

// Frame, ticks and labels; returns the functions that place a step and a value.
function axes(pen, width, height, look, { low, high, logarithmic, steps, now }) {
  const right = width - EDGE.right;
  const bottom = height - EDGE.bottom;
  const x = (step) => EDGE.left + ((right - EDGE.left) * step) / steps;
  const share = logarithmic
    ? (value) => Math.log(value / low) / Math.log(high / low)
    : (value) => (value - low) / (high - low);
  const y = (value) => bottom - (bottom - EDGE.top) * share(value);
  for (const tick of ticksOf(low, high, logarithmic)) {
    pen.line([EDGE.left, y(tick), right, y(tick)], { stroke: look.grid });
    pen.text(EDGE.left - 6, y(tick) + 4, shortNumber(tick), { fill: look.faint, align: "right" });
  }
  for (const tick of ticksOf(0, steps, false)) {
    const align = tick === 0 ? "left" : x(tick) > right - 12 ? "right" : "center";
    pen.text(x(tick) + (align === "right" ? EDGE.right - 2 : 0), bottom + 17, shortNumber(tick), { fill: look.faint, align });
  }
  pen.line([EDGE.left, bottom, right, bottom], { stroke: look.faint });
  if (now > 0) pen.line([x(now), EDGE.top, x(now), bottom], { stroke: look.faint, alpha: 0.5 });
  return { x, y, right };
}

// The range of positive numbers in some curves, a little wider; null if there are none.
function rangeOf(curves) {
  let low = Infinity;
  let high = 0;
  for (const curve of curves) {
    for (const value of curve) {
      if (value > 0 && value < low) low = value;
      if (value > high && value < Infinity) high = value;
    }
  }
  if (!(low <= high)) return null;
  const wider = Math.max((high / low) ** 0.06, 1.04);
  return { low: low / wider, high: high * wider };
}

function placed(curve, lab, x, y) {
  const points = new Array(2 * curve.length);
  for (let k = 0; k < curve.length; k += 1) {
    points[2 * k] = x(Math.min((k + 0.5) * lab.window, lab.state.steps));
    points[2 * k + 1] = curve[k] > 0 ? y(curve[k]) : NaN;
  }
  return points;
}

function bandOf(low, high, lab, x, y) {
  const up = placed(low, lab, x, y);
  const down = placed(high, lab, x, y);
  const points = [];
  for (let k = 0; k < up.length; k += 2) if (Number.isFinite(up[k + 1])) points.push(up[k], up[k + 1]);
  for (let k = down.length - 2; k >= 0; k -= 2) if (Number.isFinite(down[k + 1])) points.push(down[k], down[k + 1]);
  return points;
}

// A prediction: in its own colour where the walk has not been yet, thin and dark over what was measured.
function drawPredicted(pen, height, points, { x, right }, now, color, look) {
  const split = Math.max(x(now), EDGE.left);
  pen.inside(split, 0, Math.max(right - split, 0), height, () => {
    pen.line(points, { stroke: color, width: 2, dash: DASH.predicted });
  });
  pen.inside(0, 0, split, height, () => pen.line(points, { stroke: look.ink, width: 1.4, dash: DASH.predicted }));
}

// --- norm and angle

function drawCourse(pen, width, height, lab, runs, look, name) {
  const shown = runs.flatMap((run) => [run.measured[name], run.predicted[name], run.low[name], run.high[name]]);
  const range = rangeOf(shown);
  if (!range) return;
  const places = axes(pen, width, height, look, {
    ...range, logarithmic: true, steps: lab.state.steps, now: lab.finished ? 0 : lab.done,
  });
  const { x, y } = places;
  pen.inside(EDGE.left, 0, width - EDGE.left - EDGE.right, height - EDGE.bottom, () => {
    for (const run of runs) {
      const color = look.colors[run.place];
      pen.line(bandOf(run.low[name], run.high[name], lab, x, y), { fill: color, alpha: 0.16 });
      pen.line(placed(run.heading[name], lab, x, y), { stroke: color, width: 1.8, dash: DASH.heading });
    }
    for (const run of runs) {
      const color = look.colors[run.place];
      const solid = placed(run.measured[name], lab, x, y);
      pen.line(solid, { stroke: color, width: run.optimizer.name === lab.state.focus ? 3.5 : 2.5 });
      const last = run.sums.length - 1;
      if (last >= 0) pen.dot(solid[2 * last], solid[2 * last + 1], 5, run.place, { fill: color });
    }
  });
  for (const run of runs) {
    const points = placed(run.predicted[name], lab, x, y);
    drawPredicted(pen, height - EDGE.bottom, points, places, lab.done, look.colors[run.place], look);
  }
}

// --- growth against decay

function drawBalance(pen, width, height, lab, run, look) {
  const measured = lab.balance(run, run.measured);
  const predicted = lab.balance(run, run.predicted);
  const surest = measured.decay.some((lost) => lost > 0) ? measured.decay : measured.growth; // growth scatters
  const range = rangeOf([surest, predicted.growth, predicted.decay]);
  if (!range) return;
  range.low = Math.max(range.low, range.high / 1e5);
  const places = axes(pen, width, height, look, {
    ...range, logarithmic: true, steps: lab.state.steps, now: lab.finished ? 0 : lab.done,
  });
  const { x, y } = places;
  const inside = height - EDGE.bottom;
  for (const [which, color] of [["decay", look.decay], ["growth", look.growth]]) {
    pen.inside(EDGE.left, 0, width - EDGE.left - EDGE.right, inside, () => {
      pen.line(placed(measured[which], lab, x, y), { stroke: color, width: 2.5 });
    });
    drawPredicted(pen, inside, placed(predicted[which], lab, x, y), places, lab.done, color, look);
  }
  pen.inside(EDGE.left, 0, width - EDGE.left - EDGE.right, inside, () => {
    const met = crossing(predicted);
    if (met >= 0 && !run.walker.turning) {
      const at = [x((met + 0.5) * lab.window), y(predicted.growth[met])];
      pen.dot(...at, 5, 0, { fill: look.ink });
      const aside = at[0] > width - 120 ? "right" : "left";
      const beside = at[1] + 18 < inside ? 18 : -10;
      pen.text(at[0] + (aside === "left" ? 9 : -9), at[1] + beside, "in balance", { fill: look.ink, align: aside });
    }
  });
}

// The first window in which growth and decay are within 2 %; -1 if none is.
function crossing({ growth, decay }) {
  return growth.findIndex((grown, k) => grown > 0 && Math.abs(decay[k] / grown - 1) < 0.02);
}

// --- the plane of the first neuron: old weights, decay, update and new weights of the latest step, in true proportion

function drawPlane(pen, width, height, lab, run, look) {
  const color = look.colors[run.place];
  pen.dot(14, 14, 5, run.place, { fill: color });
  pen.text(24, 18, run.optimizer.label + (run.walker.turning ? ` ${SHORT[run.walker.turning] ?? ""}` : ""), { fill: look.ink, weight: 600 });
  const step = lab.latestStep(run);
  const shape = lab.recent(run);
  if (!step || !shape) return;
  const row = width < 225 ? 35 : 18; // a line of its own in a narrow picture
  const numbers = `θ = ${shortNumber(rounded(step.angle, 3))} rad`;
  pen.text(width - 8, row, numbers, { fill: look.ink, weight: 600, align: "right" });
  const bottom = height - 26;
  const drop = Math.min(0.64 * (bottom - row), 0.75 * width); // pixels of a vector that are seen
  const tip = [Math.max(0.26 * width, 52), bottom - drop];
  const enlarged = enlargement(Math.max(shape.angle, step.shrink));
  const norm = enlarged * drop; // pixels
  const at = (across, outward) => [tip[0] + norm * across, tip[1] - norm * outward];
  const origin = at(0, -1);
  const shrunk = at(0, -step.shrink);
  const end = at(step.across, step.outward);
  pen.inside(0, row + 4, width, bottom - row - 4, () => {
    const circle = [];
    for (let k = -40; k <= 60; k += 1) {
      const turn = (k / 40) * Math.min(width / norm, Math.PI / 2);
      circle.push(...at(Math.sin(turn), Math.cos(turn) - 1));
    }
    pen.line(circle, { stroke: look.faint, dash: [3, 4] });
    arrow(pen, origin, tip, { stroke: look.faint, width: 3 });
    arrow(pen, origin, end, { stroke: color, width: 3.5 });
    arrow(pen, tip, shrunk, { stroke: look.decay, width: 3.5 });
    arrow(pen, shrunk, end, { stroke: look.growth, width: 3.5 });
    drawAngle(pen, origin, end, bottom, norm, look);
  });
  const words = { fill: look.faint, align: "right", size: 12 };
  pen.text(tip[0] - 7, bottom - 8, "old w", words);
  if (shrunk[1] - tip[1] > 3) pen.text(tip[0] - 7, (tip[1] + shrunk[1]) / 2 + 5, "decay", { ...words, fill: look.decay });
  const above = Math.min(shrunk[1], end[1]) - 7;
  pen.text((shrunk[0] + end[0]) / 2, above, run.walker.turning ? "turn" : "update", { ...words, fill: look.growth, align: "center" });
  pen.text(8, height - 8, enlarged > 1 ? `its tip × ${enlarged}` : "", { fill: look.faint, size: 11 });
  drawGains(pen, width - 8, height - 8, shape, look);
}

// The arc between old and new weights, just above the lower edge of the picture, which cuts long vectors.
function drawAngle(pen, origin, end, bottom, norm, look) {
  const angle = Math.atan2(end[0] - origin[0], origin[1] - end[1]);
  const radius = Math.max(origin[1] - bottom + 12, 0.3 * norm);
  const arc = [];
  for (let k = 0; k <= 12; k += 1) {
    const turn = (angle * k) / 12;
    arc.push(origin[0] + radius * Math.sin(turn), origin[1] - radius * Math.cos(turn));
  }
  pen.line(arc, { stroke: look.ink, width: 1.5 });
  const middle = [origin[0] + radius * Math.sin(angle / 2), origin[1] - radius * Math.cos(angle / 2)];
  pen.text(middle[0], middle[1] - 5, "θ", { fill: look.ink, align: "center", size: 13 });
}

const WORD = 42; // pixels from the middle of one word below the squares to the next

// Pythagoras: squares whose areas are what updates add to ‖w‖² and what decay takes, in the mean of the latest steps.
function drawGains(pen, right, bottom, { growth, decay }, look) {
  const side = 30;
  const gap = decay > 0 ? 14 : 30; // pixels, room for the words below
  const share = decay > 0 ? Math.sqrt(Math.max(growth, 0) / decay) : 1;
  const largest = Math.min(Math.max(share * side, 2), 2 * side);
  const square = (x, size, fill) => pen.line([x, bottom - 14, x, bottom - 14 - size, x + size, bottom - 14 - size, x + size, bottom - 14], { fill });
  square(right - side - gap - largest, largest, look.growth);
  const middle = Math.min(right - side - gap - largest / 2, right - side / 2 - WORD); // of a small square, beside "decay"
  pen.text(middle, bottom, "growth", { fill: look.growth, align: "center", size: 11 });
  if (decay > 0) square(right - side, side, look.decay);
  const words = { fill: look.decay, size: 11 };
  if (decay > 0) pen.text(right - side / 2, bottom, "decay", { ...words, align: "center" });
  else pen.text(right, bottom, "no decay", { ...words, align: "right" });
  const ratio = decay > 0 ? `ratio ${(growth / decay).toFixed(2).replace("-", "−")}` : "of ‖w‖²";
  pen.text(right, bottom - 18 - Math.max(largest, side), ratio, { fill: look.ink, align: "right", size: 11 });
}

// 1, 2 or 5 times a power of ten, so that the picture of an angle can be seen.
function enlargement(angle) {
  const wanted = 0.9 / angle;
  const power = 10 ** Math.floor(Math.log10(wanted));
  return Math.max(1, ...[1, 2, 5].map((k) => rounded(k * power, 1)).filter((size) => size <= wanted));
}

function arrow(pen, from, to, { stroke, width }) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (length < 1) return;
  const unit = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
  const head = Math.min(3 + 2 * width, length);
  const neck = [to[0] - head * unit[0], to[1] - head * unit[1]];
  const half = 0.45 * head;
  pen.line([...from, ...neck], { stroke, width });
  const corners = [...to, neck[0] - half * unit[1], neck[1] + half * unit[0], neck[0] + half * unit[1], neck[1] - half * unit[0]];
  pen.line(corners, { fill: stroke });
}

// --- spread over neurons: each neuron's norm and angle over the prediction

function drawSpread(pen, width, height, lab, runs, look) {
  const half = (width - 40) / 2;
  const found = runs.map((run) => ["norm", "rotation"].map((name) => lab.agreement(run, name)));
  const ratios = found.flat().flatMap((one) => (one ? [...one.neurons].map((value) => value / one.predicted) : []));
  const known = ratios.filter((ratio) => ratio > 0 && ratio < Infinity);
  if (known.length === 0) return;
  const most = Math.max(1.05, ...known.map((ratio) => Math.max(ratio, 1 / ratio)));
  const reach = Math.min(Math.log(most) * 1.1, Math.log(100));
  const row = (height - 62) / Math.max(runs.length, 1);
  ["norm", "angle"].forEach((title, side) => {
    const left = 16 + side * (half + 12);
    const x = (ratio) => left + half * (0.5 + (0.5 * Math.log(ratio)) / reach);
    pen.text(left + half / 2, 20, `${title} / predicted`, { fill: look.ink, align: "center", weight: 600 });
    pen.line([x(1), 30, x(1), height - 26], { stroke: look.faint, dash: DASH.predicted });
    for (const edge of [Math.exp(-0.65 * reach), 1, Math.exp(0.65 * reach)]) {
      pen.text(x(edge), height - 10, shortNumber(rounded(edge, edge > 0.9 && edge < 1.1 ? 3 : 2)), { fill: look.faint, align: "center" });
    }
    runs.forEach((run, place) => {
      const one = found[place][side];
      if (!one || !(one.predicted > 0)) return;
      const middle = 32 + row * (place + 0.5);
      [...one.neurons].forEach((value, neuron) => {
        const aside = ((neuron * 0.618) % 1) - 0.5; // spread evenly over the row
        const style = { fill: look.colors[run.place], alpha: 0.55 };
        pen.dot(x(value / one.predicted), middle + 0.7 * row * aside, 3, run.place, style);
      });
      const mean = x(one.measured / one.predicted);
      pen.line([mean, middle - 0.42 * row, mean, middle + 0.42 * row], { stroke: look.ink, width: 2 });
    });
  });
}
