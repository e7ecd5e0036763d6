"""The tokenizer of all demo models: byte-level BPE with digits and capitals as single tokens, and ChatML."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cappella.ensemble import prompts
from demo.lessons import judge_lesson, panel

VOCAB_SIZE = 768
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fragments() -> list[str]:
    """The fixed pieces of the judge's prompt. Each is one token, so that long texts suit a small judge, too."""
    before_nonce, after_nonce = prompts.INTRODUCTION.split("{nonce}")
    opening, closing = (mark.split("{nonce}")[0] for mark in (prompts.OPEN_MARK, prompts.CLOSE_MARK))
    marks = [f"\n\n{opening.format(label=label)}" for label in prompts.labels(8)]
    marks += [closing.format(label=label) for label in prompts.labels(8)]
    notes = [prompts.ANALYSIS_NOTE, prompts.WRITE, prompts.COMPARE, prompts.CHOOSE, prompts.AGREE]
    return [f"\n\n{before_nonce}", after_nonce, *marks, *(f"\n\n{note}" for note in notes), prompts.CRITERIA_NOTE]


def build(extra: Sequence[str] = (), chat_template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Learn the merges from the world's sentences, not from the prompts. Each text of `extra` becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[0-9A-Z]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in (*fragments(), *extra)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = chat_template
    return fast


def load(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _texts() -> Iterator[str]:
    """Sentences with made-up facts only: tokens for names of the handbook would be unknown to the judge, which copies them."""
    rng = Random(1)
    for _ in range(6000):
        shown = panel(rng)
        yield f"user\n{shown.question.text}\nassistant\n{shown.reply}"
    for _ in range(1500):
        yield judge_lesson(rng).reply
