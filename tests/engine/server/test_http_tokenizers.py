"""Text to tokens and back, and conversations to text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from engine.server.chat_template import ChatTemplate, read_template
from engine.server.errors import ApiError
from engine.server.tokenizers import ByteTokenizer, ModelTokenizer, ServerTokenizer, server_tokenizer
from engine.text import TextStream
from traces.errors import InputError
from traces.files import write_json

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a byte-level tokenizer."""
    made = tmp_path_factory.mktemp("model")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["the then they"], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, special_tokens=["<s>"])
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", chat_template=TEMPLATE)
    fast.save_pretrained(made)
    write_json(made / "config.json", {"model_type": "llama", "vocab_size": 300})
    return made


@pytest.fixture(scope="module")
def own(folder: Path) -> ServerTokenizer:
    found = server_tokenizer(str(folder))
    assert isinstance(found, ModelTokenizer)
    return found


@given(st.text())
def test_bytes_come_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode(text)
    assert tokens == list(text.encode())
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    stream = TextStream(tokenizer)
    for token in tokens:
        stream.push(token)
    stream.finish()
    assert stream.text == text


@given(st.lists(st.integers(0, 32_000)))
def test_any_token_reads_as_something(tokens: list[int]) -> None:
    tokenizer = ByteTokenizer()
    assert all(tokenizer.token_bytes(token) for token in tokens)
    joined = b"".join(map(tokenizer.token_bytes, tokens))
    assert tokenizer.decode(tokens, skip_special_tokens=True) == joined.decode(errors="replace")


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_the_bytes_of_a_model_s_tokens_make_up_the_text(own: ServerTokenizer, text: str) -> None:
    tokens = own.encode(text, add_special_tokens=False)
    if "<s>" not in text:
        assert b"".join(map(own.token_bytes, tokens)).decode() == text


def test_which_tokenizer_a_model_gets(folder: Path, tmp_path: Path) -> None:
    assert isinstance(server_tokenizer("llama-60m"), ByteTokenizer)
    write_json(tmp_path / "config.json", {"model_type": "llama", "vocab_size": 255})
    assert server_tokenizer(str(tmp_path)) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="no tokenizer that can be read"):
        server_tokenizer(str(tmp_path))


def test_the_model_s_own_template(own: ServerTokenizer) -> None:
    template = ChatTemplate(own.template, own.special_tokens)
    assert template.render([{"role": "user", "content": "hi"}]) == "<s>[user: hi]"
    assert own.encode("<s>[user", add_special_tokens=False)[0] == 0


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.nothing.at_all }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for x in range(10**9) %}{% endfor %}",
    ],
)
def test_what_a_template_refuses_is_the_request_s(source: str) -> None:
    with pytest.raises(ApiError) as caught:
        ChatTemplate(source, {}).render([{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 400
    assert caught.value.param == "messages"


def test_variables_for_the_template() -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    template = ChatTemplate("{{ 'yes' if enable_thinking else 'no' }}", {})
    assert template.render(messages, variables={"enable_thinking": True}) == "yes"
    assert template.render(messages) == "no"
    with pytest.raises(ApiError, match="no chat template"):
        ChatTemplate(None, {}).render(messages)
    with pytest.raises(ApiError, match="chat_template is not for a request"):
        template.render(messages, variables={"chat_template": "x"})


def test_a_template_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ raise_exception('no') }}")
    assert read_template(file) == "{{ raise_exception('no') }}"
    file.write_text("a\n{% if %}")
    with pytest.raises(InputError, match="line 2"):
        read_template(file)
    with pytest.raises(InputError, match="cannot read"):
        read_template(tmp_path / "absent")
