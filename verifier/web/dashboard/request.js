// One request: what each side answered and wrote, side by side, with its events, conflicts and history.

import { get } from "./api.js";
import { conflictTable } from "./conflicts.js";
import { el } from "./dom.js";
import { fieldText } from "./fields.js";
import { iso, milliseconds, plural, time } from "./format.js";
import { jsonView, valueText } from "./json_view.js";
import { Region } from "./region.js";
import { table } from "./table.js";

const NOTES = {
  gone: "The topic's retention took this record.",
  unreadable: "This record is not JSON.",
  too_large: "This record is too large to show here.",
  repeated_keys: "A key comes twice in this record; the last value is shown.",
};

export function mountRequest(root, id) {
  root.append(el("h2", {}, "Request ", el("span", { class: "id" }, id)));
  return new Region(root, { load: (signal) => get(`/v1/requests/${encodeURIComponent(id)}`, {}, signal), render });
}

function render(request) {
  const other = otherSide(request);
  const { differences, ignored, conflicts, events, history } = request;
  return [
    verdictLine(request),
    section(`Differences (${differences.length})`, () => differenceTable(differences, other, "differences"), differences.length),
    request.dropped > 0 && el("p", { class: "state" }, `${plural(request.dropped, "more difference")} beyond the bound on how many are kept.`),
    section("Responses", () => pair("main", other, (side) => responsePane(request, side)), true),
    section("Writes", () => pair("main", other, (side) => writesPane(request, side)), request.writes !== null),
    section(`Conflicts (${conflicts.length})`, () => conflictTable(conflicts), conflicts.length),
    section(`Explained by rules (${ignored.length})`, () => differenceTable(ignored, other, "ignored"), ignored.length),
    section(`Events (${events.length})`, () => events.map(eventDetails), events.length),
    request.events_omitted > 0 && el("p", { class: "state" }, `${plural(request.events_omitted, "event")} not shown.`),
    section("History", () => historyTable(request), history.length + request.history_gone),
  ];
}

function section(title, content, present) {
  return present ? el("section", {}, el("h3", {}, title), content()) : null;
}

// The side compared with main: the canary when it served the user, else the shadow.
function otherSide(request) {
  if (request.writes?.shadow_side) return request.writes.shadow_side;
  const sides = new Set([...request.sides, ...request.events].map((one) => one.side));
  return sides.has("canary") && !sides.has("shadow") ? "canary" : "shadow";
}

function verdictLine(request) {
  const why = [...request.missing.map((part) => `${part} is missing`), ...request.reasons];
  return el("p", { class: "verdict-line" },
    el("strong", { class: `badge ${request.verdict}` }, request.verdict), " ",
    el("span", {}, request.route), " ",
    el("time", { datetime: iso(request.ts), title: iso(request.ts) }, time(request.ts)),
    request.user_id && el("span", {}, ` user ${request.user_id}`),
    request.rev > 0 && el("span", {}, ` revision ${request.rev}`),
    why.length > 0 && el("span", { class: "why" }, ` ${why.join("; ")}`));
}

function differenceTable(differences, other, name) {
  const cell = (value, absent) => (absent ? el("em", { class: "quiet-text" }, "absent") : el("code", { class: "data" }, valueText(value)));
  const columns = [
    { key: "path", label: "Path", class: "path", value: (row) => row.path, cell: (row) => fieldText(row.kind, row.path) },
    { key: "kind", label: "Kind", value: (row) => row.kind },
    { key: "change", label: "Change", value: (row) => row.change, cell: (row) => el("span", { class: "tag" }, row.change) },
    { key: "main", label: "main", class: "wide was", value: (row) => valueText(row.main), cell: (row) => cell(row.main, row.change === "extra") },
    { key: "other", label: other, class: "wide now", value: (row) => valueText(row.shadow), cell: (row) => cell(row.shadow, row.change === "missing") },
  ];
  if (differences.some((one) => one.rule)) columns.push({ key: "rule", label: "Rule", value: (row) => row.rule ?? "" });
  return table({ name: `request-${name}`, caption: "Differences", columns, rows: differences, rowKey: (row) => `${row.kind}${row.path}${row.change}` });
}

function pair(left, right, pane) {
  return el("div", { class: "pair" }, [left, right].map((side) =>
    el("div", { class: "pane" }, el("h4", {}, el("span", { class: `side ${side}` }, side)), pane(side))));
}

function responsePane(request, side) {
  const event = request.events.findLast((one) => one.kind === "response" && one.side === side);
  const facts = request.sides.find((one) => one.side === side);
  const parts = [];
  if (facts) {
    const changed = request.differences.some((one) => one.kind === "status");
    const latency = facts.latency_s === null ? "" : ` in ${milliseconds(facts.latency_s)} ms`;
    parts.push(el("p", {}, "Status ", el(changed ? "mark" : "b", {}, facts.status ?? "unknown"), latency));
  }
  if (!event) return [...parts, el("p", { class: "quiet-text" }, "No response record of this side.")];
  if (event.record === null) return [...parts, el("p", { class: "quiet-text" }, NOTES[event.record_note] ?? "Empty record.")];
  const { headers, body } = event.record;
  if (headers) parts.push(el("h5", {}, "Headers"), jsonView(headers, marks(request, "header", side).map((name) => `/${name}`)));
  parts.push(el("h5", {}, "Body"), body === undefined ? el("p", { class: "quiet-text" }, "none") : jsonView(body, marks(request, "body", side)));
  return parts;
}

function writesPane(request, side) {
  const writes = side === "main" ? request.writes.main : request.writes.shadow;
  if (!writes?.length) return el("p", { class: "quiet-text" }, writes ? "No row written." : "Nothing known of this side.");
  const paths = marks(request, "write", side);
  return writes.map((write) => {
    const place = `/${escapeSegment(write.entity)}/${escapeSegment(write.key)}`;
    const own = paths.filter((path) => path === place || path.startsWith(`${place}/`)).map((path) => path.slice(place.length));
    const whole = own.includes("");
    return [el("p", {}, el("span", { class: "tag" }, write.op), " ", el(whole ? "mark" : "code", { class: "path" }, `${write.entity}/${write.key}`),
      write.status && write.status !== "applied" ? ` ${write.status}` : ""),
    write.data === undefined || write.data === null ? null : jsonView(write.data, own.filter((path) => path !== ""))];
  });
}

function escapeSegment(name) {
  return String(name).replaceAll("~", "~0").replaceAll("/", "~1");
}

// The differing paths that exist on a side: what is missing in the other is marked in main alone, and the reverse.
function marks(request, kind, side) {
  const absent = side === "main" ? "extra" : "missing";
  return request.differences.filter((one) => one.kind === kind && one.change !== absent).map((one) => one.path);
}

function eventDetails(event) {
  const place = `${event.topic}[${event.partition}] @ ${event.offset}`;
  const note = NOTES[event.record_note];
  return el("details", {},
    el("summary", {}, el("span", { class: `side ${event.side ?? ""}` }, event.side ?? "unknown"), ` ${event.kind} `,
      el("time", { datetime: iso(event.ts) }, time(event.ts)), " ", el("code", {}, place)),
    note && el("p", { class: "quiet-text" }, note),
    event.record !== null && jsonView(event.record));
}

function historyTable(request) {
  const columns = [
    { key: "rev", label: "Revision", value: (row) => row.rev },
    { key: "at", label: "Decided", value: (row) => row.at, cell: (row) => el("time", { datetime: iso(row.at), title: iso(row.at) }, time(row.at)) },
    { key: "verdict", label: "Verdict", value: (row) => row.verdict, cell: (row) => el("span", { class: `badge ${row.verdict}` }, row.verdict) },
    { key: "why", label: "Why", class: "wide", value: (row) => [...row.missing, ...row.reasons].join("; ") || plural(row.differences, "difference") },
    { key: "events", label: "Events", numeric: true, value: (row) => row.events },
    { key: "worker", label: "Worker", value: (row) => row.worker },
  ];
  const gone = request.history_gone;
  return [
    table({ name: "history", caption: "Verdicts, oldest first", columns, rows: request.history, rowKey: (row) => `${row.rev}/${row.journal_offset}` }),
    gone > 0 && el("p", { class: "state" }, `${plural(gone, "older verdict")} gone with the journal's retention.`),
  ];
}
