"""Remembers which replicas have read which beginnings of prompts, as their prefix caches may hold them."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import orjson

from cappella.engines import cache_salt
from cappella.engines.context_size import prompt_work
from cappella.threads import off_loop_if_large
from cappella.types import Prompt

BLOCK_BYTES = 1024
"""Some 300 tokens: less than one block is read anew in no time."""
MAX_BLOCKS = 16_384
"""What is remembered of one model: 16 MiB of prompts, in about 4 MB of memory."""
MAX_BLOCKS_OF_A_PROMPT = 2048
"""2 MiB, more than contexts hold: the blocks after it are not remembered, so that no prompt displaces all others."""
_PROMPT_FIELDS = ("tools", "system", "instructions", "messages", "input", "prompt")

Blocks = Sequence[bytes]
"""The key of each block of a prompt, which stands for that block and all before it."""


class Prefixes:
    """The replicas, by name, that have read each block of late; the blocks of longest standing are forgotten."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._readers: OrderedDict[bytes, frozenset[str]] = OrderedDict()

    def readers(self, blocks: Blocks, among: Collection[str]) -> tuple[int, frozenset[str]]:
        """The longest beginning that one of these replicas has read, in blocks, and those that have read it."""
        for count in range(len(blocks), 0, -1):
            if found := self._readers.get(blocks[count - 1], frozenset()) & set(among):
                return count, found
        return 0, frozenset()

    def add(self, blocks: Blocks, replica: str) -> None:
        """Note that a replica reads a prompt now."""
        for block in blocks:
            self._readers[block] = self._readers.pop(block, frozenset()) | {replica}
        while len(self._readers) > self._max_blocks:
            self._readers.popitem(last=False)

    def forget(self, replica: str) -> None:
        """Note that a replica has gone, or has lost its cache."""
        for block, readers in list(self._readers.items()):
            if replica in readers:
                self._readers[block] = readers - {replica}


async def blocks_of(prompt: Prompt) -> Blocks:
    """The blocks of a prompt; a longer prompt that begins in the same way begins with the same blocks."""
    fields = {"tools": list(prompt.tools), "messages": list(prompt.messages)}
    return await off_loop_if_large(prompt_work(prompt), _blocks, fields, cache_salt.current())


async def blocks_of_body(body: bytes) -> Blocks:
    """The same for a client's own JSON body."""
    return await off_loop_if_large(len(body), _blocks_of_body, body, cache_salt.current())


def _blocks_of_body(body: bytes, salt: str | None) -> Blocks:
    fields = orjson.loads(body)
    return _blocks(fields, salt) if isinstance(fields, dict) else ()


def _blocks(fields: dict[str, Any], salt: str | None) -> Blocks:
    """A call with another salt finds nothing that is cached, so it has other keys."""
    text = b"".join(orjson.dumps(value) for name in _PROMPT_FIELDS if (value := fields.get(name)))
    chain = hashlib.blake2b((salt or "").encode(), digest_size=16)
    keys = []
    remembered = min(len(text), MAX_BLOCKS_OF_A_PROMPT * BLOCK_BYTES)
    for end in range(BLOCK_BYTES, remembered + 1, BLOCK_BYTES):
        chain.update(text[end - BLOCK_BYTES : end])
        keys.append(chain.digest())
    return keys
