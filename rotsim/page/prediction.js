// What rotsim.predict gives: expected norm, rotation and update size in windows of a course, by rotsim's own kernels.
"use strict";

// By what theory follows an optimizer in time, or what turns weights along its updates; null where it does not.
function courseOf(optimizer, turning) {
  if (!turning) return optimizer.course;
  return optimizer.filling === null ? null : TURNING[turning].course;
}

// A course of `lr.length` steps from a norm, in windows of so many steps.
// `declared` is the relative error that theory declares beside 1/dim. `law` has `scale`; the noise is white and scale-invariant, E‖g‖² = scale² (1 - 1/dim) / ‖w‖².
function predictCourse(optimizer, spec, { turning, cautious }, dim, law, norm, lr, weightDecay, window, rows) {
  const windows = Math.ceil(lr.length / window);
  const found = { declared: 0, norm: new Float64Array(windows), rotation: new Float64Array(windows), update: new Float64Array(windows) };
  const records = $zeros([windows, 6]);
  const power = { scale_squared: law.scale * law.scale * (1 - 1 / dim), homogeneity: -1 };
  const names = ["norm_squared", "lr", "weight_decay", "window", "records"];
  const theory = { spec: turning ? turningSpec(optimizer, spec, turning) : spec, rows, cautious: cautious ? 1 : 0 };
  found.declared = courseOf(optimizer, turning)(theory, dim, power, $named(names, [norm * norm, lr, weightDecay, window, records]));
  for (let place = 0; place < windows; place += 1) {
    const steps = Math.min(window, lr.length - place * window);
    found.norm[place] = Math.sqrt(records[place][0] / steps);
    found.rotation[place] = Math.sqrt(records[place][1] / steps);
    found.update[place] = Math.sqrt(records[place][2] / steps);
  }
  if (!found.norm.every((norm) => norm > 0 && norm < Infinity)) throw new RangeError("it leaves the range of numbers");
  return found;
}
