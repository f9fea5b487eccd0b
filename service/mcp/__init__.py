"""MCP client: tools of servers that an operator names, each allowed by name and pinned by the digest of its definition.

`config` reads the file of servers, `pins` keeps definitions in the database, `connection` holds one connection,
`connections` those of this process, `tools` is the tool source. `docs/mcp.md` shows how to use it.
"""
