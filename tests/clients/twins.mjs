// The official SDKs of npm before Slipway. Arguments: its address, an API key. Prints what came of each call as JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [, , url, apiKey] = process.argv;
const theirs = new Anthropic({ apiKey, baseURL: url, maxRetries: 0 });
const other = new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
const question = (content) => ({ messages: [{ role: "user", content }] });
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const weather = { name: "get_weather", description: "Weather of a city." };
const told = {};

async function refused(call) {
  try {
    await call();
    return "no error";
  } catch (error) {
    return { class: error.constructor.name, status: error.status, request: Boolean(error.requestID), message: error.message };
  }
}

async function ofAnthropic() {
  const base = { model: "analyst", max_tokens: 400 };
  const whole = await theirs.messages.create({ ...base, ...question("What is 17 * 23?") });
  const streamed = await theirs.messages.stream({ ...base, ...question("What is 18 * 23?") }).finalMessage();
  const tools = [{ ...weather, input_schema: schema }];
  const asked = question('Call get_weather for "Paris".');
  const first = await theirs.messages.create({ ...base, ...asked, tools });
  const call = first.content.find((block) => block.type === "tool_use");
  asked.messages.push({ role: "assistant", content: first.content });
  asked.messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "21 degrees" }] });
  const second = await theirs.messages.create({ ...base, ...asked, tools });
  const format = { type: "json_schema", schema };
  const structured = await theirs.messages.create({ ...base, model: "assistant", ...question("Where is Ada?"), output_config: { format } });
  const left = theirs.messages.stream({ ...base, model: "assistant", ...question("[offline tokens=40 token_ms=300] Long.") });
  const id = await new Promise((resolve) => left.on("text", () => resolve(left.currentMessage.id)));
  left.on("abort", () => {}); // else it is an unhandled rejection
  left.abort();
  told.anthropic = {
    whole: whole.content.at(-1).text,
    streamed: streamed.content.at(-1).text,
    usage: streamed.usage,
    called: [first.stop_reason, call.name, call.input],
    result: second.content.at(-1).text,
    structured: JSON.parse(structured.content.at(-1).text),
    models: (await theirs.models.list()).data.map((model) => model.id),
    left: id.replace("msg_", "run_"),
    missing: await refused(() => theirs.messages.create({ ...base, model: "nobody", ...question("?") })),
    invalid: await refused(() => theirs.messages.create({ ...base, max_tokens: 0, ...question("?") })),
    stranger: await refused(() => new Anthropic({ apiKey: "slp_x", baseURL: url, maxRetries: 0 }).messages.create({ ...base, ...question("?") })),
  };
}

async function ofOpenAI() {
  const base = { model: "analyst" };
  const whole = await other.chat.completions.create({ ...base, ...question("What is 17 * 23?") });
  const stream = other.chat.completions.stream({ ...base, ...question("What is 19 * 23?"), stream_options: { include_usage: true } });
  const streamed = await stream.finalChatCompletion();
  const tools = [{ type: "function", function: { ...weather, parameters: schema, strict: true } }];
  const asked = question('Call get_weather for "Paris".');
  const first = await other.chat.completions.create({ ...base, ...asked, tools });
  const [call] = first.choices[0].message.tool_calls;
  asked.messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "21 degrees" });
  const second = await other.chat.completions.create({ ...base, ...asked, tools });
  const response_format = { type: "json_schema", json_schema: { name: "place", schema, strict: true } };
  const structured = await other.chat.completions.parse({ model: "assistant", ...question("Where is Ada?"), response_format });
  const left = await other.chat.completions.create({ model: "assistant", ...question("[offline tokens=40 token_ms=300] Long!"), stream: true });
  let id;
  for await (const chunk of left) {
    id = chunk.id;
    if (chunk.choices[0].delta.content) break; // which aborts the request
  }
  told.openai = {
    whole: whole.choices[0].message.content,
    streamed: streamed.choices[0].message.content,
    usage: streamed.usage,
    called: [first.choices[0].finish_reason, call.function.name, JSON.parse(call.function.arguments)],
    result: second.choices[0].message.content,
    structured: structured.choices[0].message.parsed,
    models: (await other.models.list()).data.map((model) => model.id),
    left: id.replace("chatcmpl-", "run_"),
    missing: await refused(() => other.chat.completions.create({ model: "nobody", ...question("?") })),
    invalid: await refused(() => other.chat.completions.create({ ...base, n: 2, ...question("?") })),
    stranger: await refused(() => new OpenAI({ apiKey: "slp_x", baseURL: `${url}/v1`, maxRetries: 0 }).chat.completions.create({ ...base, ...question("?") })),
    embeddings: await refused(() => other.embeddings.create({ model: "support", input: "x" })),
  };
}

await ofAnthropic();
await ofOpenAI();
console.log(JSON.stringify(told));
