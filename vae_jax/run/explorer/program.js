"use strict";

// Runs what program.py writes: steps over flat arrays, each with a place of its own.

const ofOne = {
  neg: (a) => -a, exp: Math.exp, exp2: (a) => 2 ** a, log: Math.log, log1p: Math.log1p,
  expm1: Math.expm1, tanh: Math.tanh, logistic: (a) => 1 / (1 + Math.exp(-a)), sqrt: Math.sqrt,
  rsqrt: (a) => 1 / Math.sqrt(a), square: (a) => a * a, abs: Math.abs, sign: Math.sign,
  floor: Math.floor, not: (a) => (a ? 0 : 1), is_finite: (a) => (Number.isFinite(a) ? 1 : 0),
};

const ofTwo = {
  add: (a, b) => a + b, add_any: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b,
  div: (a, b) => a / b, max: Math.max, min: Math.min, pow: Math.pow,
  eq: (a, b) => (a === b ? 1 : 0), ne: (a, b) => (a !== b ? 1 : 0),
  lt: (a, b) => (a < b ? 1 : 0), le: (a, b) => (a <= b ? 1 : 0),
  gt: (a, b) => (a > b ? 1 : 0), ge: (a, b) => (a >= b ? 1 : 0),
  and: (a, b) => (a && b ? 1 : 0), or: (a, b) => (a || b ? 1 : 0),
};

const reduced = {
  reduce_sum: (a, b) => a + b, reduce_max: Math.max, reduce_min: Math.min,
};

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

const floatsOf = (base64) => new Float32Array(bytesOf(base64));

function product(out, [a, b], [batch, rows, inner, columns]) {
  const sums = new Float64Array(columns);
  return () => {
    for (let row = 0; row < batch * rows; row++) {
      const start = Math.floor(row / rows) * inner * columns;
      sums.fill(0);
      for (let i = 0; i < inner; i++) {
        const factor = a[row * inner + i];
        const from = start + i * columns;
        for (let j = 0; j < columns; j++) sums[j] += factor * b[from + j];
      }
      out.set(sums, row * columns);
    }
  };
}

function taken(out, [index, ...sources]) {
  if (sources.length === 1) {
    const [source] = sources;
    return () => { for (let i = 0; i < out.length; i++) out[i] = source[index[i]]; };
  }
  const all = new Float32Array(sources.reduce((total, source) => total + source.length, 0));
  return () => {
    let start = 0;
    for (const source of sources) { all.set(source, start); start += source.length; }
    for (let i = 0; i < out.length; i++) out[i] = all[index[i]];
  };
}

function elementwise(name, out, given, [power]) {
  const [a, b, c] = given;
  const [p, q, r] = given.map((array) => (array.length === 1 ? 0 : 1));
  if (name === "integer_pow")
    return () => { for (let i = 0; i < out.length; i++) out[i] = a[i * p] ** power; };
  if (name === "select_n")
    return () => { for (let i = 0; i < out.length; i++) out[i] = a[i * p] ? c[i * r] : b[i * q]; };
  if (given.length === 1) {
    const one = ofOne[name];
    return () => { for (let i = 0; i < out.length; i++) out[i] = one(a[i * p]); };
  }
  const two = ofTwo[name];
  return () => { for (let i = 0; i < out.length; i++) out[i] = two(a[i * p], b[i * q]); };
}

// (x, number of the label) => what the program gives, an array that the next call writes anew.
function runnable(stored) {
  const buffer = bytesOf(stored.bytes);
  const at = new Array(stored.places);
  at[0] = new Float32Array(stored.size);
  for (const [place, whole, start, size] of stored.constants)
    at[place] = new (whole ? Int32Array : Float32Array)(buffer, 4 * start, size);
  let label = 0;
  const steps = stored.steps.map(([name, place, size, of, numbers]) => {
    const out = (at[place] = new Float32Array(size));
    const given = of.map((i) => at[i]);
    if (name === "dot") return product(out, given, numbers);
    if (name === "take") return taken(out, given);
    if (name === "row")
      return () => out.set(given[0].subarray(label * size, (label + 1) * size));
    if (name in reduced) {
      const [both, [inner]] = [reduced[name], numbers];
      return () => {
        for (let i = 0; i < size; i++) {
          let value = given[0][i * inner];
          for (let j = 1; j < inner; j++) value = both(value, given[0][i * inner + j]);
          out[i] = value;
        }
      };
    }
    return elementwise(name, out, given, numbers);
  });
  return (x, chosen) => {
    at[0].set(x);
    label = chosen;
    for (const step of steps) step();
    return at[stored.result];
  };
}
