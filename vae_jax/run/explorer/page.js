// The page: its state, and what changes it.

const page = JSON.parse(element("contents").textContent);
const images = page.kind === "images";
const codes = floatsOf(page.codes);
const draws = floatsOf(page.draws.z);
const decoder = page.decoder && runnable(page.decoder);
const encoder = page.encoder && runnable(page.encoder);
const [height, width, channels] = page.shape ?? [0, 0, 0];
const state = { z: codes.slice(0, page.size), label: page.told ? page.told[0] : 0, row: 0 };
const ends = [];
const firstColour = Math.max(0, page.colours.findLastIndex((of) => of.names));
let drawn = 0;
document.body.classList.add(page.kind);

function say(text, wrong = false) {
  element("said").textContent = text;
  element("said").classList.toggle("wrong", wrong);
}

// Codes on a sphere are as long as one.
function fed(z) {
  if (!page.spherical) return z;
  const length = Math.hypot(...z) || 1;
  return z.map((value) => value / length);
}

async function asked(what, body) {
  const answer = await fetch(what, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(await answer.text());
  return new Float32Array(await answer.arrayBuffer());
}

const label = () => (page.classes.length ? state.label : null);

async function decode(many) {
  if (decoder) return many.map((z) => decoder(fed(z), state.label).slice());
  const values = await asked("decode", { z: many.map((z) => [...fed(z)]), label: label() });
  const size = values.length / many.length;
  return many.map((_, i) => values.subarray(i * size, (i + 1) * size));
}

async function encode(x) {
  if (encoder) return encoder(x, state.label).slice();
  return asked("encode", { x: [...x], label: label() });
}

// One after the other; of those that come while one is at work the last alone is done.
function latest(work) {
  let [busy, again] = [false, false];
  return async function run() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      do {
        again = false;
        await new Promise(requestAnimationFrame);
        await work();
      } while (again);
    } catch (error) {
      say(error.message, true);
    } finally {
      busy = false;
    }
  };
}

// What is shown of the code

const show = latest(async () => {
  const [values] = await decode([state.z]);
  if (images) paint(element("decoded"), values);
  else writeRow(values);
});

const showLine = latest(async () => {
  if (!images) return;
  const shares = Array.from({ length: 9 }, (_, i) => i / 8);
  const values = await decode(shares.map((share) => mixed(share)));
  for (const [i, button] of [...element("strip").children].entries())
    paint(button.firstChild, values[i]);
  for (const i of [0, 1]) paint(element(`end-${i}`), values[8 * i]);
});

const mixed = (share) => ends[0].map((a, i) => a + share * (ends[1][i] - a));

function changed() {
  for (const i of page.active) {
    const slider = element(`z${i}`);
    slider.value = state.z[i];
    slider.nextSibling.textContent = state.z[i].toFixed(2);
  }
  map.mark(state.z, state.moved ? -1 : state.row);
  show();
}

function beside(row) {
  element("beside").hidden = !images;
  element("beside").style.visibility = "visible";
  if (!images) return;
  tile(element("original"), row);
  element("original").setAttribute("aria-label", `The picture itself: ${named(row)}`);
  element("original-name").textContent = named(row);
}

function choose(row) {
  [state.row, state.moved] = [row, false];
  state.z = codes.slice(row * page.size, (row + 1) * page.size);
  if (page.told) press(page.told[row]);
  beside(row);
  say("");
  changed();
}

// Beside a code that was moved by hand stays what it was of.
function moved(z, byHand = false) {
  if (!byHand) {
    state.row = -1;
    element("beside").style.visibility = "hidden";
  }
  state.moved = true;
  state.z = z;
  changed();
}

function press(number) {
  state.label = number;
  [...element("classes").children].forEach((button, i) =>
    button.setAttribute("aria-pressed", i === number));
  showLine();
}

// The page's parts

const SLIDERS = 12; // that are seen at once

function makeSliders() {
  const unused = page.size - page.active.length;
  element("used").textContent = page.active.length
    ? `${page.active.length} of ${page.size} are used, the dearest first`
      + (unused ? `; of ${unused} the mean hardly moves.` : ".")
    : "No latent is used: the picture is the same whatever the code.";
  const more = made("details", {}, made("summary", { textContent: `${page.active.length - SLIDERS} more` }));
  for (const [place, i] of page.active.entries()) {
    const slider = made("input", {
      type: "range", id: `z${i}`, min: -page.reach[i], max: page.reach[i], step: 0.01,
    });
    slider.addEventListener("input", () => {
      const z = state.z.slice();
      z[i] = Number(slider.value);
      moved(z, true);
    });
    const bar = (on) => () => element(`cost-${i}`).classList.toggle("now", on);
    const row = made("div", { className: "latent" },
      made("label", { htmlFor: slider.id, textContent: `z${i}` }), slider, made("output"));
    for (const name of ["focusin", "pointerenter"]) row.addEventListener(name, bar(true));
    for (const name of ["focusout", "pointerleave"]) row.addEventListener(name, bar(false));
    (place < SLIDERS ? element("sliders") : more).append(row);
  }
  if (page.active.length > SLIDERS) element("sliders").append(more);
}

function makeCost() {
  const order = [...page.cost.keys()].sort((a, b) => page.cost[b] - page.cost[a]);
  const most = Math.max(...page.cost, 1e-9);
  const make = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const step = Math.min(300 / order.length, 24);
  const total = page.cost.reduce((a, b) => a + b, 0);
  const text = `${page.cost_of}, of each latent: ${most.toFixed(2)} at most, ${total.toFixed(1)} in all`;
  const chart = make("svg", {
    viewBox: "0 0 300 74", preserveAspectRatio: "none", role: "img", "aria-label": text,
  });
  order.forEach((i, place) => {
    const tall = Math.max((70 * page.cost[i]) / most, 0.8);
    const bar = make("rect", {
      id: `cost-${i}`, x: place * step, y: 74 - tall, width: Math.max(step * 0.8, 0.5), height: tall,
      class: page.active.includes(i) ? "active" : "",
    });
    const title = make("title", {});
    title.textContent = `z${i}: ${page.cost[i].toFixed(2)}`;
    bar.append(title);
    chart.append(bar);
  });
  element("cost").append(chart, made("p", { className: "note", textContent: text }));
}

function makeClasses() {
  if (!page.classes.length) return;
  element("classes").hidden = false;
  page.classes.forEach((name, number) => {
    const button = made("button", { type: "button", textContent: name });
    button.addEventListener("click", () => { press(number); show(); });
    element("classes").append(button);
  });
}

function makeLine() {
  const of = page.colours[firstColour]?.of;
  const unlike = (row) => (page.told ? page.told[row] === page.told[0] : !of || of[row] !== of[0]);
  const other = [...Array(page.num).keys()].find((row) => row && unlike(row)) ?? 0;
  ends.push(codes.slice(0, page.size), codes.slice(other * page.size, (other + 1) * page.size));
  for (let i = 0; i < 9 && images; i++) {
    const button = made("button", { type: "button", ariaLabel: `${i} eighths of the way from A to B` },
      made("canvas"));
    button.addEventListener("click", () => goTo(i / 8));
    element("strip").append(button);
  }
  element("share").addEventListener("input", () => goTo(Number(element("share").value)));
  for (const i of [0, 1])
    element(`keep-${i}`).addEventListener("click", () => {
      ends[i] = state.z.slice();
      showLine();
    });
}

function goTo(share) {
  element("share").value = share;
  [...element("strip").children].forEach((button, i) =>
    button.setAttribute("aria-current", Math.round(8 * share) === i));
  moved(mixed(share));
}

function brushed(rows) {
  const most = images ? 72 : 12;
  const some = rows.length <= most ? rows
    : Array.from({ length: most }, (_, i) => rows[Math.floor((i * rows.length) / most)]);
  element("count").textContent = `${rows.length.toLocaleString("en-US")} of ${page.num.toLocaleString("en-US")} brushed`;
  if (!images) {
    const head = made("tr", {}, made("th"), ...page.columns.map((c) => made("th", { textContent: c.name })));
    const body = some.map((row) => {
      const button = made("button", { type: "button", textContent: page.names[row] });
      button.addEventListener("click", () => choose(row));
      return made("tr", {}, made("td", {}, button),
        ...page.rows[row].map((text) => made("td", { textContent: text })));
    });
    const table = made("table", {}, head, ...body);
    element("brushed").replaceChildren(made("div", { className: "scroll", tabIndex: 0 }, table));
    return;
  }
  const tiles = some.map((row) => {
    const canvas = document.createElement("canvas");
    tile(canvas, row);
    const button = made("button", { type: "button", ariaLabel: named(row), title: named(row) }, canvas);
    button.addEventListener("click", () => choose(row));
    return button;
  });
  element("brushed").replaceChildren(made("div", { className: "tiles" }, ...tiles));
}

function peek(row, x, y, across) {
  const canvas = element("peek");
  canvas.hidden = row < 0 || !images;
  if (canvas.hidden) return;
  tile(canvas, row);
  canvas.style.left = `${x > across / 2 ? x - 90 : x + 16}px`;
  canvas.style.top = `${Math.max(0, y - 40)}px`;
}

const map = latentMap(page, {
  chosen: choose,
  brushed,
  peek,
  move(of, dx, dy) {
    const [u, v] = of.directions;
    moved(state.z.map((value, i) => value + dx * u[i] + dy * v[i]), true);
  },
});

function paintBy(of) {
  const legend = element("legend");
  legend.replaceChildren();
  if (!of) return map.paint(null);
  if (of.ranks) {
    const scale = made("span", { className: "scale" });
    scale.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(ranked)})`;
    legend.append(made("li", {}, "least", scale, "most"));
    return map.paint((i) => (of.ranks[i] === null ? colourOf(-1) : ranked(of.ranks[i])));
  }
  const names = of.of.includes(-1) ? [...of.names, "none"] : of.names;
  if (names.length <= 30)
    names.forEach((name, i) => {
      const dot = made("i");
      dot.style.background = colourOf(i < of.names.length ? i : -1, of.names.length);
      legend.append(made("li", {}, dot, name));
    });
  return map.paint((i) => colourOf(of.of[i], of.names.length));
}

function setMode(walking) {
  document.querySelector(`[name=mode][value=${walking ? "walk" : "brush"}]`).checked = true;
  map.walk(walking);
  for (const id of ["brushed", "count"]) element(id).hidden = walking;
  const what = page.noun;
  element("map-help").textContent = walking
    ? "Drag, or use the arrow keys: the code goes along with you, its other latents stay."
    : `Drag a box, or move it with the arrow keys: the ${what}s in it are below. Click a point for its ${what}.`;
}

function makeMap() {
  page.maps.forEach((of, i) => element("projection").append(new Option(of.name, i)));
  page.colours.forEach((of, i) => element("colour").append(new Option(of.name, i)));
  element("colour-label").hidden = page.colours.length < 2;
  element("colour").addEventListener("change", () => paintBy(page.colours[element("colour").value]));
  const project = () => {
    const of = page.maps[element("projection").value];
    element("map").setAttribute("aria-label", `Map of ${page.num} codes by ${of.name}`);
    element("axes").replaceChildren(...of.axes.map((name, i) =>
      made("span", { textContent: name && `${"→↑"[i]} ${name}` })));
    map.show(of);
    map.mark(state.z, state.moved ? -1 : state.row);
  };
  element("projection").addEventListener("change", project);
  for (const radio of document.querySelectorAll("[name=mode]"))
    radio.addEventListener("change", () => setMode(radio.value === "walk"));
  project();
  element("colour").selectedIndex = firstColour;
  paintBy(page.colours[firstColour]);
  setMode(page.size === 2);
}

async function begin() {
  if (images) {
    atlas.src = page.atlas.src;
    await atlas.decode();
    element("decoded").classList.add("sharp");
    [element("decoded").width, element("decoded").height] = [width, height];
  } else makeRow();
  for (const [name, text] of page.facts)
    element("facts").append(made("div", {}, made("dt", { textContent: name }), made("dd", { textContent: text })));
  element("made").textContent = `Step ${page.step.toLocaleString("en-US")} of a run of vae_jax ${page.version}.`
    + (decoder ? " The networks run in this page." : " The networks run in the server.");
  makeCost();
  makeSliders();
  makeClasses();
  makeLine();
  makeMap();
  makeOwn();
  element("draw").addEventListener("click", () => {
    const start = (state.label * page.draws.num + (drawn++ % page.draws.num)) * page.size;
    moved(draws.slice(start, start + page.size));
  });
  element("average").addEventListener("click", () => {
    const mean = new Float32Array(page.size);
    for (let i = 0; i < codes.length; i++) mean[i % page.size] += codes[i] / page.num;
    moved(mean);
  });
  choose(0);
  showLine();
  document.documentElement.dataset.ready = "";
}

begin().catch((error) => say(error.message, true));
globalThis.explorer = { state, decode, encode };
