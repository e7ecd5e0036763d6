"""The policy for what stands below the top of a request: messages, parts, blocks, items and tools of all APIs."""

from cappella.gateway.formats.policy import Fields, Kinds

_HINTS = "cache_control id index status annotations citations logprobs metadata"
"""What stock clients put beside a part, block, item or message; none of it changes an answer."""

NO_URLS = "an image comes as data, data:image/…;base64,…: this server fetches nothing"
NOT_STORED = "this one is not: send the earlier items themselves, and store: false"
_HOSTED_CALLS = (
    "web_search_call file_search_call computer_call computer_call_output image_generation_call code_interpreter_call"
    " local_shell_call local_shell_call_output shell_call shell_call_output mcp_call mcp_list_tools"
    " mcp_approval_request mcp_approval_response tool_search_call tool_search_output compaction"
)

_NO_WORD = "it may not be set: only words that a model's own template reads may, such as enable_thinking"
TEMPLATE_WORDS = Fields(
    refused=dict.fromkeys(
        "add_generation_prompt bos_token chat_template continue_final_message conversation documents eos_token messages"
        " return_dict tokenize tokenizer tools".split(),
        _NO_WORD,
    ),
    passes_unknown=True,
)
"""What would replace the prompt, or how it is made, is no word of a template's."""

_CHAT_TEXT = Fields("type text", _HINTS)
_CHAT_IMAGE = Fields(
    "type image_url", _HINTS, below={"image_url": Fields("url detail", "format", nothing={"detail": ("",)})}
)
_CHAT_REFUSAL = Fields("type refusal", _HINTS)
_TEXTS = Kinds("type", {"text": _CHAT_TEXT})
CHAT_PARTS = Kinds("type", {"text": _CHAT_TEXT, "image_url": _CHAT_IMAGE})
_ASSISTANT_TEXTS = Kinds("type", {"text": _CHAT_TEXT, "refusal": _CHAT_REFUSAL}, dropped="thinking redacted_thinking")
_MESSAGE_HINTS = f"{_HINTS} timestamp created_at"
_CALL = Fields("id type function", _HINTS, below={"function": Fields("name arguments", _HINTS)})
_CUSTOM_CALL = Fields("id type custom", _HINTS, below={"custom": Fields("name input", _HINTS)})

CHAT_MESSAGES = Kinds(
    "role",
    {
        "system": Fields("role content name", _MESSAGE_HINTS, below={"content": _TEXTS}),
        "developer": Fields("role content name", _MESSAGE_HINTS, below={"content": _TEXTS}),
        "user": Fields("role content name", _MESSAGE_HINTS, below={"content": CHAT_PARTS}),
        "assistant": Fields(
            "role content name reasoning reasoning_content tool_calls",
            f"{_MESSAGE_HINTS} reasoning_details function_call_id provider_specific_fields",
            told="refusal",
            empty="reasoning reasoning_content tool_calls",
            refused={
                "audio": "audio is not read: send its transcript as content",
                "function_call": "function_call is out of use: send tool_calls",
            },
            nothing={"refusal": ("",)},
            below={
                "content": _ASSISTANT_TEXTS,
                "tool_calls": Kinds("type", {"function": _CALL, "custom": _CUSTOM_CALL}, default="function"),
            },
        ),
        "tool": Fields("role content tool_call_id name", f"{_MESSAGE_HINTS} is_error", below={"content": CHAT_PARTS}),
    },
    refused={"function": "messages of the role function are out of use: send the role tool with a tool_call_id"},
)

# A typo among the options is a 400 of the validation; the panel of the hosted product has web tools, and ours has none.
_HOSTED_OPTIONS = Fields(
    "reasoning",
    told="max_tool_calls tools cache_control",
    empty="reasoning tools",
    below={"reasoning": Fields("effort", "enabled exclude summary", told="max_tokens")},
    passes_unknown=True,
)
PLUGINS = Kinds("id", {"fusion": _HOSTED_OPTIONS}, lets_unknown="drop")
_SERVER_TOOL = {"openrouter:fusion": Fields("type parameters", below={"parameters": _HOSTED_OPTIONS})}
_SERVER_CHOICE = {"openrouter:fusion": Fields("type", "name")}

_FUNCTION = "name description parameters strict"
_TOOL_HINTS = "cache_control defer_loading eager_input_streaming input_examples allowed_callers output_schema"
CHAT_FUNCTION = Fields(
    "type function", _TOOL_HINTS, below={"function": Fields(_FUNCTION, f"{_TOOL_HINTS} returns response")}
)
CHAT_TOOLS = Kinds(
    "type",
    {
        "function": CHAT_FUNCTION,
        "custom": Fields("type custom", _TOOL_HINTS, below={"custom": Fields("name description format", _TOOL_HINTS)}),
        **_SERVER_TOOL,
    },
    lets_unknown="drop",
)
CHAT_TOOL_CHOICE = Kinds(
    "type",
    {
        "function": Fields("type function", below={"function": Fields("name")}),
        "custom": Fields("type custom", below={"custom": Fields("name")}),
        **_SERVER_CHOICE,
    },
    refused={"allowed_tools": "send in tools only those that may be called, and auto or required"},
)
FORMAT = Kinds(
    "type",
    {
        "text": Fields("type"),
        "json_object": Fields("type", "schema"),
        "json_schema": Fields("type json_schema", below={"json_schema": Fields("name schema description strict")}),
    },
)

_INPUT_TEXT = Fields("type text", _HINTS)
_INPUT_IMAGE = Fields(
    "type image_url detail",
    _HINTS,
    refused={"file_id": "there are no files here: send the image as image_url, data:image/…;base64,…"},
)
_INPUT_PARTS = Kinds(
    "type",
    {
        "input_text": _INPUT_TEXT,
        "output_text": _INPUT_TEXT,
        "text": _INPUT_TEXT,
        "summary_text": _INPUT_TEXT,
        "refusal": Fields("type refusal", _HINTS),
        "input_image": _INPUT_IMAGE,
    },
)
_ITEM_HINTS = f"{_HINTS} phase created_by encrypted_content end_turn internal_chat_message_metadata_passthrough"
ITEMS = Kinds(
    "type",
    {
        "message": Fields("type role content", _ITEM_HINTS, below={"content": _INPUT_PARTS}),
        "function_call": Fields("type call_id name arguments namespace", _ITEM_HINTS),
        "function_call_output": Fields("type call_id output", _ITEM_HINTS, below={"output": _INPUT_PARTS}),
        "custom_tool_call": Fields("type call_id name input namespace", _ITEM_HINTS),
        "custom_tool_call_output": Fields("type call_id output", _ITEM_HINTS, below={"output": _INPUT_PARTS}),
        "reasoning": Fields(
            "type summary content",
            _ITEM_HINTS,
            below={
                "content": Fields("type text", _HINTS),
                "summary": Fields("type text", _HINTS),
            },
        ),
    },
    default="message",
    dropped="fusion_call openrouter:fusion",
    told=_HOSTED_CALLS,
    refused={"item_reference": f"an item_reference names what was stored, and {NOT_STORED}"},
)
_FLAT_FUNCTION = Fields(f"type {_FUNCTION}", _TOOL_HINTS)
_FLAT_CUSTOM = Fields("type name description format", _TOOL_HINTS)
_INNER_TOOLS = Kinds("type", {"function": _FLAT_FUNCTION, "custom": _FLAT_CUSTOM}, lets_unknown="drop")
ENGINE_TOOLS = {
    "function": _FLAT_FUNCTION,
    "namespace": Fields("type name description tools", _TOOL_HINTS, below={"tools": _INNER_TOOLS}),
}
RESPONSE_TOOLS = Kinds("type", {**ENGINE_TOOLS, "custom": _FLAT_CUSTOM, **_SERVER_TOOL}, lets_unknown="drop")
RESPONSE_TOOL_CHOICE = Kinds(
    "type",
    {"function": Fields("type name namespace"), "custom": Fields("type name namespace"), **_SERVER_CHOICE},
    refused={"allowed_tools": "send in tools only those that may be called, and auto or required"},
)
FLAT_FORMAT = Kinds(
    "type",
    {
        "text": Fields("type"),
        "json_object": Fields("type"),
        "json_schema": Fields("type name schema description strict"),
    },
)

_BLOCK_TEXT = Fields("type text", _HINTS)
_BLOCK_IMAGE = Fields(
    "type source",
    _HINTS,
    below={
        "source": Kinds(
            "type",
            {"base64": Fields("type media_type data", _HINTS)},
            refused={"url": f"{NO_URLS}: a source of the type base64", "file": "there are no files here: send base64"},
        )
    },
)
_DOCUMENTS = {"document": "documents are not read: send their text as a text block"}
_RESULTS = Kinds(
    "type", {"text": _BLOCK_TEXT, "image": _BLOCK_IMAGE}, told="tool_reference search_result", refused=_DOCUMENTS
)
SYSTEM_BLOCKS = Kinds("type", {"text": _BLOCK_TEXT}, default="text")
_BLOCKS = Kinds(
    "type",
    {
        "text": _BLOCK_TEXT,
        "image": _BLOCK_IMAGE,
        "tool_use": Fields("type id name input", f"{_HINTS} caller"),
        "tool_result": Fields("type tool_use_id content is_error", _HINTS, below={"content": _RESULTS}),
        "thinking": Fields("type thinking signature", _HINTS),
    },
    dropped="redacted_thinking",
    told="server_tool_use web_search_tool_result web_fetch_tool_result code_execution_tool_result"
    " bash_code_execution_tool_result text_editor_code_execution_tool_result tool_search_tool_result mcp_tool_use"
    " mcp_tool_result container_upload tool_addition tool_removal compaction search_result",
    refused=_DOCUMENTS,
)
TURNS = Kinds(
    "role",
    {
        role: Fields(
            "role content", f"{_MESSAGE_HINTS} type model stop_reason stop_sequence usage", below={"content": _BLOCKS}
        )
        for role in ("user", "assistant", "system")
    },
)
BLOCK_TOOLS = Kinds(
    "type",
    {"custom": Fields("type name description input_schema strict", _TOOL_HINTS)},
    default="custom",
    lets_unknown="drop",
)
