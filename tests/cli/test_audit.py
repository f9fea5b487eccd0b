"""`flask audit`: verify, checkpoints and the export."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785

from service.audit.chain import link_all
from service.types import DEFAULT_WORKSPACE
from service.wiring import Services
from tests.audit.house import tamper
from tests.cli.house import Flask_, env, flask, services, whole

__all__ = ["env", "flask", "services", "whole"]


def test_audit_from_the_command_line(flask: Flask_, services: Services, tmp_path: Path) -> None:
    """In one test, as the last part leaves the audit broken."""
    db = services.infra.db
    flask("budgets", "set", "service", "5")
    link_all(db)
    told = flask("audit", "verify").stdout
    assert told.startswith("ok ") and DEFAULT_WORKSPACE in told

    points = tmp_path / "checkpoints.jsonl"
    points.write_text(flask("audit", "checkpoint").stdout)
    assert "checkpoint of line 1" in flask("audit", "verify", "--checkpoint", str(points)).stdout
    key = json.loads(points.read_text())["public_key"]
    flask("audit", "verify", "--checkpoint", str(points), "--public-key", key)
    flask("audit", "verify", "--checkpoint", str(points), "--public-key", "AAAA", code=1)
    flask("audit", "verify", "--after-seq", "1", code=2)
    for command in ("verify", "export"):  # nothing found is no proof
        assert "no such workspace" in flask("audit", command, "--workspace", "acme", code=1).stderr

    lines = [json.loads(line) for line in flask("audit", "export").stdout.splitlines()]
    assert verified(lines) == len(lines) > 0
    rest = flask("audit", "export", "--workspace", DEFAULT_WORKSPACE, "--after", lines[0]["id"]).stdout
    assert len(rest.splitlines()) == len(lines) - 1

    last = lines[-1]["id"]
    tamper(db, f"DELETE FROM audit WHERE id = '{last}'", f"DELETE FROM audit_links WHERE audit_id = '{last}'")
    flask("audit", "verify")
    cut = flask("audit", "verify", "--checkpoint", str(points), code=1).stdout
    assert f"link {len(lines)}: cut" in cut
    first = lines[0]["id"]
    tamper(db, f"UPDATE audit SET result = 'refused' WHERE id = '{first}'")
    shown = json.loads(flask("audit", "verify", "--json", code=1).stdout)
    assert shown["workspaces"][0]["first_fault"] == {"seq": 1, "audit_id": first, "fault": "changed"}
    assert f"row {first}: changed" in flask("audit", "verify", code=1).stdout
    one = ("--workspace", DEFAULT_WORKSPACE, "--after-seq", "1")
    flask("audit", "verify", *one, code=0 if len(lines) > 2 else 1)


def verified(lines: list[dict[str, Any]]) -> int:
    """Verify an export by the words of docs/audit.md; return how many lines follow each other."""
    previous = "0" * 64
    for count, line in enumerate(lines):
        link = {name: line.pop(name) for name in ("seq", "previous", "hash", "linked_at")}
        content = {"workspace_id": line["workspace_id"], "seq": link["seq"], "audit_id": line["id"]}
        content |= {"previous": previous, "at": link["linked_at"], "row": line}
        if hashlib.sha256(rfc8785.dumps(content)).hexdigest() != link["hash"]:
            return count
        previous = link["hash"]
    return len(lines)
