// One turn: a question, and its run's events as they become an answer.
import { approvalCard } from "./approvals.js";
import { announce, count, dollars, h, link, seconds, statusChip } from "./dom.js";
import { Draft, markdown } from "./markdown.js";
import { problemBox, problemIn } from "./problem.js";
import { ToolCalls } from "./tools.js";

const DOING = {
  queued: "Waiting for a free place…",
  waiting_approval: "Waiting for a decision…",
  waiting_budget: "Waiting for budget…",
  paused: "Stopped for now by an administrator…",
};
const UNSAID = new Set(["running", "succeeded"]); // the text itself says them

export class Turn {
  /** `onModel` hears the name of each model that answered. */
  constructor({ question = "", agent, onModel = () => {} }) {
    this.onModel = onModel;
    this.result = null;
    this.texts = []; // [{draft, deltas: [{seq, text}]}]: one for each step that says something
    this.lastTexts = []; // of them, those after the last tool call
    this.text = null; // the one that grows
    this.cards = new Map();
    this.activity = "Starting…";
    this.doing = h("p", { class: "doing" }, h("span", { class: "dot" }), h("span", {}, this.activity));
    this.body = h("div", { class: "body" });
    this.tools = new ToolCalls(this.body);
    this.speaker = h("p", { class: "speaker" }, h("span", {}, agent));
    this.answer = h("div", { class: "answer", "aria-busy": "true" }, this.speaker, this.body, this.doing);
    const asked = question && h("div", { class: "question" }, h("p", { class: "unseen" }, "You asked:"), h("p", {}, question));
    this.element = h("article", { class: "turn" }, asked || null, this.answer);
  }

  apply({ seq, name, data }) {
    const [what, how] = name.split(".");
    if (name === "step.started") this.#step(data);
    else if (name === "text.delta") this.#say(seq, data.text);
    else if (what === "tool") this.#tool(how, data);
    else if (what === "approval") this.#approval(how, data);
    else if (name === "budget.required") this.#budget(data);
    else if (name === "run.resumed") this.#resume(data.from_seq);
    else if (name === "gap") this.#note("A part of this stream is no longer kept. The whole answer is shown when it ends.");
    else if (name === "guardrail") this.#note(`Links removed, whose hosts the agent does not list: ${data.count}.`);
    else if (name === "usage") this.onModel(data.model);
    else if (what === "run" && name !== "run.started") this.end(data);
  }

  /** Show how the run stands, where the text does not say it. */
  status(status) {
    this.speaker.querySelector(".status")?.remove();
    if (!UNSAID.has(status)) this.speaker.append(statusChip(status));
    this.doing.lastChild.textContent = this.activity = DOING[status] ?? "Working…";
  }

  /** The run has ended with this result. */
  end(result) {
    this.result = result;
    this.status(result.status);
    this.#correct(result);
    this.#quiet();
    if (result.model) this.onModel(result.model);
    if (result.sources?.length) this.answer.append(sources(result.sources));
    if (result.status === "cancelled") this.#note(result.output ? "Stopped here." : "Stopped before anything was said.");
    if (result.status === "failed") this.answer.append(problemBox(problemIn(result.error ?? {})));
    this.answer.append(facts(result));
  }

  /** A run that ended earlier, by its result: its tool calls were not heard as events. */
  kept(result) {
    if (result.tools?.length) this.tools.kept(result.tools, result.run_id);
    this.end(result);
  }

  fail(problem) {
    this.#quiet();
    this.answer.append(problemBox(problem));
  }

  /** The connection has gone, or is back. */
  lost(isLost) {
    this.doing.lastChild.textContent = isLost ? "The connection is lost. Reconnecting…" : this.activity;
  }

  working(text = "Working…") {
    this.doing.lastChild.textContent = this.activity = text;
  }

  #quiet() {
    for (const card of this.cards.values()) card.over();
    this.answer.setAttribute("aria-busy", "false");
    this.doing.remove();
    for (const text of this.texts) {
      text.over = true;
      text.draft.finish(textOf(text));
    }
  }

  /** The result has the last word where events are missing: the answer, or all that was told of a run without one. */
  #correct({ status, output }) {
    const said = status === "succeeded" ? this.lastTexts : this.texts;
    if (!output || said.map(textOf).join("") === output) return;
    for (const text of said) text.deltas = [];
    if (!said.length) this.#newText();
    this.texts.at(-1).deltas = [{ seq: 0, text: output }];
  }

  #step({ step, name, kind }) {
    this.text = null;
    this.working(kind === "tools" ? "Using tools…" : `Step ${step}: ${name}`);
  }

  #newText() {
    const element = h("div", { class: "text" });
    this.text = { draft: new Draft(element), deltas: [], due: false };
    this.texts.push(this.text);
    this.lastTexts.push(this.text);
    this.body.append(element);
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
    this.working("Taken up again by another worker…");
  }

  #tool(how, data) {
    if (how === "called") {
      this.text = null;
      this.lastTexts = [];
      this.tools.called(data);
    } else this.tools.finished(data);
  }

  #approval(how, data) {
    if (how === "required") {
      const card = approvalCard({ ...data, id: data.approval_id });
      this.cards.set(data.approval_id, card);
      this.body.append(card.element);
      this.status("waiting_approval");
      announce(`A person has to decide about ${data.name}.`);
    } else {
      this.cards.get(data.approval_id)?.decided(data.decision ?? data.status, null, data);
      this.status("running");
    }
  }

  #budget({ budget }) {
    this.status("waiting_budget");
    announce(`The cap of ${budget.scope} is reached. The answer goes on once there is room.`);
  }

  #note(text) {
    this.body.append(h("p", { class: "quiet" }, text));
  }
}

const textOf = (text) => text.deltas.map((delta) => delta.text).join("");

/** Deltas come faster than a screen is drawn. */
function redraw(text) {
  if (text.due) return;
  text.due = true;
  requestAnimationFrame(() => {
    text.due = false;
    if (!text.over) text.draft.draw(textOf(text));
  });
}

function sources(list) {
  const items = list.map(({ title, uri, quote }) => {
    const place = uri && uri !== title ? h("p", {}, h("code", { class: "uri" }, uri)) : null;
    return h("li", {}, h("p", {}, h("strong", {}, link(uri, title || uri))), place, quote ? h("blockquote", {}, ...markdown(quote)) : null);
  });
  return h("section", { class: "sources", "aria-label": "Sources" }, h("p", { class: "label" }, "Sources"), h("ol", {}, ...items));
}

function facts({ usage, ...result }) {
  const read = (used) => (used.input_tokens || 0) + (used.cache_read_input_tokens || 0) + (used.cache_creation_input_tokens || 0);
  const told = [
    result.model,
    result.tier,
    (result.latency_ms ?? null) === null ? null : seconds(result.latency_ms),
    usage && `${count(read(usage))} tokens in, ${count(usage.output_tokens || 0)} out`,
    usage?.cost_usd && dollars(usage.cost_usd),
    ["hit", "near", "stale", "coalesced"].includes(result.cache) ? `cache ${result.cache}` : null,
  ];
  const parts = told.filter(Boolean).map((fact) => h("span", {}, fact));
  return h("p", { class: "facts" }, ...parts, h("code", {}, result.run_id));
}
