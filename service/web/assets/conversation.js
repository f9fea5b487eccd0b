// A kept conversation as turns: what was asked, what came of it, and how the run stands.
import { call } from "./api.js";
import { isUnfinished } from "./dom.js";

const MAX_READ = 20; // runs that are read one by one, because the session has no message of theirs

/**
 * A session's turns, oldest first: [{question, result, run_id}]. `result` is a run result as far as it is known, with
 * `status`; `run_id` is there once for each run that has not ended, so that it can be followed.
 */
export async function turnsOf(session) {
  const runs = await runsOf(session);
  const ids = new Set([...session.messages.map((message) => message.run_id), ...runs.keys()]);
  return [...ids].sort().flatMap((id) => turnsOfRun(id, session.messages, runs.get(id)));
}

/** The session's newest runs, by id. Those before the first message that is shown are left out with theirs. */
async function runsOf(session) {
  const { data } = await call("GET", `/v1/runs?session_id=${encodeURIComponent(session.id)}&limit=100`);
  const first = session.next_cursor ? session.messages[0].run_id : "";
  const runs = new Map(data.filter((run) => run.run_id >= first).map((run) => [run.run_id, run]));
  const told = new Set(session.messages.filter(isAnswer).map((message) => message.run_id));
  const untold = [...runs.keys()].filter((id) => !told.has(id)).slice(0, MAX_READ);
  // The list cuts the question, and leaves out what was told until the end.
  const whole = await Promise.all(untold.map((id) => call("GET", `/v1/runs/${encodeURIComponent(id)}`)));
  for (const run of whole) runs.set(run.run_id, run);
  return runs;
}

/** Usually one turn; a run that was given several messages has one for each question. */
function turnsOfRun(id, messages, run) {
  const turns = [];
  for (const message of messages.filter((one) => one.run_id === id)) {
    if (!isAnswer(message)) turns.push({ question: text(message), last: message });
    else if (turns.length && !turns.at(-1).output) Object.assign(turns.at(-1), { output: text(message), last: message });
    else turns.push({ output: text(message), last: message });
  }
  if (!turns.length) turns.push({});
  turns.at(-1).question ??= run?.input;
  const goesOn = run && isUnfinished(run.status);
  return turns.map(({ question, output, last }, n) => {
    const isLast = n === turns.length - 1;
    const about = isLast ? { ...run, ...kept(last) } : {};
    const result = { status: "succeeded", ...about, output: output ?? about.output ?? "", run_id: id };
    return { question, result, run_id: goesOn && isLast ? id : null };
  });
}

/** What a turn's last message says of it: that goes before what the run's line in a list says. */
function kept(message) {
  const { status, sources, tools } = message ?? {};
  const known = Object.entries({ status, sources, tools }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known);
}

const isAnswer = (message) => message.role !== "user";
const text = ({ content }) => (typeof content === "string" ? content : content.map((block) => block.text ?? "").join("\n"));
