// One operation: its shapes, kernels, tiles and gradient check.
import { attempt, element } from "./app.js";
import { agreementChart, escaped } from "./draw.js";
import { call } from "./engine.js";

/** Terms of a block of a tiled kernel, as shaders/shared/tile.wgsl has it. */
const BLOCK = 16;
/** Workgroups that the picture of a launch draws at most. */
const DRAWN = 1024;
const WITH_VARIANTS = ["gemm", "conv2d"];

let about;
/** The launches of the selected case, and of the product with the sizes of the page. */
let launches = [];
let productLaunches = [];

const shape = (sizes) => `[${sizes.join(", ")}]`;
const count = (value) => value.toLocaleString("en");
const options = (select, names) => select.replaceChildren(...names.map((name, i) => new Option(name, i)));

function table(head, rows) {
  const cells = (row) => row.map((cell) => (cell?.number === undefined ? `<td>${cell}</td>` : `<td class="number">${count(cell.number)}</td>`)).join("");
  return `<div class="wide"><table><thead><tr>${head.map((name) => `<th scope="col">${name}</th>`).join("")}</tr></thead>` +
    `<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</tbody></table></div>`;
}

const title = ({ shader, entryPoint }) => `${shader} / ${entryPoint}`;

function showShapes() {
  const leaves = about.shapes.map(shape).join(" and ");
  const passes = about.passes.map((calls, pass) => {
    const rows = calls.map(({ name, inputs, outputs, flops, bytes, launches }) => [
      `<code>${escaped(name)}</code>`, inputs.map(shape).join("<br>"), outputs.map(shape).join("<br>"),
      { number: flops }, { number: bytes }, launches.map((launch) => `<code>${escaped(title(launch))}</code>`).join("<br>")]);
    return `<h2>${pass ? "Backward pass" : "Forward pass"}</h2>` +
      table(["operation", "reads", "writes", "FLOPs", "bytes", "kernels"], rows);
  });
  element("shapes-panel").innerHTML = `<p>The arguments with a gradient have the shapes ${leaves}. Bytes ` +
    `count each tensor once. FLOPs are those of the formula.</p>${passes.join("")}`;
}

async function showKernel() {
  const launch = launches[element("kernelName").value];
  if (!launch) {
    element("kernelAbout").textContent = "This case launches no kernel.";
    element("source").textContent = "";
    return;
  }
  const { workgroupSize, workgroupBytes, bindings } = launch;
  const rows = bindings.map(({ name, writes, bytes }) => [`<code>${escaped(name)}</code>`, writes ? "written" : "read", { number: bytes }]);
  element("kernelAbout").innerHTML = `<p>A workgroup has ${workgroupSize.join(" x ")} invocations and ${count(workgroupBytes)} bytes ` +
    `of shared memory. The entry point is <code>${escaped(launch.entryPoint)}</code>.</p>${table(["tensor", "", "bytes bound"], rows)}`;
  const source = await call("shader", launch.shader);
  element("source").innerHTML = source.split("\n").map((line) => {
    const at = line.indexOf("//");
    return at < 0 ? escaped(line) : `${escaped(line.slice(0, at))}<span class="comment">${escaped(line.slice(at))}</span>`;
  }).join("\n");
  element("source").scrollTop = 0;
}

const isProduct = () => element("operationName").selectedOptions[0]?.text === "gemm";
const chosen = () => (isProduct() ? productLaunches : launches)[element("launch").value];

/** Rows and columns of a tile, by the name of the shader. */
function tileSizes(shader) {
  const size = /_(\d+)x(\d+)/.exec(shader);
  if (size) return [Number(size[1]), Number(size[2])];
  return /^gemm_(plain|bias)/.test(shader) ? [8, 512] : undefined;
}

async function measureProduct() {
  const sizes = ["rows", "columns", "terms"].map((id) => element(id));
  if (!sizes.every((input) => input.reportValidity())) return;
  const calls = JSON.parse(await call("product", ...sizes.map((input) => Number(input.value)), element("variant").value));
  productLaunches = calls.flatMap((each) => each.launches);
  options(element("launch"), productLaunches.map(title));
  // The product follows the launches that pack its factors.
  element("launch").value = Math.max(0, productLaunches.findLastIndex(({ shader }) => tileSizes(shader)));
  startTiles();
}

function startTiles() {
  const launch = chosen();
  const [x, y] = launch?.workgroups ?? [1, 1];
  element("workgroup").max = x * y - 1;
  element("workgroup").value = 0;
  const hasBlocks = isProduct() && launch && tileSizes(launch.shader);
  element("blockField").hidden = !hasBlocks;
  if (hasBlocks) {
    const terms = Number(element("terms").value);
    element("block").max = Math.ceil(terms / blockTerms(launch)) - 1;
    element("block").value = 0;
  }
  showTiles();
}

/** Terms that a workgroup adds at a time: a tiled kernel loads a block, the plain one loads each. */
const blockTerms = (launch) => (/_\d+x\d+/.test(launch.shader) ? BLOCK : 1);

export function showTiles() {
  const launch = chosen();
  if (!launch) {
    element("tileText").textContent = "This case launches no kernel.";
    element("tiles").innerHTML = "";
    return;
  }
  const workgroup = Number(element("workgroup").value);
  const total = launch.workgroups[0] * launch.workgroups[1];
  const lanes = launch.workgroupSize.reduce((a, b) => a * b);
  document.querySelector("output[for=workgroup]").textContent = `${workgroup + 1} of ${total}`;
  const tile = isProduct() && tileSizes(launch.shader);
  if (tile) showProduct(launch, tile, workgroup, lanes);
  else showWorkgroups(launch, workgroup, total, lanes);
}

function showWorkgroups(launch, workgroup, total, lanes) {
  element("tileText").textContent = `${count(total)} workgroups of ${lanes} invocations, ${count(total * lanes)} in all. ` +
    `Workgroup ${workgroup + 1} has the invocations ${count(workgroup * lanes)} to ${count((workgroup + 1) * lanes - 1)}.`;
  const drawn = Math.min(total, DRAWN);
  const columns = Math.min(drawn, Math.max(8, Math.ceil(Math.sqrt(2 * drawn))));
  const size = 720 / Math.max(columns, 8);
  const cells = Array.from({ length: drawn }, (_, i) =>
    `<rect class="${i === workgroup ? "now" : "cell"}" x="${(i % columns) * size + 1}" y="${Math.floor(i / columns) * size + 1}" width="${size - 2}" height="${size - 2}"/>`);
  element("tiles").innerHTML = `<svg viewBox="0 0 722 ${Math.ceil(drawn / columns) * size + 2}" role="img" aria-label="Workgroups">${cells.join("")}</svg>` +
    (drawn < total ? `<p class="faint">The first ${drawn} are drawn.</p>` : "");
}

/** C = A B: the tile of a workgroup, and the block of A and of B that it adds. */
function showProduct(launch, [height, width], workgroup, lanes) {
  const [m, n, k] = ["rows", "columns", "terms"].map((id) => Number(element(id).value));
  const [rowTiles, columnTiles] = [Math.ceil(m / height), Math.ceil(n / width)];
  const terms = blockTerms(launch);
  const first = Number(element("block").value) * terms;
  const last = Math.min(first + terms, k);
  document.querySelector("output[for=block]").textContent = `${first / terms + 1} of ${Math.ceil(k / terms)}`;
  const [row, column] = place(workgroup, rowTiles, columnTiles, terms > 1);
  const isSurplus = column >= columnTiles;
  const [top, bottom] = [row * height, Math.min((row + 1) * height, m)];
  const [left, right] = [column * width, Math.min((column + 1) * width, n)];
  element("tileText").textContent = isSurplus
    ? `Workgroup ${workgroup + 1} adds terms of another part of the sum, or has no tile.`
    : `Workgroup ${workgroup + 1} computes rows ${top} to ${bottom - 1} and columns ${left} to ${right - 1} of C with ${lanes} invocations. ` +
      (terms > 1
        ? `It loads the terms ${first} to ${last - 1} of A and B into shared memory, and each invocation adds their products for ${(height * width) / lanes} elements.`
        : `It has no shared memory: each invocation loads term ${first} of 8 rows of A and of 8 columns of B into registers, and adds 64 products.`);
  const gap = 28;
  // The picture has the pixels of its place, so its text has the size of other text.
  const available = Math.min(element("tiles").clientWidth || 640, 720);
  const scale = (available - gap - 4) / (n + k);
  const [ax, by] = [0, 20];
  const [cx, cy] = [k * scale + gap, by + k * scale + gap];
  const parts = [
    `<text x="${ax}" y="${cy - 6}">A: ${m} x ${k}</text><rect class="cell" x="${ax}" y="${cy}" width="${k * scale}" height="${m * scale}"/>`,
    `<text x="${cx}" y="14">B: ${k} x ${n}</text><rect class="cell" x="${cx}" y="${by}" width="${n * scale}" height="${k * scale}"/>`,
    `<text x="${cx}" y="${cy - 6}">C: ${m} x ${n}, tiles of ${height} x ${width}</text>`,
  ];
  for (let i = 0; i < rowTiles * columnTiles; i++) {
    const [r, c] = [Math.floor(i / columnTiles), i % columnTiles];
    const [h, w] = [Math.min(height, m - r * height), Math.min(width, n - c * width)];
    parts.push(`<rect class="${!isSurplus && r === row && c === column ? "now" : "cell"}" x="${cx + c * width * scale}" y="${cy + r * height * scale}" width="${w * scale}" height="${h * scale}"/>`);
  }
  if (!isSurplus) {
    const [rows, columns] = [(bottom - top) * scale, (right - left) * scale];
    parts.push(
      `<rect class="read" x="${ax}" y="${cy + top * scale}" width="${k * scale}" height="${rows}"/>`,
      `<rect class="read" x="${cx + left * scale}" y="${by}" width="${columns}" height="${k * scale}"/>`,
      `<rect class="strip" x="${ax + first * scale}" y="${cy + top * scale}" width="${Math.max(1, (last - first) * scale)}" height="${rows}"/>`,
      `<rect class="strip" x="${cx + left * scale}" y="${by + first * scale}" width="${columns}" height="${Math.max(1, (last - first) * scale)}"/>`);
  }
  const [pictureWidth, pictureHeight] = [cx + n * scale + 4, cy + m * scale + 4];
  element("tiles").innerHTML = `<svg class="own" width="${pictureWidth}" height="${pictureHeight}" viewBox="-2 0 ${pictureWidth} ${pictureHeight}" role="img" aria-label="Tiles of a product">${parts.join("")}</svg>`;
}

/** The tile of a workgroup: row tiles run fastest, in bands of eight in tiled kernels. */
function place(workgroup, rowTiles, columnTiles, isTiled) {
  if (!isTiled) return [workgroup % rowTiles, Math.floor(workgroup / rowTiles)];
  const tile = workgroup % (rowTiles * columnTiles);
  if (workgroup !== tile) return [0, columnTiles];
  const band = Math.floor(tile / (8 * columnTiles));
  const height = Math.min(8, rowTiles - 8 * band);
  const within = tile - band * 8 * columnTiles;
  return [8 * band + (within % height), Math.floor(within / height)];
}

async function runCheck() {
  element("check").disabled = true;
  element("checkStatus").textContent = "The passes run.";
  element("checkResult").innerHTML = "";
  try {
    await record();
    const started = performance.now();
    const { leaves, tolerance } = JSON.parse(await call("gradients"));
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const isGood = leaves.every(({ error }) => error <= tolerance);
    element("checkStatus").innerHTML = `<span class="${isGood ? "good" : "bad"}">${isGood ? "The gradients agree" : "The gradients differ"}</span>: ` +
      `${leaves.map(({ error }) => (error === null ? "not a number" : error.toExponential(1))).join(" and ")} relative to their length; ${tolerance} is allowed. ${seconds} s.`;
    element("checkResult").innerHTML = leaves.map(({ tape, differences }, leaf) => {
      const rows = tape.slice(0, 8).map((value, i) => [{ number: i }, value.toPrecision(5), differences[i].toPrecision(5), (value - differences[i]).toExponential(1)]);
      return `<h2>Argument ${leaf + 1}, ${shape(about.shapes[leaf])}</h2><div class="fields">${agreementChart(tape, differences)}` +
        `${table(["element", "backward pass", "differences", "error"], rows)}</div>`;
    }).join("");
  } finally {
    element("check").disabled = false;
  }
}

async function record() {
  const name = element("operationName").selectedOptions[0].text;
  const variant = WITH_VARIANTS.includes(name) ? element("variant").value : "";
  about = JSON.parse(await call("operation", name, Number(element("operationCase").value), variant));
}

async function showCase() {
  element("checkStatus").textContent = "";
  element("checkResult").innerHTML = "";
  await record();
  launches = about.passes.flat().flatMap((each) => each.launches);
  const seen = new Set();
  options(element("kernelName"), launches.map(title));
  [...element("kernelName").options].forEach((option) => (seen.has(option.text) ? option.remove() : seen.add(option.text)));
  showShapes();
  await showKernel();
  for (const field of document.querySelectorAll("#tileFields .product")) field.hidden = !isProduct();
  if (isProduct()) await measureProduct();
  else {
    options(element("launch"), launches.map(title));
    startTiles();
  }
}

async function showOperation() {
  options(element("operationCase"), [""]);
  element("variantField").hidden = !WITH_VARIANTS.includes(element("operationName").selectedOptions[0].text);
  await record();
  options(element("operationCase"), about.cases.map((name) => name.replace(/[\s,]+$/, "")));
  await showCase();
}

export async function startOperation() {
  const on = (id, event, action) => element(id).addEventListener(event, () => attempt(action));
  options(element("operationName"), await call("operations"));
  const variants = await call("variants");
  element("variant").replaceChildren(new Option("as the table selects", ""), ...variants.map((name) => new Option(name, name)));
  on("operationName", "change", showOperation);
  on("operationCase", "change", showCase);
  on("variant", "change", showCase);
  on("kernelName", "change", showKernel);
  on("launch", "change", startTiles);
  on("workgroup", "input", showTiles);
  on("block", "input", showTiles);
  for (const id of ["rows", "columns", "terms"]) on(id, "change", measureProduct);
  on("check", "click", runCheck);
  // The picture of a product is drawn in the pixels of its place.
  addEventListener("resize", showTiles);
  await showOperation();
}
