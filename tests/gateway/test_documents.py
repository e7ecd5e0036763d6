"""`/api/documents`: the text of PDF and DOCX files, and what is refused."""

import asyncio
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from cappella.auth.keys import KeyStore
from cappella.gateway import documents
from cappella.tools.documents import reader
from support.fake_engines import FakeEngines, eventually, gateway_config, serving
from support.sample_documents import docx, docx_of, encrypted_pdf, pdf, pdf_with_code_points

R = "<w:r><w:t xml:space='preserve'>{}</w:t></w:r>"
FEE = R.format("The fee is ")
DUE = R.format("due.")


def p(*runs: str) -> str:
    return f"<w:p>{''.join(runs)}</w:p>"


def words(text: str) -> str:
    return p(R.format(text))


def table(*rows: str) -> str:
    return f"<w:tbl><w:tblPr/>{''.join(f'<w:tr>{each}</w:tr>' for each in rows)}</w:tbl>"


def cell(content: str, columns: int = 1) -> str:
    return f"<w:tc><w:tcPr><w:gridSpan w:val='{columns}'/></w:tcPr>{content}</w:tc>"


MC = "xmlns:m='http://schemas.openxmlformats.org/markup-compatibility/2006'"
BOX = f"<w:txbxContent>{words('Boxed.')}</w:txbxContent>"
LACKING = """import runpy, sys
sys.modules["cryptography"] = sys.modules["Crypto"] = None
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MAX_PAGES = documents.DocumentLimits().pages
MANY_PAGES = pdf([f"Page {at}." for at in range(MAX_PAGES + 1)])


@pytest_asyncio.fixture
async def url(fake_engines: FakeEngines) -> AsyncIterator[str]:
    async with serving(fake_engines, gateway_config()) as served:
        yield served


async def sent(url: str, data: bytes, kind: str = documents.MEDIA_TYPE, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http:
        given = {"Content-Type": kind, **headers}
        async with http.post(f"{url}{documents.PATH}", data=BytesIO(data), headers=given) as reply:
            return reply.status, await reply.json()


async def test_the_pages_of_a_pdf_are_read_in_order(url: str) -> None:
    status, reply = await sent(url, pdf(["Gonil is in room 12.", "Tunagox costs 28 dollars."]))
    assert status == 200
    assert reply["text"] == "Gonil is in room 12.\n\nTunagox costs 28 dollars."
    assert (reply["pages"], reply["all_pages"], reply["cut"]) == (2, 2, False)


async def test_half_a_code_point_in_a_pdf_is_replaced_and_a_whole_one_is_read(url: str) -> None:
    status, reply = await sent(url, pdf_with_code_points(["D83D", "0042", "D83DDE00", "0043"]))
    assert (status, reply["text"]) == (200, "\ufffdB\N{GRINNING FACE}C")


async def test_the_log_tells_where_reading_failed_and_nothing_of_the_document(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await sent(url, b"%PDF-1.4 Gonil is in room 12."))[0] == 400
    assert re.search(r"a document could not be read: \w+Error in \w+\.py, line \d+", caplog.text)
    assert "Gonil" not in caplog.text


async def test_a_reader_without_its_library_is_an_error_of_the_server(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    status, reply = await sent(url, pdf(["A."]))
    assert (status, reply["error"]["code"]) == (500, "internal_error")
    assert "No module named 'pypdf'" in caplog.text


async def test_a_cipher_that_the_server_lacks_is_told_as_encrypted(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    data = encrypted_pdf("", "AES-256")
    assert (await sent(url, data))[0] == 200
    lacking = tmp_path / "python"
    lacking.write_text(f"#!{sys.executable}\n{LACKING}")
    lacking.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(lacking))
    status, reply = await sent(url, data)
    assert (status, "encrypted" in reply["error"]["message"]) == (400, True)


async def test_headings_paragraphs_and_tables_of_a_docx_are_read(url: str) -> None:
    data = docx("Rooms", "Where they are.", [["Name", "Room"], ["Gonil", "12"]])
    status, reply = await sent(url, data)
    assert (status, reply["text"]) == (200, "# Rooms\n\nWhere they are.\n\nName | Room\nGonil | 12")
    assert (reply["pages"], reply["cut"]) == (None, False)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (p(FEE, f"<w:ins>{R.format('NOT ')}</w:ins>", DUE), "The fee is NOT due."),
        (p(FEE, "<w:del><w:r><w:delText>NOT </w:delText></w:r></w:del>", DUE), "The fee is due."),
        (p(FEE, DUE, f"<w:moveFrom>{R.format('Moved.')}</w:moveFrom>"), "The fee is due."),
        (
            f"<w:sdt><w:sdtPr/><w:sdtContent>{words('A')}</w:sdtContent></w:sdt>"
            + p(FEE, f"<w:sdt><w:sdtContent>{DUE}</w:sdtContent></w:sdt>"),
            "A\n\nThe fee is due.",
        ),
        (p(f"<w:hyperlink>{FEE}</w:hyperlink>", "<w:r><w:br/></w:r>", DUE), "The fee is \ndue."),
        (table(cell(words("Total"), 3) + cell(words("28"))), "Total |  |  | 28"),
        (table(cell(words("A")) + cell(table(cell(words("B")) + cell(words("C"))) + p())), "A | B | C"),
        (table(f"<w:sdt><w:sdtContent>{cell(words('A'))}</w:sdtContent></w:sdt>{cell(words('B'))}"), "A | B"),
        (
            p(
                FEE,
                DUE,
                f"<w:r><m:AlternateContent {MC}><m:Choice>{BOX}</m:Choice><m:Fallback>{BOX}</m:Fallback></m:AlternateContent></w:r>",
            ),
            "The fee is due.\nBoxed.",
        ),
        (p(FEE, DUE, "<w:r><w:footnoteReference w:id='1'/></w:r>"), "The fee is due.[^1]\n\n[^1]: Not in May."),
    ],
    ids="inserted deleted moved control link spanned nested control-cell box note".split(),
)
async def test_all_text_that_a_docx_shows_is_read_once(url: str, body: str, text: str) -> None:
    note = f"<w:footnote w:id='1'>{words('Not in May.')}</w:footnote>" if "footnoteReference" in body else ""
    status, reply = await sent(url, docx_of(body, note))
    assert (status, reply["text"], reply["cut"]) == (200, text, False)


async def test_no_more_pages_than_the_limit_are_read_and_the_reply_says_so(url: str) -> None:
    status, reply = await sent(url, MANY_PAGES)
    assert status == 200
    assert (reply["pages"], reply["all_pages"], reply["cut"]) == (MAX_PAGES, MAX_PAGES + 1, True)
    assert reply["text"].endswith(f"Page {MAX_PAGES - 1}.")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"Just a text.", "cannot be read"),
        (pdf(["Cut off."])[:100], "cannot be read"),
        (b"PK\x03\x04 and nothing more", "cannot be read"),
        (pdf([""]), "no text"),
        (encrypted_pdf("secret"), "encrypted"),
    ],
    ids=["empty", "text", "torn", "zip", "scan", "encrypted"],
)
async def test_what_has_no_text_is_refused_with_the_reason(url: str, data: bytes, words: str) -> None:
    status, reply = await sent(url, data)
    assert (status, reply["error"]["code"]) == (400, "invalid_value")
    assert words in reply["error"]["message"]


async def test_other_types_and_large_files_are_refused(url: str) -> None:
    status, reply = await sent(url, b"{}", "application/json")
    assert (status, reply["error"]["code"]) == (415, "unsupported_media_type")
    status, reply = await sent(url, bytes(documents.DocumentLimits().size_bytes + 1))
    assert (status, reply["error"]["code"]) == (413, "body_too_large")


async def test_a_key_is_needed_where_there_are_keys(fake_engines: FakeEngines, tmp_path: Path) -> None:
    config, keys = gateway_config(), tmp_path / "keys.sqlite"
    key = KeyStore(keys).create("ann", ["run"])
    server = config.server.model_validate({**config.server.model_dump(), "keys": keys})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        assert (await sent(url, pdf(["A."])))[0] == 401
        assert (await sent(url, pdf(["A."]), Authorization=f"Bearer {key}"))[0] == 200


async def test_one_sender_has_one_document_read_at_a_time(url: str) -> None:
    replies = await asyncio.gather(*(sent(url, MANY_PAGES) for _ in range(6)))
    assert {status for status, _ in replies} == {200, 429}
    assert {reply["error"]["code"] for status, reply in replies if status == 429} == {"overloaded"}
    assert (await sent(url, pdf(["A."])))[0] == 200


async def test_a_sender_is_refused_while_its_other_document_still_arrives(url: str) -> None:
    arrives, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(data: bytes) -> AsyncIterator[bytes]:
        arrives.set()
        yield data[:100]
        await may_end.wait()
        yield data[100:]

    async def first() -> int:
        async with aiohttp.ClientSession() as http:
            path, headers = f"{url}{documents.PATH}", {"Content-Type": documents.MEDIA_TYPE}
            # The server asks for the body when it is about to read it.
            async with http.post(path, data=slowly(pdf(["A."])), headers=headers, expect100=True) as reply:
                return reply.status

    arriving = asyncio.create_task(first())
    assert await eventually(arrives.is_set)
    status, _ = await sent(url, pdf(["B."]))
    may_end.set()
    assert (status, await arriving) == (429, 200)


async def test_a_document_may_be_larger_than_the_memory_of_other_requests(fake_engines: FakeEngines) -> None:
    config, data = gateway_config(), BytesIO(docx("Rooms", "Where they are.", [["a"]]))
    with zipfile.ZipFile(data, "a") as added:
        added.writestr("padding", bytes(500_000))
    server = config.server.model_copy(update={"max_waiting_bytes": 400_000})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        assert (await sent(url, data.getvalue()))[0] == 200


async def test_the_kernel_would_end_the_reader_before_an_engine() -> None:
    program = [sys.executable, "-I", reader.__file__, str(1 << 30), "30", "10", "1000"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
    score = Path(f"/proc/{process.pid}/oom_score_adj")
    assert await eventually(lambda: score.read_text().strip() == "1000")
    said, _ = await process.communicate(pdf(["A."]))
    assert json.loads(said)["text"] == "A."


def test_a_document_that_unpacks_to_more_than_the_memory_is_told_so() -> None:
    out = BytesIO()
    given = zipfile.ZipFile(BytesIO(docx("Rooms", "", [["a"]])))
    with given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for name in given.namelist():
            bomb.writestr(name, bytes(300 << 20) if name == "word/document.xml" else given.read(name))
    limits = [str(each) for each in (200 << 20, 30, 10, 1000)]
    for data, found in ((out.getvalue(), {"problem": "too_complex"}), (pdf(["A."]), {"text": "A."})):
        program = [sys.executable, "-I", reader.__file__, *limits]
        said = subprocess.run(program, input=data, capture_output=True, check=True).stdout
        assert found.items() <= json.loads(said).items()
