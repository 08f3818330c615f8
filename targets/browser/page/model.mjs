// The model in this page (`model`), for targets/browser/session.py. Arrays travel as [type, shape, base64], named as numpy does.

const MS = 1e6;

function decoded(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function typed([type, shape, base64]) {
  const kind = globalThis[`${type[0].toUpperCase()}${type.slice(1)}Array`];
  return [type, shape, new kind(decoded(base64).buffer)];
}

function encoded([type, shape, values]) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return [type, shape, btoa(text)];
}

// The smallest step that the clock is seen to make: 5 us in an isolated page, 100 us in any other.
export function resolution() {
  let smallest = Infinity;
  for (let before = performance.now(), steps = 0; steps < 100; ) {
    const now = performance.now();
    if (now === before) continue;
    smallest = Math.min(smallest, now - before);
    before = now;
    steps += 1;
  }
  return smallest;
}

export class Model {
  static async open({ runtime, file, ...options }) {
    const { load } = await import(`./${runtime}.mjs`);
    const content = decoded(file);
    const start = performance.now();
    const loaded = await load(content, options);
    globalThis.model = new Model(loaded, (performance.now() - start) * MS);
    return globalThis.model.facts;
  }

  constructor(loaded, loadNs) {
    this.loaded = loaded;
    this.facts = { accelerated: loaded.accelerated, loadNs };
  }

  place(array) {
    this.input = this.loaded.input(...typed(array));
  }

  // The logits, and the nanoseconds that they took.
  async answer() {
    const start = performance.now();
    const answer = await this.loaded.infer(this.input);
    const took = (performance.now() - start) * MS;
    return [encoded(answer), took];
  }

  // Nanoseconds that a call took, each sample the mean of `inner`.
  async time({ warmup, minRuns, minSeconds, maxRuns, inner }, apart) {
    for (let k = 0; k < warmup; k += 1) await this.loaded.infer(this.input);
    const calls = inner || (await this.calibrated(apart * resolution()));
    const samples = [];
    const until = performance.now() + minSeconds * 1e3;
    while (samples.length < maxRuns) {
      samples.push(((await this.sample(calls)) / calls) * MS);
      if (samples.length >= minRuns && performance.now() >= until) break;
    }
    return { samples, inner: calls };
  }

  async calibrated(least) {
    for (let inner = 1; ; inner *= 2) {
      const took = [await this.sample(inner), await this.sample(inner), await this.sample(inner)];
      if (Math.min(...took) >= least) return inner;
    }
  }

  async sample(inner) {
    const start = performance.now();
    for (let k = 0; k < inner; k += 1) await this.loaded.infer(this.input);
    return performance.now() - start;
  }
}
