// The rules in force, the one that wins first.

import { get } from "./api.js";
import { el } from "./dom.js";
import { valueText } from "./json_view.js";
import { Region } from "./region.js";
import { table } from "./table.js";

export function mountRules(root) {
  return new Region(root, {
    load: (signal) => get("/v1/rules", {}, signal),
    render,
    isEmpty: (page) => page.items.length === 0,
    empty: "No rule: every difference counts.",
  });
}

function render(page) {
  const columns = [
    { key: "id", label: "Rule", value: (row) => row.id },
    { key: "action", label: "Action", value: (row) => row.action, cell: action },
    { key: "kind", label: "Kind", value: (row) => row.kind },
    { key: "field", label: "Field", class: "path", value: (row) => row.field },
    { key: "route", label: "Route", value: (row) => row.route ?? "any" },
    { key: "owner", label: "Owner", value: (row) => row.owner ?? row.origin ?? "–" },
    { key: "reason", label: "Reason", class: "wide", value: (row) => row.reason ?? "–" },
    { key: "expires", label: "Until", value: (row) => (row.expires_at === null || row.expires_at === undefined ? "–" : String(row.expires_at)) },
  ];
  return table({ name: "rules", caption: "Rules, the one that wins first", columns, rows: page.items, rowKey: (row) => row.id });
}

function action(row) {
  const params = row.params && Object.keys(row.params).length ? ` ${valueText(row.params)}` : "";
  return [row.action, el("small", {}, params)];
}
