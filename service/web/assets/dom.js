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
