"""Remote agents: services elsewhere that answer for an agent, over one POST or A2A. See docs/remote-agents.md."""
