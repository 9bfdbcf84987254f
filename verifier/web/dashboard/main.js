// The page: which view the address names, and asking again every two seconds while someone looks.

import { setToken } from "./api.js";
import { mountConflicts } from "./conflicts.js";
import { mountDivergences } from "./divergences.js";
import { el, replace } from "./dom.js";
import { mountFields } from "./fields.js";
import { time } from "./format.js";
import { headline } from "./headline.js";
import { mountRequest } from "./request.js";
import { mountRequests } from "./requests.js";
import { mountRoutes } from "./routes.js";
import { mountRules } from "./rules.js";

const REFRESH_MS = 2000;
const REFRESH_FAILED_MS = 5000;
const VIEWS = [
  ["routes", "Routes", mountRoutes],
  ["fields", "Fields", mountFields],
  ["divergences", "Divergences", mountDivergences],
  ["requests", "Requests", mountRequests],
  ["conflicts", "Conflicts", mountConflicts],
  ["rules", "Rules", mountRules],
];

const byId = (id) => document.getElementById(id);
const state = { view: null, isRequest: false, paused: false, timer: null, running: null, needsToken: false };
const head = headline(byId("headline"));

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, ...rest] = path.split("/");
  return { name: name || "routes", rest: rest.join("/"), query: new URLSearchParams(query) };
}

function show() {
  const { name, rest, query } = address();
  const root = byId("view");
  replace(root);
  const known = VIEWS.find(([key]) => key === name);
  state.isRequest = name === "requests" && rest !== "";
  state.view = state.isRequest ? mountRequest(root, decode(rest)) : (known ?? VIEWS[0])[2](root, query);
  const current = (known ?? VIEWS[0])[0];
  replace(byId("tabs"), VIEWS.map(([key, label]) =>
    el("a", { href: `#/${key}`, "aria-current": key === current ? "page" : null, "data-focus": key }, label)));
  document.title = `${state.isRequest ? decode(rest) : VIEWS.find(([key]) => key === current)[1]} – Shadow verifier`;
  refresh();
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// One refresh at a time; a newer one (another view) ends the older.
async function refresh() {
  clearTimeout(state.timer);
  state.running?.abort();
  const running = new AbortController();
  state.running = running;
  // A request's evidence may be megabytes, so its page asks once; what was asked wrongly stays wrong.
  const done = (state.isRequest && state.view.loadedAt !== null) || state.view.isWrong;
  const parts = done ? [head] : [head, state.view];
  const results = await Promise.allSettled(parts.map((part) => part.refresh(running.signal)));
  if (running.signal.aborted) return;
  state.running = null;
  const failed = results.filter((result) => result.status === "rejected").map((result) => result.reason);
  if (failed.some((error) => error.status === 401)) askForToken();
  const temporary = failed.some((error) => error.status !== 404 && error.status !== 400);
  say(failed.length ? "Not up to date" : `Up to date at ${time(Date.now() / 1000).replace(/\.\d+$/, "")}`, failed.length > 0);
  if (!state.paused && !state.needsToken && !document.hidden) state.timer = setTimeout(refresh, temporary ? REFRESH_FAILED_MS : REFRESH_MS);
}

function say(text, isOld) {
  const freshness = byId("freshness");
  // Said once, not every two seconds: a screen reader would read it each time.
  freshness.setAttribute("aria-live", isOld ? "polite" : "off");
  freshness.className = isOld ? "old" : state.paused ? "" : "fresh";
  freshness.textContent = state.paused ? "Paused" : text;
}

function setPaused(paused) {
  state.paused = paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) {
    clearTimeout(state.timer);
    say("Paused", false);
  } else refresh();
}

function askForToken() {
  const dialog = byId("token-dialog");
  if (dialog.open) return;
  state.needsToken = true;
  byId("token-form").reset();
  dialog.showModal();
}

byId("token-dialog").addEventListener("cancel", () => byId("token-form").reset());
byId("token-dialog").addEventListener("close", () => {
  state.needsToken = false;
  const token = byId("token").value;
  byId("token-form").reset();
  if (token) {
    setToken(token);
    refresh();
  } else setPaused(true);
});
byId("pause").addEventListener("click", () => setPaused(!state.paused));
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("find-id").value.trim();
  if (id) location.hash = `#/requests/${encodeURIComponent(id)}`;
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(state.timer);
    state.running?.abort();
  } else if (!state.paused && !state.needsToken) refresh();
});
addEventListener("hashchange", (event) => {
  // The skip link's fragment is no view.
  if (new URL(event.newURL).hash.startsWith("#/") || new URL(event.newURL).hash === "") show();
});
show();
