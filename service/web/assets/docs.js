// /openapi.json as a page to read: groups, routes, and what goes in and comes out of each.
import { curl } from "./curl.js";
import { $, announce, h } from "./dom.js";
import { DOORS, at } from "./doors.js";
import { fieldTable, schemaName, words } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const entries = []; // {text, link, section}: what the search field looks through

async function draw() {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`/openapi.json answered ${response.status}`);
  const api = await response.json();
  const groups = grouped(api);
  $("doors").replaceChildren(...DOORS.filter(({ path }) => api.paths[path]).map(door));
  $("routes").replaceChildren(...[...groups].map(([tag, routes]) => group(tag, routes, api)));
  $("toc").replaceChildren(...[...groups.keys()].map(tocGroup));
  $("routes").setAttribute("aria-busy", "false");
  $(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

function grouped(api) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const route = { method, path, ...methods[method] };
      const tag = route.tags?.[0] ?? "Other";
      groups.set(tag, [...(groups.get(tag) ?? []), route]);
    }
  }
  return groups;
}

function group(tag, routes, api) {
  return h("section", { "aria-label": tag, "data-tag": tag }, h("h2", {}, tag), ...routes.map((route) => article(route, tag, api)));
}

function tocGroup(tag) {
  const links = entries.filter((entry) => entry.tag === tag).map((entry) => h("li", {}, entry.link));
  return h("section", { "data-tag": tag }, h("h2", {}, tag), h("ul", {}, ...links));
}

function article(route, tag, api) {
  const id = `${route.method}${route.path}`;
  const section = h(
    "article",
    { id, class: "route" },
    h("h3", {}, badge(route.method), h("a", { href: `#${id}` }, route.path)),
    h("p", {}, ...words(route.summary), route.security ? null : h("span", { class: "open-to-all" }, "no sign-in")),
    parameters(route),
    body(route, api),
    answers(route, api),
    command(route, api),
  );
  const link = h("a", { href: `#${id}` }, badge(route.method), h("span", {}, route.path));
  entries.push({ text: `${route.method} ${route.path} ${route.summary}`.toLowerCase(), tag, link, section });
  return section;
}

const badge = (method) => h("span", { class: `method ${method}` }, method.toUpperCase());

function parameters({ parameters: list = [] }) {
  if (!list.length) return null;
  const rows = list.map(({ name, in: place, required, schema }) => ({ name, schema, required, place }));
  return part("Parameters", fieldTable(rows, {}));
}

function body(route, api) {
  const schema = route.requestBody?.content?.["application/json"]?.schema;
  if (!schema) return null;
  return part("Body", fieldTable(schema, api));
}

function answers({ responses }, api) {
  const rows = Object.entries(responses).map(([status, { description, content = {}, headers = {} }]) => {
    const shapes = Object.entries(content).map(([type, { schema }]) => shape(type, schema, api));
    const names = Object.keys(headers).map((name) => h("code", { class: "chip" }, name));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, status === "default" ? "any other" : status),
      h("td", {}, ...words(description), ...shapes, names.length ? h("p", { class: "quiet" }, "Headers: ", ...names) : null),
    );
  });
  return part("Answers", h("div", { class: "scroll" }, h("table", { class: "answers" }, h("tbody", {}, ...rows))));
}

/** What comes in one media type: the fields of a JSON body, the words about a stream. */
function shape(type, schema, api) {
  if (type === "application/problem+json") return null; // every error has the one shape that its own page tells
  const name = schemaName(schema);
  if (!name) return h("div", { class: "stream" }, h("code", {}, type), h("p", {}, ...words(schema.description ?? "")));
  return h("details", {}, h("summary", {}, h("code", {}, name), ` ${type}`), fieldTable(schema, api));
}

function door({ name, path, about, examples }) {
  const shown = examples.map(({ language, text }) => part(language, copyable(at(location.origin, text))));
  const summary = h("summary", {}, name, h("span", { class: "quiet" }, ` ${path}`));
  return h("details", { class: "door" }, summary, h("p", {}, about), ...shown);
}

const command = (route, api) => copyable(curl(route, api, location.origin));

function copyable(text) {
  const copy = h("button", { type: "button", class: "plain copy" }, "Copy");
  copy.onclick = async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    announce("Copied.");
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  };
  // The clipboard is only there on a secure address; the line can be selected in any case.
  return h("div", { class: "curl" }, h("pre", { tabindex: "0" }, h("code", {}, text)), navigator.clipboard ? copy : null);
}

const part = (title, content) => h("div", { class: "part" }, h("h4", {}, title), content);

function find(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of entries) {
    const fits = wanted.every((word) => entry.text.includes(word));
    entry.section.hidden = !fits;
    entry.link.parentElement.hidden = !fits;
  }
  for (const section of document.querySelectorAll("[data-tag]")) {
    section.hidden = ![...section.querySelectorAll("article, li")].some((child) => !child.hidden);
  }
  announce(`${entries.filter((entry) => !entry.section.hidden).length} routes`);
}

$("find").oninput = () => find($("find").value);

draw().catch((error) => {
  $("routes").replaceChildren(h("p", { class: "problem" }, `The description cannot be shown: ${error.message}`));
});
