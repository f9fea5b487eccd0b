// JSON values for a person to read before they decide about them.
import { h } from "./dom.js";

// Characters that are not seen, or that change the order in which others are: what is approved must be what is shown.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\u{e0000}-\u{e0fff}]/gu;

/** The members of an object as a list of terms; any other value as text. */
export function legible(value) {
  const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isObject) return block(value);
  const members = Object.entries(value);
  if (!members.length) return h("p", { class: "quiet" }, "Nothing.");
  const terms = members.flatMap(([name, member]) => [h("dt", {}, ...visible(name)), h("dd", {}, block(member))]);
  return h("dl", { class: "values" }, ...terms);
}

const block = (value) => h("pre", { tabindex: "0" }, ...visible(typeof value === "string" ? value : JSON.stringify(value, null, 2)));

/** A text as nodes in which characters that cannot be seen are named. */
export function visible(text) {
  const nodes = [];
  let from = 0;
  for (const { 0: character, index } of text.matchAll(HIDDEN)) {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(text.slice(from, index), h("mark", { class: "hidden-character", title: "A character that cannot be seen" }, `U+${code}`));
    from = index + character.length;
  }
  return [...nodes, text.slice(from)];
}
