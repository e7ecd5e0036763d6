"""The policy for requests to an ensemble, by API."""

from collections.abc import Mapping

from cappella.gateway.formats import policy_parts as parts
from cappella.gateway.formats.policy import Fields
from cappella.types import Sampling

HINTS = (
    "user service_tier prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier cache_control"
    " client_metadata session_id betas"
)
"""Fields of any API that change nothing in an answer here."""
NO_CONVERSATIONS = "conversations are not kept here: send previous_response_id, or the earlier items themselves"
IN_BACKGROUND = "only responses of ensembles (/v1/responses) run in the background: send background: false"
OWN_TEMPLATE = "a model's own chat template is used"

_COMMON = "model stream fusion plugins tools tool_choice parallel_tool_calls chat_template_kwargs"
_MATTERS = {
    "logit_bias": "the tokens of a panel's models differ: an ensemble takes no logit_bias, call one model by its name",
    "n": "an ensemble gives one answer: send n: 1 (fusion.samples asks members for several)",
    "chat_template": OWN_TEMPLATE,
}
_REASONING = Fields("effort", "summary generate_summary exclude enabled context")

CHAT = Fields(
    honoured=f"{_COMMON} {' '.join(Sampling.model_fields)} messages stream_options max_tokens logprobs top_logprobs"
    " response_format structured_outputs reasoning_effort reasoning",
    hints=f"{HINTS} metadata prediction stream_interval include_reasoning",
    told="verbosity store",
    empty="tools stop reasoning stream_options chat_template_kwargs",
    refused={
        **_MATTERS,
        "background": IN_BACKGROUND,
        "modalities": 'answers are text: send modalities: ["text"]',
        "audio": "answers are text: leave audio out",
        "web_search_options": "there is no web search here: leave web_search_options out",
        "functions": "functions are out of use: send tools",
        "function_call": "function_call is out of use: send tool_choice",
        "continue_final_message": "an answer is not continued by an ensemble: call one model by its name",
        "add_generation_prompt": "an answer is not continued by an ensemble: call one model by its name",
        "echo": "an ensemble does not repeat the prompt",
    },
    nothing={
        "n": (1,),
        "seed": (-1,),
        "store": (False,),
        "background": (False,),
        "modalities": (["text"],),
        "function_call": ("auto", "none"),
        "continue_final_message": (False,),
        "add_generation_prompt": (True,),
        "echo": (False,),
        "verbosity": ("medium",),
        "reasoning_effort": ("",),
    },
    below={
        "plugins": parts.PLUGINS,
        "chat_template_kwargs": parts.TEMPLATE_WORDS,
        "messages": parts.CHAT_MESSAGES,
        "tools": parts.CHAT_TOOLS,
        "tool_choice": parts.CHAT_TOOL_CHOICE,
        "response_format": parts.FORMAT,
        "stream_options": Fields("include_usage", "continuous_usage_stats include_obfuscation"),
        "reasoning": _REASONING,
    },
)

RESPONSES = Fields(
    honoured=f"{_COMMON} input instructions temperature top_p max_output_tokens reasoning text include top_logprobs"
    " metadata store previous_response_id background",
    hints=f"{HINTS} stream_options max_tool_calls",
    told="truncation context_management",
    empty="reasoning text include chat_template_kwargs metadata",
    refused={
        **_MATTERS,
        "conversation": NO_CONVERSATIONS,
        "prompt": "there are no stored prompts here: send instructions and input",
    },
    nothing={
        "background": (False,),
        "n": (1,),
        "truncation": ("disabled",),
        "context_management": ([], {}),
        "top_logprobs": (0,),
    },
    below={
        "plugins": parts.PLUGINS,
        "chat_template_kwargs": parts.TEMPLATE_WORDS,
        "input": parts.ITEMS,
        "tools": parts.RESPONSE_TOOLS,
        "tool_choice": parts.RESPONSE_TOOL_CHOICE,
        "reasoning": _REASONING,
        "text": Fields(
            "format", told="verbosity", nothing={"verbosity": ("medium",)}, below={"format": parts.FLAT_FORMAT}
        ),
    },
)

MESSAGES = Fields(
    honoured=f"{_COMMON} messages max_tokens system stop_sequences temperature top_p top_k thinking output_config"
    " output_format",
    hints=f"{HINTS} metadata inference_geo speed",
    told="context_management",
    empty="system stop_sequences tools thinking output_config chat_template_kwargs",
    refused={
        **_MATTERS,
        "background": IN_BACKGROUND,
        "mcp_servers": "tools of MCP servers are not called here: send them as tools",
        "container": "there are no containers here: leave container out",
    },
    nothing={"n": (1,), "background": (False,), "context_management": ({"edits": []}, {}), "top_k": (0,)},
    below={
        "plugins": parts.PLUGINS,
        "chat_template_kwargs": parts.TEMPLATE_WORDS,
        "messages": parts.TURNS,
        "system": parts.SYSTEM_BLOCKS,
        "tools": parts.BLOCK_TOOLS,
        "tool_choice": Fields("type name disable_parallel_tool_use"),
        "thinking": Fields("type budget_tokens", "display"),
        "output_config": Fields("effort format", "task_budget"),
    },
)

ENSEMBLES: Mapping[str, Fields] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}
