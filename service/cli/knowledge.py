"""`flask knowledge`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from service.agents.definitions import AgentDefinition
from service.agents.documents import check_category
from service.auth.workspaces import DEFAULT_NAME
from service.cli.common import (
    Commands,
    as_json,
    limit_option,
    paginate,
    print_rows,
    printable,
    services,
    stoppable,
)
from service.errors import Invalid
from service.knowledge.documents import NewDocument, public
from service.knowledge.formats import MAX_DOCUMENT, SUFFIXES, kind_of
from service.knowledge.searched_by import refused
from service.knowledge.vectors import REASONS, NoVectors, Why
from service.store import knowledge as rows
from service.store.database import Row
from service.text.suggest import unknown
from service.types import DEFAULT_WORKSPACE

in_workspace = click.option(
    "--workspace", metavar="NAME", default=DEFAULT_NAME, show_default=True, help="Workspace of the documents."
)
knowledge = Commands("knowledge", help="Documents that workspaces have added, and the index of all.")


@knowledge.command("list")
@click.argument("agent")
@in_workspace
@as_json
def list_documents(agent: str, workspace: str, as_json: bool) -> None:
    """List the documents that a workspace has added for an agent, oldest first, and what they are searched by."""
    known, workspace_id = services().knowledge, _workspace_id(workspace)
    fetch = partial(known.documents.page, workspace_id, agent)
    shown = [public(row) for row in paginate(fetch, lambda row: row["id"])]
    columns = "id name category trusted passages searched_by reason updated_at"
    print_rows(shown, columns, "There are no documents.", as_json=as_json)
    why = refused(known.db, known.embedder, workspace_id, agent)
    if why is not None and not as_json:
        click.echo(_words_alone(why))


@knowledge.command()
@click.argument("agent")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Name of the document; by default the file's.")
@click.option("--title", help="Title in sources; by default the document's own.")
@click.option("--category", default="", help="Category, as the sub-folders of `knowledge/` are.")
@click.option("--trusted", is_flag=True, help="Its text may be followed: you vouch for it.")
@in_workspace
def add(agent: str, file: Path, workspace: str, **given: Any) -> None:
    """Add a document, or replace the one of its name: Markdown, text, HTML or PDF."""
    kind = kind_of(file.name)
    if kind is None:
        raise click.ClickException(f"{file} does not end in {SUFFIXES}.")
    with file.open("rb") as content:
        data = content.read(MAX_DOCUMENT + 1)
    new = NewDocument(
        given["name"] or file.name, kind, data, given["title"], given["category"], given["trusted"]
    )
    check_category(_agent(agent), new.category)
    documents = services().knowledge.documents
    prepared = documents.prepare(_workspace_id(workspace), agent, new)
    added = services().infra.db.transact(partial(documents.write, new=prepared))
    click.echo(f"Added {printable(added['name'])} ({added['id']}): {added['passages']} passages.")
    if added["reason"] is not None:
        click.echo(f"It is searched by words alone: {REASONS[added['reason']]}.")


@knowledge.command()
@click.argument("agent")
@click.argument("document")
@in_workspace
def remove(agent: str, document: str, workspace: str) -> None:
    """Remove a document, by name or id."""
    documents, workspace_id = services().knowledge.documents, _workspace_id(workspace)
    found = services().infra.db.query(lambda tx: rows.named(tx, workspace_id, agent, document))
    documents.delete(workspace_id, agent, found["id"] if found is not None else document)
    click.echo(f"Removed {printable(document)}.")


@knowledge.command()
@click.argument("agent")
@click.argument("query")
@click.option("--category", help="Search only this part.")
@limit_option
@in_workspace
@as_json
def search(agent: str, query: str, category: str | None, limit: int, workspace: str, as_json: bool) -> None:
    """Search as runs of a workspace do: its documents, and the agent's folder."""
    known, workspace_id = services().knowledge, _workspace_id(workspace)
    embedder = known.embedder.of_workspace(workspace_id, agent) if known.embedder is not None else None
    found = known.of_run(_agent(agent).knowledge, workspace_id, agent, embedder).search(
        query, category, limit
    )
    shown = [{**one.source, "trusted": one.trusted, "score": round(one.score, 4)} for one in found]
    print_rows(shown, "title uri trusted quote", "Nothing is found.", as_json=as_json)


@knowledge.command()
@click.option("--agent", help="Only this one.")
@click.option(
    "--workspace", metavar="NAME", help="Only this one's documents; by default all, and the folders."
)
def index(agent: str | None, workspace: str | None) -> None:
    """Index what has changed: cut documents again after an upgrade, and embed what has no vector yet.

    Searches go on as before, and see all of it at once. A command that was interrupted goes on where it was.
    """
    indexing, cut, embedded = services().knowledge.indexing, 0, 0
    indexing.make_vectors()
    by_meaning = indexing.by_meaning
    scopes = _scopes(agent, workspace, folders=by_meaning)
    with stoppable():
        for scope in scopes:
            if scope["workspace_id"] != rows.FOLDER:
                with _bar(scope, "cut", scope["passages"]) as bar:
                    cut += indexing.cut_again(scope, bar.update)
            if by_meaning:
                embedded += _embed(scope)
        indexes = indexing.index_vectors() if by_meaning else []
    click.echo(f"{cut} documents cut again, {embedded} passages embedded.")
    if not by_meaning:
        click.echo(_words_alone("no_endpoint" if indexing.embedder is None else "no_extension"))
    for name in indexes:
        click.echo(f"Vectors are indexed by {name}.")


def _embed(scope: Row) -> int:
    indexing, agent = services().knowledge.indexing, services().agents.agents.get(scope["agent"])
    folder = agent.knowledge if agent is not None else None
    of_folder = scope["workspace_id"] == rows.FOLDER
    count = len(folder.by_digest) if of_folder and folder is not None else scope["passages"]
    try:
        with _bar(scope, "embed", count) as bar:
            return indexing.embed(scope, indexing.texts(scope, folder), bar.update)
    except NoVectors as error:
        detail = error.detail.rstrip(".")
        raise click.ClickException(
            f"{detail[:1].upper()}{detail[1:]}. Searches go on as before; once that is mended, run this again:"
            " it goes on where it was."
        ) from None


def _words_alone(why: Why) -> str:
    return f"Searches are by words alone: {REASONS[why]}."


def _scopes(agent: str | None, workspace: str | None, *, folders: bool) -> list[Row]:
    """List what is to be indexed: agents with documents, by workspace, and folders that are searched by meaning."""
    found: list[Row] = [
        one for one in services().knowledge.indexing.scopes() if one["workspace_id"] != rows.FOLDER
    ]
    if folders:
        agents = services().agents.agents.items()
        with_folders = (name for name, one in agents if one.knowledge is not None and one.knowledge.passages)
        found += [{"workspace_id": rows.FOLDER, "agent": name} for name in with_folders]
    wanted = None if workspace is None else _workspace_id(workspace)
    if agent is not None:
        _agent(agent)
    return [one for one in found if agent in (None, one["agent"]) and wanted in (None, one["workspace_id"])]


def _bar(scope: Row, what: str, count: int) -> Any:
    where = str(scope["workspace_id"] or "folder")
    where = DEFAULT_NAME if where == DEFAULT_WORKSPACE else where
    label = f"{what} {scope['agent']} ({where})"
    return click.progressbar(length=count, label=label, file=sys.stderr)


def _agent(name: str) -> AgentDefinition:
    agents = services().agents.agents
    if name not in agents:
        raise Invalid(f"There is no agent named {name}{unknown(name, agents)}")
    return agents[name]


def _workspace_id(name: str) -> str:
    return services().auth.workspaces.named(name).id
