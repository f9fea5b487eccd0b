// The conversation: choose an agent, ask, listen, cancel.
import { call, newKey, open, Problem } from "./api.js";
import { $, announce, h } from "./dom.js";
import { problemBox } from "./problem.js";
import { leave, sessionFor, startSessions } from "./sessions.js";
import { listen } from "./sse.js";
import { Turn } from "./turn.js";

const KEPT_TURNS = 20; // where the service keeps no sessions, the page sends this many earlier messages along
const welcomeBox = $("welcome");
let agents = [];
let history = [];
let active = null; // {turn, stop: AbortController}
let runId = null;

export async function startChat() {
  agents = (await call("GET", "/v1/agents")).data;
  const chosen = agents.find((agent) => agent.id === "support") ?? agents[0];
  $("agent").replaceChildren(...agents.map(({ id }) => h("option", { value: id, selected: id === chosen?.id }, id)));
  welcome();
  await startSessions(show);
}

/** Listen no more; the runs themselves go on. */
export function stopChat() {
  active?.stop.abort();
  active = null;
  history = [];
  $("log").replaceChildren(welcomeBox);
  $("question").value = "";
}

function welcome() {
  const agent = agents.find(({ id }) => id === $("agent").value);
  const about = agent
    ? [h("h1", {}, agent.id), h("p", {}, agent.description), h("p", { class: "quiet" }, traits(agent))]
    : [h("h1", {}, "No agents"), h("p", {}, "There is no agent that you may use.")];
  welcomeBox.replaceChildren(...about);
  $("send").disabled = !agent;
}

function traits({ pattern, tools, approvals }) {
  const parts = [`pattern ${pattern}`];
  if (tools.length) parts.push(`tools ${tools.join(", ")}`);
  if (approvals.length) parts.push(`asks before ${approvals.join(", ")}`);
  return parts.join(" · ");
}

/** A kept session, or null for a new conversation. */
function show(session) {
  stopChat();
  if (!session) {
    welcome();
    $("question").focus();
    return;
  }
  if (session.agent) $("agent").value = session.agent;
  if (session.next_cursor) $("log").append(h("p", { class: "empty" }, "Earlier messages are kept, but not shown here."));
  let turn = null;
  for (const { role, content } of session.messages ?? []) {
    const text = typeof content === "string" ? content : content.map((block) => block.text ?? "").join("\n");
    if (role === "user") turn = add(text);
    else (turn ?? add("")).show(text);
    if (role !== "user") turn = null;
  }
  follow(session.id, turn);
  toEnd();
}

/** A turn that was under way when the page was left is taken up where it is now. */
async function follow(session, turn) {
  const { data } = await call("GET", `/v1/runs?session_id=${encodeURIComponent(session)}&limit=1`).catch(() => ({ data: [] }));
  const [latest] = data;
  const going = latest && ["queued", "running", "waiting_approval"].includes(latest.status);
  if (going && !active) await hear(turn ?? add(""), { runId: latest.run_id });
  else turn?.fail(new Problem({ title: "This question has no answer" }, 0));
}

function add(question) {
  const turn = new Turn({ question, agent: $("agent").value, onModel: tellOffline });
  welcomeBox.remove();
  $("log").append(turn.element);
  toEnd();
  return turn;
}

/** The stand-in says what it is by its name; so does the page. */
function tellOffline(model) {
  if (model?.startsWith("offline-")) $("offline").hidden = false;
}

async function ask(question) {
  const agent = $("agent").value;
  const turn = add(question);
  let body = null;
  const key = newKey(); // one for all attempts: a repeated request joins the run that the first one began
  const start = async (signal) => {
    body ??= await bodyFor(agent, question);
    const headers = { Accept: "text/event-stream", "Idempotency-Key": key };
    return open("POST", `/v1/agents/${encodeURIComponent(agent)}/stream`, { body, headers, signal });
  };
  const refused = await hear(turn, { start });
  if (refused && !$("question").value) $("question").value = question;
  if (turn.result?.status === "succeeded") {
    history.push({ role: "user", content: question }, { role: "assistant", content: turn.result.output });
  }
}

async function bodyFor(agent, question) {
  const session = await sessionFor(agent, question);
  if (session) return { input: question, session_id: session };
  if (!history.length) return { input: question };
  return { messages: [...history.slice(-KEPT_TURNS), { role: "user", content: question }] };
}

/** Listen to a run until it ends. True where it was refused before it began. */
async function hear(turn, { start, runId: known }) {
  const mine = { turn, stop: new AbortController() };
  active = mine;
  runId = known ?? null;
  busy(true);
  try {
    const events = listen({ start, runId: known, signal: mine.stop.signal, onLost: (lost) => turn.lost(lost) });
    for await (const event of events) {
      if (event.name === "run.started") runId = event.data.run_id;
      const atEnd = isAtEnd();
      turn.apply(event);
      if (atEnd) requestAnimationFrame(toEnd);
    }
    return false;
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    turn.fail(problem);
    return runId === null;
  } finally {
    if (active === mine) active = null;
    if (!active) busy(false);
    if (isAtEnd(400)) requestAnimationFrame(toEnd);
  }
}

async function cancel() {
  const mine = active;
  $("cancel").disabled = true;
  if (!runId) return mine?.stop.abort();
  try {
    await call("POST", `/v1/runs/${encodeURIComponent(runId)}/cancel`);
    announce("Cancelling.");
  } catch (problem) {
    if (problem.code !== "run_finished") mine?.turn.element.append(problemBox(problem));
    $("cancel").disabled = false;
  }
}

function busy(isBusy) {
  $("send").hidden = isBusy;
  $("cancel").hidden = !isBusy;
  $("cancel").disabled = false;
  if (!isBusy && document.activeElement === document.body) $("question").focus();
}

const isAtEnd = (slack = 80) => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < slack;
const toEnd = () => ($("log").scrollTop = $("log").scrollHeight);

$("agent").onchange = () => leave(); // a session belongs to one agent
$("cancel").onclick = cancel;
$("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || active) return;
  $("question").value = "";
  ask(question);
};
$("question").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && active && !$("chat").hidden) cancel();
});
