"use strict";

// Tables: a click on a header sorts by its column, the better values first; the next click turns the order.

const collator = new Intl.Collator("en", { numeric: true });

function keyOf(cell) {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent : Number(value.replace("inf", "Infinity"));
}

function compareKeys(a, b, sign) {
  if (typeof a === "string") return sign * collator.compare(a, b);
  if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what does not exist stays at the end
  return sign * (a - b); // infinity less infinity is no number, which a sort takes as equal
}

function sortBy(header) {
  const table = header.closest("table");
  const first = header.dataset.better === "higher" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row.cells[header.cellIndex]) }));
  rows.sort((a, b) => compareKeys(a.key, b.key, sign));
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

// Images: two versions on both sides of a divider, one region of all versions magnified, the errors.

const REGION = 48; // pixels of an image, each way

function chooseVersions(stage, selects, images) {
  const [left, right] = selects.map((select) => images[select.value]);
  for (const image of images) {
    image.classList.toggle("left", image === left);
    image.classList.toggle("off", image !== left && image !== right);
  }
}

function moveDivider(stage, slider) {
  stage.style.setProperty("--split", `${slider.value}%`);
  slider.setAttribute("aria-valuetext", `${Math.round(slider.value)} percent`);
}

// Shows the region around (x, y), in pixels of the image, and returns the centre of what is shown.
function magnify(stage, images, lenses, x, y) {
  const { naturalWidth: width, naturalHeight: height } = images[0];
  const size = Math.min(REGION, width, height);
  const left = Math.max(0, Math.min(width - size, Math.round(x - size / 2)));
  const top = Math.max(0, Math.min(height - size, Math.round(y - size / 2)));
  lenses.forEach((lens, i) => {
    lens.width = lens.height = size;
    lens.getContext("2d").drawImage(images[i], left, top, size, size, 0, 0, size, size);
  });
  const frame = stage.querySelector(".frame").style;
  frame.left = `${(100 * left) / width}%`;
  frame.top = `${(100 * top) / height}%`;
  frame.width = `${(100 * size) / width}%`;
  frame.height = `${(100 * size) / height}%`;
  return [left + size / 2, top + size / 2];
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function followPointerAndKeys(scene, stage, images) {
  const group = scene.querySelector(".lenses");
  const lenses = [...group.querySelectorAll("canvas")];
  let place = magnify(stage, images, lenses, Number(scene.dataset.x), Number(scene.dataset.y));
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * images[0].naturalWidth;
    const y = ((event.clientY - box.top) / box.height) * images[0].naturalHeight;
    place = magnify(stage, images, lenses, x, y);
  };
  stage.addEventListener("pointermove", follow);
  stage.addEventListener("pointerdown", follow);
  group.addEventListener("keydown", (event) => {
    const arrow = event.target === group && ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault(); // the page stays where it is
    const step = REGION / 4;
    place = magnify(stage, images, lenses, place[0] + step * arrow[0], place[1] + step * arrow[1]);
  });
}

const STOPS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // matplotlib's magma
const AMPLIFICATION = 8;

function rampColor(value) {
  const position = (Math.min(value, 255) / 255) * (STOPS.length - 1);
  const index = Math.min(Math.floor(position), STOPS.length - 2);
  return STOPS[index].map((from, i) => from + (position - index) * (STOPS[index + 1][i] - from));
}

function readPixels(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// Draws |SR - HR|, the mean of the channels; returns its mean over the image.
function drawError(canvas, sr, hr) {
  const map = new ImageData(hr.width, hr.height);
  let sum = 0;
  for (let i = 0; i < map.data.length; i += 4) {
    let error = 0;
    for (let c = i; c < i + 3; c++) error += Math.abs(sr.data[c] - hr.data[c]) / 3;
    sum += error;
    map.data.set([...rampColor(AMPLIFICATION * error), 255], i);
  }
  canvas.width = map.width;
  canvas.height = map.height;
  canvas.getContext("2d").putImageData(map, 0, 0);
  return sum / (map.width * map.height);
}

function drawErrors(details, images) {
  const hr = readPixels(images[images.length - 1]);
  for (const canvas of details.querySelectorAll("canvas")) {
    const mean = drawError(canvas, readPixels(images[canvas.dataset.version]), hr);
    canvas.parentElement.querySelector(".score").textContent = `mean ${mean.toFixed(2)} of 255`;
  }
}

async function liven(scene) {
  const stage = scene.querySelector(".stage");
  const images = [...stage.querySelectorAll("img")];
  const slider = stage.querySelector("input");
  if (slider) {
    const selects = [...scene.querySelectorAll("select")];
    for (const select of selects) select.addEventListener("change", () => chooseVersions(stage, selects, images));
    slider.addEventListener("input", () => moveDivider(stage, slider));
    chooseVersions(stage, selects, images);
    moveDivider(stage, slider); // a browser that comes back to the page may have kept its value
  }
  const errors = scene.querySelector(".errors");
  if (errors) errors.addEventListener("toggle", () => errors.open && drawErrors(errors, images), { once: true });
  await Promise.all(images.map((image) => image.decode()));
  followPointerAndKeys(scene, stage, images);
}

document.querySelectorAll(".scene").forEach(liven);
