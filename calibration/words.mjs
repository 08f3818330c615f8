// words.py in JavaScript: the same rules in the same order. tests/calibration/test_words_mjs.py compares.
//
// What the constants mean stands in words.py.

import { Blank, SIDE, components, glyph, picture } from "./glyph.mjs";
import { findInk } from "./ink.mjs";

const RULE = 5;
const THIN = 40;
const DUST = 0.006;
const MAIN = 0.35;
const LINE = 0.6;
const ACROSS = 0.6;
const NEAR = 0.06;
const DOT = 0.3;
const STACK = 0.7;
const SPACE = 0.5;
const WIDER = 2;
const MARK = 0.3;
const MARGIN = 3;
const SOFT = 2;
const JOINED = 1.6;
const SMALLEST = 3;
const MOST_PIECES = 20000;

// A picture that was cut: { paper, characters, rules }, as words.py's Writing. A character has box ([left, top, right,
// bottom], the last two exclusive), glyph (a picture), line, space, mark and joined. Throws Blank.
export function cut(gray) {
  const ink = findInk(gray);
  const { labels, pieces } = piecesOf(ink.mask);
  const height = usualHeight(pieces);
  const written = pieces.filter((piece) => !(isThin(piece) && lengthOf(piece) > RULE * height));
  if (!written.length) throw new Blank("there are only long thin lines in it, no writing");
  const characters = [];
  linesOf(written, height).forEach((line, number) => {
    const spaces = spacesOf(line);
    line.characters.forEach((parts, at) => {
      const box = around(parts);
      const [wide, tall] = [box[2] - box[0], box[3] - box[1]];
      characters.push({
        box,
        glyph: glyph(alone(ink.bright, labels, box, new Set(parts.map(({ label }) => label)))),
        line: number,
        space: at > 0 && spaces[at],
        mark: tall < MARK * line.height,
        joined: wide > JOINED * Math.max(line.height, tall),
      });
    });
  });
  return { paper: ink.paper, characters, rules: pieces.length - written.length };
}

function widthOf({ left, right }) {
  return right - left;
}

function heightOf({ top, bottom }) {
  return bottom - top;
}

function lengthOf(piece) {
  return Math.max(widthOf(piece), heightOf(piece));
}

function centreOf({ left, right, top, bottom }) {
  return [(left + right) / 2, (top + bottom) / 2];
}

function isThin(piece) {
  return lengthOf(piece) ** 2 > THIN * piece.area;
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  const place = ((sorted.length - 1) * share) / 100;
  const low = Math.floor(place);
  return sorted[low] + (place - low) * (sorted[Math.ceil(place)] - sorted[low]);
}

// The middle value, or the mean of the two in the middle.
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

// Labels of the pixels, 0 where there is no ink, and the connected pieces without dirt.
function piecesOf(mask) {
  const { width } = mask;
  const { parts, areas } = components(mask);
  const numbers = new Int32Array(areas.length);
  const pieces = [];
  areas.forEach((area, part) => {
    if (part === 0 || area < SMALLEST) return;
    numbers[part] = pieces.length + 1;
    pieces.push({ label: pieces.length + 1, left: Infinity, top: Infinity, right: 0, bottom: 0, area });
  });
  refuseCrowd(pieces.length, 10 * MOST_PIECES);
  for (let at = 0; at < parts.length; at += 1) {
    if (!parts[at]) continue;
    parts[at] = numbers[parts[at]];
    if (parts[at]) enclose(pieces[parts[at] - 1], at % width, Math.floor(at / width));
  }
  if (!pieces.length) throw new Blank("there is no writing in it, only specks");
  const least = DUST * usualHeight(pieces) ** 2;
  const clean = pieces.filter(({ area }) => area >= least);
  refuseCrowd(clean.length, MOST_PIECES);
  return { labels: parts, pieces: clean };
}

function enclose(piece, x, y) {
  if (x < piece.left) piece.left = x;
  if (y < piece.top) piece.top = y;
  if (x >= piece.right) piece.right = x + 1;
  if (y >= piece.bottom) piece.bottom = y + 1;
}

function refuseCrowd(count, most) {
  if (count <= most) return;
  const [pieces, limit] = [count, most].map((number) => number.toLocaleString("en-US"));
  throw new Blank(`${pieces} pieces of ink are more than ${limit}, which no page of writing has`);
}

function usualHeight(all) {
  const solid = all.filter((piece) => !isThin(piece));
  const pieces = solid.length ? solid : all;
  const sorted = [...pieces].sort((a, b) => heightOf(a) - heightOf(b));
  const half = pieces.reduce((sum, { area }) => sum + area, 0) / 2;
  let sum = 0;
  const typical = sorted.find(({ area }) => (sum += area) >= half);
  return median(pieces.map(heightOf).filter((height) => height >= heightOf(typical) / 4));
}

// The pieces of one line as characters from left to right: { height, characters }, each a list of pieces.
function lineOf(pieces, usual) {
  const tall = pieces.filter((piece) => heightOf(piece) >= MAIN * usual);
  const height = percentile((tall.length ? tall : pieces).map(heightOf), 75);
  const line = { height, characters: [] };
  const main = pieces.filter((piece) => heightOf(piece) >= MAIN * height);
  for (const piece of main.sort((a, b) => a.left - b.left)) add(line, piece);
  const marks = [];
  const small = pieces.filter((piece) => heightOf(piece) < MAIN * height);
  for (const piece of small.sort((a, b) => b.area - a.area)) {
    let [near, least] = [null, Infinity];
    for (const parts of [...line.characters, ...marks]) {
      const away = distance(line, piece, parts);
      if (away < least) [near, least] = [parts, away];
    }
    if (near) near.push(piece);
    else marks.push([piece]);
  }
  const place = (parts) => around(parts)[0] + around(parts)[2];
  line.characters = [...line.characters, ...marks].sort((a, b) => place(a) - place(b));
  return line;
}

// Add the next large piece to one of the last characters, or as a new one.
function add(line, piece) {
  for (const parts of line.characters.slice(-3).reverse()) {
    const [left, top, right, bottom] = around(parts);
    const across = Math.min(right, piece.right) - Math.max(left, piece.left);
    const fragment = Math.min(heightOf(piece), bottom - top) < LINE * line.height;
    const slim = Math.max(right, piece.right) - left < line.height;
    const over = across >= ACROSS * Math.min(right - left, widthOf(piece));
    if (over || (fragment && slim && across >= -NEAR * line.height && across <= 0)) {
      parts.push(piece);
      return;
    }
  }
  line.characters.push([piece]);
}

// How far a small piece is from a character that it may belong to, in heights; infinite if it does not.
function distance({ height }, piece, parts) {
  const [left, top, right, bottom] = around(parts);
  const aside = Math.max(left - piece.right, piece.left - right, 0) / height;
  const away = Math.max(top - piece.bottom, piece.top - bottom, 0) / height;
  const across = Math.min(right, piece.right) - Math.max(left, piece.left);
  const stands = across >= 0.5 * Math.min(right - left, widthOf(piece)) && away <= STACK;
  const narrow = right - left < MAIN * height;
  const dots = aside <= DOT && away <= STACK && centreOf(piece)[1] < top + (bottom - top) / 4;
  return stands || dots || Math.max(aside, away) <= NEAR ? aside + away + (narrow ? 0 : 0.25) : Infinity;
}

function around(parts) {
  const edge = (choose, side) => choose(...parts.map((part) => part[side]));
  return [edge(Math.min, "left"), edge(Math.min, "top"), edge(Math.max, "right"), edge(Math.max, "bottom")];
}

// The lines from top to bottom.
function linesOf(pieces, height) {
  const main = pieces.filter((piece) => heightOf(piece) >= MAIN * height);
  const slope = slopeOf(chains(main, height, 0));
  const rows = chains(main, height, slope);
  const owner = new Map(rows.flatMap((row) => row.map((piece) => [piece, row])));
  for (const piece of pieces) {
    if (owner.has(piece)) continue;
    const gaps = main.map((other) => gap(piece, other));
    owner.get(main[gaps.indexOf(Math.min(...gaps))]).push(piece);
  }
  const level = (row) => median(row.map((piece) => levelOf(piece, slope)));
  return rows.sort((a, b) => level(a) - level(b)).map((row) => lineOf(row, height));
}

// The square of the distance between two boxes.
function gap(piece, other) {
  const [x, y] = centreOf(piece).map((place, axis) => Math.abs(place - centreOf(other)[axis]));
  const across = Math.max(x - (widthOf(piece) + widthOf(other)) / 2, 0);
  const down = Math.max(y - (heightOf(piece) + heightOf(other)) / 2, 0);
  return across ** 2 + down ** 2;
}

function levelOf(piece, slope) {
  const [x, y] = centreOf(piece);
  return y - slope * x;
}

// Follow each line from left to right: a piece belongs to the line whose last pieces lie at its level.
function chains(pieces, height, slope) {
  const rows = [];
  const levels = [];
  for (const piece of [...pieces].sort((a, b) => a.left - b.left)) {
    const level = levelOf(piece, slope);
    const reach = LINE * Math.max(height, heightOf(piece));
    const away = levels.map((each) => Math.abs(each - level));
    const near = away.indexOf(Math.min(...away));
    if (near >= 0 && (away[near] <= reach || beside(rows[near].at(-1), piece, height))) {
      rows[near].push(piece);
      levels[near] += (level - levels[near]) / 2;
    } else {
      rows.push([piece]);
      levels.push(level);
    }
  }
  return rows;
}

// Whether a piece is of the line of the last one though its centre is not: a slant, or a broken letter.
function beside(last, piece, height) {
  const down = Math.min(last.bottom, piece.bottom) - Math.max(last.top, piece.top);
  const across = Math.min(last.right, piece.right) - Math.max(last.left, piece.left);
  const follows = down >= Math.min(heightOf(last), heightOf(piece)) / 4 && across >= -height;
  const both = Math.max(last.bottom, piece.bottom) - Math.min(last.top, piece.top);
  const broken = across >= ACROSS * Math.min(widthOf(last), widthOf(piece)) && both <= 1.7 * height;
  return follows || (broken && down >= -Math.max(NEAR * height, 1));
}

// By how much the lines fall per pixel, from those of five pieces or more.
function slopeOf(rows) {
  const slopes = [];
  for (const row of rows) {
    // Twice the centres: whole numbers, whose sums are exact in both languages.
    const [x, y] = [row.map(({ left, right }) => left + right), row.map(({ top, bottom }) => top + bottom)];
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    const both = (first, second) => row.length * sum(first.map((value, at) => value * second[at])) - sum(first) * sum(second);
    const scatter = both(x, x);
    if (row.length >= 5 && scatter > 0) slopes.push(both(x, y) / scatter);
  }
  return slopes.length ? median(slopes) : 0;
}

// Whether a gap between words stands before each character.
function spacesOf(line) {
  const boxes = line.characters.map(around);
  const gaps = [];
  let end = -Infinity;
  boxes.forEach(([left, , right], at) => {
    if (at) gaps.push((left - end) / line.height);
    end = Math.max(end, right);
  });
  const least = leastSpace(gaps.map((each) => Math.min(Math.max(each, 0), 1)));
  return [false, ...gaps.map((each) => each >= least)];
}

// The smallest gap between words, in heights: above the widest step among all gaps, if it is wide enough.
function leastSpace(unsorted) {
  if (unsorted.length < 3) return 1.2 * SPACE;
  const gaps = [...unsorted].sort((a, b) => a - b);
  const steps = gaps.slice(1).map((each, at) => each - gaps[at]);
  const step = steps.indexOf(Math.max(...steps));
  const space = gaps[step + 1];
  if (space >= SPACE && space >= WIDER * median(gaps.slice(0, step + 1))) return space;
  return gaps[0] < SPACE ? 1 : Infinity;
}

// A character without its neighbours, and with an empty frame.
function alone(bright, labels, [left, top, right, bottom], own) {
  const [x, y] = [Math.max(left - MARGIN, 0), Math.max(top - MARGIN, 0)];
  const wide = Math.min(right + MARGIN, bright.width) - x;
  const high = Math.min(bottom + MARGIN, bright.height) - y;
  // A picture of just the size of a glyph would be taken for one.
  const frame = wide + 4 === SIDE && high + 4 === SIDE ? 3 : 2;
  const part = picture(wide + 2 * frame, high + 2 * frame);
  const near = reach(wide, high, (u, v) => own.has(labels[(y + v) * bright.width + x + u]));
  for (let v = 0; v < high; v += 1) {
    for (let u = 0; u < wide; u += 1) {
      const at = (y + v) * bright.width + x + u;
      // The soft edge of a stroke is its own, up to the next stroke.
      const kept = near[v * wide + u] && (!labels[at] || own.has(labels[at]));
      if (kept) part.pixels[(v + frame) * part.width + u + frame] = bright.pixels[at];
    }
  }
  return part;
}

// Where a pixel of a character lies at most SOFT pixels away, within wide times high.
function reach(wide, high, mine) {
  const near = new Uint8Array(wide * high);
  for (let v = 0; v < high; v += 1) {
    for (let u = 0; u < wide; u += 1) {
      if (!mine(u, v)) continue;
      // Neighbours in a row fill together.
      const start = Math.max(u - SOFT, 0);
      while (u + 1 < wide && mine(u + 1, v)) u += 1;
      const end = Math.min(u + SOFT + 1, wide);
      for (let row = Math.max(v - SOFT, 0); row < Math.min(v + SOFT + 1, high); row += 1) {
        near.fill(1, row * wide + start, row * wide + end);
      }
    }
  }
  return near;
}
