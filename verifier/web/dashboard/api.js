// Asking the API. The token lives in sessionStorage: it goes when the tab goes, and no other origin can read it.

const TOKEN = "shadow-verifier-token";
const TIMEOUT_MS = 15000;

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.status = status;
    this.title = problem.title || `Error ${status}`;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function get(path, parameters = {}, signal = undefined) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  const headers = { Accept: "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
  let response;
  let text;
  try {
    response = await fetch(url, { headers, signal: either, cache: "no-store", credentials: "same-origin" });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { title: "No answer", detail: `This worker does not answer (${error.name}).` });
  }
  if (response.ok) return readExactly(text);
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    // Not from the verifier (a proxy's page, say): the status alone is known.
  }
  throw new ApiError(response.status, problem);
}

// A number a double cannot hold keeps its digits, where the browser can tell (else it is shown rounded).
export class ExactNumber {
  constructor(source) {
    this.source = source;
  }

  toJSON() {
    return this.source;
  }
}

function readExactly(text) {
  return JSON.parse(text, (_key, value, context) => {
    const source = context?.source;
    if (typeof value !== "number" || source === undefined) return value;
    const digits = source.replace(/[eE].*$/, "").replace(/[^0-9]/g, "").replace(/^0+/, "");
    return digits.length > 15 || !Number.isFinite(value) ? new ExactNumber(source) : value;
  });
}
