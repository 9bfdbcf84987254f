// A table whose columns sort by a click or Enter on their heading.

import { el, replace } from "./dom.js";

const chosen = new Map(); // table name -> {key, down}: survives refreshes and changes of view

// columns: [{key, label, hint?, numeric?, value(row), cell?(row)}]; `value` sorts, `cell` shows.
// `sort` is the key sorted by at first, "-key" downwards; null keeps the rows' own order.
export function table({ name, caption, columns, rows, rowKey, sort = null, onRow = null }) {
  const box = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, "data-focus": `${name}:box` });
  const draw = () => {
    const order = chosen.get(name) ?? (sort && { key: sort.replace(/^-/, ""), down: sort.startsWith("-") });
    const shown = order ? sorted(rows, columns.find((column) => column.key === order.key), order.down) : rows;
    const head = el("tr", {}, columns.map((column) => heading(name, column, order, draw, sort !== null)));
    const body = shown.map((row) => line(name, row, columns, rowKey(row), onRow));
    const left = box.scrollLeft;
    replace(box, el("table", {}, el("caption", { class: "quiet" }, caption), el("thead", {}, head), el("tbody", {}, body)));
    box.scrollLeft = left;
  };
  draw();
  return box;
}

function heading(name, column, order, draw, sortable) {
  const current = order?.key === column.key;
  const attributes = { scope: "col", class: column.numeric ? "number" : null, title: column.hint };
  if (!sortable) return el("th", attributes, column.label);
  const choose = () => {
    const down = current ? !order.down : Boolean(column.numeric);
    chosen.set(name, { key: column.key, down });
    draw();
  };
  const mark = el("span", { class: "sort", "aria-hidden": "true" }, current ? (order.down ? "▾" : "▴") : "");
  const button = el("button", { type: "button", onclick: choose, "data-focus": `${name}:head:${column.key}` }, column.label, mark);
  return el("th", { ...attributes, "aria-sort": current ? (order.down ? "descending" : "ascending") : null }, button);
}

function line(name, row, columns, key, onRow) {
  const cells = columns.map((column, place) =>
    el(place === 0 ? "th" : "td", { scope: place === 0 ? "row" : null, class: column.numeric ? "number" : column.class ?? null },
      column.cell ? column.cell(row) : column.value(row)));
  const node = el("tr", { class: onRow ? "open" : null }, cells);
  if (onRow) {
    // The first cell holds a link for the keyboard; a click anywhere else in the row does the same.
    node.addEventListener("click", (event) => {
      if (!event.target.closest("a, button") && !String(getSelection())) onRow(row);
    });
  }
  node.querySelectorAll("a, button").forEach((target, place) => {
    target.dataset.focus ??= `${name}:${key}:${place}`;
  });
  return node;
}

function sorted(rows, column, down) {
  if (!column) return rows;
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX || noY) return Number(noX) - Number(noY); // what is unknown stands last, either way
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}
