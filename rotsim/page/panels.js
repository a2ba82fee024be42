// The panels: each draws a part of the run with a pen, into a width and a height.
"use strict";

const EDGE = { left: 52, right: 12, top: 10, bottom: 30 }; // pixels about a plot
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
  const range = rangeOf([measured.decay, predicted.growth, predicted.decay]);
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
    if (met >= 0 && !run.walker.rotational) {
      const at = [x((met + 0.5) * lab.window), y(predicted.growth[met])];
      pen.dot(...at, 5, 0, { fill: look.ink });
      const aside = at[0] > width - 120 ? "right" : "left";
      pen.text(at[0] + (aside === "left" ? 9 : -9), at[1] + 18, "in balance", { fill: look.ink, align: aside });
    }
  });
}

// The first window in which growth and decay are within 2 %; -1 if none is.
function crossing({ growth, decay }) {
  return growth.findIndex((grown, k) => grown > 0 && Math.abs(decay[k] / grown - 1) < 0.02);
}

// --- the plane of a neuron: old weights, decay, update, and the angle between

function drawPlane(pen, width, height, lab, run, look) {
  const color = look.colors[run.place];
  pen.dot(14, 14, 5, run.place, { fill: color });
  pen.text(24, 18, run.optimizer.label + (run.walker.rotational ? " RV" : ""), { fill: look.ink, weight: 600 });
  const shape = stepShape(lab, run);
  if (!shape) return;
  const { angle, across, inward } = shape;
  const row = width < 225 ? 35 : 18; // a line of its own in a narrow picture
  pen.text(width - 8, row, `θ = ${shortNumber(rounded(angle, 3))} rad`, { fill: look.ink, weight: 600, align: "right" });
  pen.text(width - 8, row + 17, growthInWords(shape), { fill: look.ink, align: "right" });
  const enlarged = enlargement(angle);
  const length = height - row - 50;
  const origin = [Math.max((width - 0.75 * length) / 2, 66), height - 12];
  const tip = [origin[0], origin[1] - length];
  const lowered = (share) => tip[1] + length * Math.min(Math.max(share * enlarged * enlarged, -0.2), 0.6);
  const shrunk = [origin[0], lowered(inward)];
  const end = [origin[0] + length * Math.min(across * enlarged, 1.6), shrunk[1]];
  const arc = [];
  for (let k = 0; k <= 24; k += 1) {
    const turn = (1.1 * k) / 24;
    arc.push(origin[0] + length * Math.sin(turn), origin[1] - length * Math.cos(turn));
  }
  pen.line(arc, { stroke: look.faint, dash: [3, 4] });
  const turn = Math.atan2(end[0] - origin[0], origin[1] - end[1]);
  const wedge = [];
  for (let k = 0; k <= 12; k += 1) {
    const at = (turn * k) / 12;
    wedge.push(origin[0] + 0.4 * length * Math.sin(at), origin[1] - 0.4 * length * Math.cos(at));
  }
  pen.line(wedge, { stroke: look.ink, width: 1.5 });
  const middle = [origin[0] + 0.3 * length * Math.sin(turn / 2), origin[1] - 0.3 * length * Math.cos(turn / 2)];
  pen.text(middle[0], middle[1] + 3, "θ", { fill: look.ink, align: "center", size: 13 });
  arrow(pen, origin, tip, { stroke: look.faint, width: 2.5 });
  arrow(pen, origin, end, { stroke: color, width: 3.5 });
  arrow(pen, tip, shrunk, { stroke: look.decay, width: 3.5 });
  arrow(pen, shrunk, end, { stroke: look.growth, width: 3.5 });
  const fallen = shrunk[1] - tip[1];
  if (Math.abs(fallen) > 2) pen.text(tip[0] - 7, (tip[1] + shrunk[1]) / 2 + 4, "net decay", { fill: look.decay, align: "right" });
  const beside = fallen > 35 ? -7 : 15; // above the arrow where there is room
  pen.text((shrunk[0] + end[0]) / 2 + 4, shrunk[1] + beside, "update", { fill: look.growth, align: "center" });
  pen.text(origin[0] - 7, origin[1] - 0.3 * length, "w", { fill: look.faint, align: "right", size: 14 });
  pen.text(width - 8, height - 6, `drawn × ${enlarged}`, { fill: look.faint, align: "right", size: 11 });
}

function growthInWords({ growth, decay }) {
  return decay > 0 ? `growth / decay ${(growth / (2 * decay)).toFixed(2)}` : "growth, no decay";
}

// Of the last windows, over ‖w‖: RMS angle, the step's part across w and inwards (decay, less what momentum carries
// outwards), the decay alone, and how much updates add to ‖w‖².
function stepShape(lab, run) {
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
  const inward = (update / norm - grown) / 2;
  const t = Math.max(lab.done - 1, 0);
  const share = run.walker.rotational ? inward : lab.decayShare(run, Math.sqrt(norm), run.lr[t], run.decay[t]);
  const decay = share - (share * share) / 2;
  const across = Math.sqrt(Math.max(update / norm - inward * inward, 0));
  return { angle: Math.sqrt(angle), across, inward, decay, growth: grown + 2 * decay };
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
