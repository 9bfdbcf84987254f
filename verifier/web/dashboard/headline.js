// The head line: how many requests agree, how many of them could be compared, and what is still unknown.

import { get } from "./api.js";
import { el } from "./dom.js";
import { ago, count, duration, iso, percent } from "./format.js";
import { Region } from "./region.js";

const VERDICTS = ["match", "divergence", "incomplete", "incomparable"];

export function headline(root) {
  return new Region(root, { load: (signal) => get("/v1/summary", {}, signal), render, ages: true });
}

function render(summary) {
  const requests = summary.requests;
  const compared = requests.match + requests.divergence;
  const share = (n) => (requests.total ? percent(n / requests.total) : "");
  const verdicts = VERDICTS.map((verdict) => fact(verdict, count(requests[verdict]), share(requests[verdict]), verdict));
  return [
    bar(requests),
    el("dl", { class: "facts" },
      fact("Requests", count(requests.total), "with a verdict"),
      verdicts,
      fact("Coverage", requests.total ? percent(compared / requests.total) : "–", "could be compared"),
      fact("Verified through", verifiedThrough(summary.verified_through), behind(summary.verified_through))),
    el("dl", { class: "minor" },
      minor("Pending", summary.pending, "Requests still open"),
      minor("Lag", summary.lag, "Records not yet read"),
      minor("Conflicts", summary.conflicts, "Second writes to one key"),
      minor("Rejected", summary.rejected, "Records that could not be read"),
      minor("Late", summary.late, "Records after their request's verdict"),
      minor("Duplicate", summary.duplicate, "Records read a second time")),
  ];
}

function fact(label, value, note, verdict = null) {
  const name = verdict ? el("a", { href: `#/requests?verdict=${verdict}`, "data-focus": verdict }, label) : label;
  return el("div", { class: verdict ? `fact ${verdict}` : "fact" },
    el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "note" }, note));
}

function minor(label, n, hint) {
  return el("div", { title: hint }, el("dt", {}, label), el("dd", { class: n ? null : "zero" }, count(n)));
}

function verifiedThrough(ts) {
  return ts === null ? "–" : el("time", { datetime: iso(ts) }, new Date(ts * 1000).toLocaleTimeString("en-GB"));
}

function behind(ts) {
  if (ts === null) return "nothing read yet";
  const late = Date.now() / 1000 - ts;
  return late > 86400 ? ago(ts) : `${duration(late)} behind now`;
}

function bar(requests) {
  const parts = VERDICTS.filter((verdict) => requests[verdict] > 0).map((verdict) => {
    const part = el("span", { class: verdict, title: `${verdict}: ${count(requests[verdict])}` });
    part.style.flexGrow = String(requests[verdict] / requests.total);
    return part;
  });
  const label = VERDICTS.map((verdict) => `${count(requests[verdict])} ${verdict}`).join(", ");
  return el("div", { class: "bar", role: "img", "aria-label": label }, parts);
}
