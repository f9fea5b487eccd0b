// Markdown as elements. markdown-it parses; its tokens become elements here and never a string of markup, so text of
// a model or a person cannot become a tag, an attribute or a script. Pictures are not loaded: they would tell another
// host who reads what, so they are shown as links.
import { h, isSafeLink, link } from "./dom.js";
import "./vendor/markdown-it.min.js"; // defines globalThis.markdownit

const LONG = 30; // characters of a table's cell that are a sentence, and get room
const parser = globalThis.markdownit({ html: false, linkify: true });
parser.validateLink = isSafeLink;
// Only an address that is written out is a link: `notes.md` and `tools.py` look like host names too.
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false }).add("ftp:", null).add("//", null);

const ELEMENTS = {
  paragraph: "p", blockquote: "blockquote", bullet_list: "ul", list_item: "li", strong: "strong", em: "em", s: "s",
  table: "table", thead: "thead", tbody: "tbody", tr: "tr",
}; // prettier-ignore

/** The elements `text` stands for. */
export function markdown(text) {
  return [...build(parser.parse(text, {}), document.createDocumentFragment()).childNodes];
}

/** A text that grows, drawn into `element`: only its last block is drawn again, since nothing changes those before. */
export class Draft {
  #text = "";
  #settled = 0; // characters of the text whose elements stay
  #last = []; // nodes of the last block

  constructor(element) {
    this.element = element;
  }

  /** Draw what `text` has more than before; all of it where it is not the same text any more. */
  draw(text) {
    const normal = text.replace(/\r\n?/g, "\n");
    if (!normal.startsWith(this.#text)) this.#clear();
    this.#text = normal;
    const rest = normal.slice(this.#settled);
    const tokens = parser.parse(rest, {});
    const last = tokens.findLastIndex((token) => token.level === 0 && token.nesting !== -1);
    if (last < 0) return;
    const settled = build(tokens.slice(0, last), document.createDocumentFragment());
    const open = build(tokens.slice(last), document.createDocumentFragment());
    this.#last.forEach((node) => node.remove());
    this.#last = [...open.childNodes];
    this.#settled += offset(rest, tokens[last].map[0]);
    this.element.append(settled, open);
  }

  /** Draw the whole text at once: an earlier block may refer to a link that a later one defines. */
  finish(text) {
    this.#clear();
    this.element.append(...markdown(text));
  }

  #clear() {
    [this.#text, this.#settled, this.#last] = ["", 0, []];
    this.element.replaceChildren();
  }
}

/** Where line number `line` begins. */
function offset(text, line) {
  let at = 0;
  for (let n = 0; n < line; n += 1) at = text.indexOf("\n", at) + 1;
  return at;
}

function build(tokens, place) {
  const open = [place];
  for (const token of tokens) {
    const here = open.at(-1);
    if (token.nesting === 1) open.push(enter(token, here));
    else if (token.nesting === -1) open.pop();
    else if (token.type === "inline") sized(build(token.children, here));
    else here.append(leaf(token, here));
  }
  return place;
}

function sized(element) {
  if (element.localName === "td") element.classList.toggle("long", element.textContent.length > LONG);
}

function enter(token, here) {
  if (token.hidden) return here; // the paragraph of an item in a tight list
  const element = opened(token, token.type.replace(/_open$/, ""));
  const wide = token.type === "table_open";
  here.append(wide ? h("div", { class: "scroll", role: "group", "aria-label": "Table", tabindex: "0" }, element) : element);
  return element;
}

function opened(token, name) {
  if (name === "heading") return h(`h${Math.min(Number(token.tag.slice(1)) + 2, 6)}`); // below the page's own
  if (name === "link") return link(token.attrGet("href"));
  if (name === "ordered_list") return h("ol", { start: token.attrGet("start") });
  if (name === "th" || name === "td") return h(name, { class: /left|center|right/.exec(token.attrGet("style")) });
  return h(ELEMENTS[name] ?? "span");
}

function leaf(token, here) {
  if (token.type === "fence" || token.type === "code_block") return codeBlock(token.content);
  if (token.type === "code_inline") return h("code", {}, token.content);
  if (token.type === "image") return picture(token, here);
  if (token.type === "hardbreak") return h("br");
  if (token.type === "hr") return h("hr");
  return token.type === "softbreak" ? "\n" : token.content;
}

const codeBlock = (text) => h("pre", { tabindex: "0" }, h("code", {}, text.replace(/\n$/, "")));

function picture(token, here) {
  const url = token.attrGet("src");
  const words = `Picture: ${token.children.map((child) => child.content).join("") || url}`;
  const inside = here instanceof Element && here.closest("a"); // a link that is a picture stays one link
  return inside ? words : link(url, words);
}
