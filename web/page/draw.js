// Pictures: charts are SVG, images are canvases. Colours come from style.css.
export const SIDE = 32;
const PLANE = SIDE * SIDE;

export const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
export const rounded = (value, digits) => Number(value).toFixed(digits);

/** Draws images, given as planes of bytes, in rows of `columns`. */
export function drawImages(canvas, bytes, columns) {
  const count = bytes.length / (3 * PLANE);
  const rows = Math.ceil(count / columns);
  const [gap, side] = [2, SIDE];
  canvas.width = columns * (side + gap) - gap;
  canvas.height = Math.max(1, rows * (side + gap) - gap);
  const context = canvas.getContext("2d");
  for (let image = 0; image < count; image++) {
    const pixels = context.createImageData(side, side);
    for (let i = 0; i < PLANE; i++) {
      for (let channel = 0; channel < 3; channel++) {
        pixels.data[4 * i + channel] = bytes[(3 * image + channel) * PLANE + i];
      }
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, (image % columns) * (side + gap), Math.floor(image / columns) * (side + gap));
  }
}

/** Draws filters `[count, 3, size, size]`, each scaled to its own range, in rows of `columns`. */
export function drawFilters(canvas, values, size, columns) {
  const each = 3 * size * size;
  const count = values.length / each;
  canvas.width = columns * (size + 1) - 1;
  canvas.height = Math.ceil(count / columns) * (size + 1) - 1;
  const context = canvas.getContext("2d");
  for (let filter = 0; filter < count; filter++) {
    const own = values.subarray(filter * each, (filter + 1) * each);
    const largest = Math.max(...own.map(Math.abs), 1e-12);
    const pixels = context.createImageData(size, size);
    for (let i = 0; i < size * size; i++) {
      for (let channel = 0; channel < 3; channel++) {
        pixels.data[4 * i + channel] = 127.5 * (1 + own[channel * size * size + i] / largest);
      }
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, (filter % columns) * (size + 1), Math.floor(filter / columns) * (size + 1));
  }
}

/** A round number of at least `span / count`, for the lines of a grid. */
function interval(span, count) {
  const power = 10 ** Math.floor(Math.log10(span / count));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= span / count);
}

function ticks(low, high, count) {
  const size = interval(high - low, count);
  const first = Math.ceil(low / size - 1e-9);
  const found = [];
  for (let i = first; i * size <= high + 1e-9 * size; i++) found.push(i * size);
  return found;
}

const text = (value) => String(Number(value.toPrecision(6)));

/**
 * The losses `[step, loss]` as a curve beside the loss of chance, a list of `[from step, loss]`, in
 * `width` pixels.
 */
export function lossChart(losses, chance, width) {
  const [height, left, right, top, bottom] = [240, 52, 100, 12, 34];
  const all = [...losses.map(([, loss]) => loss), ...chance.map(([, loss]) => loss)];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const margin = Math.max(0.05 * (high - low), 0.02);
  const [bottomValue, topValue] = [low - margin, high + margin];
  const end = Math.max(10, losses.at(-1)?.[0] ?? 0);
  const x = (step) => left + ((width - left - right) * (step - 1)) / (end - 1);
  const y = (loss) => top + ((height - top - bottom) * (topValue - loss)) / (topValue - bottomValue);
  const parts = ticks(bottomValue, topValue, 5).map((value) =>
    `<path class="line" d="M${left} ${y(value)}H${width - right}"/>` +
    `<text class="soft" x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${text(value)}</text>`);
  parts.push(...ticks(1, end, width / 90).map((step) =>
    `<text class="soft" x="${x(step)}" y="${height - 14}" text-anchor="middle">${text(step)}</text>`));
  parts.push(`<path class="axis" d="M${left} ${top}V${height - bottom}H${width - right}"/>`);
  const line = chance.map(([from, loss], i) => {
    const until = chance[i + 1]?.[0] ?? end;
    return `M${x(Math.max(1, from))} ${y(loss)}H${x(Math.max(1, until))}`;
  });
  parts.push(`<path class="c1 hollow" stroke-dasharray="6 4" d="${line.join("")}"/>`);
  const points = losses.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  parts.push(`<g class="c0"><polyline class="hollow" points="${points}"/></g>`);
  if (losses.length === 1) {
    parts.push(`<g class="c0"><circle class="full" r="4" cx="${x(losses[0][0])}" cy="${y(losses[0][1])}"/></g>`);
  }
  const labels = [[chance.at(-1)[1], "chance"]];
  if (losses.length) labels.push([losses.at(-1)[1], "loss"]);
  labels.sort((a, b) => b[0] - a[0]);
  let above = -Infinity;
  for (const [value, label] of labels) {
    above = Math.max(y(value) + 4, above + 16);
    parts.push(`<text x="${width - right + 8}" y="${above}">${label} ${value.toFixed(3)}</text>`);
  }
  const last = losses.length ? `${losses.at(-1)[1].toFixed(3)} after ${losses.at(-1)[0]} steps` : "none yet";
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Loss: ${last}; chance ${chance.at(-1)[1].toFixed(3)}">` +
    `${parts.join("")}</svg>`;
}

/** A marker of class `label`: five colours, each with four forms. */
function marker(label, x, y, size) {
  const form = Math.floor(label / 5) % 4;
  const paths = [
    `<circle class="full" cx="${x}" cy="${y}" r="${size}"/>`,
    `<path class="hollow" d="M${x} ${y - size}l${size} ${1.9 * size}h${-2 * size}z"/>`,
    `<rect class="hollow" x="${x - size}" y="${y - size}" width="${2 * size}" height="${2 * size}"/>`,
    `<path class="hollow" d="M${x - size} ${y}h${2 * size}M${x} ${y - size}v${2 * size}"/>`,
  ];
  return `<g class="c${label % 5}">${paths[form]}</g>`;
}

/** Points `x, y, ..` by class, with the picked image and its neighbours marked. */
export function embeddingMap(points, labels, classes, picked, neighbours) {
  const [width, height, margin] = [420, 340, 14];
  const of = (axis) => points.filter((_, i) => i % 2 === axis);
  const ranges = [0, 1].map((axis) => {
    const values = of(axis);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return high > low ? [low, high] : [low - 1, low + 1];
  });
  const at = (i) => [
    margin + ((width - 2 * margin) * (points[2 * i] - ranges[0][0])) / (ranges[0][1] - ranges[0][0]),
    height - margin - ((height - 2 * margin) * (points[2 * i + 1] - ranges[1][0])) / (ranges[1][1] - ranges[1][0]),
  ].map((v) => Number(v.toFixed(1)));
  const parts = [];
  for (let i = 0; i < points.length / 2; i++) parts.push(marker(labels[i] ?? 0, ...at(i), 3.5));
  if (picked < points.length / 2) {
    for (const i of neighbours) {
      const [[x, y], [u, v]] = [at(picked), at(i)];
      parts.push(`<path class="axis" d="M${x} ${y}L${u} ${v}"/>`);
    }
    const [x, y] = at(picked);
    parts.push(`<circle class="axis" stroke-width="3" cx="${x}" cy="${y}" r="8"/>`);
  }
  const legend = classes.map((name, label) =>
    `<span><svg viewBox="0 0 12 12" aria-hidden="true">${marker(label, 6, 6, 4)}</svg> ${escaped(name)}</span>`);
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Map of ${points.length / 2} embeddings">` +
    `<rect class="outline" x=".5" y=".5" width="${width - 1}" height="${height - 1}" opacity=".3"/>${parts.join("")}</svg>` +
    `<div class="legend">${legend.join("")}</div>`;
}

/** Pairs of numbers against the diagonal on which they are equal. */
export function agreementChart(tape, differences) {
  const [size, margin] = [300, 44];
  const largest = Math.max(...tape.map(Math.abs), ...differences.map(Math.abs), 1e-9) * 1.1;
  const x = (value) => margin + ((size - margin - 8) * (value + largest)) / (2 * largest);
  const y = (value) => size - margin - ((size - margin - 8) * (value + largest)) / (2 * largest);
  const points = tape.map((value, i) =>
    `<circle class="full" cx="${x(value).toFixed(1)}" cy="${y(differences[i]).toFixed(1)}" r="3.5"/>`);
  const marks = ticks(-largest, largest, 4);
  const lines = marks.map((value) =>
    `<text class="soft" x="${x(value)}" y="${size - margin + 17}" text-anchor="middle">${text(value)}</text>` +
    `<text class="soft" x="${margin - 5}" y="${y(value) + 4}" text-anchor="end">${text(value)}</text>`);
  return `<svg viewBox="0 0 ${size} ${size}" class="small" role="img" aria-label="Gradients by the tape and by differences">` +
    `<path class="axis" d="M${margin} 8V${size - margin}H${size - 8}"/>${lines.join("")}` +
    `<path class="line" d="M${x(-largest)} ${y(-largest)}L${x(largest)} ${y(largest)}"/><g class="c0">${points.join("")}</g>` +
    `<text x="${(size + margin) / 2}" y="${size - 8}" text-anchor="middle">backward pass</text>` +
    `<text transform="translate(12 ${(size - margin) / 2}) rotate(-90)" text-anchor="middle">differences</text></svg>`;
}
