// rotsim/schedules.py in JavaScript: the factor on the learning rate at a step, counted from 1.
"use strict";

const SCHEDULES = {
  constant: () => 1,
  linear: (step, steps, final) => 1 + (final - 1) * Math.min(step / steps, 1),
  cosine: (step, steps, final) => final + ((1 - final) * (1 + Math.cos(Math.PI * Math.min(step / steps, 1)))) / 2,
};

// A schedule of a whole run by its name: `warmup` steps of linear rise, then what the name says.
function scheduleFactor(name, step, steps, warmup, final) {
  if (step <= warmup) return step / warmup;
  if (name !== "wsd") return SCHEDULES[name](Math.max(step - warmup, 1), steps - warmup, final);
  const fall = Math.floor(steps / 5); // the last fifth
  const fallen = (Math.max(step - warmup, 1) - (steps - warmup - fall)) / Math.max(fall, 1);
  return 1 + (final - 1) * Math.min(Math.max(fallen, 0), fall > 0 ? 1 : 0);
}
