// A route as a line for the shell.
import { present, resolve } from "./schema.js";

const SAMPLES = { integer: 1, number: 1, boolean: true, object: {}, array: [], null: null };

/** One copyable command: `$TOKEN` is for the reader to set, and so is what stands in capitals in the path. */
export function curl(route, api, origin) {
  const media = Object.entries(route.responses).flatMap(([, { content = {} }]) => Object.keys(content));
  const streams = media.includes("text/event-stream");
  const path = route.path.replace(/\{(\w+)\}/g, (_, name) => (name === "agent" ? "support" : name.toUpperCase()));
  const schema = route.requestBody?.content?.["application/json"]?.schema;
  const method = route.method === "get" || (schema && route.method === "post") ? [] : ["-X", route.method.toUpperCase()];
  const lines = [
    [streams ? "curl -sN" : "curl -s", ...method, quoted(origin + path)].join(" "),
    route.security ? '-H "Authorization: Bearer $TOKEN"' : null,
    schema ? "-H 'Content-Type: application/json'" : null,
    schema ? `-d ${quoted(JSON.stringify(sample(schema, api)))}` : null,
  ];
  return lines.filter(Boolean).join(" \\\n  ");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The smallest value that shows what is meant: required fields, or the first one where none is. */
function sample(given, api, name = "") {
  const schema = resolve(present(resolve(given, api)), api);
  if (schema.const !== undefined) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return sample(schema.anyOf[0], api, name);
  if (schema.type === "string") return name === "input" ? "How long can I ask for a refund?" : "…";
  if (schema.type === "array" && schema.items) return [sample(schema.items, api, name)];
  if (!schema.properties) return SAMPLES[schema.type] ?? "…";
  const names = schema.required ?? Object.keys(schema.properties).slice(0, 1);
  return Object.fromEntries(names.map((field) => [field, sample(schema.properties[field], api, field)]));
}
