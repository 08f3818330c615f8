// The page of `glyphpress kiosk`: what is written on a pad is cut into characters, which two models read.

import { Blank, picture } from "/calibration/glyph.mjs";
import { cut } from "/calibration/words.mjs";
import { adapter } from "/page/adapter.mjs";
import { Marks } from "/kiosk/marks.mjs";
import { openModel } from "/kiosk/model.mjs";
import { Pad } from "/kiosk/pad.mjs";
import { readWriting } from "/kiosk/reading.mjs";
import { card, showText, time } from "/kiosk/view.mjs";

// A module with one SIMD instruction.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const NOTE = /^(INFO: |WARNING: \[npu_registry\.cc)/;
const EMPTY = "Write something.";
const problem = document.querySelector("#problem");
const verdict = document.querySelector("#verdict");
const section = document.querySelector("#characters");
const sides = [...document.querySelectorAll("article")];
const pad = new Pad(document.querySelector("#pad"));
// models: the facts of every file. loaded: the two that are shown. writing, readings: of the last picture, or null.
const state = { pad, models: [], loaded: [null, null], writing: null, readings: [null, null], turn: 0, gpu: null };
let marks;

// LiteRT writes the notes of its start as errors, among which a real one would be overlooked.
const report = console.error;
console.error = (...words) => (NOTE.test(words[0]) ? console.debug : report)(...words);

function field(side, name) {
  return sides[side].querySelector(`[data-field=${name}]`);
}

function complain(text) {
  const lines = [...problem.childNodes].map((line) => line.textContent);
  if (lines.includes(text)) return;
  problem.append(Object.assign(document.createElement("span"), { textContent: text }));
  problem.hidden = false;
}

function emptied(text) {
  Object.assign(state, { writing: null, readings: [null, null] });
  marks?.show(false);
  for (const side of [0, 1]) {
    field(side, "reading").textContent = "–";
    if (state.loaded[side]) field(side, "facts").textContent = about(state.loaded[side]);
  }
  section.hidden = true;
  section.querySelector("ol").replaceChildren();
  verdict.className = "";
  verdict.textContent = text;
}

// The tasks that run models, one after another: a runtime cannot run a model twice at a time.
let tasks = Promise.resolve();

function queue(task) {
  document.body.dataset.busy = "yes";
  state.turn += 1;
  const { turn } = state;
  const done = tasks.then(() => task(turn)).catch((error) => complain(error.message));
  tasks = done.then(() => {
    if (turn === state.turn) document.body.dataset.busy = "no";
  });
  return tasks;
}

function read() {
  document.querySelector("#hint").hidden = pad.strokes.length > 0;
  // A disabled button would lose the focus.
  document.querySelector("#undo").ariaDisabled = String(!pad.strokes.length && !pad.cleared.length);
  return queue(readNow);
}

// Read what is written, unless it has changed again since the task was queued.
async function readNow(turn) {
  const stale = () => turn !== state.turn;
  if (stale()) return undefined;
  if (!state.loaded.some(Boolean)) return emptied("No model can read here.");
  if (!pad.strokes.length) return emptied(EMPTY);
  let writing;
  try {
    writing = cut(pad.picture());
  } catch (error) {
    if (error instanceof Blank) return emptied(`Nothing to read: ${error.message}.`);
    throw error;
  }
  const readings = [];
  for (const model of state.loaded) {
    readings.push(model && (await readWriting(model, writing, stale)));
    if (stale()) return undefined;
  }
  Object.assign(state, { writing, readings });
  return present(writing, readings);
}

function present(writing, readings) {
  const there = [0, 1].filter((side) => readings[side]);
  const differ = writing.characters.map((_, row) => there.length === 2 && readings[0].characters[row].read !== readings[1].characters[row].read);
  for (const side of there) {
    showText(field(side, "reading"), writing, readings[side], differ);
    const { all, each } = readings[side].milliseconds;
    const { length } = writing.characters;
    const took = length === 1 ? time(each) : `${time(each)} per character, ${time(all)} for all ${length}`;
    field(side, "facts").textContent = `${took} · ${about(state.loaded[side])}`;
  }
  const list = section.querySelector("ol");
  list.replaceChildren(
    ...writing.characters.map((character, row) => {
      const shown = there.map((side) => ({ name: titleOf(side), model: state.loaded[side], character: readings[side].characters[row] }));
      return card(row, character, shown, differ[row], (number, text) => marks.mark(text, number));
    }),
  );
  section.hidden = false;
  marks.show(true);
  verdict.className = differ.some(Boolean) ? "differ" : "";
  verdict.textContent = sentence(readings, there, differ);
}

function sentence(readings, there, differ) {
  const shown = there.map((side) => readings[side].text.replaceAll("\n", " / ") || "nothing");
  if (there.length < 2) return `Only the ${titleOf(there[0])} model runs: ${shown[0]}`;
  const count = differ.filter(Boolean).length;
  if (!count) return `Both read ${shown[0]}`;
  const places = differ.length === 1 ? "" : ` in ${count} of ${differ.length} characters`;
  return `They differ${places}: ${shown[0]} and ${shown[1]}`;
}

// A file that was adopted is neither; one that cannot be read has the title of its side.
function titleFor({ recipe }, side) {
  if (recipe === "foreign") return side ? "Second" : "First";
  return recipe === "float" || (!recipe && !side) ? "Float" : "Pressed";
}

function titleOf(side) {
  return sides[side].querySelector("h3").textContent.toLowerCase();
}

function about({ facts }) {
  return `${Math.round(facts.bytes / 1000).toLocaleString("en")} KB · ${facts.runtime}`;
}

// What a person can mark as wrong: each glyph, and what the models that run read, in the word and alone.
function written() {
  const readings = state.readings.filter(Boolean);
  if (!readings.length) return null;
  const { classes } = state.loaded.find(Boolean).facts;
  const characters = state.writing.characters.map((character, row) => ({
    pixels: character.glyph.pixels,
    read: readings.map((reading) => reading.characters[row].read),
    alone: readings.map((reading) => reading.characters[row].answers[0][0]),
  }));
  return { classes, characters };
}

async function choose(side) {
  const number = Number(sides[side].querySelector("select").value);
  const facts = state.models[number];
  state.loaded[side] = null;
  sides[side].querySelector("h3").textContent = titleFor(facts, side);
  field(side, "reading").textContent = "–";
  field(side, "facts").textContent = "loading…";
  try {
    if (facts.problem) throw new Error(facts.problem);
    const device = document.querySelector("#webgpu").checked ? "webgpu" : "wasm";
    state.loaded[side] = await openModel(number, facts, device);
    field(side, "facts").textContent = about(state.loaded[side]);
  } catch (error) {
    field(side, "facts").textContent = "This file cannot be run; see above.";
    complain(error.message.includes(facts.name) ? error.message : `${facts.name}: ${error.message}`);
  }
  document.body.dataset[`side${side}`] = facts.name;
  showRan();
}

function chosen(side) {
  return queue(async (turn) => {
    await choose(side);
    await readNow(turn);
  });
}

// One line: where the models ran, and why not on a GPU.
function showRan() {
  const places = state.loaded.filter(Boolean).map(({ device, loaded, facts }) => {
    if (device === "wasm") return "on the processor (WebAssembly SIMD, one thread)";
    if (loaded.accelerated === false) return `${facts.name} on the processor, since its runtime cannot run it on the GPU`;
    return `on ${state.gpu.name} (WebGPU; operators that a runtime lacks there run on the processor)`;
  });
  const idle = state.gpu
    ? `The only GPU of this browser is a software one (${state.gpu.name}), which is not used.`
    : "This browser offers no GPU.";
  const why = state.gpu && !state.gpu.software ? "" : idle;
  const ran = [...new Set(places)].join("; ") || "nothing";
  document.querySelector("#ran").textContent = `Ran here: ${ran}. ${why}`.trim();
}

pad.addEventListener("stroke", read);
document.querySelector("#undo").addEventListener("click", () => pad.undo());
document.querySelector("#clear").addEventListener("click", () => pad.clear());
document.addEventListener("keydown", (event) => {
  // Keys in a field belong to it.
  if (event.target.closest("input, select")) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") pad.undo();
  else if (event.key === "Escape") pad.clear();
  else return;
  event.preventDefault();
});

// Have the browser compile what cuts a sheet, which takes a tenth of a second, before the first word is written.
function warmUp() {
  const bars = picture(160, 100);
  bars.pixels.fill(255);
  for (let row = 20; row < 80; row += 1) {
    for (const left of [30, 70, 110]) bars.pixels.fill(0, row * 160 + left, row * 160 + left + 6);
  }
  for (let turn = 0; turn < 2; turn += 1) cut(bars);
}

async function start() {
  if (!globalThis.WebAssembly?.validate(Uint8Array.from(SIMD))) {
    complain("This browser has no WebAssembly SIMD, which the models need; use Chrome 91, Firefox 89, Safari 16.4 or newer.");
    verdict.textContent = "The models cannot run here.";
    return;
  }
  const asked = fetch("/models.json");
  warmUp();
  const { models, first, notes, save } = await (await asked).json();
  for (const note of notes) complain(`${note}.`);
  state.models = models;
  state.gpu = await adapter();
  document.querySelector("#gpu").hidden = !state.gpu || state.gpu.software;
  marks = new Marks(document.querySelector("#marks"), save, written);
  for (const [side, article] of sides.entries()) {
    const list = article.querySelector("select");
    list.replaceChildren(...models.map(({ name }, number) => new Option(name, number)));
    list.value = String(models.findIndex(({ name }) => name === first[side]));
    list.addEventListener("change", () => chosen(side));
    await choose(side);
  }
  document.querySelector("#webgpu").addEventListener("change", () => [0, 1].forEach(chosen));
  await read();
  document.body.dataset.ready = "true";
}

globalThis.kiosk = state;
start().catch((error) => complain(error.message));
