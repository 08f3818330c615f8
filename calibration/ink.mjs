// ink.py in JavaScript: the same steps with the same rounding to float32. tests/calibration/test_words_mjs.py compares.

import { Blank, FAINTEST, picture } from "./glyph.mjs";

const CELLS = 8;
const SMALLEST_CELL = 24;
const NOISE = 4;
const EDGE = 0.4;
const COHERENT = 0.3;
const SAMPLE = 2 ** 20;
const SMALL = 1024;
const NO_INK = "there is no ink in it";

// The ink of a picture: { bright, mask, paper }, as ink.py's Ink. Throws Blank where it is blank or only noise.
export function findInk(gray) {
  const { width, height, pixels } = gray;
  if (Math.min(width, height) < 2 || range(pixels) < FAINTEST) throw new Blank(NO_INK);
  const small = thinned(gray);
  const counted = countsOf(small);
  const paper = paperOf(small, counted);
  const absorbed = absorbedBy(gray, counted, paper);
  const stride = Math.max(1, Math.floor(absorbed.length / SAMPLE));
  const [low, high] = middles(every(absorbed, stride));
  const middle = mean(low, high);
  for (let at = 0; at < absorbed.length; at += 1) absorbed[at] -= middle;
  const sample = every(absorbed, stride);
  // Subtracting keeps the order, so the two in the middle are the same ones.
  const level = mean(Math.fround(low - middle), Math.fround(high - middle));
  const grain = 1.4826 * median(distances(sample, level));
  const floor = Math.max(NOISE * grain, FAINTEST);
  const strong = above(absorbed, Math.fround(floor));
  if (strong.length < 2) throw new Blank(NO_INK);
  const least = Math.fround(Math.max(EDGE * percentile(strong, 75), floor));
  const [bright, mask] = [picture(width, height), picture(width, height)];
  for (let at = 0; at < absorbed.length; at += 1) {
    mask.pixels[at] = absorbed[at] > least ? 1 : 0;
    bright.pixels[at] = Math.min(Math.max(absorbed[at], 0), 255);
  }
  if (coherence(mask) < COHERENT) throw new Blank("there is only noise in it, no writing");
  return { bright, mask, paper };
}

function range(levels) {
  let [least, most] = [255, 0];
  for (let at = 0; at < levels.length; at += 1) {
    const level = levels[at];
    if (level < least) least = level;
    if (level > most) most = level;
  }
  return most - least;
}

function every(values, stride) {
  if (stride === 1) return values;
  const some = new Float32Array(Math.ceil(values.length / stride));
  for (let at = 0; at < some.length; at += 1) some[at] = values[at * stride];
  return some;
}

function distances(values, from) {
  const away = new Float32Array(values.length);
  for (let at = 0; at < values.length; at += 1) away[at] = Math.abs(Math.fround(values[at] - from));
  return away;
}

function above(values, least) {
  const some = new Float32Array(values.length);
  let count = 0;
  for (let at = 0; at < values.length; at += 1) if (values[at] > least) some[count++] = values[at];
  return some.subarray(0, count);
}

// As numpy's, in float32: the middle value, or the mean of the two in the middle.
function median(values) {
  return mean(...middles(values));
}

// The middle value twice, or the two in the middle.
function middles(values) {
  const [low, high] = neighbours(values, Math.floor((values.length - 1) / 2));
  return values.length % 2 ? [low, low] : [low, high];
}

function mean(low, high) {
  return low === high ? low : Math.fround(Math.fround(low + high) / 2);
}

// As numpy's: linear between the two nearest values, in float32.
function percentile(values, share) {
  const place = ((values.length - 1) * share) / 100;
  return mixedAt(...neighbours(values, Math.floor(place)), place - Math.floor(place));
}

function mixedAt(low, high, part) {
  const step = Math.fround(high - low);
  return Math.fround(part < 0.5 ? low + Math.fround(step * part) : high - Math.fround(step * (1 - part)));
}

// The value at a place in sorted order, and the next one. Sorting all pixels would take ten times as long: the upper half
// of the bits of a float32 finds the value within 1 %, the lower half the value.
function neighbours(values, place) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const upper = new Uint32Array(2 ** 16);
  for (let at = 0; at < bits.length; at += 1) upper[ordered(bits[at]) >>> 16] += 1;
  const halves = new Map();
  return [place, Math.min(place + 1, values.length - 1)].map((rank) => {
    const [high, before] = binOf(upper, rank);
    if (!halves.has(high)) halves.set(high, lowerHalves(bits, high));
    return valueOf(((high << 16) | binOf(halves.get(high), rank - before)[0]) >>> 0);
  });
}

function lowerHalves(bits, high) {
  const lower = new Uint32Array(2 ** 16);
  for (let at = 0; at < bits.length; at += 1) {
    const key = ordered(bits[at]);
    if (key >>> 16 === high) lower[key & 0xffff] += 1;
  }
  return lower;
}

// The bits of a float32 as a number of 32 bits that grows with its value, and back.
function ordered(bits) {
  return (bits & 0x80000000 ? ~bits : bits | 0x80000000) >>> 0;
}

function valueOf(key) {
  const bits = key & 0x80000000 ? key & 0x7fffffff : ~key;
  return new Float32Array(Uint32Array.of(bits).buffer)[0];
}

// The bin that holds a rank, and the number of values in the bins before it.
function binOf(counts, rank) {
  let before = 0;
  let bin = 0;
  while (before + counts[bin] <= rank) before += counts[bin++];
  return [bin, before];
}

// Every so many pixels of a large picture.
function thinned({ width, height, pixels }) {
  const step = Math.max(1, Math.floor(Math.max(width, height) / SMALL));
  if (step === 1) return picture(width, height, pixels);
  const thin = picture(Math.ceil(width / step), Math.ceil(height / step));
  for (let y = 0; y < thin.height; y += 1) {
    for (let x = 0; x < thin.width; x += 1) thin.pixels[y * thin.width + x] = pixels[y * step * width + x * step];
  }
  return thin;
}

// Whether the paper is light or dark; small: the thinned picture, counted: its cells.
function paperOf(small, counted) {
  const away = spread(cells(counted, 50), small);
  for (let at = 0; at < away.length; at += 1) away[at] = small.pixels[at] - away[at];
  const least = Math.fround(Math.max(FAINTEST, 4 * median(distances(away, 0))));
  let sum = 0;
  for (let at = 0; at < away.length; at += 1) if (Math.abs(away[at]) > least) sum += away[at];
  return sum <= 0 ? "light" : "dark";
}

function absorbedBy(gray, counted, paper) {
  const { pixels } = gray;
  const levels = spread(cells(counted, paper === "light" ? 75 : 25), gray);
  for (let at = 0; at < levels.length; at += 1) {
    levels[at] =
      paper === "dark"
        ? pixels[at] - levels[at]
        : 255 * Math.fround(1 - Math.fround(pixels[at] / Math.max(levels[at], 16)));
  }
  return levels;
}

// Python's round: halves go to the even neighbour.
function evenRound(value) {
  const whole = Math.floor(value);
  return value - whole === 0.5 ? whole + (whole % 2) : Math.round(value);
}

// Where numpy's array_split cuts a length into parts.
function edges(length, parts) {
  const [each, more] = [Math.floor(length / parts), length % parts];
  return Array.from({ length: parts + 1 }, (_, part) => part * each + Math.min(part, more));
}

// How often each level of gray is in each cell of a picture: { rows, columns, counts }, one Uint32Array(256) a cell.
function countsOf({ width, height, pixels }) {
  const side = Math.max(SMALLEST_CELL, Math.ceil(Math.max(width, height) / CELLS));
  const [rows, columns] = [height, width].map((length) => Math.max(1, evenRound(length / side)));
  const [down, across] = [edges(height, rows), edges(width, columns)];
  const counts = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const [left, right] = [across[column], across[column + 1]];
      const cell = new Uint32Array(256);
      for (let y = down[row]; y < down[row + 1]; y += 1) {
        for (let at = y * width + left; at < y * width + right; at += 1) cell[pixels[at]] += 1;
      }
      counts.push(cell);
    }
  }
  return { rows, columns, counts };
}

// A percentile of each cell's levels, smoothed: a picture of cells.
function cells({ rows, columns, counts }, share) {
  const levels = Float32Array.from(counts, (cell) => {
    const place = ((cell.reduce((sum, count) => sum + count) - 1) * share) / 100;
    const [low, high] = [Math.floor(place), Math.ceil(place)].map((rank) => binOf(cell, rank)[0]);
    return mixedAt(low, high, place - Math.floor(place));
  });
  return { width: columns, height: rows, pixels: smoothed(levels, rows, columns) };
}

// The median of each cell and its eight neighbours, those at the edges repeated.
function smoothed(levels, rows, columns) {
  return levels.map((_, at) => {
    const near = [];
    for (let down = -1; down <= 1; down += 1) {
      for (let across = -1; across <= 1; across += 1) {
        const row = Math.min(Math.max(Math.floor(at / columns) + down, 0), rows - 1);
        const column = Math.min(Math.max((at % columns) + across, 0), columns - 1);
        near.push(levels[row * columns + column]);
      }
    }
    return near.sort((a, b) => a - b)[4];
  });
}

// For each pixel of a length: the cells on its two sides, and the share of the second one.
function between(count, length) {
  return Array.from({ length }, (_, at) => {
    const place = Math.fround(Math.fround(Math.fround(Math.fround(at + 0.5) * count) / length) - 0.5);
    const low = Math.min(Math.max(Math.trunc(place), 0), Math.max(count - 2, 0));
    return [low, Math.min(low + 1, count - 1), Math.fround(place - low)];
  });
}

function mixed(first, second, share) {
  return Math.fround(Math.fround(first * Math.fround(1 - share)) + Math.fround(second * share));
}

// The level at every pixel of a picture, by straight lines through the centres of the cells.
function spread({ width: columns, height: rows, pixels }, { width, height }) {
  const across = between(columns, width);
  const level = new Float32Array(width * height);
  between(rows, height).forEach(([low, high, share], y) => {
    const row = Array.from({ length: columns }, (_, column) =>
      mixed(pixels[low * columns + column], pixels[high * columns + column], share),
    );
    for (let x = 0; x < width; x += 1) {
      const side = across[x];
      level[y * width + x] = mixed(row[side[0]], row[side[1]], side[2]);
    }
  });
  return level;
}

// By how much likelier the neighbour of ink is ink than any pixel; 0 where there is no ink.
function coherence({ width, height, pixels }) {
  let [count, pairs, firsts] = [0, 0, 0];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = y * width + x;
      if (!pixels[at]) continue;
      count += 1;
      if (y + 1 < height) firsts += 1;
      if (x + 1 < width) firsts += 1;
      if (y + 1 < height && pixels[at + width]) pairs += 1;
      if (x + 1 < width && pixels[at + 1]) pairs += 1;
    }
  }
  const density = count / pixels.length;
  if (!firsts || density === 1) return 0;
  return (pairs / firsts - density) / (1 - density);
}
