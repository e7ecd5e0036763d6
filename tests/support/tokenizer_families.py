"""Folders with small tokenizers and chat templates that have the special tokens of known model families."""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from support.weights_folder import write_model

TEXT = (
    "The request above was put to several assistants. It is 5, not Zanzibar: user system assistant <|im_start|> [INST]"
)


@dataclass(frozen=True)
class Family:
    """`special` and `added` are the tokenizer's own; `template` is the chat template's source."""

    name: str
    special: tuple[str, ...]
    template: str
    added: tuple[str, ...] = ()
    spaces_as: str | None = None

    def write(self, folder: Path) -> Path:
        """Write a model folder with this tokenizer and template."""
        tokenizer = Tokenizer(models.BPE())
        if self.spaces_as:
            tokenizer.normalizer = normalizers.Replace(" ", self.spaces_as)
            tokenizer.pre_tokenizer = pre_tokenizers.Split(self.spaces_as, "merged_with_previous")
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=[], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator([TEXT], trainer)
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.special])
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in self.added])
        write_model(folder, tokenizer=json.loads(tokenizer.to_str()))
        (folder / "chat_template.jinja").write_text(self.template)
        return folder


def _turns(opened: str, closed: str, generation: str, before: str = "") -> str:
    """The chat template of most families: a token with the role, the text, and an end token."""
    turn = "{% for m in messages %}" + opened + "{{ m['content'] }}" + closed + "{% endfor %}"
    return before + turn + "{% if add_generation_prompt %}" + generation + "{% endif %}"


_ROLE = "{{ m['role'] }}"

FAMILIES = (
    Family(
        "qwen",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>"),
        _turns(f"<|im_start|>{_ROLE}\n", "<|im_end|>\n", "<|im_start|>assistant\n")
        + "{# <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> #}",
        ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    ),
    Family(
        "llama 3",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
        _turns(
            f"<|start_header_id|>{_ROLE}<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|begin_of_text|>",
        ),
    ),
    Family(
        "mistral",
        (
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
        ),
        "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]"
        "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}",
    ),
    Family(
        "gemma",
        ("<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
        _turns(f"<start_of_turn>{_ROLE}\n", "<end_of_turn>\n", "<start_of_turn>model\n", "<bos>"),
        ("\n\n", "▁▁", "<table>", "<b>"),
        spaces_as="▁",
    ),
    Family(
        "harmony",
        (
            "<|start|>",
            "<|end|>",
            "<|message|>",
            "<|channel|>",
            "<|constrain|>",
            "<|return|>",
            "<|call|>",
            "<|endoftext|>",
        ),
        _turns(f"<|start|>{_ROLE}<|message|>", "<|end|>", "<|start|>assistant"),
    ),
    # Here turns are made of tokens that are not called special.
    Family(
        "deepseek",
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
        "<｜begin▁of▁sentence｜>{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
        "{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    ),
    Family(
        "phi",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_sep|>"),
        _turns(f"<|{_ROLE}|>\n", "<|end|>\n", "<|assistant|>\n"),
    ),
    Family(
        "command r",
        *(
            ("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>"),
            _turns(
                "<|START_OF_TURN_TOKEN|>{{ '<|USER_TOKEN|>' if m['role'] == 'user' else '<|SYSTEM_TOKEN|>' }}",
                "<|END_OF_TURN_TOKEN|>",
                "<|START_OF_TURN_TOKEN|>",
                "<BOS_TOKEN>",
            ),
        ),
    ),
    Family(
        "glm",
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        _turns(f"<|{_ROLE}|>\n", "", "<|assistant|>\n", "[gMASK]<sop>"),
    ),
)
