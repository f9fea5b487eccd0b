// The conversation: choose an agent, ask, listen, stop.
import { call, newKey, open, Problem } from "./api.js";
import { turnsOf } from "./conversation.js";
import { $, announce, h } from "./dom.js";
import { follow } from "./follow.js";
import { problemBox } from "./problem.js";
import { leave, sessionFor, startSessions } from "./sessions.js";
import { listen, wake } from "./sse.js";
import { Turn } from "./turn.js";
import { welcome } from "./welcome.js";

const KEPT_TURNS = 20; // where the service keeps no sessions, the page sends this many earlier messages along
const ENDS = { succeeded: "The answer is complete.", failed: "The run has failed.", cancelled: "Stopped." };
const welcomeBox = $("welcome");
const toEnd = follow($("log"), $("turns"), $("to-end"));
let me = null;
let agents = [];
let history = [];
let active = null; // {turn, runId, stopping, silence: AbortController}: the run that is listened to
let shown = 0; // grows whenever another conversation is shown

export async function startChat(caller) {
  me = caller;
  agents = (await call("GET", "/v1/agents")).data;
  const chosen = agents.find((agent) => agent.id === "support") ?? agents[0];
  $("agent").replaceChildren(...agents.map(({ id }) => h("option", { value: id, selected: id === chosen?.id }, id)));
  greet();
  await startSessions(show);
}

/** Listen no more; the runs themselves go on, and so does the question that is being written. */
export function stopChat() {
  shown += 1;
  active?.silence.abort();
  active = null;
  history = [];
  busy(false);
  readOnly(false);
  $("turns").replaceChildren(welcomeBox);
}

/** Nothing is said yet: the agent introduces itself. */
function greet() {
  const agent = agents.find(({ id }) => id === $("agent").value);
  welcomeBox.replaceChildren(...welcome(agent));
  $("send").disabled = !agent;
}

/** Show a kept session, or null for a new conversation. A run that is under way is followed from its beginning. */
async function show(session) {
  stopChat();
  if (!session) {
    greet();
    $("question").focus();
    return;
  }
  const mine = shown;
  $("agent").value = session.agent;
  readOnly(session.user_id !== me.id);
  const turns = await turnsOf(session);
  if (mine !== shown) return;
  if (session.next_cursor) $("turns").append(h("p", { class: "empty" }, "Earlier messages are kept, but not shown here."));
  const drawn = turns.map((one) => ({ ...one, turn: add(one.question, session.agent) }));
  for (const { turn, result, run_id: goesOn } of drawn) {
    if (goesOn) turn.status(result.status);
    else turn.kept(result);
  }
  toEnd();
  followAll(drawn, mine);
}

/** One after the other, as the service takes the turns of a session. */
async function followAll(drawn, mine) {
  for (const { turn, run_id: runId } of drawn.filter((one) => one.run_id)) {
    if (mine === shown) await hear(turn, { runId });
  }
}

/** Somebody else's conversation can be read, and not gone on with. */
function readOnly(isForeign) {
  $("ask").hidden = isForeign;
  $("foreign").hidden = !isForeign;
}

function add(question, agent = $("agent").value) {
  const turn = new Turn({ question, agent, onModel: tellOffline });
  welcomeBox.remove();
  $("turns").append(turn.element);
  return turn;
}

/** The stand-in says what it is by its name; so does the page. */
function tellOffline(model) {
  if (model?.startsWith("offline-")) $("offline").hidden = false;
}

async function ask(question) {
  const agent = $("agent").value;
  const turn = add(question);
  toEnd();
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
async function hear(turn, { start, runId = null }) {
  const mine = { turn, runId, stopping: false, silence: new AbortController() };
  active = mine;
  busy(true);
  try {
    const events = listen({ start, runId: runId ?? undefined, signal: mine.silence.signal, onLost: (lost) => turn.lost(lost) });
    for await (const event of events) {
      turn.apply(event);
      if (event.name === "run.started") began(mine, event.data.run_id);
    }
    if (turn.result) announce(ENDS[turn.result.status] ?? "");
    return false;
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    turn.fail(problem);
    announce(problem.title || "Something went wrong on this page");
    return mine.runId === null;
  } finally {
    if (active === mine) active = null;
    if (!active) busy(false);
  }
}

/** A run can be stopped once it has a name: it is now, if somebody wanted that earlier. */
function began(mine, runId) {
  const first = mine.runId === null;
  mine.runId = runId;
  if (first && mine.stopping) cancel(mine);
}

function stop() {
  if (!active || active.stopping) return;
  active.stopping = true;
  $("stop").disabled = true;
  active.turn.working("Stopping…");
  if (active.runId) cancel(active);
}

async function cancel(mine) {
  try {
    await call("POST", `/v1/runs/${encodeURIComponent(mine.runId)}/cancel`);
    wake();
  } catch (problem) {
    if (problem.code !== "run_finished") mine.turn.element.append(problemBox(problem));
    mine.stopping = false;
    $("stop").disabled = false;
  }
}

function busy(isBusy) {
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  $("stop").disabled = false;
  if (!isBusy && document.activeElement === document.body) $("question").focus();
}

$("agent").onchange = () => leave(); // a session belongs to one agent
$("stop").onclick = stop;
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
  if (event.key === "Escape" && !$("chat").hidden) stop();
});
