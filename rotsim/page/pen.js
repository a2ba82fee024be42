// Two pens with the same strokes: one draws on a canvas, the other writes SVG. A panel does not know which it holds.
"use strict";

class CanvasPen {
  constructor(context) {
    this.context = context;
  }

  // Points are x, y, x, y, ...; a point that is not a number interrupts the line.
  line(points, { stroke, width = 1, dash = [], alpha = 1, fill = null }) {
    const { context } = this;
    context.globalAlpha = alpha;
    context.beginPath();
    let down = false;
    for (let i = 0; i < points.length; i += 2) {
      const known = Number.isFinite(points[i]) && Number.isFinite(points[i + 1]);
      if (known && down) context.lineTo(points[i], points[i + 1]);
      else if (known) context.moveTo(points[i], points[i + 1]);
      down = known;
    }
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = width;
      context.lineJoin = "round";
      context.setLineDash(dash);
      context.stroke();
      context.setLineDash([]);
    }
    context.globalAlpha = 1;
  }

  text(x, y, words, { fill, size = 12, align = "left", weight = 400 }) {
    const { context } = this;
    context.fillStyle = fill;
    context.font = `${weight} ${size}px system-ui, sans-serif`;
    context.textAlign = align;
    context.fillText(words, x, y);
  }

  // A dot of one of four shapes, so that colour is not all that tells optimizers apart.
  dot(x, y, radius, shape, { fill, alpha = 1 }) {
    this.line(outline(x, y, radius, shape), { fill, alpha });
  }

  inside(x, y, width, height, draw) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    draw();
    context.restore();
  }
}

class SvgPen {
  constructor() {
    this.parts = [];
    this.clips = 0;
  }

  line(points, { stroke, width = 1, dash = [], alpha = 1, fill = null }) {
    let path = "";
    let down = false;
    for (let i = 0; i < points.length; i += 2) {
      const known = Number.isFinite(points[i]) && Number.isFinite(points[i + 1]);
      if (known) path += `${down ? "L" : "M"}${points[i].toFixed(1)} ${points[i + 1].toFixed(1)}`;
      down = known;
    }
    const dashes = dash.length > 0 ? ` stroke-dasharray="${dash.join(" ")}"` : "";
    this.parts.push(
      `<path d="${path}" fill="${fill ?? "none"}" stroke="${stroke ?? "none"}" stroke-width="${width}"` +
        ` stroke-linejoin="round" opacity="${alpha}"${dashes}/>`,
    );
  }

  text(x, y, words, { fill, size = 12, align = "left", weight = 400 }) {
    const anchor = { left: "start", center: "middle", right: "end" }[align];
    const safe = words.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    this.parts.push(
      `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" fill="${fill}" font-size="${size}" text-anchor="${anchor}"` +
        ` font-weight="${weight}">${safe}</text>`,
    );
  }

  dot(x, y, radius, shape, { fill, alpha = 1 }) {
    this.line(outline(x, y, radius, shape), { fill, alpha });
  }

  inside(x, y, width, height, draw) {
    this.clips += 1;
    const name = `clip${this.clips}`;
    this.parts.push(`<clipPath id="${name}"><rect x="${x}" y="${y}" width="${width}" height="${height}"/></clipPath>`);
    this.parts.push(`<g clip-path="url(#${name})">`);
    draw();
    this.parts.push("</g>");
  }

  moved(x, y, draw) {
    this.parts.push(`<g transform="translate(${x} ${y})">`);
    draw();
    this.parts.push("</g>");
  }

  document(width, height, background) {
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"` +
      ` font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="${background}"/>` +
      `${this.parts.join("\n")}</svg>\n`
    );
  }
}

function outline(x, y, radius, shape) {
  const corners = [16, 4, 3, 4][shape % 4];
  const turned = [0, Math.PI / 4, -Math.PI / 2, 0][shape % 4];
  const points = [];
  for (let k = 0; k <= corners; k += 1) {
    const angle = turned + (2 * Math.PI * k) / corners;
    points.push(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  return points;
}
