// What a model reads of a writing that was cut, as toolchain/evaluation/reading.py and word_context.py do it.

// The constants of word_context.py, which says what they mean.
const STRENGTH = 3;
const FAR = 0.6;
const SURE = 4;
const TINY = 1e-9;
const BEST = 3;
const RUNS = 5;

// A reading: { text, characters, milliseconds }. text: lines and spaces as Writing has them. characters: for each one
// { read, logits, answers: [[class, chance]] }; `read` is "" for a mark that the model has no class for. milliseconds:
// of all inferences, and their median. stale: whether the reading is not wanted any more; null is returned then.
export async function readWriting(model, writing, stale) {
  const { classes } = model.facts;
  const { characters } = writing;
  const logits = [];
  const took = [];
  for (const { glyph } of characters) {
    if (stale()) return null;
    const runs = characters.length < RUNS ? RUNS : 1;
    const answer = await model.infer(glyph.pixels, runs);
    logits.push(answer.logits);
    took.push(answer.milliseconds);
  }
  const chances = probabilities(logits);
  const marks = characters.map(({ mark }) => mark);
  const wordy = classes.every((name) => /^[\p{L}\p{N}]+$/u.test(name));
  const leftOut = marks.map((mark) => mark && wordy && !marks.every(Boolean));
  const words = wordsOf(characters).map((word) => word.filter((row) => !leftOut[row]));
  const best = inWords(chances, words, classes);
  const names = best.map((label, row) => (leftOut[row] ? "" : classes[label]));
  return {
    text: textOf(characters, names),
    characters: names.map((read, row) => ({ read, logits: logits[row], answers: answers(chances[row], classes) })),
    milliseconds: { all: took.reduce((sum, each) => sum + each, 0), each: middle(took) },
  };
}

export function middle(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

// The three best answers: [class, chance].
function answers(chances, classes) {
  const order = chances.map((chance, label) => [classes[label], chance]);
  return order.sort((a, b) => b[1] - a[1]).slice(0, BEST);
}

// The softmax of each row of logits, or the rows themselves if they are probabilities already.
export function probabilities(logits) {
  const sum = (row) => row.reduce((total, each) => total + each, 0);
  const already = logits.every(
    (row) => Math.min(...row) >= 0 && Math.abs(sum(row) - 1) < 0.02 + row.length / 512,
  );
  return logits.map((row) => {
    const top = Math.max(...row);
    const powers = already ? [...row] : row.map((logit) => Math.exp(logit - top));
    const total = sum(powers);
    return powers.map((power) => power / total);
  });
}

// The numbers of the characters of each word.
export function wordsOf(characters) {
  const words = [];
  let line = -1;
  characters.forEach((character, row) => {
    if (character.space || character.line !== line) words.push([]);
    words.at(-1).push(row);
    ({ line } = character);
  });
  return words;
}

// What is written, with spaces and line breaks. names: the reading of each character, "" for none.
export function textOf(characters, names) {
  const lines = [];
  characters.forEach(({ line, space }, row) => {
    lines[line] = `${lines[line] ?? ""}${space ? " " : ""}${names[row]}`;
  });
  return lines
    .filter((line) => line !== undefined)
    .map((line) => line.trim().split(/\s+/).join(" "))
    .join("\n");
}

// The class that each character is read as: among letters a letter, unless a digit is much likelier, and the reverse.
export function inWords(chances, words, classes) {
  const is = (pattern) => classes.map((name) => [...name].length === 1 && pattern.test(name));
  const [letters, digits] = [is(/\p{L}/u), is(/\p{Nd}/u)];
  const read = chances.map(highest);
  if (!letters.some(Boolean) || !digits.some(Boolean)) return read;
  const share = (row, kind) => row.reduce((sum, chance, label) => sum + (kind[label] ? chance : 0), 0);
  const odds = chances.map((row) => {
    const each = Math.log(share(row, letters) + TINY) - Math.log(share(row, digits) + TINY);
    return Math.min(Math.max(each, -SURE), SURE);
  });
  for (const word of words) {
    word.forEach((row, place) => {
      let [sum, weights] = [0, 0];
      word.forEach((other, near) => {
        const weight = near === place ? 0 : FAR ** Math.abs(near - place);
        sum += weight * odds[other];
        weights += weight;
      });
      const favour = STRENGTH * Math.tanh(sum / Math.max(weights, TINY) / 2);
      read[row] = highest(
        chances[row].map((chance, label) => Math.log(chance + TINY) + (favour / 2) * (letters[label] - digits[label])),
      );
    });
  }
  return read;
}

function highest(values) {
  return values.indexOf(Math.max(...values));
}
