"""The endpoints of batches and their files as data: see endpoints.py."""

from collections.abc import Mapping

from cappella.gateway import batch_types, batches, files, message_batches
from cappella.gateway.batch_access import LINES_TYPE
from cappella.gateway.endpoint import BYTES, Endpoint, in_path, limit_parameter, page_parameters
from cappella.gateway.formats.batches import MESSAGE_BATCHES, BatchRequest, MessageBatchRequest, ResumeRequest
from cappella.gateway.uploads import FORM_TYPE
from cappella.types import Json

_JSON = "application/json"
_FORM: Json = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": BYTES,
        "purpose": {"enum": ["batch"]},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer"},
    },
}
_OFF = ("batches_not_kept", "batches_unavailable")
_NO_FILE = (*_OFF, "file_not_found")
_NO_BATCH = (*_OFF, "batch_not_found")
_BODY = tuple(
    "invalid_json invalid_value unsupported_media_type body_too_large body_too_slow rate_limit_exceeded".split()
)
_FILE_ID, _BATCH_ID = in_path("file_id"), in_path("batch_id")
_CURSORS: tuple[Json, ...] = (
    limit_parameter(message_batches.MAX_LISTED),
    {"name": "after_id", "in": "query", "schema": {"type": "string"}},
    {"name": "before_id", "in": "query", "schema": {"type": "string"}},
)
_PURPOSE: Json = {"name": "purpose", "in": "query", "schema": {"type": "string"}}

BATCH_ENDPOINTS: Mapping[str, Endpoint] = {
    files.PATH: Endpoint(
        "The key's files of batches, page by page",
        batch_types.Files,
        "run",
        refuses=(*_OFF, "invalid_value"),
        parameters=(*page_parameters(files.MAX_LISTED), _PURPOSE),
        further=(
            Endpoint(
                "Upload an input file of a batch: a line of JSON for each request",
                batch_types.FileObject,
                "run",
                method="post",
                refuses=(*_OFF, *_BODY, "quota_exceeded"),
                takes={FORM_TYPE: _FORM},
            ),
        ),
    ),
    f"{files.PATH}/{{file_id}}": Endpoint(
        "One of the files",
        batch_types.FileObject,
        "run",
        refuses=_NO_FILE,
        parameters=(_FILE_ID,),
        further=(
            Endpoint(
                "Delete a file that no batch reads",
                batch_types.DeletedFile,
                "run",
                method="delete",
                refuses=(*_NO_FILE, "batch_refused"),
                parameters=(_FILE_ID,),
            ),
        ),
    ),
    f"{files.PATH}/{{file_id}}/content": Endpoint(
        "The content of a file", LINES_TYPE, "run", refuses=_NO_FILE, parameters=(_FILE_ID,)
    ),
    batches.PATH: Endpoint(
        "The key's batches, page by page, the latest first",
        batch_types.Batches,
        "run",
        refuses=(*_OFF, "invalid_value"),
        parameters=page_parameters(batches.MAX_LISTED)[1:],
        further=(
            Endpoint(
                "Create a batch of the requests in a file",
                batch_types.BatchObject,
                "run",
                method="post",
                refuses=(
                    *_NO_FILE,
                    *_BODY,
                    "unknown_field",
                    "too_large",
                    "overloaded",
                    "quota_exceeded",
                    "batch_refused",
                ),
                takes={_JSON: BatchRequest},
            ),
        ),
    ),
    f"{batches.PATH}/{{batch_id}}": Endpoint(
        "One of the batches", batch_types.BatchObject, "run", refuses=_NO_BATCH, parameters=(_BATCH_ID,)
    ),
    f"{batches.PATH}/{{batch_id}}/cancel": Endpoint(
        "Cancel a batch; what is answered already is in its output file",
        batch_types.BatchObject,
        "run",
        method="post",
        refuses=(*_NO_BATCH, "batch_refused"),
        parameters=(_BATCH_ID,),
    ),
    f"{batches.PATH}/{{batch_id}}/resume": Endpoint(
        "Let a batch, also one of messages, go on whose models have other weights than at its beginning",
        batch_types.BatchObject,
        "run",
        method="post",
        refuses=(*_NO_BATCH, *_BODY, "unknown_field", "too_large", "overloaded", "batch_refused"),
        parameters=(_BATCH_ID,),
        takes={_JSON: ResumeRequest},
    ),
    MESSAGE_BATCHES: Endpoint(
        "The key's batches of messages, page by page, the latest first",
        batch_types.MessageBatches,
        "run",
        refuses=(*_OFF, "invalid_value"),
        parameters=_CURSORS,
        further=(
            Endpoint(
                "Create a batch of requests for messages",
                batch_types.MessageBatch,
                "run",
                method="post",
                refuses=(*_OFF, *_BODY, "too_large", "quota_exceeded", "batch_refused"),
                takes={_JSON: MessageBatchRequest},
            ),
        ),
    ),
    f"{MESSAGE_BATCHES}/{{batch_id}}": Endpoint(
        "One of the batches of messages",
        batch_types.MessageBatch,
        "run",
        refuses=_NO_BATCH,
        parameters=(_BATCH_ID,),
        further=(
            Endpoint(
                "Delete a batch that has ended, and its results",
                batch_types.DeletedMessageBatch,
                "run",
                method="delete",
                refuses=(*_NO_BATCH, "batch_refused"),
                parameters=(_BATCH_ID,),
            ),
        ),
    ),
    f"{MESSAGE_BATCHES}/{{batch_id}}/cancel": Endpoint(
        "Cancel a batch of messages; what is answered already is in its results",
        batch_types.MessageBatch,
        "run",
        method="post",
        refuses=(*_NO_BATCH, "batch_refused"),
        parameters=(_BATCH_ID,),
    ),
    f"{MESSAGE_BATCHES}/{{batch_id}}/results": Endpoint(
        "The results of a batch that has ended, a line of JSON each",
        LINES_TYPE,
        "run",
        refuses=(*_NO_BATCH, "file_not_found", "batch_refused"),
        parameters=(_BATCH_ID,),
    ),
}
