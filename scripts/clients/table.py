"""The clients: what each needs installed, how it is set up by a person, and how its test is run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "cappella/default"
TASK = "Read the file {file}, replace the word blue in it by green, read it again, and then say: done."
AIDER_TASK = "Replace the word blue by green in notes.txt."


@dataclass(frozen=True)
class Client:
    """A library, whose `script` prints its checks, or an agent, whose `command` must change a file."""

    name: str
    packages: tuple[str, ...]
    """The first one is the client itself, pinned."""
    setup: str
    """What a person writes to use it, in at most three lines."""
    script: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Callable[[str], Mapping[str, str]] = lambda url: {}
    """Files of its home folder, by the server's address."""
    rounds: int = 3
    """Calls of tools that an agent must have made."""

    @property
    def is_node(self) -> bool:
        return "==" not in self.packages[0]

    @property
    def version(self) -> str:
        return self.packages[0].rpartition("@" if self.is_node else "==")[2]


def _opencode(url: str) -> Mapping[str, str]:
    provider = (
        '{"$schema":"https://opencode.ai/config.json","autoupdate":false,"share":"disabled","permission":"allow",'
        '"provider":{"local":{"npm":"@ai-sdk/openai-compatible","options":{"baseURL":"%s/v1","apiKey":"none"},'
        '"models":{"cappella/default":{"limit":{"context":100000,"output":4000}}}}}}'
    )
    return {".config/opencode/opencode.json": provider % url}


def _codex(url: str) -> Mapping[str, str]:
    return {
        ".codex/config.toml": f'model = "{MODEL}"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{url}/v1"\nwire_api = "responses"\n'
    }


LIBRARIES = (
    Client("openai (Python)", ("openai==3.57.0",), 'OpenAI(base_url=URL + "/v1", api_key="none")', "openai_sdk.py"),
    Client("anthropic (Python)", ("anthropic==2.14.0",), 'Anthropic(base_url=URL, api_key="none")', "anthropic_sdk.py"),
    Client(
        "LangChain",
        ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10", "langchain"),
        'ChatOpenAI(base_url=URL + "/v1", api_key="none", model=MODEL)',
        "langchain_sdk.py",
    ),
    Client(
        "pydantic-ai",
        ("pydantic-ai-slim[openai,anthropic]==2.68.0",),
        'OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=URL + "/v1", api_key="none"))',
        "pydantic_ai_sdk.py",
    ),
    Client("openai (Node)", ("openai@7.57.0", "zod@4.6.7"), 'new OpenAI({baseURL: URL + "/v1", apiKey: "none"})', "openai.mjs"),
    Client(
        "Vercel AI SDK",
        ("ai@7.0.173", "@ai-sdk/openai@4.0.118", "@ai-sdk/openai-compatible@3.0.92", "@ai-sdk/anthropic@4.0.105", "zod@4.6.7"),
        'createOpenAI({baseURL: URL + "/v1", apiKey: "none"})(MODEL)',
        "ai_sdk.mjs",
    ),
    Client("LiteLLM (SDK)", ("litellm==1.110.2",), 'completion(model="openai/" + MODEL, api_base=URL + "/v1", api_key="none")', "litellm_sdk.py"),
    Client(
        "LlamaIndex",
        ("llama-index-llms-openai-like==0.8.1",),
        'OpenAILike(MODEL, api_base=URL + "/v1", api_key="none", is_chat_model=True, is_function_calling_model=True)',
        "llama_index_sdk.py",
    ),
    Client("instructor", ("instructor==1.17.0",), "instructor.from_openai(OpenAI(...), mode=...)", "instructor_sdk.py"),
    Client("DSPy", ("dspy==3.4.1",), 'dspy.LM("openai/" + MODEL, api_base=URL + "/v1", api_key="none")', "dspy_sdk.py"),
    Client("ollama (Python)", ("ollama==0.6.3",), "Client(host=URL)", "ollama_sdk.py"),
    Client("OpenRouter (Python)", ("openrouter==1.3.84",), 'OpenRouter(api_key="none", server_url=URL + "/v1", timeout_ms=600_000)', "openrouter_sdk.py"),
    Client(
        "OpenRouter (TypeScript)",
        ("@openrouter/sdk@1.3.19", "zod@4.6.7"),
        'new OpenRouter({apiKey: "none", serverURL: URL + "/v1"})',
        "openrouter.mjs",
    ),
    Client(
        "LiteLLM (proxy)",
        # The newest whose parts all have a stable release on PyPI.
        ("litellm[proxy]==1.108.3",),
        "model_list: [{model_name: local, litellm_params: {model: openai/cappella/default, api_base: URL/v1, api_key: none}}]",
        "litellm_proxy.py",
    ),
    Client(
        "llm",
        ("llm==0.36",),
        "extra-openai-models.yaml: - {model_id: local, model_name: cappella/default, api_base: URL/v1, supports_tools: true}",
        "llm_cli.py",
    ),
    Client(
        "inspect-ai",
        ("inspect-ai==0.3.285", "openai==3.57.0"),
        "LOCAL_BASE_URL=URL/v1 LOCAL_API_KEY=none inspect eval task.py --model openai-api/local/cappella/default",
        "inspect_ai_tasks.py",
    ),
    Client(
        "lm-eval",
        ("lm-eval[api]==0.4.13",),
        "lm_eval --model local-chat-completions --model_args base_url=URL/v1/chat/completions,model=MODEL --apply_chat_template",
        "lm_eval_tasks.py",
    ),
    Client(
        "promptfoo",
        # It wants Node 22, and a database that npm does not bring along.
        ("promptfoo@0.123.1", "node@24.21.0", "@libsql/client@0.18.0"),
        "providers: [{id: 'openai:chat:cappella/default', config: {apiBaseUrl: URL/v1, apiKey: none}}]",
        "promptfoo.mjs",
    ),
)  # fmt: skip

AGENTS = (
    Client(
        "Codex CLI",
        ("@openai/codex@0.171.0",),
        "~/.codex/config.toml: model, model_provider = \"local\",\n[model_providers.local] base_url = URL/v1, wire_api = \"responses\"",
        command=("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK),
        files=_codex,
    ),
    Client(
        "Claude Code",
        ("@anthropic-ai/claude-code@2.1.332",),
        "ANTHROPIC_BASE_URL=URL ANTHROPIC_AUTH_TOKEN=none claude --model cappella/default",
        command=("claude", "-p", TASK, "--model", MODEL, "--permission-mode", "acceptEdits", "--allowedTools", "Read,Edit"),
        environment={
            "ANTHROPIC_BASE_URL": "{url}",
            "ANTHROPIC_AUTH_TOKEN": "none",
            "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    ),
    Client(
        "opencode",
        ("opencode-ai@1.18.33",),
        "opencode.json: provider.local = {npm: @ai-sdk/openai-compatible, options: {baseURL: URL/v1}, models: {...}}",
        command=("opencode", "run", "--auto", "-m", f"local/{MODEL}", TASK),
        environment={"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        files=_opencode,
    ),
    Client(
        "Qwen Code",
        ("@qwen-code/qwen-code@0.24.4",),
        "OPENAI_BASE_URL=URL/v1 OPENAI_API_KEY=none OPENAI_MODEL=cappella/default qwen --auth-type openai",
        command=("qwen", "--yolo", "--auth-type", "openai", "-p", TASK),
        environment={
            "OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": MODEL,
            # It ends a stream that brings nothing for four minutes, as small machines need to read its prompt.
            "QWEN_STREAM_IDLE_TIMEOUT_MS": "0",
        },
    ),
    Client(
        "aider",
        ("aider-chat==0.86.2",),
        "aider --model openai/cappella/default --openai-api-base URL/v1 --openai-api-key none",
        command=(
            *("aider", "--model", f"openai/{MODEL}", "--yes-always", "--no-git", "--no-check-update", "--no-analytics"),
            *("--no-show-model-warnings", "--message", AIDER_TASK, "notes.txt"),
        ),
        environment={"OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        rounds=0,
    ),
)  # fmt: skip

CLIENTS = {client.name: client for client in (*AGENTS, *LIBRARIES)}
SCRIPTS = Path(__file__).resolve().parents[2] / "tests"


def script_of(client: Client) -> Path:
    return SCRIPTS / ("node" if client.is_node else "clients") / client.script
