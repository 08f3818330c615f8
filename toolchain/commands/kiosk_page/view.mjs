// What the page shows of two readings: the texts with their differences, and a card for each character.

import { wordsOf } from "/kiosk/reading.mjs";

const SIDE = 28;

function element(tag, settings = {}, ...children) {
  const { data, ...properties } = settings;
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, data ?? {});
  made.append(...children);
  return made;
}

export function time(milliseconds) {
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

export function percent(share) {
  // Only certainty is 100 %.
  return `${Math.min(share * 100, share < 1 ? 99.9 : 100).toFixed(1)} %`;
}

// Fill the large line of a model's text. differ: for each character whether the other model reads it differently.
export function showText(line, writing, reading, differ) {
  const parts = [];
  for (const word of wordsOf(writing.characters)) {
    const { line: number } = writing.characters[word[0]];
    const breaks = parts.length && number !== writing.characters[word[0] - 1].line;
    if (parts.length) parts.push(breaks ? element("br") : " ");
    const letters = word.map((row) =>
      element(differ[row] ? "mark" : "span", { textContent: reading.characters[row].read }),
    );
    parts.push(element("span", { className: "word" }, ...letters));
  }
  line.replaceChildren(...parts);
}

// The card of one character. sides: { name, model, character } of each model that runs.
export function card(number, character, sides, differ, mark) {
  const made = element("li", { className: differ ? "card differ" : "card" });
  const title = element("p", { className: "number" }, `${number + 1}`);
  if (differ) title.append(" ", element("strong", { textContent: "they differ" }));
  if (character.joined) title.append(" ", element("em", { textContent: "letters that touch?" }));
  made.append(title);
  for (const { name, model, character: read } of sides) made.append(half(name, model, character, read));
  made.append(correction(number, mark));
  return made;
}

function half(name, model, character, { read, answers }) {
  const picture = element("canvas", { className: "glyph", width: SIDE, height: SIDE, role: "img" });
  picture.setAttribute("aria-label", `The 28 by 28 picture that the ${name} model got`);
  const image = new ImageData(SIDE, SIDE);
  model.seen(character.glyph.pixels).forEach((level, at) => image.data.set([level, level, level, 255], 4 * at));
  picture.getContext("2d").putImageData(image, 0, 0);
  const rows = answers.map(([text, share]) => {
    const bar = element("progress", { value: share });
    bar.setAttribute("aria-label", `${text}: ${percent(share)}`);
    return element("li", {}, element("span", { textContent: text }), bar, element("span", { textContent: percent(share) }));
  });
  const made = element("div", { className: "half" }, element("h3", { textContent: name }), picture, element("ol", {}, ...rows));
  const note = read === "" ? "a small mark, left out" : read === answers[0][0] ? "" : `read as ${read} in its word`;
  if (note) made.append(element("p", { className: "facts", textContent: note }));
  return made;
}

// A form that opens on demand: the right text of one character.
function correction(number, mark) {
  const input = element("input", { type: "text", required: true, spellcheck: false, autocapitalize: "off" });
  const label = element("label", {}, "It is ", input);
  const form = element("form", { autocomplete: "off" }, label, " ", element("button", { textContent: "Mark" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    mark(number, input.value);
  });
  const made = element("details", {}, element("summary", { textContent: "Wrong?" }), form);
  made.addEventListener("toggle", () => made.open && input.focus());
  return made;
}
