"""Steps of this agent. A run may be resumed by another worker: the same replies must lead to the same steps."""

from service.agents import Answer, Context, Events, Prompt, answer_of

NOTHING = "I found nothing about that in my documents."


def run(context: Context) -> Events[Answer]:
    """Answer from the tool or the documents; without either, say so and make no model call."""
    question = context.request.question
    if "open" in question.lower():
        hours = yield from context.steps.call_tool("look up", "opening_hours", {})
        return Answer(hours.content, "end_turn", "none")
    knowledge = context.agent.knowledge
    passages = knowledge.search(question) if knowledge is not None else []
    if not passages:
        return Answer(NOTHING, "end_turn", "none")
    documents = [
        {
            "type": "document",
            "title": passage.title,
            "source": {"type": "text", "media_type": "text/plain", "data": passage.text},
        }
        for passage in passages
    ]
    turn = {"role": "user", "content": [*documents, {"type": "text", "text": question}]}
    prompt = Prompt(context.system, [*context.messages[:-1], turn])
    reply = yield from context.steps.model("answer", prompt)
    return answer_of(reply, sources=[passage.source for passage in passages[:2]])
