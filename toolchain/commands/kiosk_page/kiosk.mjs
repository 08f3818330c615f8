// The page of `glyphpress kiosk`: strokes on a pad become a glyph, which two models read.

import { Blank, glyph, picture } from "/calibration/glyph.mjs";
import { Marks } from "/kiosk/marks.mjs";
import { best, openModel } from "/kiosk/model.mjs";

const SIZE = 320;
const PEN = 20;
const STEP = 10;
// A module with one SIMD instruction.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const pad = document.querySelector("#pad");
const problem = document.querySelector("#problem");
const verdict = document.querySelector("#verdict");
const sides = [...document.querySelectorAll("article")];
const state = { strokes: [], open: new Map(), models: [], loaded: [null, null], readings: [null, null], turn: 0 };
const pen = { x: SIZE / 2, y: SIZE / 2, down: null, shown: false };

function field(side, name) {
  return sides[side].querySelector(`[data-field=${name}]`);
}

function complain(text) {
  const line = document.createElement("span");
  line.textContent = text;
  if (problem.childNodes.length) problem.append(document.createElement("br"));
  problem.append(line);
  problem.hidden = false;
}

function draw(context, colour) {
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const points of [...state.strokes, ...state.open.values()]) {
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
    context.stroke();
  }
}

function show() {
  const context = pad.getContext("2d");
  context.clearRect(0, 0, SIZE, SIZE);
  draw(context, getComputedStyle(pad).color);
  if (!pen.shown) return;
  context.beginPath();
  context.arc(pen.x, pen.y, 6, 0, 7);
  context.fillStyle = pen.down ? "#dc2626" : "#2563eb";
  context.fill();
}

// The strokes as the models' preparation gets them: black on white.
function drawing() {
  const sheet = new OffscreenCanvas(SIZE, SIZE).getContext("2d", { willReadFrequently: true });
  sheet.fillStyle = "white";
  sheet.fillRect(0, 0, SIZE, SIZE);
  draw(sheet, "black");
  const { data } = sheet.getImageData(0, 0, SIZE, SIZE);
  return picture(SIZE, SIZE, Uint8Array.from({ length: SIZE * SIZE }, (_, at) => data[4 * at]));
}

function emptied(text) {
  state.readings = [null, null];
  for (const [side, article] of sides.entries()) {
    article.classList.remove("differ");
    field(side, "reading").textContent = "–";
    field(side, "answers").replaceChildren();
    article.querySelector("canvas").getContext("2d").clearRect(0, 0, 28, 28);
  }
  verdict.classList.remove("differ");
  verdict.textContent = text;
}

async function read() {
  state.turn += 1;
  document.body.dataset.busy = "yes";
  const turn = state.turn;
  await readNow(turn);
  if (turn === state.turn) document.body.dataset.busy = "no";
}

async function readNow(turn) {
  show();
  if (!state.strokes.length) return emptied("Write a character.");
  let pixels;
  try {
    ({ pixels } = glyph(drawing()));
  } catch (error) {
    if (error instanceof Blank) return emptied("There is no ink to read.");
    throw error;
  }
  for (const side of [0, 1]) {
    const model = state.loaded[side];
    if (!model) continue;
    const answer = await model.read(pixels);
    if (turn !== state.turn) return undefined;
    present(side, model, pixels, answer);
  }
  return compare();
}

function present(side, model, pixels, { logits, milliseconds }) {
  const answers = best(logits, model.facts.classes);
  state.readings[side] = { pixels: [...pixels], logits, text: answers[0][0], answers };
  field(side, "reading").textContent = answers[0][0];
  field(side, "answers").replaceChildren(
    ...answers.map(([name, share]) => {
      const row = document.createElement("li");
      const bar = document.createElement("progress");
      bar.value = share;
      const percent = `${(share * 100).toFixed(1)} %`;
      bar.setAttribute("aria-label", `${name}: ${percent}`);
      const texts = [name, percent].map((text) => Object.assign(document.createElement("span"), { textContent: text }));
      row.append(texts[0], bar, texts[1]);
      return row;
    }),
  );
  const image = new ImageData(28, 28);
  model.seen(pixels).forEach((level, at) => image.data.set([level, level, level, 255], 4 * at));
  sides[side].querySelector("canvas").getContext("2d").putImageData(image, 0, 0);
  field(side, "facts").textContent = `${time(milliseconds)}, ${Math.round(model.facts.bytes / 1000)} KB`;
}

function time(milliseconds) {
  return milliseconds < 1 ? `${Math.round(milliseconds * 1000)} µs` : `${milliseconds.toFixed(1)} ms`;
}

function compare() {
  const [left, right] = state.readings;
  if (!left || !right) {
    verdict.textContent = left || right ? "Only one model can read here." : "No model can read here.";
    return;
  }
  const differ = left.text !== right.text;
  verdict.textContent = differ ? `They differ: ${left.text} and ${right.text}` : `Both read ${left.text}`;
  for (const part of [verdict, ...sides]) part.classList.toggle("differ", differ);
}

// What a person can mark as wrong: the glyph, and what each model that runs read.
function written() {
  const read = state.readings.filter(Boolean);
  const model = state.loaded.find(Boolean);
  return read.length ? { classes: model.facts.classes, characters: [{ pixels: read[0].pixels, texts: read.map(({ text }) => text) }] } : null;
}

async function choose(side) {
  const number = Number(sides[side].querySelector("select").value);
  const facts = state.models[number];
  state.loaded[side] = null;
  state.readings[side] = null;
  field(side, "facts").textContent = "";
  try {
    if (facts.problem) throw new Error(facts.problem);
    const device = document.querySelector("#webgpu").checked ? "webgpu" : "wasm";
    state.loaded[side] = await openModel(number, facts, device);
  } catch (error) {
    field(side, "reading").textContent = "–";
    field(side, "answers").replaceChildren();
    field(side, "facts").textContent = "This file cannot be run; see above.";
    complain(error.message.includes(facts.name) ? error.message : `${facts.name}: ${error.message}`);
  }
}

function at(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
}

function ended(event) {
  const points = state.open.get(event.pointerId);
  if (!points) return;
  state.open.delete(event.pointerId);
  state.strokes.push(points);
  read();
}

pad.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  event.preventDefault();
  pad.focus({ preventScroll: true });
  pen.shown = false;
  try {
    pad.setPointerCapture(event.pointerId);
  } catch {
    // A pointer that has ended meanwhile cannot be captured.
  }
  state.open.set(event.pointerId, [at(event)]);
  show();
});
pad.addEventListener("pointermove", (event) => {
  const points = state.open.get(event.pointerId);
  if (!points) return;
  for (const each of event.getCoalescedEvents?.() ?? []) points.push(at(each));
  points.push(at(event));
  show();
});
pad.addEventListener("pointerup", ended);
pad.addEventListener("pointercancel", ended);

function undo() {
  state.strokes.pop();
  read();
}

function clear() {
  state.strokes = [];
  pen.down = null;
  read();
}

document.querySelector("#undo").addEventListener("click", undo);
document.querySelector("#clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select")) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") undo();
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
});
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
pad.addEventListener("keydown", (event) => {
  if (event.key === " ") {
    if (pen.down) pen.down = null;
    else state.strokes.push((pen.down = [[pen.x, pen.y]]));
  } else if (event.key in MOVES) {
    pen.x = Math.min(Math.max(pen.x + MOVES[event.key][0], 0), SIZE);
    pen.y = Math.min(Math.max(pen.y + MOVES[event.key][1], 0), SIZE);
    pen.down?.push([pen.x, pen.y]);
  } else return;
  event.preventDefault();
  pen.shown = true;
  read();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);

async function start() {
  if (!WebAssembly?.validate(Uint8Array.from(SIMD))) {
    complain("This browser has no WebAssembly SIMD, which the models need; use Chrome 91, Firefox 89, Safari 16.4 or newer.");
    verdict.textContent = "The models cannot run here.";
    return;
  }
  const { models, first, save } = await (await fetch("/models.json")).json();
  state.models = models;
  new Marks(document.querySelector("#marks"), save, () => written());
  const adapter = await navigator.gpu?.requestAdapter();
  document.querySelector("#gpu").hidden = !adapter || adapter.info?.isFallbackAdapter !== false;
  for (const [side, article] of sides.entries()) {
    const list = article.querySelector("select");
    list.replaceChildren(...models.map(({ name }, number) => new Option(name, number)));
    list.value = String(models.findIndex(({ name }) => name === first[side]));
    list.addEventListener("change", () => choose(side).then(read));
    await choose(side);
  }
  document.querySelector("#webgpu").addEventListener("change", async () => {
    for (const side of [0, 1]) await choose(side);
    await read();
  });
  await read();
  document.body.dataset.ready = "true";
}

globalThis.kiosk = state;
start().catch((error) => complain(error.message));
