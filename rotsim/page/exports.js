// What a view leaves behind: a picture, its numbers, a link, a call.
"use strict";

function download(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// All panels as they lie on the page, with their titles.
function svgOf(view) {
  const pen = new SvgPen();
  const frame = view.grid.getBoundingClientRect();
  for (const { figure, canvas, draw } of view.panels) {
    const box = canvas.getBoundingClientRect();
    if (box.width === 0) continue;
    const title = figure.querySelector("figcaption");
    pen.moved(Math.round(box.left - frame.left), Math.round(box.top - frame.top), () => {
      if (title) pen.text(4, -6, title.textContent.trim(), { fill: view.look.ink, size: 13, weight: 600 });
      draw(pen, box.width, box.height);
    });
  }
  return { text: pen.document(Math.ceil(frame.width), Math.ceil(frame.height), view.look.paper), frame };
}

function saveSvg(view) {
  download("rotsim.svg", svgOf(view).text, "image/svg+xml");
}

function savePng(view) {
  const { text, frame } = svgOf(view);
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * Math.ceil(frame.width);
    canvas.height = 2 * Math.ceil(frame.height);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download("rotsim.png", blob));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
}

// A row per window and optimizer; empty where there is no number.
function csvOf(lab) {
  const names = ["norm", "rotation", "update"];
  const head = names.flatMap((name) => [name, `${name}_low`, `${name}_high`, `${name}_predicted`]);
  const rows = [["step", "optimizer", "lr", "weight_decay", ...head].join(",")];
  for (const run of lab.walking) {
    for (let place = 0; place < lab.windows; place += 1) {
      const step = Math.min((place + 1) * lab.window, lab.state.steps);
      const values = names.flatMap((name) => [run.measured, run.low, run.high, run.predicted].map((of) => of[name][place]));
      const written = [run.lr[step - 1], run.decay[step - 1], ...values].map((value) => (Number.isNaN(value) ? "" : value));
      rows.push([step, run.optimizer.name, ...written].join(","));
    }
  }
  return `${rows.join("\n")}\n`;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
