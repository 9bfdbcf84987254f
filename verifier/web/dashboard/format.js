// Numbers and times for people.

const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const NONE = "–";

export function count(n) {
  return n === null || n === undefined ? NONE : counts.format(n);
}

export function percent(share) {
  if (share === null || share === undefined) return NONE;
  if (share > 0 && share < 0.0001) return "<0.01 %";
  if (share > 0.9999 && share < 1) return ">99.99 %";
  const digits = share < 0.1 || share > 0.99 ? 2 : 1;
  return `${Number((share * 100).toFixed(digits))} %`;
}

export function milliseconds(seconds) {
  return seconds === null || seconds === undefined ? NONE : short.format(seconds * 1000);
}

export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function ago(ts) {
  return ts === null || ts === undefined ? NONE : `${duration(Date.now() / 1000 - ts)} ago`;
}

// Local time to the millisecond; the date only when it is not today's.
export function time(ts) {
  if (ts === null || ts === undefined) return NONE;
  const at = new Date(ts * 1000);
  if (Number.isNaN(at.getTime())) return String(ts);
  const pad = (n, width = 2) => String(n).padStart(width, "0");
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return at.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`;
}

export function iso(ts) {
  const at = new Date((ts ?? NaN) * 1000);
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
