// Requests by verdict, newest first: what is not verified, and why.

import { requestLink } from "./divergences.js";
import { el } from "./dom.js";
import { chosenOf, filters } from "./filters.js";
import { iso, time } from "./format.js";
import { Pages } from "./pages.js";
import { Region } from "./region.js";
import { table } from "./table.js";

const FILTERS = [
  { name: "route", label: "Route", placeholder: "POST /api/v1/…", size: 30 },
  { name: "verdict", label: "Verdict", choices: ["match", "divergence", "incomplete", "incomparable"] },
  { name: "since", label: "Since", placeholder: "2026-11-22T20:00Z" },
  { name: "until", label: "Until", placeholder: "Unix s or ISO" },
];

export function mountRequests(root, query) {
  root.append(filters("requests", FILTERS, query));
  const chosen = chosenOf(query, FILTERS.map((filter) => filter.name));
  const pages = new Pages("/v1/requests", chosen, (item) => item.request_id);
  pages.region = new Region(root, {
    load: (signal) => pages.load(signal),
    render: (state) => [list(state.items), pages.footer(state)],
    isEmpty: (state) => state.items.length === 0,
    empty: query.size ? "No request fits these filters." : "No request has a verdict yet.",
  });
  return pages.region;
}

function list(items) {
  const columns = [
    { key: "request", label: "Request", class: "id", value: (row) => row.request_id, cell: (row) => requestLink(row.request_id) },
    { key: "verdict", label: "Verdict", value: (row) => row.verdict, cell: (row) => el("span", { class: row.verdict }, row.verdict) },
    { key: "why", label: "Why", class: "wide", value: (row) => [...row.missing.map((part) => `${part} is missing`), ...row.reasons].join("; ") },
    { key: "ts", label: "Time", value: (row) => row.ts, cell: (row) => el("time", { datetime: iso(row.ts), title: iso(row.ts) }, time(row.ts)) },
    { key: "route", label: "Route", value: (row) => row.route },
    { key: "user", label: "User", value: (row) => row.user_id ?? "–" },
  ];
  const onRow = (row) => {
    location.hash = `#/requests/${encodeURIComponent(row.request_id)}`;
  };
  return table({ name: "requests", caption: "Requests with a verdict", columns, rows: items, rowKey: (row) => row.request_id, onRow });
}
