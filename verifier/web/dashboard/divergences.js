// Divergent requests, newest first, by route, kind, field and time; a row opens the request side by side.

import { el } from "./dom.js";
import { fieldText } from "./fields.js";
import { chosenOf, filters } from "./filters.js";
import { iso, plural, time } from "./format.js";
import { Pages } from "./pages.js";
import { Region } from "./region.js";
import { table } from "./table.js";
import { valueText } from "./json_view.js";

const FILTERS = [
  { name: "route", label: "Route", placeholder: "POST /api/v1/…", size: 30 },
  { name: "kind", label: "Kind", choices: ["status", "header", "body", "write"] },
  { name: "field", label: "Field", placeholder: "/items/*/price" },
  { name: "since", label: "Since", placeholder: "2026-11-22T20:00Z" },
  { name: "until", label: "Until", placeholder: "Unix s or ISO" },
];
const DIFFERENCES_SHOWN = 2;
const VALUE_CHARS = 80;

export function mountDivergences(root, query) {
  root.append(filters("divergences", FILTERS, query));
  const chosen = chosenOf(query, FILTERS.map((filter) => filter.name));
  const pages = new Pages("/v1/divergences", chosen, (item) => item.request_id);
  pages.region = new Region(root, {
    load: (signal) => pages.load(signal),
    render: (state) => [list(state.items), pages.footer(state)],
    isEmpty: (state) => state.items.length === 0,
    empty: query.size ? "No divergent request fits these filters." : "No request diverges.",
  });
  return pages.region;
}

export function requestLink(id) {
  return el("a", { href: `#/requests/${encodeURIComponent(id)}`, class: "id" }, id);
}

function list(items) {
  const columns = [
    { key: "request", label: "Request", class: "id", value: (row) => row.request_id, cell: (row) => requestLink(row.request_id) },
    { key: "differences", label: "What differs (main → shadow)", class: "wide", value: (row) => row.differences.length, cell: differences },
    { key: "ts", label: "Time", value: (row) => row.ts, cell: (row) => el("time", { datetime: iso(row.ts), title: iso(row.ts) }, time(row.ts)) },
    { key: "route", label: "Route", value: (row) => row.route },
  ];
  const onRow = (row) => {
    location.hash = `#/requests/${encodeURIComponent(row.request_id)}`;
  };
  return table({ name: "divergences", caption: "Divergent requests", columns, rows: items, rowKey: (row) => row.request_id, onRow });
}

function differences(row) {
  const shown = row.differences.slice(0, DIFFERENCES_SHOWN).map((one) =>
    el("li", {}, el("span", { class: "tag" }, `${one.kind} ${one.change}`), " ",
      one.kind === "status" ? "" : el("code", { class: "path" }, fieldText(one.kind, one.path)), " ",
      el("span", { class: "was" }, sample(one.main, one.change === "extra")), " → ",
      el("span", { class: "now" }, sample(one.shadow, one.change === "missing"))));
  const rest = row.differences.length - shown.length;
  return el("ul", { class: "plain" }, shown, rest > 0 && el("li", { class: "quiet-text" }, `and ${plural(rest, "more difference")}`));
}

function sample(value, absent) {
  if (absent) return "absent";
  const text = valueText(value);
  return text.length > VALUE_CHARS ? `${text.slice(0, VALUE_CHARS)}…` : text;
}
