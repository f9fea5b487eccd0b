"""Documents of a workspace, which its runs search together with those in the folder of an agent."""

from __future__ import annotations

from binascii import a2b_base64
from functools import partial
from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, model_validator

from service import errors
from service.agents.documents import check_category
from service.auth.workspaces import no_workspace
from service.knowledge.documents import NewDocument, public
from service.knowledge.formats import MEDIA_TYPES, SUFFIXES, kind_of
from service.knowledge.vectors import Why
from service.web.admission import allowed_agent, guard
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, WORKSPACE, asked_workspace, page, page_arguments
from service.web.schemas import Body, Page, Shape, json_response, no_nul
from service.web.validation import parse

blueprint = Blueprint("knowledge", __name__)
MediaType = Literal["text/markdown", "text/plain", "text/html", "application/pdf"]


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable characters, without white space around them")
    return no_nul(text)


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


class DocumentBody(Body):
    """Document to add, as `text`, or as `data`: a file in base64. It replaces the document of the same name.

    Without `media_type` the ending of `name` says what it is; a text without a known one is Markdown.
    `trusted`: the workspace's admin vouches for its text; otherwise runs treat it as they treat web pages.
    """

    name: Line
    media_type: MediaType | None = None
    text: Annotated[str, AfterValidator(no_nul)] | None = None
    data: str | None = None
    title: Line | None = None
    category: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")] | None = None
    trusted: bool = False
    workspace_id: Annotated[str, Field(max_length=32)] | None = None

    @model_validator(mode="after")
    def _one_content(self) -> DocumentBody:
        if (self.text is None) == (self.data is None):
            raise ValueError("send either `text` or `data`")
        if self.text is not None and self._kind() == "pdf":
            raise errors.fault("/text", "must not be used for a PDF: send `data`")
        if self._kind() is None:
            raise errors.fault("/name", f"must end in {SUFFIXES}, or say what it is by `media_type`")
        return self

    def _kind(self) -> str | None:
        if self.media_type is not None:
            return MEDIA_TYPES[self.media_type]
        return kind_of(self.name) or (None if self.text is None else "markdown")

    def document(self) -> NewDocument:
        """Return the file. Raises `Invalid` for what is not base64."""
        kind, data = self._kind() or "", self._content()
        return NewDocument(self.name, kind, data, self.title, self.category or "", self.trusted)

    def _content(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        try:
            return a2b_base64(self.data or "", strict_mode=True)
        except ValueError:
            raise errors.fault("/data", "must be base64") from None


class DocumentView(Shape):
    """Document of a workspace. `size`: bytes of its text; `passages`: parts that searches find.

    `searched_by`: words alone, for the `reason`, or words and meaning; see docs/knowledge.md.
    """

    id: str
    workspace_id: str
    agent: str
    name: str
    title: str
    category: str
    trusted: bool
    size: int
    passages: int
    searched_by: Literal["words", "meaning"]
    reason: Why | None
    created_at: str
    updated_at: str


class DocumentDetail(DocumentView):
    text: str


class DocumentPage(Page[DocumentView]): ...


@blueprint.get("/v1/admin/knowledge/<agent>")
@api(
    "List documents that a workspace has added for an agent, oldest first",
    returns={200: DocumentPage},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid],
    query=PAGE | WORKSPACE,
    tag="Admin",
)
@guard()
def list_documents(agent: str) -> Response:
    limit, after = page_arguments()
    documents, name = services().knowledge.documents, allowed_agent(agent).id
    found = documents.page(asked_workspace(), name, limit=limit + 1, after=after)
    return json_response(page([public(row) for row in found], limit))


@blueprint.post("/v1/admin/knowledge/<agent>")
@api(
    "Add a document for a workspace's runs of an agent, or replace the one of the same name",
    body=DocumentBody,
    returns={201: DocumentView},
    errors=[
        errors.Forbidden,
        errors.NotFound,
        errors.Invalid,
        errors.Conflict,
        errors.TooMany,
        errors.IdempotencyMismatch,
        errors.Overloaded,
    ],
    tag="Admin",
    headers=["Idempotency-Replayed"],
)
@guard()
def add_document(agent: str) -> Response:
    found, caller = allowed_agent(agent), current_caller()
    body = parse(DocumentBody, most=services().settings.door_body_limit, texts=())
    workspace_id = body.workspace_id or caller.workspace_id
    if caller.confined_to not in (None, workspace_id):
        raise no_workspace(workspace_id)
    services().auth.workspaces.get(workspace_id)
    documents, new = services().knowledge.documents, body.document()
    check_category(found, new.category)
    return once(partial(documents.write, new=documents.prepare(workspace_id, found.id, new)), 201)


@blueprint.get("/v1/admin/knowledge/<agent>/<document_id>")
@api(
    "Get a document with its text",
    returns={200: DocumentDetail},
    errors=[errors.Forbidden, errors.NotFound],
    tag="Admin",
)
@guard()
def get_document(agent: str, document_id: str) -> Response:
    documents, name = services().knowledge.documents, allowed_agent(agent).id
    row = documents.get(current_caller().confined_to, name, document_id)
    return json_response(public(row) | {"text": row["text"]})


@blueprint.delete("/v1/admin/knowledge/<agent>/<document_id>")
@api(
    "Delete a document: no search finds it any more",
    returns={204: None},
    errors=[errors.Forbidden, errors.NotFound],
    tag="Admin",
)
@guard()
def delete_document(agent: str, document_id: str) -> Response:
    name = allowed_agent(agent).id
    services().knowledge.documents.delete(current_caller().confined_to, name, document_id)
    return Response(status=204)
