// One turn: a question, and its run's events as they become an answer.
import { approvalCard } from "./approvals.js";
import { announce, count, dollars, h, seconds } from "./dom.js";
import { markdown } from "./markdown.js";
import { problemBox } from "./problem.js";

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

export class Turn {
  /** `onModel` hears the name of each model that answered. */
  constructor({ question = "", agent, onModel = () => {} }) {
    this.onModel = onModel;
    this.result = null;
    this.texts = []; // [{element, deltas: [{seq, text}]}]: one for each step that says something
    this.text = null; // the one that grows
    this.tools = new Map();
    this.cards = new Map();
    this.activity = "Starting…";
    this.doing = h("p", { class: "doing" }, h("span", { class: "dot" }), h("span", {}, this.activity));
    this.body = h("div", { class: "body" });
    this.answer = h("div", { class: "answer", "aria-busy": "true" }, h("p", { class: "speaker" }, agent), this.body, this.doing);
    const asked = question && h("div", { class: "question" }, h("p", { class: "unseen" }, "You asked:"), h("p", {}, question));
    this.element = h("article", { class: "turn" }, asked || null, this.answer);
  }

  /** What the turn says until now. */
  get said() {
    return this.texts.map(textOf).join("\n\n");
  }

  apply({ seq, name, data }) {
    const [what, how] = name.split(".");
    if (name === "step.started") this.#step(data);
    else if (name === "text.delta") this.#say(seq, data.text);
    else if (what === "tool") this.#tool(how, data);
    else if (what === "approval") this.#approval(how, data);
    else if (name === "run.resumed") this.#resume(data.from_seq);
    else if (name === "gap") this.#note("A part of this stream is no longer kept. The whole answer is shown when it ends.");
    else if (name === "usage") this.onModel(data.model);
    else if (what === "run" && name !== "run.started") this.end(data);
  }

  /** The run has ended with this result. */
  end(result) {
    this.result = result;
    this.#quiet();
    if (result.output && textOf(this.texts.at(-1)) !== result.output) {
      if (!this.text) this.#newText();
      this.text.deltas = [{ seq: 0, text: result.output }];
    }
    this.texts.forEach(draw);
    if (result.model) this.onModel(result.model);
    if (result.sources?.length) this.answer.append(sources(result.sources));
    if (result.status === "cancelled") this.#note("Cancelled.");
    if (result.error) this.answer.append(problemBox(problemIn(result.error)));
    else announce(result.status === "cancelled" ? "The run was cancelled." : "The answer is complete.");
    this.answer.append(facts(result));
  }

  /** A kept answer of an earlier turn. */
  show(text) {
    this.#quiet();
    this.#say(0, text);
  }

  fail(problem) {
    this.#quiet();
    this.answer.append(problemBox(problem));
  }

  /** The connection has gone, or is back. */
  lost(isLost) {
    this.doing.lastChild.textContent = isLost ? "The connection is lost. Reconnecting…" : this.activity;
  }

  #quiet() {
    this.answer.setAttribute("aria-busy", "false");
    this.doing.remove();
  }

  #working(text = "Working…") {
    this.activity = text;
    this.doing.lastChild.textContent = text;
  }

  #step({ step, name, kind }) {
    this.text = null;
    this.#working(kind === "tools" ? "Using tools…" : `Step ${step}: ${name}`);
  }

  #newText() {
    this.text = { element: h("div", { class: "text" }), deltas: [], due: false };
    this.texts.push(this.text);
    this.body.append(this.text.element);
  }

  #say(seq, text) {
    if (!this.text) this.#newText();
    this.text.deltas.push({ seq, text });
    redraw(this.text);
  }

  /** Text told after `from` is void: the step that said it is made again. */
  #resume(from) {
    for (const text of this.texts) {
      text.deltas = text.deltas.filter((delta) => delta.seq <= from);
      redraw(text);
    }
    this.#working("Taken up again by another worker…");
  }

  #tool(how, data) {
    if (how === "called") {
      this.text = null;
      const state = h("span", { class: "state" }, "running");
      const inside = h("div", { class: "inside" }, h("p", { class: "quiet" }, "Called with"), block(data.arguments));
      const element = h("details", { class: "tool" }, h("summary", {}, h("code", {}, data.name), state), inside);
      this.tools.set(data.call_id, { element, state, inside });
      this.body.append(element);
      return;
    }
    const tool = this.tools.get(data.call_id);
    if (!tool) return;
    tool.state.textContent = `${data.ok ? "done" : "failed"} · ${seconds(data.ms)}`;
    tool.element.classList.add(data.ok ? "ok" : "bad");
    if (data.preview) tool.inside.append(h("p", { class: "quiet" }, "Result"), block(data.preview));
  }

  #approval(how, data) {
    if (how === "required") {
      const card = approvalCard({ ...data, id: data.approval_id });
      this.cards.set(data.approval_id, card);
      this.body.append(card.element);
      this.#working("Waiting for a decision…");
      announce(`A person has to decide about ${data.name}.`);
    } else {
      this.cards.get(data.approval_id)?.decided(data.decision ?? data.status);
      this.#working();
    }
  }

  #note(text) {
    this.body.append(h("p", { class: "quiet" }, text));
  }
}

const textOf = (text) => text?.deltas.map((delta) => delta.text).join("") ?? "";
const draw = (text) => text.element.replaceChildren(...markdown(textOf(text)));
const block = (value) => h("pre", { tabindex: "0" }, pretty(value));

/** Deltas come faster than a screen is drawn. */
function redraw(text) {
  if (text.due) return;
  text.due = true;
  requestAnimationFrame(() => {
    text.due = false;
    draw(text);
  });
}

function sources(list) {
  const items = list.map(({ title, uri, quote }) => {
    const name = /^https?:\/\//.test(uri) ? h("a", { href: uri, rel: "noopener noreferrer", target: "_blank" }, title || uri) : title;
    const place = uri && uri !== title ? h("p", {}, h("code", { class: "uri" }, uri)) : null;
    return h("li", {}, h("p", {}, h("strong", {}, name || uri)), place, quote ? h("blockquote", {}, ...markdown(quote)) : null);
  });
  return h("section", { class: "sources", "aria-label": "Sources" }, h("p", { class: "label" }, "Sources"), h("ol", {}, ...items));
}

function facts(result) {
  const used = result.usage || {};
  const input = (used.input_tokens || 0) + (used.cache_read_input_tokens || 0) + (used.cache_creation_input_tokens || 0);
  const told = [
    result.model,
    result.tier,
    result.latency_ms === null || result.latency_ms === undefined ? null : seconds(result.latency_ms),
    `${count(input)} tokens in, ${count(used.output_tokens || 0)} out`,
    used.cost_usd && dollars(used.cost_usd),
    ["hit", "near", "stale", "coalesced"].includes(result.cache) ? `cache ${result.cache}` : null,
  ];
  const parts = told.filter(Boolean).map((fact) => h("span", {}, fact));
  return h("p", { class: "facts" }, ...parts, h("code", {}, result.run_id));
}

function problemIn(error) {
  return { ...error, message: error.detail, requestId: error.request_id, retryAfter: error.retry_after };
}
