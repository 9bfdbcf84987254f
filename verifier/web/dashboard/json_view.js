// JSON as lines of text, with the lines of differing paths marked.

import { ExactNumber } from "./api.js";
import { el } from "./dom.js";

const LINES_MAX = 4000;

export function valueText(value) {
  if (value instanceof ExactNumber) return value.source;
  if (Array.isArray(value)) return `[${value.map(valueText).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${valueText(item)}`).join(", ")}}`;
  }
  return value === undefined ? "" : JSON.stringify(value);
}

function escapeSegment(name) {
  return String(name).replaceAll("~", "~0").replaceAll("/", "~1");
}

// Every line of a value: {text, path}. A container's closing line has its own path, too.
function* lines(value, path, depth, prefix, comma) {
  const pad = "  ".repeat(depth);
  const isArray = Array.isArray(value);
  const isObject = value !== null && typeof value === "object" && !isArray && !(value instanceof ExactNumber);
  const members = isArray ? [...value.entries()] : isObject ? Object.entries(value) : [];
  if (!members.length) {
    yield { path, text: `${pad}${prefix}${valueText(value)}${comma}` };
    return;
  }
  yield { path, text: `${pad}${prefix}${isArray ? "[" : "{"}` };
  for (const [place, [key, item]] of members.entries()) {
    const name = isArray ? "" : `${JSON.stringify(key)}: `;
    yield* lines(item, `${path}/${escapeSegment(key)}`, depth + 1, name, place + 1 < members.length ? "," : "");
  }
  yield { path, text: `${pad}${isArray ? "]" : "}"}${comma}` };
}

// `marked` are JSON Pointers: their lines, and all lines below them, are marked.
export function jsonView(value, marked = []) {
  const block = el("pre", { class: "json", tabindex: 0 });
  const exact = new Set(marked);
  let shown = 0;
  for (const line of lines(value, "", 0, "", "")) {
    if (++shown > LINES_MAX) {
      block.append(el("span", { class: "line" }, `… cut here: over ${LINES_MAX} lines\n`));
      break;
    }
    const hit = isMarked(line.path, exact);
    block.append(el(hit ? "mark" : "span", { class: "line" }, `${line.text}\n`));
  }
  // Once it is laid out, a long value is scrolled to what differs.
  requestAnimationFrame(() => {
    const first = block.querySelector("mark");
    if (first) block.scrollTop = first.offsetTop - block.clientHeight / 3;
  });
  return block;
}

function isMarked(path, exact) {
  if (exact.size === 0) return false;
  for (let end = path.length; end > 0; end = path.lastIndexOf("/", end - 1)) {
    if (exact.has(path.slice(0, end))) return true;
  }
  return exact.has("");
}
