// A row of a table, decoded: each column's value beside a bar.

function written(value, column) {
  if (column.levels) return "";
  let number = value;
  if (column.kind !== "count") {
    number = value * column.spread + column.centre;
    if (column.kind === "positive") number = Math.exp(number);
    number = Math.min(Math.max(number, column.low), column.high);
  }
  if (column.kind === "date") {
    const text = new Date(1000 * number).toISOString();
    return column.day ? text.slice(0, 10) : text.slice(0, 19).replace("T", " ");
  }
  const digits = column.decimals ?? Math.max(0, 3 - Math.floor(Math.log10(Math.abs(number) || 1)));
  return column.thousands
    ? number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : number.toFixed(Math.min(digits, 12));
}

// Of [0, 1], where a number lies between the least and the largest that were seen.
function placed(value, column) {
  let [number, low, high] = [value, column.low, column.high];
  if (column.kind !== "count") {
    const stored = (v) => ((column.kind === "positive" ? Math.log(v) : v) - column.centre) / column.spread;
    [low, high] = [stored(low), stored(high)];
  }
  return Math.min(Math.max((number - low) / (high - low || 1), 0), 1);
}

const ordered = ({ kind }) => kind === "discrete" || kind === "ordered";

// Of an order the median, else the most probable.
function chosenLevel(column, p) {
  const { levels } = column;
  if (ordered(column)) {
    let below = 0;
    return levels[p.findIndex((of) => (below += of) >= 0.5)] ?? levels.at(-1);
  }
  const best = p.indexOf(Math.max(...p));
  return `${levels[best].trim()}, ${Math.round(100 * p[best])} %`;
}

const lines = [];

function makeRow() {
  element("row").hidden = false;
  for (const column of page.columns) {
    const bar = made("div", { className: "bar" });
    const many = column.kind === "boolean" ? 2 : (column.levels ?? [0]).length;
    const parts = Array.from({ length: many }, (_, i) => {
      const part = made("i", { title: column.levels ? column.levels[i] : "" });
      if (column.levels)
        part.style.background = ordered(column) ? ranked(i / (many - 1)) : colourOf(i, many);
      bar.append(part);
      return part;
    });
    const [value, own] = [made("td", { className: "value" }), made("td", { className: "value own" })];
    const name = made("th", { scope: "row", textContent: column.name, title: column.name });
    element("row").tBodies[0].append(made("tr", {}, name, made("td", {}, bar), value, own));
    lines.push({ column, value, own, parts, many });
  }
}

function writeRow(values) {
  element("row-name").textContent = state.row >= 0 ? page.names[state.row] : "";
  for (const [i, { column, value, own, parts, many }] of lines.entries()) {
    const { start, levels } = column;
    if (levels) {
      const p = column.kind === "boolean"
        ? [1 - values[start], values[start]] : [...values.subarray(start, start + many)];
      value.textContent = chosenLevel(column, p);
      parts.forEach((part, j) => { part.style.width = `${100 * p[j]}%`; });
    } else {
      value.textContent = written(values[start], column);
      parts[0].style.width = `${100 * placed(values[start], column)}%`;
    }
    value.title = value.textContent;
    own.textContent = state.row >= 0 ? page.rows[state.row][i] : "";
    own.title = own.textContent;
  }
}
