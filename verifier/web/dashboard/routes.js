// The table of routes: how often each differs, how sure that is, and how fast both sides are.

import { get } from "./api.js";
import { el, svg } from "./dom.js";
import { count, milliseconds, percent } from "./format.js";
import { Region } from "./region.js";
import { table } from "./table.js";

export function mountRoutes(root) {
  return new Region(root, {
    load: (signal) => get("/v1/routes", { limit: 1000 }, signal),
    render,
    isEmpty: (page) => page.items.length === 0,
    empty: "No request has a verdict yet. Routes appear here as soon as the first requests are joined.",
  });
}

function render(page) {
  const widest = Math.max(0.01, ...page.items.map((row) => row.divergence_rate_interval?.[1] ?? 0));
  const sides = ["main", "shadow", "canary"].filter((side) => page.items.some((row) => row.sides[side]));
  const columns = [
    { key: "route", label: "Route", value: (row) => row.route, cell: (row) => link(row, "divergences", row.route) },
    { key: "rate", label: "Divergence rate", hint: "Of compared requests, with its 95 % interval", class: "rate",
      value: (row) => row.divergence_rate, cell: (row) => rate(row, widest) },
    { key: "total", label: "Requests", numeric: true, value: (row) => row.total, cell: (row) => count(row.total) },
    ...["match", "divergence", "incomplete", "incomparable"].map(verdictColumn),
    ...sides.map((side) => sideColumn(side, "5xx", (answer) => answer.error_rate, percent, `${side}: answers with a 5xx status`)),
    ...sides.map((side) => sideColumn(side, "p50 ms", (answer) => answer.latency_s.p50, milliseconds, `${side}: median latency`)),
    ...sides.map((side) => sideColumn(side, "p99 ms", (answer) => answer.latency_s.p99, milliseconds,
      `${side}: latency that 99 % stay under`)),
  ];
  return [
    table({ name: "routes", caption: "Routes", columns, rows: page.items, rowKey: (row) => row.route, sort: "-rate" }),
    page.next_cursor && el("p", { class: "state" }, "Only the first 1000 routes are shown."),
  ];
}

function link(row, view, text) {
  return el("a", { href: `#/${view}?route=${encodeURIComponent(row.route)}` }, text);
}

function verdictColumn(verdict) {
  const cell = (row) => el("span", { class: row[verdict] ? verdict : "zero" }, count(row[verdict]));
  return { key: verdict, label: verdict[0].toUpperCase() + verdict.slice(1), numeric: true, value: (row) => row[verdict], cell };
}

function sideColumn(side, label, read, show, hint) {
  const value = (row) => (row.sides[side] ? read(row.sides[side]) : null);
  return { key: `${side} ${label}`, label: `${side} ${label}`, hint, numeric: true, value, cell: (row) => show(value(row)) };
}

// The rate as a dot on its interval, all rows on one scale from zero to the widest interval's end.
function rate(row, widest) {
  if (row.divergence_rate === null) return el("span", { class: "quiet-text" }, "nothing compared");
  const [low, high] = row.divergence_rate_interval;
  const x = (share) => 3 + (share / widest) * 94;
  const picture = svg("svg", { class: "interval", viewBox: "0 0 100 12", "aria-hidden": "true" },
    svg("line", { class: "track", x1: 3, x2: 97, y1: 6, y2: 6 }),
    svg("line", { class: "range", x1: x(low), x2: x(high), y1: 6, y2: 6 }),
    svg("circle", { class: row.divergence ? "dot" : "dot none", cx: x(row.divergence_rate), cy: 6, r: 3 }));
  const text = el("span", {}, el("b", {}, percent(row.divergence_rate)),
    el("small", {}, ` ${percent(low).replace(" %", "")} – ${percent(high)}`));
  return el("span", { class: "rate-cell" }, picture, text);
}
