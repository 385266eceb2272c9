"""What the OpenAPI document says of the routes."""

from __future__ import annotations

from typing import Any

from engine.server.errors import ErrorDocument

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorDocument, "description": "The request is wrong, not allowed, or one too many."},
    "5XX": {"model": ErrorDocument, "description": "The server fails at it, or does not serve now."},
}

EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
"""A server-sent event."""


def documented(answer: Any, *, stream_of: str | None = None) -> dict[str, Any]:
    """Return the arguments of a route that answers with ``answer`` as JSON.

    Parameters
    ----------
    answer
        The type of the document.
    stream_of
        What the data of each event looks like where it may stream instead.
    """
    responses = dict(ERRORS)
    if stream_of is not None:
        says = f"The answer; with `stream`, events whose data is {stream_of} each, and `[DONE]` at the end."
        responses[200] = {"model": answer, "description": says, "content": {"text/event-stream": {"itemSchema": EVENT}}}
    return {"response_model": answer, "responses": responses}
