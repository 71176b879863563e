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
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MERGES = Path(__file__).with_name("tiny_gguf_merges.txt")
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOOL_TOKENS = ("<tool_call>", "</tool_call>")
CONTEXT_TOKENS = 2048
WIDTH = 64
FEED_FORWARD = 128
LAYERS = 2
HEADS = 4
KEY_VALUE_HEADS = 2
ALIGNMENT = 32

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

Tensor = tuple[str, NDArray[np.float16] | NDArray[np.float32]]


class Kind(NamedTuple):
    """A type of metadata values, as GGUF numbers them, and how `struct` packs it."""

    number: int
    code: str


UINT32 = Kind(4, "I")
INT32 = Kind(5, "i")
FLOAT32 = Kind(6, "f")
BOOL = Kind(7, "?")
STRING_NUMBER = 8
ARRAY_NUMBER = 9
TENSOR_NUMBERS = {"float32": 0, "float16": 1}


def write_tiny_gguf(path: Path) -> None:
    """Write the model to ``path``."""
    metadata = [*architecture(), *vocabulary()]
    parts = tensors(vocabulary_size=len(tokens()))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(metadata)) + b"".join(metadata)
    offset = 0
    for name, values in parts:
        header += text(name) + struct.pack("<I", values.ndim)
        header += struct.pack(f"<{values.ndim}Q", *reversed(values.shape))
        header += struct.pack("<IQ", TENSOR_NUMBERS[values.dtype.name], offset)
        offset += len(padded(values.tobytes()))
    path.write_bytes(padded(header) + b"".join(padded(values.tobytes()) for _, values in parts))


def architecture() -> list[bytes]:
    """Return the metadata about the network."""
    return [
        string("general.architecture", "llama"),
        string("general.name", "tiny"),
        number("general.file_type", UINT32, 1),
        number("llama.context_length", UINT32, CONTEXT_TOKENS),
        number("llama.embedding_length", UINT32, WIDTH),
        number("llama.block_count", UINT32, LAYERS),
        number("llama.feed_forward_length", UINT32, FEED_FORWARD),
        number("llama.attention.head_count", UINT32, HEADS),
        number("llama.attention.head_count_kv", UINT32, KEY_VALUE_HEADS),
        number("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        number("llama.rope.dimension_count", UINT32, WIDTH // HEADS),
        number("llama.rope.freq_base", FLOAT32, 10000.0),
        number("llama.vocab_size", UINT32, len(tokens())),
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
        array("tokenizer.ggml.tokens", STRING_NUMBER, [text(name) for name in names]),
        array(
            "tokenizer.ggml.token_type", INT32.number, [struct.pack("<i", kind) for kind in types]
        ),
        array("tokenizer.ggml.merges", STRING_NUMBER, [text(merge) for merge in merges]),
        number("tokenizer.ggml.bos_token_id", UINT32, names.index("<|im_start|>")),
        number("tokenizer.ggml.eos_token_id", UINT32, names.index("<|im_end|>")),
        number("tokenizer.ggml.padding_token_id", UINT32, control),
        number("tokenizer.ggml.add_bos_token", BOOL, value=False),
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
    parts: list[Tensor] = [
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
    return parts


def weights(seed: str, rows: int, columns: int) -> NDArray[np.float16]:
    """Return noise of the variance that keeps activations in range.

    It comes from a hash, not from a random generator, so that it is the same in every release of
    numpy.
    """
    noise = hashlib.shake_256(seed.encode()).digest(rows * columns * 2)
    uniform = (np.frombuffer(noise, "<u2").astype(np.float64) + 0.5) / 32768 - 1
    return (uniform * math.sqrt(3 / columns)).astype(np.float16).reshape(rows, columns)


def string(key: str, value: str) -> bytes:
    """Return a metadata entry with a text."""
    return text(key) + struct.pack("<I", STRING_NUMBER) + text(value)


def number(key: str, kind: Kind, value: float) -> bytes:
    """Return a metadata entry with a number or a truth value."""
    return text(key) + struct.pack(f"<I{kind.code}", kind.number, value)


def array(key: str, element: int, values: list[bytes]) -> bytes:
    """Return a metadata entry with packed values of one type."""
    head = text(key) + struct.pack("<IIQ", ARRAY_NUMBER, element, len(values))
    return head + b"".join(values)


def text(value: str) -> bytes:
    """Return a text as GGUF writes it: its length, then UTF-8."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def padded(data: bytes) -> bytes:
    """Return the data filled up to the alignment of tensors."""
    return data + bytes(-len(data) % ALIGNMENT)


if __name__ == "__main__":
    write_tiny_gguf(Path(sys.argv[1]))
