// The map of the codes: points, the code that is shown, and a brush.

const palette = [
  "#4c78d0", "#e8793a", "#3aa05c", "#d1495b", "#8e6bc7", "#9a6b4f", "#e07bb5", "#7f8790",
  "#b3a125", "#2ab0bf",
];

function colourOf(number, many) {
  if (number < 0) return "#9aa0a8";
  if (many <= palette.length) return palette[number];
  return `hsl(${(360 * number) / many} 60% ${number % 2 ? 45 : 60}%)`;
}

// From least to most: what is bright in the dark is dark in the light, so both are in the middle.
const ranked = (share) => `hsl(${250 - 210 * share} ${55 + 25 * share}% ${42 + 16 * share}%)`;

const element = (id) => document.getElementById(id);

function made(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// move(dx, dy of the plane), chosen(row), brushed(rows, final)
function latentMap(page, { move, chosen, brushed, peek }) {
  const canvas = element("map");
  const layer = document.createElement("canvas");
  let [map, colour, walking] = [page.maps[0], null, false];
  let [xy, centre, scale, width, height, ratio] = [null, [0, 0], 1, 1, 1, 1];
  let brush = null; // [x, y, x, y] of the map
  let here = null;

  const toScreen = (x, y) => [
    width / 2 + (x - centre[0]) * scale, height / 2 - (y - centre[1]) * scale,
  ];
  const toMap = (x, y) => [
    centre[0] + (x - width / 2) / scale, centre[1] - (y - height / 2) / scale,
  ];

  function drawPoints() {
    const context = layer.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const styles = getComputedStyle(document.documentElement);
    context.globalAlpha = Number(styles.getPropertyValue("--point"));
    const radius = page.num > 800 ? 2 : 3;
    for (let i = 0; i < page.num; i++) {
      const [x, y] = toScreen(xy[2 * i], xy[2 * i + 1]);
      context.fillStyle = colour ? colour(i) : palette[0];
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
  }

  function draw() {
    const context = canvas.getContext("2d");
    const styles = getComputedStyle(document.documentElement);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(layer, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const ink = styles.getPropertyValue("--ink");
    if (brush && !walking) {
      const [[x0, y0], [x1, y1]] = [toScreen(brush[0], brush[1]), toScreen(brush[2], brush[3])];
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.setLineDash([5, 3]);
      context.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
      context.setLineDash([]);
    }
    if (here) {
      const [x, y] = toScreen(...here).map((at, i) =>
        Math.min(Math.max(at, 10), (i ? height : width) - 10));
      for (const [style, thick] of [[styles.getPropertyValue("--card"), 6], [ink, 2.5]]) {
        context.strokeStyle = style;
        context.lineWidth = thick;
        context.beginPath();
        context.arc(x, y, 8, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  function fit() {
    if (!xy) return;
    const box = canvas.getBoundingClientRect();
    [width, height, ratio] = [box.width, box.height, window.devicePixelRatio || 1];
    for (const of of [canvas, layer])
      [of.width, of.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
    for (let i = 0; i < xy.length; i++) {
      low[i % 2] = Math.min(low[i % 2], xy[i]);
      high[i % 2] = Math.max(high[i % 2], xy[i]);
    }
    centre = [0, 1].map((i) => (low[i] + high[i]) / 2);
    const spread = [0, 1].map((i) => Math.max(high[i] - low[i], 1e-6));
    scale = 0.94 * Math.min(width / spread[0], height / spread[1]);
    drawPoints();
    draw();
  }

  function nearest(x, y, within = Infinity) {
    let [best, least] = [-1, within];
    for (let i = 0; i < page.num; i++) {
      const distance = Math.hypot(xy[2 * i] - x, xy[2 * i + 1] - y);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  function inside() {
    if (!brush) return [];
    const [x0, x1] = [brush[0], brush[2]].sort((a, b) => a - b);
    const [y0, y1] = [brush[1], brush[3]].sort((a, b) => a - b);
    const rows = [];
    for (let i = 0; i < page.num; i++) {
      const [x, y] = [xy[2 * i], xy[2 * i + 1]];
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) rows.push(i);
    }
    return rows;
  }

  function walkTo(x, y) {
    if (!map.directions) {
      chosen(nearest(x, y));
      return;
    }
    move(map, x - here[0], y - here[1]);
  }

  let start = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return toMap(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = at(event);
    peek(-1);
    if (walking) walkTo(...start);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!start) {
      peek(nearest(x, y, 10 / scale), event.offsetX, event.offsetY, width);
    } else if (walking) {
      walkTo(x, y);
    } else {
      brush = [...start, x, y];
      brushed(inside());
      draw();
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    const still = start && Math.hypot(x - start[0], y - start[1]) * scale < 4;
    if (still && !walking) {
      const row = nearest(x, y, 14 / scale);
      if (row >= 0) chosen(row);
    }
    start = null;
  });
  canvas.addEventListener("pointercancel", () => { start = null; });
  canvas.addEventListener("pointerleave", () => peek(-1));
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in arrows)) return;
    event.preventDefault();
    const [dx, dy] = arrows[event.key].map((step) => (step * 0.03 * height) / scale);
    if (walking) {
      if (here) walkTo(here[0] + dx, here[1] + dy);
      return;
    }
    brush = [brush[0] + dx, brush[1] + dy, brush[2] + dx, brush[3] + dy];
    brushed(inside());
    draw();
  });
  new ResizeObserver(fit).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fit);

  function brushAround(x, y) {
    const [w, h] = [(0.16 * width) / scale, (0.16 * height) / scale];
    brush = [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
  }

  return {
    show(which) {
      map = which;
      xy = map.values ??= floatsOf(map.xy);
      fit();
      brushAround(xy[0], xy[1]);
      brushed(inside());
      draw();
    },
    paint(how) { colour = how; drawPoints(); draw(); },
    walk(on) { walking = on; draw(); },
    // Where a code lies: on a plane its shadow, else the point that it is the code of.
    mark(z, row) {
      if (map.directions)
        here = map.directions.map((of) =>
          of.reduce((sum, d, i) => sum + d * (z[i] - map.origin[i]), 0));
      else here = row >= 0 ? [xy[2 * row], xy[2 * row + 1]] : null;
      draw();
    },
  };
}
