// Elements without markup strings: what comes from the service only ever becomes a text node.

export const $ = (id) => document.getElementById(id);

/** h("p", {class: "quiet", onclick: fn, hidden: true}, "text", child, null): attributes, listeners, children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const WHOLE = /^(?:https?:\/\/|mailto:)/i; // `http:/path` names a host by itself, and none on a page of that scheme

/** Whether an address may become a link. The browser's own parser decides, so that no odd spelling passes. */
export function isSafeLink(url) {
  try {
    return WHOLE.test(url) && SCHEMES.has(new URL(url).protocol);
  } catch {
    return false; // relative: it would lead into this page
  }
}

/** A link out of this page: where it leads learns nothing of the page, and cannot steer it. */
export function link(url, ...children) {
  if (!isSafeLink(url)) return h("span", {}, ...children);
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

const STATUS_WORDS = {
  waiting_approval: "waiting for approval",
  waiting_budget: "waiting for budget",
  cancelled: "stopped",
};
const UNFINISHED = new Set(["queued", "running", "waiting_approval", "waiting_budget", "paused"]);

export const statusChip = (status) => h("span", { class: `status ${status}` }, STATUS_WORDS[status] ?? status);
export const isUnfinished = (status) => UNFINISHED.has(status);

/** Tell a screen reader, without moving anything on the page. */
export function announce(text) {
  $("status").textContent = text;
}

export function dollars(text) {
  const [whole, cents = ""] = String(text).split(".");
  return `$${whole}.${cents.replace(/0+$/, "").padEnd(2, "0")}`;
}

export function seconds(ms) {
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
}

export const count = (number) => Number(number).toLocaleString("en");

/** A time as people say it, with the exact one to hover over. */
export function when(text) {
  if (!text) return "";
  const date = new Date(text);
  const today = date.toDateString() === new Date().toDateString();
  const shown = today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
  return h("time", { datetime: text, title: date.toLocaleString() }, shown);
}
