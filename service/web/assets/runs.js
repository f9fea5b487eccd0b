// The caller's runs (everybody's, for an operator): a line each, and on demand what happened in it.
import { call } from "./api.js";
import { $, dollars, h, seconds, when } from "./dom.js";
import { problemBox, told } from "./problem.js";
import { listen } from "./sse.js";
import { Turn } from "./turn.js";

const WORDS = { waiting_approval: "waiting for approval" };
let cursor = null;
let stop = new AbortController();

export function stopRuns() {
  stop.abort();
  stop = new AbortController();
  $("runs-list").replaceChildren();
}

export function showRuns() {
  stopRuns();
  return told($("runs-list"), () => load(null));
}

async function load(before) {
  const query = new URLSearchParams({ limit: "20" });
  if (before) query.set("cursor", before);
  if ($("runs-status").value) query.set("status", $("runs-status").value);
  const page = await call("GET", `/v1/runs?${query}`);
  cursor = page.next_cursor;
  $("runs-list").append(...page.data.map(line));
  if (!before && !page.data.length) $("runs-list").append(h("p", { class: "empty" }, "No runs yet."));
  $("more-runs").hidden = !cursor;
}

function line(run) {
  const facts = [run.latency_ms === null ? null : seconds(run.latency_ms), run.usage && dollars(run.usage.cost_usd)];
  const summary = h(
    "summary",
    {},
    h("span", { class: `status ${run.status}` }, WORDS[run.status] ?? run.status),
    h("strong", {}, run.agent),
    h("span", { class: "gist" }, run.error?.title || run.input || ""),
    h("span", { class: "quiet" }, facts.filter(Boolean).join(" · ")),
    when(run.created_at),
  );
  const element = h("details", { class: "run" }, summary);
  element.addEventListener("toggle", () => open(run, element), { once: true });
  return element;
}

/** The run's events from the start, and on while it goes on. */
async function open(run, element) {
  const turn = new Turn({ agent: run.agent });
  const cancel = h("button", { class: "danger", type: "button" }, "Cancel this run");
  cancel.onclick = () => told(problem, () => call("POST", `/v1/runs/${encodeURIComponent(run.run_id)}/cancel`));
  const problem = h("div", { role: "alert" });
  const ended = ["succeeded", "failed", "cancelled"].includes(run.status);
  element.append(turn.element, ended ? "" : cancel, problem);
  try {
    const events = listen({ runId: run.run_id, signal: stop.signal, onLost: (lost) => turn.lost(lost) });
    for await (const event of events) turn.apply(event);
  } catch (failure) {
    problem.replaceChildren(problemBox(failure));
  }
  if (turn.result) cancel.remove();
}

$("runs-refresh").onclick = showRuns;
$("runs-status").onchange = showRuns;
$("more-runs").onclick = async () => {
  const place = h("div", { role: "alert" });
  $("more-runs").after(place);
  if (await told(place, () => load(cursor))) place.remove();
};
