// A small, safe part of Markdown as elements: paragraphs, headings, lists, code, bold. Anything else stays text.
import { h } from "./dom.js";

const ITEM = /^\s*(?:[-*•]|(\d+)[.)])\s+(.*)$/;
const FENCE = /^\s*```/;
const HEADING = /^#{1,6}\s+(.*)$/;

/** The elements `text` stands for. */
export function markdown(text) {
  const blocks = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const taken = code(lines, at) ?? heading(lines, at) ?? list(lines, at) ?? paragraph(lines, at);
    if (taken.block) blocks.push(taken.block);
    at = taken.next;
  }
  return blocks;
}

function code(lines, at) {
  if (!FENCE.test(lines[at])) return null;
  let end = at + 1;
  while (end < lines.length && !FENCE.test(lines[end])) end += 1;
  return { block: h("pre", { tabindex: "0" }, h("code", {}, lines.slice(at + 1, end).join("\n"))), next: end + 1 };
}

function heading(lines, at) {
  const found = HEADING.exec(lines[at]);
  return found && { block: h("p", { class: "heading" }, h("strong", {}, ...inline(found[1]))), next: at + 1 };
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  if (!first) return null;
  const numbered = first[1] !== undefined;
  const items = [];
  let next = at;
  for (; next < lines.length && lines[next].trim(); next += 1) {
    const item = ITEM.exec(lines[next]);
    if (!item) items.at(-1).push(" ", ...inline(lines[next].trim()));
    else if ((item[1] !== undefined) === numbered) items.push(inline(item[2]));
    else break;
  }
  const attributes = numbered ? { start: first[1] } : {};
  return { block: h(numbered ? "ol" : "ul", attributes, ...items.map((item) => h("li", {}, ...item))), next };
}

function paragraph(lines, at) {
  let next = at;
  const starts = (line) => FENCE.test(line) || HEADING.test(line) || ITEM.test(line);
  while (next < lines.length && lines[next].trim() && (next === at || !starts(lines[next]))) next += 1;
  if (next === at) return { block: null, next: at + 1 };
  return { block: h("p", {}, ...inline(lines.slice(at, next).join("\n"))), next };
}

function inline(text) {
  return text
    .split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)
    .filter(Boolean)
    .map((piece) => {
      if (/^`[^`]+`$/.test(piece)) return h("code", {}, piece.slice(1, -1));
      if (/^\*\*[^*]+\*\*$/.test(piece)) return h("strong", {}, piece.slice(2, -2));
      return piece;
    });
}
