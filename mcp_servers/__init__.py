"""MCP servers for the agent `concierge`: a mailbox and a calendar over a local store. Data for a demonstration."""
