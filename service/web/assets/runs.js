// The caller's runs (everybody's, for an operator): a line each, and on demand what happened in it.
import { call } from "./api.js";
import { $, dollars, h, isUnfinished, seconds, statusChip, when } from "./dom.js";
import { told } from "./problem.js";
import { listen, wake } from "./sse.js";
import { Turn } from "./turn.js";

let cursor = null;
let stop = new AbortController();

export function stopRuns() {
  stop.abort();
  stop = new AbortController();
  $("runs-list").replaceChildren();
}

/** The newest runs; with an id, that one only. */
export function showRuns(id) {
  stopRuns();
  for (const part of ["runs-filters", "more-runs"]) $(part).hidden = Boolean(id);
  $("all-runs").hidden = !id;
  return told($("runs-list"), () => (id ? one(id) : load(null)));
}

async function one(id) {
  const element = line(await call("GET", `/v1/runs/${encodeURIComponent(id)}`));
  $("runs-list").append(element);
  element.open = true;
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
  const facts = [(run.latency_ms ?? null) === null ? null : seconds(run.latency_ms), run.usage && dollars(run.usage.cost_usd)];
  const summary = h(
    "summary",
    {},
    statusChip(run.status),
    h("strong", {}, run.agent),
    h("span", { class: "gist" }, run.input || "", run.status === "failed" && h("span", { class: "why" }, run.error?.title)),
    h("span", { class: "quiet" }, facts.filter(Boolean).join(" · ")),
    when(run.created_at),
  );
  const element = h("details", { class: "run" }, summary);
  element.addEventListener("toggle", () => open(run.run_id, element), { once: true });
  return element;
}

/** The whole question, the run's events from the start, and on while it goes on. */
async function open(id, element) {
  const problem = h("div", { role: "alert" });
  element.append(problem);
  const silence = stop.signal;
  await told(problem, async () => {
    const run = await call("GET", `/v1/runs/${encodeURIComponent(id)}`);
    const turn = new Turn({ question: run.input, agent: run.agent });
    const ends = isUnfinished(run.status) ? stopButton(id, problem) : null;
    turn.status(run.status);
    problem.before(turn.element, ...[talkLink(run), ends].filter(Boolean));
    try {
      for await (const event of listen({ runId: id, signal: silence, onLost: (lost) => turn.lost(lost) })) turn.apply(event);
    } catch (failure) {
      turn.fail(failure);
    }
    if (turn.result) ends?.remove();
  });
}

const talkLink = ({ session_id: id }) => id && h("p", { class: "talk-link" }, h("a", { href: `#chat/${id}` }, "Open the conversation"));

function stopButton(id, problem) {
  const button = h("button", { class: "danger", type: "button" }, "Stop this run");
  button.onclick = async () => {
    if (await told(problem, () => call("POST", `/v1/runs/${encodeURIComponent(id)}/cancel`))) wake();
  };
  return button;
}

$("runs-refresh").onclick = () => showRuns();
$("runs-status").onchange = () => showRuns();
$("more-runs").onclick = async () => {
  const place = h("div", { role: "alert" });
  $("more-runs").after(place);
  if (await told(place, () => load(cursor))) place.remove();
};
