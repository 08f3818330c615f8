// glyph.py in JavaScript: the same steps in the same order, with Pillow's own arithmetic, so that the pixels agree.
//
// Pictures are { width, height, pixels }, pixels a Uint8Array in rows. tests/calibration/test_glyph_ports.py compares.

export const SIDE = 28;
const PADDING = 2;
const INNER = SIDE - 2 * PADDING;
const WORK = 2 * INNER;
const SIGMA = 1;
const EDGE = [0.35, 0.9];
const LARGEST = 512;
export const FAINTEST = 24;
const FRAME = 16;
const DUST = 0.01;

// There is no ink in the picture.
export class Blank extends Error {}

export function picture(width, height, pixels = new Uint8Array(width * height)) {
  return { width, height, pixels };
}

// The 28x28 glyph, bright ink on black, of a drawing of any size, dark on light or the reverse. Throws Blank.
export function glyph(drawing) {
  const bright = brightOnDark(shrunk(drawing));
  return isGlyph(bright) ? bright : settled(inkOf(bright));
}

// At most 512 pixels per side: each pixel is the mean of a square.
export function shrunk({ width, height, pixels }) {
  const step = Math.ceil(Math.max(width, height) / LARGEST);
  if (step <= 1) return picture(width, height, pixels);
  const small = picture(Math.ceil(width / step), Math.ceil(height / step));
  for (let y = 0; y < small.height; y += 1) {
    for (let x = 0; x < small.width; x += 1) {
      const right = Math.min((x + 1) * step, width);
      const bottom = Math.min((y + 1) * step, height);
      let sum = 0;
      for (let v = y * step; v < bottom; v += 1) for (let u = x * step; u < right; u += 1) sum += pixels[v * width + u];
      const count = (right - x * step) * (bottom - y * step);
      small.pixels[y * small.width + x] = Math.floor((sum + (count >> 1)) / count);
    }
  }
  return small;
}

// Paper is the majority of the frame, or of the drawing if that is close. Throws Blank.
export function brightOnDark(drawing) {
  const { width, height, pixels } = drawing;
  const { threshold } = levels(pixels);
  let framed = 0;
  let all = 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (pixels[y * width + x] < threshold) continue;
      all += 1;
      framed += (y === 0) + (y === height - 1) + (x === 0) + (x === width - 1);
    }
  }
  const share = framed / (2 * (width + height));
  const paperIsLight = (Math.abs(share - 0.5) > 0.1 ? share : all / pixels.length) > 0.5;
  return paperIsLight ? picture(width, height, pixels.map((level) => 255 - level)) : drawing;
}

function isGlyph({ width, height, pixels }) {
  if (width !== SIDE || height !== SIDE || Math.max(...pixels) < 250) return false;
  return pixels.every((level, at) => {
    const [x, y] = [at % SIDE, Math.floor(at / SIDE)];
    return level <= FRAME || (x > 0 && y > 0 && x < SIDE - 1 && y < SIDE - 1);
  });
}

// The first light level by Otsu's method, the median of the dark levels, the upper quartile of the light ones.
export function levels(pixels) {
  const below = new Float64Array(256);
  const mass = new Float64Array(256);
  for (const level of pixels) below[level] += 1;
  let last = 255;
  while (last > 0 && !below[last]) last -= 1;
  for (let level = 0; level < 256; level += 1) {
    mass[level] = below[level] * level + (level ? mass[level - 1] : 0);
    below[level] += level ? below[level - 1] : 0;
  }
  const total = below[255];
  const first = below.findIndex((count) => count > 0 && count < total);
  if (first < 0 || last - first < FAINTEST) throw new Blank("there is no ink in it");
  let [dark, best] = [first, -1];
  for (let level = first; level < 256 && below[level] < total; level += 1) {
    const distance = (mass[255] / total) * below[level] - mass[level];
    const between = (distance * distance) / (below[level] * (total - below[level]));
    if (between > best) [dark, best] = [level, between];
  }
  const reaches = (count) => below.findIndex((sum) => sum >= count);
  return { threshold: dark + 1, dark: reaches(below[dark] / 2), light: reaches(total - (total - below[dark]) / 4) };
}

// Crop to the ink, bring it to the working size, and stretch paper to 0 and ink to 255.
function inkOf(bright) {
  const { threshold, dark, light } = levels(bright.pixels);
  const mask = bright.pixels.map((level) => level >= threshold);
  const { top, bottom, left, right } = boxOf(picture(bright.width, bright.height, withoutDust(bright, mask)));
  if (!bottom) throw new Blank("there are only specks or hairlines in it");
  const scale = WORK / Math.max(bottom - top, right - left);
  // A pixel of paper on each side lets the interpolation end the strokes.
  const cut = picture(right - left + 2, bottom - top + 2);
  cut.pixels.fill(dark);
  for (let y = Math.max(top - 1, 0); y < Math.min(bottom + 1, bright.height); y += 1) {
    const from = y * bright.width;
    const start = Math.max(left - 1, 0);
    const row = bright.pixels.subarray(from + start, from + Math.min(right + 1, bright.width));
    cut.pixels.set(row, (y - top + 1) * cut.width + start - left + 1);
  }
  const size = [cut.width, cut.height].map((length) => Math.max(1, evenRound(length * scale)));
  const large = resized(cut, ...size, [0, 0, cut.width, cut.height]);
  const [low, high] = EDGE.map((share) => dark + share * (light - dark));
  const stretch = Uint8Array.from({ length: 256 }, (_, level) =>
    Math.min(Math.max((level - low) * (255 / (high - low)), 0), 255),
  );
  const border = Math.round(3 * SIGMA);
  return cropped(picture(large.width, large.height, large.pixels.map((level) => stretch[level])), -border, -border, [
    large.width + 2 * border,
    large.height + 2 * border,
  ]);
}

// Python's round: halves go to the even neighbour.
function evenRound(value) {
  const whole = Math.floor(value);
  return value - whole === 0.5 ? whole + Math.abs(whole % 2) : Math.round(value);
}

function boxOf({ width, height, pixels }) {
  const box = { top: height, bottom: 0, left: width, right: 0 };
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!pixels[y * width + x]) continue;
      box.top = Math.min(box.top, y);
      box.bottom = y + 1;
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
    }
  }
  return box;
}

// The mask without specks, which would otherwise extend the crop.
function withoutDust({ width, height }, mask) {
  const { parts, areas } = components(picture(width, height, mask));
  const ink = areas.reduce((sum, area) => sum + area, 0);
  if (ink * DUST < 1 || areas.length < 3) return mask;
  return mask.map((set, at) => set && areas[parts[at]] >= DUST * ink);
}

// The connected parts (of eight neighbours) of the set pixels: their numbers from 1, and the area of each number.
export function components({ width, height, pixels }) {
  const parts = new Int32Array(pixels.length);
  const areas = [0];
  for (let seed = 0; seed < pixels.length; seed += 1) {
    if (!pixels[seed] || parts[seed]) continue;
    const number = areas.push(0) - 1;
    const open = [seed];
    parts[seed] = number;
    while (open.length) {
      const at = open.pop();
      areas[number] += 1;
      const x = at % width;
      const y = Math.floor(at / width);
      const [low, right] = [Math.min(y + 1, height - 1), Math.min(x + 1, width - 1)];
      for (let v = Math.max(y - 1, 0); v <= low; v += 1) {
        for (let next = v * width + Math.max(x - 1, 0); next <= v * width + right; next += 1) {
          if (!pixels[next] || parts[next]) continue;
          parts[next] = number;
          open.push(next);
        }
      }
    }
  }
  return { parts, areas };
}

// Blur, then scale the square around the visible ink to 28x28.
function settled(ink) {
  const soft = blurred(ink);
  const { top, bottom, left, right } = boxOf({ ...soft, pixels: soft.pixels.map((level) => level > FAINTEST) });
  if (!bottom) throw new Blank("there are only specks or hairlines in it");
  const side = (Math.max(bottom - top, right - left) * SIDE) / INNER;
  const [x, y] = [(left + right - side) / 2, (top + bottom - side) / 2];
  const corner = [Math.floor(x), Math.floor(y)];
  const room = Math.ceil(side) + 1;
  const [u, v] = [x - corner[0], y - corner[1]];
  const small = resized(cropped(soft, ...corner, [room, room]), SIDE, SIDE, [u, v, u + side, v + side]);
  const factor = Math.fround(255 / Math.max(...small.pixels));
  return picture(SIDE, SIDE, small.pixels.map((level) => evenRound(Math.fround(level * factor))));
}

// The part from (x, y), black outside of the picture.
export function cropped({ width, height, pixels }, x, y, [wide, high]) {
  const part = picture(wide, high);
  const [start, end] = [Math.max(x, 0), Math.min(x + wide, width)];
  for (let row = Math.max(y, 0); row < Math.min(y + high, height); row += 1) {
    part.pixels.set(pixels.subarray(row * width + start, row * width + end), (row - y) * wide + start - x);
  }
  return part;
}

// Pillow's Gaussian blur: three box blurs with a fractional radius (Gwosdek et al. 2011), borders repeated.
function blurred(ink) {
  let soft = ink;
  for (let turn = 0; turn < 2; turn += 1) {
    for (let pass = 0; pass < 3; pass += 1) soft = boxBlurred(soft);
    soft = transposed(soft);
  }
  return soft;
}

function boxRadius() {
  const variance = (SIGMA * SIGMA) / 3;
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  return Math.fround(whole + share / (6 * (variance - (whole + 1) * (whole + 1))));
}

function boxBlurred({ width, height, pixels }) {
  const unit = 1 << 24;
  const reach = Math.floor(boxRadius());
  // Pillow divides in float32.
  const inner = Math.floor(Math.fround(unit / Math.fround(boxRadius() * 2 + 1)));
  const outer = Math.floor((unit - (reach * 2 + 1) * inner) / 2);
  const soft = picture(width, height);
  for (let y = 0; y < height; y += 1) {
    const row = y * width;
    const at = (x) => pixels[row + Math.min(Math.max(x, 0), width - 1)];
    for (let x = 0; x < width; x += 1) {
      let sum = 0;
      for (let near = x - reach; near <= x + reach; near += 1) sum += at(near);
      const value = sum * inner + (at(x - reach - 1) + at(x + reach + 1)) * outer;
      soft.pixels[y * width + x] = Math.floor((value + unit / 2) / unit);
    }
  }
  return soft;
}

function transposed({ width, height, pixels }) {
  const turned = picture(height, width);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) turned.pixels[x * height + y] = pixels[y * width + x];
  }
  return turned;
}

// Pillow's bicubic resize of the box [left, top, right, bottom], with weights of 22 bits. Since version 13 it goes down
// first where more than twice as many rows as columns are lost, else across.
function resized(drawing, wide, high, [left, top, right, bottom]) {
  const lost = drawing.height - high;
  if (lost > 0 && lost > 2 * (drawing.width - wide)) {
    return resizedAcross(transposed(resizedAcross(transposed(drawing), high, top, bottom)), wide, left, right);
  }
  const across = resizedAcross(drawing, wide, left, right);
  return transposed(resizedAcross(transposed(across), high, top, bottom));
}

function resizedAcross({ width, height, pixels }, wide, start, end) {
  const small = picture(wide, height);
  weights(width, Math.fround(start), Math.fround(end), wide).forEach(([first, shares], x) => {
    for (let y = 0; y < height; y += 1) {
      const from = y * width + first;
      let sum = 2 ** 21;
      for (let near = 0; near < shares.length; near += 1) sum += pixels[from + near] * shares[near];
      small.pixels[y * wide + x] = Math.min(Math.max(Math.floor(sum / 2 ** 22), 0), 255);
    }
  });
  return small;
}

// For each new pixel: the first old one that adds to it, and the weights of that and the following ones.
function weights(width, start, end, wide) {
  const scale = Math.fround(end - start) / wide;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: wide }, (_, x) => {
    const centre = start + (x + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - 2 * stretch + 0.5), 0);
    const last = Math.min(Math.trunc(centre + 2 * stretch + 0.5), width);
    const shares = Array.from({ length: last - first }, (_, near) => cubic((near + first - centre + 0.5) / stretch));
    const sum = shares.reduce((total, share) => total + share, 0);
    return [first, shares.map((share) => Math.trunc((share / sum) * 2 ** 22 + (share / sum < 0 ? -0.5 : 0.5)))];
  });
}

// Bicubic convolution with a = -0.5 (Keys 1981).
function cubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}
