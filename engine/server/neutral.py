"""Parameters that this server does not know how to honour: refused unless they say what happens anyway."""

from __future__ import annotations

from typing import Any

from engine.server.errors import ApiError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_salt": (),
    "chat_template": (),
    "documents": ([],),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (False,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "structured_outputs": ({},),
    "suffix": ("",),
    "thinking_token_budget": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What each may say, besides null: what is done without it."""


def refuse_unsupported(document: Any) -> Any:
    """Return the body of a request as it is.

    Raises
    ------
    ApiError
        400 that names a parameter which asks for another output than this server can give.
    """
    for name, allowed in NEUTRAL.items() if isinstance(document, dict) else ():
        value = document.get(name)
        if value is not None and not any(value == neutral for neutral in allowed):
            wish = "leave it out" + "".join(f" or send {neutral!r}" for neutral in allowed)
            raise ApiError(400, f"{name} is not supported by this server: {wish}", param=name, code="unsupported")
    return document
