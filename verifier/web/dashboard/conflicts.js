// Conflicting writes, newest first: who came first, who lost, and what each wrote.

import { requestLink } from "./divergences.js";
import { el } from "./dom.js";
import { chosenOf, filters } from "./filters.js";
import { iso, time } from "./format.js";
import { valueText } from "./json_view.js";
import { Pages } from "./pages.js";
import { Region } from "./region.js";
import { table } from "./table.js";

const FILTERS = [
  { name: "entity", label: "Entity", placeholder: "table" },
  { name: "kind", label: "Kind", choices: ["conflict", "duplicate", "order"] },
  { name: "since", label: "Since", placeholder: "2026-11-22T20:00Z" },
  { name: "until", label: "Until", placeholder: "Unix s or ISO" },
];

export function mountConflicts(root, query) {
  root.append(filters("conflicts", FILTERS, query));
  const chosen = chosenOf(query, FILTERS.map((filter) => filter.name));
  const pages = new Pages("/v1/conflicts", chosen, (item) => item.id);
  pages.region = new Region(root, {
    load: (signal) => pages.load(signal),
    render: (state) => [conflictTable(state.items), pages.footer(state)],
    isEmpty: (state) => state.items.length === 0,
    empty: query.size ? "No conflict fits these filters." : "No two writes are in conflict.",
  });
  return pages.region;
}

export function conflictTable(items) {
  const columns = [
    { key: "key", label: "Key", class: "path", value: (row) => row.key },
    { key: "kind", label: "Kind", value: (row) => row.kind, cell: (row) => el("span", { class: "tag" }, row.kind) },
    { key: "scope", label: "Scope", value: (row) => row.scope.replace("_", " / ") },
    { key: "ts", label: "Time", value: (row) => row.ts, cell: (row) => el("time", { datetime: iso(row.ts), title: iso(row.ts) }, time(row.ts)) },
    { key: "winner", label: "First (wins)", class: "wide", value: (row) => row.winner.ts, cell: (row) => claimant(row.winner) },
    { key: "loser", label: "Second (loses)", class: "wide", value: (row) => row.loser.ts, cell: (row) => claimant(row.loser) },
  ];
  return table({ name: "conflicts", caption: "Conflicting writes", columns, rows: items, rowKey: (row) => row.id });
}

function claimant(claim) {
  const text = claim.data === null || claim.data === undefined ? "" : valueText(claim.data);
  return [el("span", { class: `side ${claim.side}` }, claim.side), " ", requestLink(claim.request_id), " ",
    el("time", { datetime: iso(claim.ts), title: iso(claim.ts) }, time(claim.ts)), el("br"),
    el("code", { class: "data" }, text.length > 240 ? `${text.slice(0, 240)}…` : text)];
}
