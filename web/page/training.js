// The training: its controls, its loop and its pictures.
import { attempt, element, report } from "./app.js";
import { SIDE, drawFilters, drawImages, embeddingMap, lossChart, rounded } from "./draw.js";
import { call, timed } from "./engine.js";
import { readImages } from "./images.js";

/** Images of the map, of which the first can be picked; `?shown=100` takes less time. */
const SHOWN = Math.max(2, Math.min(1000, Math.trunc(new URLSearchParams(location.search).get("shown")) || 300));
const PICKABLE = 32;
const NEIGHBOURS = 8;
const PAIRS = 8;
/** Milliseconds between updates of the pictures, and their largest share of the time. */
const PICTURES = 1000;
const SHARE = 0.25;

let running = false;
let loop = Promise.resolve();
let steps = 0;
let losses = [];
/** From which step on which loss is that of chance. */
let chance = [];
let rate;
let changed = false;
let picked = 0;
let shown = { labels: [], classes: [], tiles: [] };

const number = (id) => Number(element(id).value);

function settings() {
  return JSON.stringify({
    arch: element("arch").value,
    width: number("width"),
    batchSize: number("batchSize"),
    temperature: number("temperature"),
    learningRate: number("learningRate"),
    strength: number("strength"),
    seed: number("seed"),
  });
}

/** Sets a field; a value that a list lacks is added to it. */
function choose(id, value) {
  const field = element(id);
  if (field.options && ![...field.options].some((option) => option.value === value)) field.add(new Option(value));
  field.value = value;
}

/** The loss if all similarities are equal: ln(2N - 1) for N images. */
const chanceLoss = () => Math.log(2 * number("batchSize") - 1);

function showNumbers() {
  element("steps").textContent = steps;
  element("loss").textContent = losses.length ? rounded(losses.at(-1)[1], 3) : "-";
  element("chance").textContent = rounded(chanceLoss(), 3);
  element("rate").textContent = rate ? rounded(rate, rate < 10 ? 1 : 0) : "-";
  element("chart").innerHTML = lossChart(losses, chance, Math.max(320, element("chart").clientWidth || 760));
}

async function showViews() {
  drawImages(element("views"), await call("views", PAIRS), Math.min(PAIRS, number("batchSize")));
  const filters = await call("filters");
  const size = filters.length % (3 * 49) === 0 && filters.length % (3 * 9) !== 0 ? 7 : 3;
  drawFilters(element("filters"), filters, size, 8);
}

async function showMap() {
  await call("embed");
  const agreement = await call("agreement");
  element("agreement").textContent = agreement === undefined ? "no labels" : `${rounded(100 * agreement, 0)} %`;
  await showNeighbours();
}

async function showNeighbours() {
  const found = [...(await call("neighbours", picked, NEIGHBOURS))];
  const points = [...(await call("map"))];
  element("map").innerHTML = embeddingMap(points, shown.labels, shown.classes, picked, found);
  element("neighbours").replaceChildren(...found.map((image) => {
    const box = document.createElement("div");
    box.append(tile(image), shown.classes[shown.labels[image]] ?? "");
    return box;
  }));
}

function tile(image) {
  const canvas = document.createElement("canvas");
  const each = 3 * SIDE * SIDE;
  drawImages(canvas, shown.images.subarray(image * each, (image + 1) * each), 1);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", describe(image));
  return canvas;
}

const describe = (image) => `image ${image + 1}${shown.labels.length ? `, ${shown.classes[shown.labels[image]]}` : ""}`;

/** Shows the images of the session, and starts a training on them. */
async function useImages() {
  shown = {
    images: await call("shownImages"),
    labels: [...(await call("shownLabels"))],
    classes: await call("classes"),
  };
  const count = shown.images.length / (3 * SIDE * SIDE);
  picked = 0;
  element("gallery").replaceChildren(...Array.from({ length: Math.min(PICKABLE, count) }, (_, image) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(tile(image));
    button.setAttribute("aria-label", `Pick ${describe(image)}`);
    button.setAttribute("aria-pressed", String(image === picked));
    button.addEventListener("click", () => attempt(async () => {
      picked = image;
      [...element("gallery").children].forEach((other, i) => other.setAttribute("aria-pressed", String(i === image)));
      await showNeighbours();
    }));
    return button;
  }));
  const classes = shown.labels.length ? ` in ${shown.classes.length} classes` : ", without classes";
  element("data").textContent = `${await call("trainingImages")} images${classes}`;
  element("leftOut").textContent = "";
  await reset();
}

async function reset() {
  await call("start", settings());
  await showStart();
}

/** Shows a training that has no steps yet. */
async function showStart() {
  [steps, losses, rate, changed] = [0, [], undefined, false];
  chance = [[1, chanceLoss()]];
  showNumbers();
  await showViews();
  await showMap();
}

async function trainOnce() {
  if (changed) {
    await call("change", settings());
    changed = false;
    if (chance.at(-1)[1] !== chanceLoss()) chance.push([steps + 1, chanceLoss()]);
    rate = undefined;
  }
  const { value, seconds } = await timed("step");
  steps += 1;
  losses.push([steps, value]);
  const now = number("batchSize") / seconds;
  // The first step compiles the kernels.
  if (losses.length > 1) rate = rate ? 0.9 * rate + 0.1 * now : now;
}

async function train() {
  let due = 0;
  while (running) {
    await trainOnce();
    await new Promise(requestAnimationFrame);
    showNumbers();
    const started = performance.now();
    if (started >= due) {
      await showViews();
      await showMap();
      const ended = performance.now();
      due = ended + Math.max(PICTURES, (ended - started) / SHARE);
    }
  }
  await showViews();
  await showMap();
}

export function pauseTraining() {
  running = false;
  element("run").textContent = "Train";
  return loop;
}

/** Runs an action between two steps: the training pauses, and goes on if it was running. */
function between(action) {
  return attempt(async () => {
    const wasRunning = running;
    await pauseTraining();
    try {
      await action();
    } finally {
      if (wasRunning) run();
    }
  });
}

function run() {
  running = true;
  element("run").textContent = "Pause";
  loop = loop.then(train).catch((error) => {
    running = false;
    element("run").textContent = "Train";
    report(error);
  });
}

function offer(bytes, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function load(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { arch, width } = JSON.parse(await call("load", bytes, file.name, settings()));
  choose("arch", arch);
  choose("width", String(width));
  await showStart();
  element("data").textContent = `${element("data").textContent.split(";")[0]}; the encoder is of ${file.name}`;
}

/** The first names of a list. */
const some = (names) => names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");

async function takeFiles(entries) {
  const { pixels, labels, classes, leftOut } = await readImages(entries);
  const count = pixels.length / (3 * SIDE * SIDE);
  const others = leftOut.length ? `Files that are no images, or are damaged: ${some(leftOut)}.` : "";
  if (!count) throw new Error(`No image could be read. ${others} Choose PNG, JPEG, WebP or GIF files, or folders of them.`);
  const sizes = [...element("batchSize").options].map((option) => Number(option.value)).sort((a, b) => a - b);
  if (count < sizes[0]) throw new Error(`There are ${count} images, and the smallest batch has ${sizes[0]}. Choose more images. ${others}`);
  await call("takeImages", pixels, labels, classes, SHOWN);
  // The largest batch that the images fill.
  if (number("batchSize") > count) element("batchSize").value = sizes.findLast((size) => size <= count);
  await useImages();
  element("leftOut").textContent = others && `Left out. ${others}`;
}

function showRanges() {
  for (const output of document.querySelectorAll("#controls output")) {
    output.textContent = rounded(element(output.htmlFor[0]).value, 2);
  }
}

export async function startTraining() {
  const query = new URLSearchParams(location.search);
  for (const id of ["arch", "width", "batchSize", "temperature", "learningRate", "strength", "seed"]) {
    if (query.has(id)) choose(id, query.get(id));
  }
  showRanges();
  // On a phone, the results come first.
  const phone = matchMedia("(max-width: 52rem)");
  const fit = () => {
    element("options").open = !phone.matches;
  };
  fit();
  phone.addEventListener("change", fit);
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  element("run").addEventListener("click", () => (running ? pauseTraining() : attempt(run)));
  element("step").addEventListener("click", () => attempt(async () => {
    await pauseTraining();
    await trainOnce();
    showNumbers();
    await showViews();
    await showMap();
  }));
  element("reset").addEventListener("click", () => between(reset));
  for (const id of ["batchSize", "learningRate", "temperature", "strength"]) {
    element(id).addEventListener("input", () => {
      showRanges();
      changed = true;
    });
  }
  for (const id of ["arch", "width"]) element(id).addEventListener("change", () => between(reset));
  element("seed").addEventListener("change", () => between(async () => {
    if (!element("seed").reportValidity()) return;
    await reset();
  }));
  element("shapes").addEventListener("click", () => between(async () => {
    await call("drawShapes", number("seed"), SHOWN);
    await useImages();
  }));
  for (const id of ["images", "folder"]) {
    element(id).addEventListener("change", (event) => between(async () => {
      const files = [...event.target.files];
      event.target.value = "";
      await takeFiles(files.map((file) => ({ file, folder: file.webkitRelativePath.split("/").at(-2) })));
    }));
  }
  // On the whole page, since a browser opens a file that is dropped elsewhere.
  const holdsFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
  for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      element("drop").classList.toggle("over", over);
    });
  }
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    // The list is empty once the event is over.
    const items = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry() ?? { file: item.getAsFile() });
    between(async () => takeFiles(items));
  });
  element("save").addEventListener("click", () => between(async () => offer(await call("save"), "encoder.safetensors")));
  element("saveLosses").addEventListener("click", () => {
    offer(["step,loss\n", ...losses.map((row) => `${row.join(",")}\n`)].join(""), "losses.csv");
  });
  element("load").addEventListener("change", (event) => between(async () => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) await load(file);
  }));
  await call("drawShapes", number("seed"), SHOWN);
  await useImages();
  // The chart is drawn in the pixels of its place.
  new ResizeObserver(showNumbers).observe(element("chart"));
}
