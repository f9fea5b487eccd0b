// Server-sent events over fetch (an EventSource can send neither a body nor a token), and a run that is
// listened to until its last event, whatever happens to the connection.
import { open, Problem } from "./api.js";

const LAST = new Set(["run.completed", "run.failed", "run.cancelled"]);
const SILENCE = 35000; // ms: a comment comes at least every 15 s, so two were missed
const TRIES = 10; // in a row that brought nothing
const AGAIN = [1000, 15000]; // ms after `reconnect`, doubled while nothing is new: the run waits for a person, or goes on elsewhere
const STEADY = 10000; // ms: a connection that held this long was a good one, even if nothing happened meanwhile

/** The events of a response body: {id, event, data}. Ends when the body ends; throws when it breaks. */
async function* parse(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return; // an event without its empty line was cut off, and does not count
    heard();
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data !== undefined) yield { event: "message", ...event };
        event = {};
        continue;
      }
      const [, name, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (name === "data") event.data = event.data === undefined ? text : `${event.data}\n${text}`;
      else if (name === "id" || name === "event") event[name] = text;
    }
  }
}

/** One connection, given up when nothing at all is heard for too long; `onOpen` is told its age at each sound. */
async function* connect(start, signal, onOpen) {
  const one = new AbortController();
  const stop = () => one.abort();
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, SILENCE);
  let opened = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(stop, SILENCE);
    onOpen(performance.now() - opened);
  };
  try {
    const response = await start(one.signal);
    opened = performance.now();
    heard();
    yield* parse(response.body, heard);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    one.abort();
  }
}

const waits = new Set(); // ends of pauses that are under way

/** Look at once at every run that is followed: a decision was taken, or a run stopped. */
export const wake = () => waits.forEach((end) => end());

/** Wait so long, or until somebody wakes. Tells whether somebody did. */
function pause(ms) {
  return new Promise((resolve) => {
    const end = (woken = true) => {
      clearTimeout(timer);
      waits.delete(end);
      resolve(woken);
    };
    const timer = setTimeout(() => end(false), ms);
    waits.add(end);
  });
}

/**
 * Every event of a run, each once: {seq, name, data}. `start` opens the first connection; with `runId` the run is
 * followed from its beginning instead. `onLost` is told (true, false) when the connection goes and comes back.
 * Throws `Problem` when the service refuses, or cannot be reached any more.
 */
export async function* listen({ start, runId, signal, onLost = () => {} }) {
  let run = runId;
  let seen = 0;
  const resume = (one) =>
    open("GET", `/v1/runs/${encodeURIComponent(run)}/events`, {
      headers: { Accept: "text/event-stream", "Last-Event-ID": `${run}:${seen}` },
      signal: one,
    });
  let tries = 0;
  let again = false;
  let calm = AGAIN[0];
  let lost = false;
  const tell = (isLost) => {
    if (isLost !== lost) onLost(isLost);
    lost = isLost;
  };
  const onOpen = (age) => {
    tell(false);
    if (age > STEADY) tries = 0;
  };
  for (; tries < TRIES; tries += 1) {
    if (again) {
      const woken = await pause(calm);
      calm = woken ? AGAIN[0] : Math.min(calm * 2, AGAIN[1]);
    }
    if (!again && tries) await pause(Math.min(200 * 2 ** (tries - 1), 5000));
    again = false;
    if (signal.aborted) return;
    try {
      for await (const { id = "", event, data } of connect(run ? resume : start, signal, onOpen)) {
        const [name, number] = id.split(":");
        run ??= name || undefined;
        if (event === "reconnect") {
          [again, tries] = [true, 0];
          break;
        }
        const seq = Number(number) || seen;
        if (seq <= seen) continue;
        [seen, tries, calm] = [seq, 0, AGAIN[0]];
        yield { seq, name: event, data: JSON.parse(data) };
        if (LAST.has(event)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // A first request that was refused is the caller's to send again; one that is lost is repeated here.
      if (error instanceof Problem && !(error.status === 0 || (run && error.passing))) throw error;
    }
    if (signal.aborted) return;
    if (!again) tell(true);
  }
  throw new Problem({ title: "The connection to this run is lost", detail: "It goes on without this page: look under Runs." }, 0);
}
