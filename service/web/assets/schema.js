// JSON Schema as far as our own description uses it: fields with their types, bounds and meanings.
import { count, h } from "./dom.js";

const BOUNDS = [
  ["minimum", (value) => `at least ${count(value)}`],
  ["maximum", (value) => `at most ${count(value)}`],
  ["minLength", (value) => (value === 1 ? "not empty" : `${count(value)} characters or more`)],
  ["maxLength", (value) => `up to ${count(value)} characters`],
  ["minItems", (value) => (value === 1 ? "not empty" : `${count(value)} items or more`)],
  ["maxItems", (value) => `up to ${count(value)} items`],
  ["pattern", (value) => `matches ${value}`],
];

/** The name of the schema that `$ref` points to, or "". */
export const schemaName = (schema) => schema?.$ref?.split("/").at(-1) ?? "";

/** The schema itself, where it is only pointed to. */
export function resolve(schema, api) {
  return schema.$ref ? api.components.schemas[schemaName(schema)] : schema;
}

/** The one schema that is meant where "or null" is added. */
export function present(schema) {
  const kinds = schema.anyOf?.filter((kind) => kind.type !== "null");
  return kinds?.length === 1 ? { ...schema, anyOf: undefined, ...kinds[0] } : schema;
}

function typeOf(schema) {
  const real = present(schema);
  if (real.$ref) return schemaName(real);
  if (real.const !== undefined) return JSON.stringify(real.const);
  if (real.enum) return real.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (real.anyOf) return real.anyOf.map(typeOf).join(" | ");
  if (real.type === "array") return `list of ${real.items ? typeOf(real.items) : "anything"}`;
  return real.format ? `${real.type} (${real.format})` : (real.type ?? "anything");
}

function remarks(schema, place) {
  const real = present(schema);
  const bounds = BOUNDS.filter(([name]) => real[name] !== undefined).map(([name, say]) => say(real[name]));
  const standard = real.default !== undefined && real.default !== null ? [`default ${JSON.stringify(real.default)}`] : [];
  return [place && `in ${place}`, schema.description, ...bounds, ...standard].filter(Boolean).join("; ");
}

/** Schemas that the fields of this one point to, to be unfolded below them. */
function inner(schema, api) {
  const real = present(schema);
  const target = real.$ref ? real : (real.items ?? null);
  return target?.$ref && resolve(target, api)?.properties ? target : null;
}

/** Text whose `quoted` words are code. */
export function words(text) {
  return text.split(/`([^`]+)`/).map((piece, at) => (at % 2 ? h("code", { class: "chip" }, piece) : piece));
}

/** A table of fields: of an object's schema, or of a list of {name, schema, required, place}. */
export function fieldTable(schema, api, seen = []) {
  const object = Array.isArray(schema) ? null : resolve(schema, api);
  const fields = object ? fieldsOf(object) : schema;
  const rows = fields.map(({ name, schema: field, required, place }) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("code", {}, name), required ? h("span", { class: "required" }, "required") : null),
      h("td", { class: "type" }, typeOf(field)),
      h("td", {}, ...words(remarks(field, place)), unfold(field, api, seen)),
    ),
  );
  const about = object?.description ? h("p", { class: "quiet" }, ...words(object.description)) : null;
  return h("div", { class: "scroll" }, about, h("table", { class: "fields" }, h("tbody", {}, ...rows)));
}

function fieldsOf({ properties = {}, required = [] }) {
  return Object.entries(properties).map(([name, schema]) => ({ name, schema, required: required.includes(name) }));
}

function unfold(field, api, seen) {
  const target = inner(field, api);
  const name = schemaName(target);
  if (!target || seen.includes(name)) return null;
  return h("details", {}, h("summary", {}, h("code", {}, name)), fieldTable(target, api, [...seen, name]));
}
