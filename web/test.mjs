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
const SHOWN = 300;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };

const server = createServer((request, response) => {
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
run("simclr", "--data", "shapes", "--width", WIDTH, "--batch-size", BATCH, "--learning-rate", RATE, "--temperature", TEMPERATURE, "--steps", "5", "--seed", "0", "--device", "cpu", "--out", native);
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

/** Screenshots in light and dark, and on a phone, where nothing is wider than the screen. */
async function shootAll(page, name) {
  await shoot(page, name);
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(page, `${name}-dark`);
  await page.setViewportSize({ width: 390, height: 844 });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `${name} is ${width} pixels wide on a phone of 390`);
  await shoot(page, `${name}-phone-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  await shoot(page, `${name}-phone`);
  await page.setViewportSize({ width: 1280, height: 900 });
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
const page = await open(browser, `?width=${WIDTH}&batchSize=${BATCH}&learningRate=${RATE}&temperature=${TEMPERATURE}`);
assert.equal(await page.getAttribute("html", "data-state"), "ready", await page.textContent("#status") + (await page.textContent("#error")));
say(await page.textContent("#status"));
// Everything is loaded: the rest works without a network.
await page.context().setOffline(true);
await shootAll(page, "start");

// By keyboard: the first Tab from the tabs reaches the button that trains.
await page.focus("#tab-training");
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.id), "run");
await page.evaluate(() => {
  window.longest = 0;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
  }).observe({ type: "longtask" });
});
await page.keyboard.press("Enter");
await page.waitForFunction((count) => Number(document.querySelector("#steps").textContent) >= count || !document.querySelector("#error").hidden, STEPS);
assert.equal(await page.textContent("#error"), "");
await page.keyboard.press("Enter");
await idle(page);
say(`the page's longest task while training: ${(await page.evaluate(() => window.longest)).toFixed(0)} ms`);
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

// The settings change at the next step, and the chance value with the batch.
await page.selectOption("#batchSize", "8");
const before = await steps(page);
await page.click("#step");
await page.waitForFunction((count) => Number(document.querySelector("#steps").textContent) > count, before);
assert.equal(await page.textContent("#chance"), Math.log(15).toFixed(3));
await page.selectOption("#batchSize", BATCH);

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

// A folder of images: two classes of 12.
const pictures = await page.evaluate(() => Array.from({ length: 24 }, (_, i) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [48, 40];
  const context = canvas.getContext("2d");
  context.fillStyle = `hsl(${i * 15} 60% 40%)`;
  context.fillRect(0, 0, 48, 40);
  context.fillStyle = "white";
  if (i % 2) context.fillRect(8, 8, 20, 20);
  else context.fillRect(4, 18, 40, 4);
  return canvas.toDataURL().split(",")[1];
}));
for (const name of ["bars", "squares"]) mkdirSync(join(folder, "pictures", name), { recursive: true });
pictures.forEach((text, i) => writeFileSync(join(folder, "pictures", i % 2 ? "squares" : "bars", `${i}.png`), Buffer.from(text, "base64")));
writeFileSync(join(folder, "pictures", "bars", "notes.txt"), "no image");
await page.setInputFiles("#folder", join(folder, "pictures"));
await page.waitForFunction(() => document.querySelector("#data").textContent === "24 images in 2 classes");
await page.click("#step");
await page.waitForFunction(() => document.querySelector("#steps").textContent === "1");
await idle(page);
assert.equal(await page.textContent("#error"), "");
await shoot(page, "own-images");

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
  for (const step of ["shapes", "kernel", "tiles"]) {
    await page.click(`#tab-${step}`);
    if (step === "tiles") await page.locator("#workgroup").fill("5");
    if (step === "tiles") await page.locator("#block").fill("2");
    await shootAll(page, `operation-${step}`);
  }
}
await page.click("#tab-tiles");
await shoot(page, "operation-workgroups");
assert.equal(await page.textContent("#error"), "");
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
