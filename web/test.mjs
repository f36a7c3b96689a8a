// Tests web/dist in headless Chromium, against the command line: `node test.mjs PARALLAX`.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const parallax = process.argv[2];
const here = fileURLToPath(new URL(".", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "parallax-web-"));
const shots = join(here, "screenshots");
rmSync(shots, { recursive: true, force: true });
mkdirSync(shots);

/** A small network and batch, since a software adapter is slow, which learn in few steps. */
const [WIDTH, BATCH, RATE, TEMPERATURE, STEPS] = ["0.125", "16", "0.001", "0.1", 30];
/** Images of the map, each of which takes as long as a view of a batch. */
const SHOWN = 60;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };

let served = 0;
const server = createServer((request, response) => {
  served += 1;
  const name = new URL(request.url, "http://localhost").pathname.slice(1) || "index.html";
  try {
    const bytes = readFileSync(join(here, "dist", name));
    response.writeHead(200, { "Content-Type": TYPES[extname(name)] }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${server.address().port}/`;

const began = performance.now();
const say = (text) => console.log(`web test: ${((performance.now() - began) / 1000).toFixed(0)} s: ${text}`);

function run(...words) {
  const { status, stderr } = spawnSync(parallax, words, { encoding: "utf8" });
  assert.equal(status, 0, `parallax ${words.join(" ")}: ${stderr}`);
}

/** The features of the first test images by the command line. */
function features(encoder) {
  const out = join(folder, "features.safetensors");
  run("embed", "--encoder", encoder, "--data", "shapes", "--device", "cpu", "--out", out, "--force");
  const bytes = readFileSync(out);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length));
  const { data_offsets: [start, end], shape } = header.features;
  const floats = new Float32Array(new Uint8Array(bytes.subarray(8 + length + start, 8 + length + end)).buffer);
  return floats.subarray(0, SHOWN * shape[1]);
}

/** The largest difference, relative to the largest feature. */
function difference(found, expected) {
  assert.equal(found.length, expected.length);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  assert.ok(largest > 0);
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0) / largest;
}

const native = join(folder, "native");
run("simclr", "--data", "shapes", "--width", WIDTH, "--batch-size", BATCH, "--learning-rate", RATE, "--temperature", TEMPERATURE, "--steps", "5", "--seed", "0", "--no-knn", "--device", "cpu", "--out", native);
const lines = readFileSync(join(native, "metrics.jsonl"), "utf8").trim().split("\n");
const expected = lines.map((line) => JSON.parse(line).loss);
say(`the command line's losses: ${expected.map((loss) => loss.toFixed(5)).join(", ")}`);

const launch = (flags) => chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", ...flags] });
const problems = [];

async function open(browser, query, script = "") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(900_000);
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
    if (message.type() === "warning") say(`warning of the console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`page error: ${error.message}`));
  await page.addInitScript(script);
  await page.goto(address + query);
  await page.waitForSelector("html[data-state]");
  return page;
}

const shoot = (page, name) => page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });

/** Screenshots in light and dark, and on a phone. Nothing is wider than the screen of a phone. */
async function shootAll(page, name) {
  await shoot(page, name);
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(page, `${name}-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  for (const width of [320, 390]) {
    await page.setViewportSize({ width, height: 844 });
    const found = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(found <= width, `${name} is ${found} pixels wide on a screen of ${width}`);
  }
  await shoot(page, `${name}-phone`);
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** Every control has a name, and Tab reaches each of them once, in order, with a visible focus. */
async function checkControls(page, name) {
  const unnamed = /^\s*- (button|combobox|img|slider|spinbutton|tab|tablist|textbox)(:| \[|$)/;
  const tree = await page.locator("body").ariaSnapshot();
  assert.deepEqual(tree.split("\n").filter((line) => unnamed.test(line)), [], `${name}: controls without a name`);
  const at = () => page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")];
    const controls = all.filter((control) => control.tabIndex >= 0 && !control.disabled && control.checkVisibility());
    const active = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(active.closest(".file") ?? active);
    const names = controls.map((control) => control.id || control.getAttribute("aria-label") || control.textContent);
    return {
      names,
      place: active === document.body ? names.length : controls.indexOf(active),
      hasOutline: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
    };
  });
  await page.locator("[role=tab][aria-selected=true]").first().focus();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Shift+Tab");
  const { names } = await at();
  const reached = [];
  // A region that scrolls takes the focus too.
  for (let presses = 0; presses < 2 * names.length; presses++) {
    const { place, hasOutline } = await at();
    if (place === names.length || (place === 0 && reached.length)) break;
    if (place >= 0) {
      assert.ok(hasOutline, `${name}: the focus of ${names[place]} cannot be seen`);
      reached.push(names[place]);
    }
    await page.keyboard.press("Tab");
  }
  assert.deepEqual(reached, names, `${name}: the controls that Tab reaches`);
  say(`${name}: Tab reaches ${names.length} controls`);
}

async function download(page, button) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  const path = join(folder, file.suggestedFilename());
  await file.saveAs(path);
  return path;
}

const embed = async (page) => new Float32Array(await page.evaluate(async () => {
  const { call } = await import("./engine.js");
  return [...(await call("embed"))];
}));

const steps = (page) => page.textContent("#steps").then(Number);
const idle = (page) => page.waitForFunction(() => document.querySelector("#run").textContent === "Train");

const browser = await launch(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]);
const page = await open(browser, `?width=${WIDTH}&batchSize=${BATCH}&learningRate=${RATE}&temperature=${TEMPERATURE}&shown=${SHOWN}`);
assert.equal(await page.getAttribute("html", "data-state"), "ready", await page.textContent("#status") + (await page.textContent("#error")));
say(await page.textContent("#status"));
// Everything is loaded: the rest works without a network.
await page.context().setOffline(true);
const loaded = served;
await shootAll(page, "start");

// By keyboard: a step, a setting that is changed and changed back, and the training. The network and
// the optimiser keep their state, so the losses are those of a training without the change.
await page.focus("#tab-training");
for (const id of ["run", "step"]) {
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), id);
}
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelector("#steps").textContent === "1");
await page.focus("#temperature");
await page.keyboard.press("ArrowRight");
assert.equal(await page.textContent("output[for=temperature]"), "0.15");
await page.keyboard.press("ArrowLeft");
assert.equal(await page.textContent("output[for=temperature]"), Number(TEMPERATURE).toFixed(2));
await page.evaluate(() => {
  window.frames = 0;
  window.longest = 0;
  let last = performance.now();
  const frame = (now) => {
    window.frames += 1;
    window.longest = Math.max(window.longest, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
await page.focus("#run");
await page.keyboard.press("Enter");
await page.waitForFunction((count) => Number(document.querySelector("#steps").textContent) >= count || !document.querySelector("#error").hidden, STEPS);
assert.equal(await page.textContent("#error"), "");
// A page that waited for the engine would draw one frame per step.
const [frames, longest, taken] = await page.evaluate(() => [window.frames, window.longest, Number(document.querySelector("#steps").textContent)]);
say(`frames during ${taken} steps: ${frames}, the longest pause ${longest.toFixed(0)} ms`);
assert.ok(frames >= 3 * taken, `the page drew ${frames} frames during ${taken} steps`);
await page.keyboard.press("Enter");
await idle(page);
const csv = readFileSync(await download(page, "#saveLosses"), "utf8").trim().split("\n").slice(1);
const losses = csv.map((row) => Number(row.split(",")[1]));
assert.ok(losses.length >= STEPS);
say(`losses: ${losses.slice(0, 5).map((loss) => loss.toFixed(5)).join(", ")} .. ${losses.at(-1).toFixed(5)}; ${await page.textContent("#rate")} images/s`);
expected.forEach((loss, i) => assert.ok(Math.abs(loss - losses[i]) <= 1e-3, `loss ${i + 1} is ${losses[i]}; the command line has ${loss}`));
const mean = (values) => values.reduce((a, b) => a + b) / values.length;
assert.ok(mean(losses.slice(STEPS - 10, STEPS)) < mean(losses.slice(0, 10)) - 0.03, `the loss does not fall: ${losses}`);

const saved = await download(page, "#save");
const own = await embed(page);
const ofSaved = difference(own, features(saved));
say(`features of the saved file: largest difference ${ofSaved.toExponential(1)}`);
assert.ok(ofSaved <= 1e-4);
await page.click("#gallery button:nth-child(4)");
await page.waitForFunction(() => document.querySelectorAll("#neighbours canvas").length === 8);
assert.equal(await page.locator("#map svg[role=img] g").count(), SHOWN);
await shootAll(page, "trained");
await checkControls(page, "training");
for (const [role, names] of [
  ["tab", ["Training", "One operation"]],
  ["button", ["Train", "Step", "Reset", "Drawn shapes", "Your images", "A folder", "Save", "Save losses", "Load"]],
  ["combobox", ["Batch size, images", "Learning rate", "Network", "Width"]],
  ["slider", ["Temperature", "Strength of augmentation"]],
  ["spinbutton", ["Seed"]],
]) {
  for (const name of names) assert.equal(await page.getByRole(role, { name: new RegExp(`^${name}( [0-9.]+)?$`) }).count(), 1, `${role} ${name}`);
}

// The settings change at the next step, and the chance value with the batch. A reset starts over.
await page.selectOption("#batchSize", "8");
const before = await steps(page);
await page.click("#step");
await page.waitForFunction((count) => Number(document.querySelector("#steps").textContent) > count, before);
assert.equal(await page.textContent("#chance"), Math.log(15).toFixed(3));
await page.selectOption("#batchSize", BATCH);
await page.click("#reset");
await page.waitForFunction(() => document.querySelector("#steps").textContent === "0");
assert.equal(await page.textContent("#chance"), Math.log(2 * Number(BATCH) - 1).toFixed(3));

await page.setInputFiles("#load", join(native, "encoder.safetensors"));
await page.waitForFunction(() => document.querySelector("#data").textContent.includes("encoder.safetensors"));
const ofLoaded = difference(await embed(page), features(join(native, "encoder.safetensors")));
say(`features of a file of the command line: largest difference ${ofLoaded.toExponential(1)}`);
assert.ok(ofLoaded <= 1e-4);
assert.equal(await steps(page), 0);

writeFileSync(join(folder, "notes.safetensors"), "no weights");
await page.setInputFiles("#load", join(folder, "notes.safetensors"));
await page.waitForSelector("#error:not([hidden])");
assert.match(await page.textContent("#error"), /not a safetensors file|ends early/);
await shoot(page, "error");

// Images of several sizes and formats: two classes of 12, and one that is transparent.
const drawn = await page.evaluate(() => Array.from({ length: 25 }, (_, i) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [24 + 37 * (i % 5), 20 + 53 * (i % 3)];
  const context = canvas.getContext("2d");
  if (i < 24) {
    context.fillStyle = `hsl(${i * 15} 60% 40%)`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "white";
    if (i % 2) context.fillRect(8, 8, 20, 20);
    else context.fillRect(4, 18, canvas.width, 4);
  }
  const format = ["png", "jpeg", "webp"][i % 3];
  return { name: `${i}.${i < 24 ? format : "png"}`, text: canvas.toDataURL(`image/${i < 24 ? format : "png"}`).split(",")[1] };
}));
const classes = ["bars", "squares"].map((name) => join(folder, "pictures", name));
classes.forEach((name) => mkdirSync(name, { recursive: true }));
const pictures = drawn.map(({ name, text }, i) => {
  const path = i < 24 ? join(classes[i % 2], name) : join(folder, name);
  writeFileSync(path, Buffer.from(text, "base64"));
  return path;
});
const [notes, cut, gif] = [join(classes[0], "notes.txt"), join(folder, "cut.png"), join(folder, "point.gif")];
writeFileSync(notes, "no image");
writeFileSync(cut, readFileSync(pictures[0]).subarray(0, 80));
writeFileSync(gif, Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"));

// As a browser reports files and folders that are dragged from outside, anywhere on the page.
const protocol = await page.context().newCDPSession(page);
const drop = async (...files) => {
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await protocol.send("Input.dispatchDragEvent", { type, x: 640, y: 60, data });
};
const refused = async (words, ...files) => {
  const images = await page.textContent("#data");
  await page.evaluate(() => { document.querySelector("#error").textContent = ""; });
  await drop(...files);
  await page.waitForFunction(() => document.querySelector("#error").textContent);
  assert.match(await page.textContent("#error"), words);
  assert.equal(await page.textContent("#data"), images);
};
const accepted = async (images, leftOut) => {
  await page.waitForFunction((words) => document.querySelector("#data").textContent === words, images);
  await page.waitForFunction((words) => document.querySelector("#leftOut").textContent === words, leftOut);
  assert.equal(await page.textContent("#error"), "");
};
await refused(/^No image could be read\. .* damaged: notes\.txt, cut\.png\. Choose PNG/, notes, cut);
await refused(/^There are 3 images, and the smallest batch has 8\./, ...pictures.slice(0, 3));
await shoot(page, "refused");
await drop(...pictures.slice(0, 12), pictures[24], gif, notes, cut);
await accepted("14 images, without classes", "Left out. Files that are no images, or are damaged: notes.txt, cut.png.");
assert.equal(await page.inputValue("#batchSize"), "8");
const planes = await page.evaluate(async () => [...(await (await import("./engine.js")).call("shownImages"))]);
const blank = Array.from({ length: 14 }, (_, i) => planes.slice(3072 * i, 3072 * (i + 1))).filter((image) => image.every((x) => x === 0));
assert.equal(blank.length, 2, "the PNG and the pixel of the GIF are transparent");
const inFolders = ["24 images in 2 classes", "Left out. Files that are no images, or are damaged: notes.txt."];
await drop(join(folder, "pictures"));
await accepted(...inFolders);
await page.click("#step");
await page.waitForFunction(() => document.querySelector("#steps").textContent === "1");
await idle(page);
assert.equal(await page.textContent("#error"), "");
await shoot(page, "own-images");
await page.setInputFiles("#images", pictures.slice(0, 9));
await accepted("9 images, without classes", "");
await page.setInputFiles("#folder", join(folder, "pictures"));
await accepted(...inFolders);

await page.focus("#tab-training");
await page.keyboard.press("ArrowRight");
await page.waitForFunction(() => document.querySelector("#source").textContent.includes("@compute"));
const choose = async (operation, variant) => {
  await page.selectOption("#operationName", { label: operation });
  await page.waitForFunction((name) => document.querySelector("#shapes-panel").textContent.includes(name), operation);
  if (variant) await page.selectOption("#variant", variant);
};
for (const [operation, variant] of [["gemm", "tiled64x64"], ["l2_normalize"], ["nt_xent"]]) {
  await choose(operation, variant);
  if (variant) await page.waitForFunction(() => document.querySelector("#tileText").textContent.includes("shared memory"));
  await page.click("#tab-check");
  await page.click("#check");
  await page.waitForFunction(() => !document.querySelector("#check").disabled && document.querySelector("#checkStatus").textContent !== "The passes run.");
  const status = await page.textContent("#checkStatus");
  say(`${operation}: ${status}`);
  assert.match(status, /^The gradients agree/, await page.textContent("#error"));
  if (!variant) continue;
  await shootAll(page, "operation-check");
  await checkControls(page, "operation, gradient check");
  for (const step of ["shapes", "kernel", "tiles"]) {
    await page.click(`#tab-${step}`);
    if (step === "tiles") await page.locator("#workgroup").fill("5");
    if (step === "tiles") await page.locator("#block").fill("2");
    await shootAll(page, `operation-${step}`);
    await checkControls(page, `operation, ${step}`);
  }
}
await page.click("#tab-tiles");
await shoot(page, "operation-workgroups");
assert.equal(await page.textContent("#error"), "");
assert.equal(served, loaded, "the page asked for files after it was loaded");
await browser.close();

// A browser without an adapter, and one without WebGPU.
const without = await launch(["--disable-gpu"]);
for (const [script, reason] of [
  ["", /no graphics adapter/],
  ["Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined });", /has no WebGPU/],
]) {
  const bare = await open(without, "", script);
  assert.equal(await bare.getAttribute("html", "data-state"), "missing");
  const message = await bare.textContent("#status");
  assert.match(message, reason);
  say(`without WebGPU: ${message}`);
  assert.ok(await bare.isHidden("#app"));
  await shootAll(bare, "no-webgpu");
}
await without.close();

assert.deepEqual(problems, [], "errors of the console");
server.close();
rmSync(folder, { recursive: true });
say("passed");
