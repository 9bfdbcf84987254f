// The table of fields: what differs, how often, and example requests.

import { get } from "./api.js";
import { el } from "./dom.js";
import { ago, count, iso, percent } from "./format.js";
import { Region } from "./region.js";
import { table } from "./table.js";

const EXEMPLARS_SHOWN = 3;

export function mountFields(root, query) {
  const route = query.get("route") ?? "";
  if (route) {
    root.append(el("p", { class: "filters" }, "Only ", el("code", {}, route), " ", el("a", { href: "#/fields" }, "Show all routes")));
  }
  return new Region(root, {
    load: (signal) => get("/v1/fields", { route, limit: 1000 }, signal),
    render,
    isEmpty: (page) => page.items.length === 0,
    empty: "No field differs.",
  });
}

export function fieldText(kind, field) {
  if (kind === "status") return "status";
  return field === "" ? "(whole body)" : field;
}

function render(page) {
  const columns = [
    { key: "field", label: "Field", class: "path", value: (row) => row.field, cell: fieldLink },
    { key: "kind", label: "Kind", value: (row) => row.kind },
    { key: "change", label: "Change", value: (row) => row.change },
    { key: "route", label: "Route", value: (row) => row.route },
    { key: "count", label: "Requests", numeric: true, value: (row) => row.count, cell: (row) => count(row.count) },
    { key: "share", label: "Share", hint: "Of the route's compared requests", numeric: true, value: (row) => row.share,
      cell: (row) => percent(row.share) },
    { key: "ignored", label: "Explained", hint: "Requests in which a rule explains it", numeric: true,
      value: (row) => row.ignored, cell: (row) => el("span", { class: row.ignored ? null : "zero" }, count(row.ignored)) },
    { key: "noise", label: "Noise", hint: "Whether rules explain it", value: (row) => row.noise },
    { key: "first", label: "First", value: (row) => row.first_seen, cell: (row) => seen(row.first_seen) },
    { key: "last", label: "Last", value: (row) => row.last_seen, cell: (row) => seen(row.last_seen) },
    { key: "examples", label: "Examples", value: (row) => row.exemplars.length, cell: examples },
  ];
  const rowKey = (row) => [row.route, row.kind, row.field, row.change].join("\n");
  return [
    table({ name: "fields", caption: "Fields that differ", columns, rows: page.items, rowKey, sort: "-count" }),
    page.next_cursor && el("p", { class: "state" }, "Only the 1000 most frequent are shown."),
  ];
}

function fieldLink(row) {
  const query = new URLSearchParams({ route: row.route, kind: row.kind, field: row.field === "" ? '""' : row.field });
  return el("a", { href: `#/divergences?${query}` }, fieldText(row.kind, row.field));
}

function seen(ts) {
  return ts === null ? "–" : el("time", { datetime: iso(ts), title: iso(ts) }, ago(ts));
}

function examples(row) {
  return row.exemplars.slice(0, EXEMPLARS_SHOWN).flatMap((id, place) => [
    place ? ", " : "", el("a", { href: `#/requests/${encodeURIComponent(id)}`, class: "id" }, id)]);
}
