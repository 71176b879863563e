"""Write a tiny language model as a GGUF file: random weights, but a real small vocabulary.

Usage: ``python tools/make_tiny_gguf.py FILE``. The bytes are the same on every run. Tests use it
where the real thing would be slow: it loads in milliseconds and talks thousands of tokens a second
of deterministic noise. It seldom ends by itself, so ask for a number of tokens.

The vocabulary is byte-level BPE of 770 tokens: 256 bytes, so that every text comes back unchanged;
the merges in ``tiny_gguf_merges.txt``, most frequent pair first, counted once over the help topics
that ship with CPython; three control tokens; and the two marks around a call to a tool, so that a
bias can make the model call one. The chat template is ChatML with tools.
"""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localplane_server.gallery.checkpoints.gguf import (
    Kind,
    Precision,
    Tensor,
    number,
    numbers,
    string,
    strings,
    write_gguf,
)

MERGES = Path(__file__).with_name("tiny_gguf_merges.txt")
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOL_TOKENS = ("<tool_call>", "</tool_call>")
CONTEXT_TOKENS = 2048
WIDTH = 64
FEED_FORWARD = 128
LAYERS = 2
HEADS = 4
KEY_VALUE_HEADS = 2
PRECISIONS = {"float32": Precision.FLOAT32, "float16": Precision.FLOAT16}

CHAT_TEMPLATE = """\
{% set given = messages[0].content if messages and messages[0].role == 'system' else '' %}
{% if tools or given %}
<|im_start|>system
{{ given }}
{% if tools %}

You may call these tools:
<tools>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
</tools>
To call one, answer with its name and its arguments as JSON:
<tool_call>
{"name": NAME, "arguments": OBJECT}
</tool_call>
{% endif %}
<|im_end|>
{% endif %}
{% for message in messages %}
{% if message.role == 'tool' %}
<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role == 'assistant' and message.tool_calls %}
<|im_start|>assistant
{{ message.content or '' }}
{% for call in message.tool_calls %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{% endfor %}
<|im_end|>
{% elif message.role != 'system' %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


def write_tiny_gguf(path: Path) -> None:
    """Write the model to ``path``."""
    metadata = [*architecture(), *vocabulary()]
    with path.open("wb") as output:
        write_gguf(output, metadata, tensors(vocabulary_size=len(tokens())))


def architecture() -> list[bytes]:
    """Return the metadata about the network."""
    return [
        string("general.architecture", "llama"),
        string("general.name", "tiny"),
        number("general.file_type", Kind.UINT32, 1),
        number("llama.context_length", Kind.UINT32, CONTEXT_TOKENS),
        number("llama.embedding_length", Kind.UINT32, WIDTH),
        number("llama.block_count", Kind.UINT32, LAYERS),
        number("llama.feed_forward_length", Kind.UINT32, FEED_FORWARD),
        number("llama.attention.head_count", Kind.UINT32, HEADS),
        number("llama.attention.head_count_kv", Kind.UINT32, KEY_VALUE_HEADS),
        number("llama.attention.layer_norm_rms_epsilon", Kind.FLOAT32, 1e-5),
        number("llama.rope.dimension_count", Kind.UINT32, WIDTH // HEADS),
        number("llama.rope.freq_base", Kind.FLOAT32, 10000.0),
        number("llama.vocab_size", Kind.UINT32, len(tokens())),
    ]


def vocabulary() -> list[bytes]:
    """Return the metadata about the vocabulary."""
    merges = MERGES.read_text(encoding="utf-8").splitlines()
    names = tokens()
    control = names.index(CONTROL_TOKENS[0])
    # 1 is an ordinary token, 3 a control token, 4 one that is never split.
    types = [1] * control + [3] * len(CONTROL_TOKENS) + [4] * len(TOOL_TOKENS)
    return [
        string("tokenizer.ggml.model", "gpt2"),
        string("tokenizer.ggml.pre", "gpt-2"),
        strings("tokenizer.ggml.tokens", names),
        numbers("tokenizer.ggml.token_type", Kind.INT32, types),
        strings("tokenizer.ggml.merges", merges),
        number("tokenizer.ggml.bos_token_id", Kind.UINT32, names.index("<|im_start|>")),
        number("tokenizer.ggml.eos_token_id", Kind.UINT32, names.index("<|im_end|>")),
        number("tokenizer.ggml.padding_token_id", Kind.UINT32, control),
        number("tokenizer.ggml.add_bos_token", Kind.BOOL, value=False),
        string("tokenizer.chat_template", CHAT_TEMPLATE),
    ]


def tokens() -> list[str]:
    """Return the vocabulary: bytes, merged pairs, control tokens, marks."""
    merged = [line.replace(" ", "") for line in MERGES.read_text(encoding="utf-8").splitlines()]
    return [*byte_names(), *merged, *CONTROL_TOKENS, *TOOL_TOKENS]


def byte_names() -> list[str]:
    """Return the printable stand-ins for the 256 bytes, as byte-level BPE has them."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def tensors(vocabulary_size: int) -> list[Tensor]:
    """Return the weights, in llama.cpp's names."""
    key_value = WIDTH // HEADS * KEY_VALUE_HEADS
    parts: list[tuple[str, NDArray[np.floating[Any]]]] = [
        ("token_embd.weight", weights("token_embd", vocabulary_size, WIDTH)),
        ("output_norm.weight", np.ones(WIDTH, np.float32)),
        ("output.weight", weights("output", vocabulary_size, WIDTH)),
    ]
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        parts += [
            (f"{block}.{name}.weight", weights(f"{block}.{name}", *shape))
            for name, shape in (
                ("attn_q", (WIDTH, WIDTH)),
                ("attn_k", (key_value, WIDTH)),
                ("attn_v", (key_value, WIDTH)),
                ("attn_output", (WIDTH, WIDTH)),
                ("ffn_gate", (FEED_FORWARD, WIDTH)),
                ("ffn_up", (FEED_FORWARD, WIDTH)),
                ("ffn_down", (WIDTH, FEED_FORWARD)),
            )
        ]
        parts += [
            (f"{block}.{n}.weight", np.ones(WIDTH, np.float32)) for n in ("attn_norm", "ffn_norm")
        ]
    return [Tensor(name, values, PRECISIONS[values.dtype.name]) for name, values in parts]


def weights(seed: str, rows: int, columns: int) -> NDArray[np.float16]:
    """Return noise of the variance that keeps activations in range.

    It comes from a hash, not from a random generator, so that it is the same in every release of
    numpy.
    """
    noise = hashlib.shake_256(seed.encode()).digest(rows * columns * 2)
    uniform = (np.frombuffer(noise, "<u2").astype(np.float64) + 0.5) / 32768 - 1
    return (uniform * math.sqrt(3 / columns)).astype(np.float16).reshape(rows, columns)


if __name__ == "__main__":
    write_tiny_gguf(Path(sys.argv[1]))
