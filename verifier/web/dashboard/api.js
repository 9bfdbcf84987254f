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

// A number that a double cannot hold keeps its digits, where the browser tells them (else it is shown rounded).
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
    if (typeof value !== "number" || context?.source === undefined) return value;
    return decimal(context.source) === decimal(String(value)) ? value : new ExactNumber(context.source);
  });
}

// The decimal value of a number's text, whatever its notation: 1.50 and 15e-1 are "15e-1".
function decimal(text) {
  const [, sign, whole, fraction = "", exponent = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return text;
  const digits = (whole + fraction).replace(/^0+/, "");
  const significant = digits.replace(/0+$/, "");
  if (significant === "") return "0";
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}
