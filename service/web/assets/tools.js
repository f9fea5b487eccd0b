// The tool calls of a turn: a line each, which opens to what was called and what came back.
import { keptEvents } from "./api.js";
import { h, seconds } from "./dom.js";
import { told } from "./problem.js";
import { legible } from "./values.js";

export class ToolCalls {
  #calls = new Map(); // by call id, while the run goes on

  /** `place` is the element that calls are appended to. */
  constructor(place) {
    this.place = place;
  }

  /** `agent` and `branch` are there for a call of a sub-agent. */
  called({ call_id: id, name, arguments: given, agent, branch }) {
    const call = line(name, "running", branch && `${agent} ${branch}`);
    call.inside.append(...argumentsOf(given));
    this.#calls.set(id, call);
    this.place.append(call.element);
  }

  finished({ call_id: id, preview, ...outcome }) {
    const call = this.#calls.get(id);
    if (!call) return;
    end(call, outcome);
    call.inside.append(...result(preview));
  }

  /** Calls of a run that has ended, as [{name, ok, ms}]; the rest is read once somebody opens one. */
  kept(list, runId) {
    const calls = list.map(({ name, ...outcome }) => end(line(name), outcome));
    let filled = null;
    const fill = (inside) => told(inside, () => (filled ??= fillAll(calls, runId)));
    for (const call of calls) call.element.addEventListener("toggle", () => fill(call.note), { once: true });
    this.place.append(...calls.map((call) => call.element));
  }
}

function line(name, word = "", whose = "") {
  const state = h("span", { class: "state" }, word);
  const note = h("div");
  const inside = h("div", { class: "inside" }, note);
  return { state, note, inside, element: h("details", { class: "tool" }, h("summary", {}, h("code", {}, name), " ", h("span", { class: "quiet" }, whose), state), inside) };
}

function end(call, { ok, ms }) {
  call.state.textContent = `${ok ? "done" : "failed"} · ${seconds(ms)}`;
  call.element.classList.add(ok ? "ok" : "bad");
  return call;
}

async function fillAll(calls, runId) {
  const events = await keptEvents(runId);
  const of = (name) => events.filter(({ event }) => event === name).map(({ data }) => data);
  const called = new Map(of("tool.called").map((data) => [data.call_id, data]));
  const finished = of("tool.finished");
  calls.forEach((call, n) => {
    const { call_id: id, preview } = finished[n] ?? {};
    if (called.has(id)) call.inside.append(...argumentsOf(called.get(id).arguments), ...result(preview));
    else call.note.append(h("p", { class: "quiet" }, "What was called is no longer kept."));
  });
}

const argumentsOf = (given) => [h("p", { class: "quiet" }, "Called with"), legible(given)];
const result = (preview) => (preview ? [h("p", { class: "quiet" }, "Result"), h("pre", { tabindex: "0" }, preview)] : []);
