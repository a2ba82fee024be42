// What rotsim.predict gives: expected norm, rotation and update size in windows of a course, by rotsim's own kernels.
"use strict";

// A course of `lr.length` steps from a norm, in windows of so many steps; null where theory has none.
// `declared` is the relative error that theory declares beside 1/dim. `law` has `scale`; the noise is white and scale-invariant, E‖g‖² = scale² (1 - 1/dim) / ‖w‖².
function predictCourse(optimizer, spec, { rotational, cautious }, dim, law, norm, lr, weightDecay, window, rows) {
  const windows = Math.ceil(lr.length / window);
  const found = { declared: 0, norm: new Float64Array(windows), rotation: new Float64Array(windows), update: new Float64Array(windows) };
  const records = rotational ? turningRecords(optimizer, spec, dim, norm, lr, weightDecay, window) : $zeros([windows, 6]);
  if (!rotational) {
    const power = { scale_squared: law.scale * law.scale * (1 - 1 / dim), homogeneity: -1 };
    const names = ["norm_squared", "lr", "weight_decay", "window", "records"];
    found.declared = optimizer.course({ spec, rows, cautious: cautious ? 1 : 0 }, dim, power, $named(names, [norm * norm, lr, weightDecay, window, records]));
  }
  for (let place = 0; place < windows; place += 1) {
    const steps = Math.min(window, lr.length - place * window);
    found.norm[place] = Math.sqrt(records[place][0] / steps);
    found.rotation[place] = Math.sqrt(records[place][1] / steps);
    found.update[place] = Math.sqrt(records[place][2] / steps);
  }
  if (!found.norm.every((norm) => norm > 0 && norm < Infinity)) throw new RangeError("it leaves the range of numbers");
  return found;
}

// The rotational variant: its angle at the rates of each step, at one norm. That averages fill at first is left out.
function turningRecords(optimizer, spec, dim, norm, lr, weightDecay, window) {
  const records = $zeros([Math.ceil(lr.length / window), 6]);
  const memory = (spec.betas ?? [spec.momentum ?? 0])[0];
  const bias = optimizer.shape === "sign" ? 0 : closed_forms.rotational_bias(memory, UPDATE_NORM_DECAY, dim - 2);
  for (let t = 0; t < lr.length; t += 1) {
    const angle = optimizer.leading_rotation(spec, lr[t], weightDecay[t]) * Math.sqrt(1 + bias);
    const record = records[Math.floor(t / window)];
    record[0] += norm * norm;
    record[1] += angle * angle;
    record[2] += 2 * norm * norm * closed_forms.turned_one_minus_cosine(angle);
  }
  return records;
}
