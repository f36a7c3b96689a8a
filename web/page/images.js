// Reads images of the user: each becomes 32 x 32 pixels of its centre, as planes of bytes.
import { SIDE } from "./draw.js";

/** The files of a dropped folder and its folders. */
async function filesOf(entry, folder) {
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), folder }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A call returns some of the entries, and none at the end.
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return found;
    for (const child of part) found.push(...(await filesOf(child, entry.name)));
  }
}

async function pixelsOf(file, context) {
  const image = await createImageBitmap(file);
  const side = Math.min(image.width, image.height);
  // The canvas has the image before, which would show through.
  context.clearRect(0, 0, SIDE, SIDE);
  context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  image.close();
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  const planes = new Uint8Array(3 * SIDE * SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * SIDE * SIDE + i] = data[4 * i + channel];
  }
  return planes;
}

/**
 * Decodes dropped entries, or `{file, folder}`. The class of an image is its folder. `leftOut` has the
 * names of files that are no images.
 */
export async function readImages(entries) {
  const files = [];
  for (const entry of entries) {
    if (entry.file instanceof File) files.push(entry);
    else if (entry.isFile !== undefined) files.push(...(await filesOf(entry)));
  }
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const [images, leftOut] = [[], []];
  for (const { file, folder } of files) {
    try {
      images.push({ planes: await pixelsOf(file, context), folder });
    } catch {
      leftOut.push(file.name);
    }
  }
  const classes = [...new Set(images.map(({ folder }) => folder))].sort();
  const isLabelled = classes.length > 1 && !classes.includes(undefined);
  const pixels = new Uint8Array(images.length * 3 * SIDE * SIDE);
  images.forEach(({ planes }, i) => pixels.set(planes, i * planes.length));
  return {
    pixels,
    labels: isLabelled ? Uint32Array.from(images, ({ folder }) => classes.indexOf(folder)) : new Uint32Array(),
    classes: isLabelled ? classes : [],
    leftOut,
  };
}
