"""``/tokenize`` and ``/detokenize``, as vLLM has them."""

from __future__ import annotations

from fastapi import APIRouter

from engine.server.body import JsonRoute
from engine.server.openapi import documented
from engine.server.requests import Detokenize, TokenizeChat, TokenizeText
from engine.server.responses import Text, Tokens
from engine.server.served_model import ServedModel


def tokenization(served: ServedModel) -> APIRouter:
    """Return the routes."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/tokenize", **documented(Tokens))
    async def tokenize(body: TokenizeText | TokenizeChat) -> Tokens:
        """Return the tokens of a text or a conversation, which must fit into the context."""
        served.name(body.model)
        if isinstance(body, TokenizeText):
            special = body.add_special_tokens is not False
            tokens = await served.encode(body.prompt, param="prompt", add_special_tokens=special)
        else:
            tokens = await served.encode_chat(body)
        texts = [served.token_text(token) for token in tokens] if body.return_token_strs else None
        return {"count": len(tokens), "max_model_len": served.context, "tokens": tokens, "token_strs": texts}

    @router.post("/detokenize", **documented(Text))
    async def detokenize(body: Detokenize) -> Text:
        """Return the text of tokens, special ones included."""
        served.name(body.model)
        served.known(body.tokens, param="tokens")
        tokenizer = served.tokenizer
        return {"prompt": await served.in_thread(lambda: tokenizer.decode(body.tokens, skip_special_tokens=False))}

    return router
