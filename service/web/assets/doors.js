// Doors of the service, each with examples to copy. `SLIPWAY_KEY` is an API key or an access token; `{origin}` is this
// service, `{socket}` the same for WebSockets. A door is shown where /openapi.json has its path.
const QUESTION = "Within how many days can I get a refund?";
const KEY = 'os.environ["SLIPWAY_KEY"]';
const SHELL = ["-H 'Content-Type: application/json'", '-H "Authorization: Bearer $SLIPWAY_KEY"'].join(" \\\n  ");

const curl = (path, body, options = "-s") => `curl ${options} '{origin}${path}' \\\n  ${SHELL} \\\n  -d '${JSON.stringify(body)}'`;
const messages = [{ role: "user", content: QUESTION }];
const openai = (...lines) =>
  ["import os", "", "from openai import OpenAI", "", `client = OpenAI(base_url="{origin}/v1", api_key=${KEY})`, ...lines].join("\n");
const anthropic = (model) =>
  [
    "import os",
    "",
    "from anthropic import Anthropic",
    "",
    `client = Anthropic(base_url="{origin}", api_key=${KEY})`,
    `question = [{"role": "user", "content": "${QUESTION}"}]`,
    `with client.messages.stream(model="${model}", max_tokens=1000, messages=question) as stream:`,
    "    for text in stream.text_stream:",
    '        print(text, end="")',
  ].join("\n");

export const DOORS = [
  {
    name: "Slipway's own API",
    path: "/v1/agents/{agent}/stream",
    about: "Runs with sessions, events and approvals. A stream can be taken up again after its connection is lost.",
    examples: [
      { language: "Shell", text: curl("/v1/agents/support/invoke", { input: QUESTION }) },
      { language: "Shell, stream", text: curl("/v1/agents/support/stream", { input: QUESTION }, "-sN") },
      {
        language: "Python",
        text: [
          "import os",
          "",
          "from slipway_client import Slipway",
          "",
          `with Slipway(${KEY}, base_url="{origin}") as client:`,
          `    print(client.agents.invoke("support", "${QUESTION}").output)`,
        ].join("\n"),
      },
    ],
  },
  {
    name: "OpenAI Chat Completions",
    path: "/v1/chat/completions",
    about: "For OpenAI's SDKs and what is built on them: an agent is a model.",
    examples: [
      { language: "Shell", text: curl("/v1/chat/completions", { model: "support", messages }) },
      {
        language: "Python",
        text: openai(
          `question = [{"role": "user", "content": "${QUESTION}"}]`,
          'for chunk in client.chat.completions.create(model="support", messages=question, stream=True):',
          '    print(chunk.choices[0].delta.content or "", end="")',
        ),
      },
    ],
  },
  {
    name: "OpenAI Responses",
    path: "/v1/responses",
    about: "The same SDKs, with conversations that Slipway keeps, and work in the background.",
    examples: [
      { language: "Shell", text: curl("/v1/responses", { model: "support", input: QUESTION }) },
      { language: "Python", text: openai(`print(client.responses.create(model="support", input="${QUESTION}").output_text)`) },
    ],
  },
  {
    name: "Anthropic Messages",
    path: "/v1/messages",
    about: "For Anthropic's SDKs and what is built on them: an agent is a model.",
    examples: [
      { language: "Shell", text: curl("/v1/messages", { model: "support", max_tokens: 1000, messages }) },
      { language: "Python", text: anthropic("support") },
    ],
  },
  {
    name: "Models themselves",
    path: "/v1/messages",
    about: "A model by its own name, such as claude-haiku-5-5, for keys with the scope `models:*`: metered and capped like a run.",
    examples: [{ language: "Python", text: anthropic("claude-haiku-5-5") }],
  },
  {
    name: "WebSocket",
    path: "/v1/agents/{agent}/chat",
    about: "Several turns over one connection: each text frame in is a turn, each frame out an event.",
    examples: [
      {
        language: "Python",
        text: [
          "import json",
          "import os",
          "",
          "from websockets.sync.client import connect",
          "",
          `headers = {"Authorization": f"Bearer {os.environ['SLIPWAY_KEY']}"}`,
          'with connect("{socket}/v1/agents/support/chat", additional_headers=headers) as socket:',
          `    socket.send(json.dumps({"input": "${QUESTION}"}))`,
          "    for frame in socket:",
          "        event = json.loads(frame)",
          '        print(event["data"].get("text", ""), end="")',
          '        if event["event"] in ("run.completed", "run.failed", "run.cancelled", "error"):',
          "            break",
        ].join("\n"),
      },
    ],
  },
];

/** The text of an example for the service at this origin. */
export const at = (origin, text) => text.replaceAll("{origin}", origin).replaceAll("{socket}", origin.replace(/^http/, "ws"));
