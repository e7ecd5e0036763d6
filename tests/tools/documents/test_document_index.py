"""What is found in a folder, where, and what is left of it in the index once it is gone."""

import errno
import multiprocessing
import os
import signal
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cappella.tools.documents.cutting import MAX_WORDS, cut, words_in
from cappella.tools.documents.index import Index
from cappella.tools.documents.index_errors import IndexBusy, IndexUnusable
from cappella.tools.documents.parsing import decoded, markdown, plain, table
from cappella.tools.documents.reading import ReadingLimits
from cappella.tools.documents.scan import MAX_TRIES, Scan, Scanner
from support.sample_documents import docx, encrypted_pdf, pdf

PAGE = (
    "<html><head><title>Fees</title><style>zebra{}</style></head><body><h1>Fees</h1><p>The <b>entry</b> costs five.</p>"
    "<script>quokka()</script><table><tr><td>child</td><td>two</td></tr></table></body></html>"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "papers"
    (made / "sub").mkdir(parents=True)
    return made


def scanned(folder: Path, languages: tuple[str, ...] = ("en",), limits: ReadingLimits = ReadingLimits()) -> Scan:
    return Scanner(folder, folder.parent / "index", languages, limits).scan()


def hits(folder: Path, question: str, languages: tuple[str, ...] = ("en",)) -> list[tuple[str, str]]:
    with closing(Index(folder.parent / "index", languages)) as index:
        return [(each.path, each.place) for each in index.passages(index.by_words(question, 10))]


def write_samples(folder: Path) -> None:
    (folder / "a.pdf").write_bytes(pdf(["Rooms and halls.", "", "The penguin lives in room 12."]))
    (folder / "sub" / "b.docx").write_bytes(docx("Animals", "The giraffe is tall.", [["lion", "savanna"]]))
    (folder / "c.html").write_text(PAGE)
    (folder / "d.md").write_text("# Guide\n\nWelcome.\n\n## Otters\n\nOtters swim.\n")
    (folder / "e.txt").write_text("First.\n\nSecond line\nof a walrus.\n")
    (folder / "f.csv").write_text("name;room\nAnn;12\nBob;marmot\n")


def test_each_kind_of_file_is_found_with_its_place(folder: Path) -> None:
    write_samples(folder)
    done = scanned(folder)
    assert (done.files, done.read, done.problems) == (6, 6, {})
    found = {
        "penguins": ("a.pdf", "page 3"),
        "giraffe savanna": ("sub/b.docx", "paragraphs 1-3"),
        "entry child": ("c.html", "paragraphs 1-3"),
        "swimming": ("d.md", "lines 1-7"),
        "walrus": ("e.txt", "lines 1-4"),
        "marmot": ("f.csv", "rows 2-3"),
    }
    assert {question: hits(folder, question)[0] for question in found} == found
    assert not hits(folder, "quokka zebra")


def test_a_row_of_a_table_says_what_its_columns_are(folder: Path) -> None:
    assert [block.text for block in table("name;room\nAnn;12\n;\n").blocks] == ["name: Ann; room: 12"]


def test_the_names_of_columns_that_rows_repeat_make_no_text_without_end(folder: Path) -> None:
    names = ";".join(f"column{number}" + "x" * 1000 for number in range(100))
    (folder / "a.csv").write_text(f"{names}\n" + (";".join("1" * 100) + "\n") * 5000)
    limits = ReadingLimits(chars=200_000)
    for _ in range(2):
        assert scanned(folder, limits=limits).cut == ["a.csv"]
    with closing(Index(folder.parent / "index", ("en",))) as index:
        kept = sum(len(each.text) for each in index.passages_of("a.csv"))
    assert kept < 2 * limits.chars


def test_no_question_is_an_error_of_syntax(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    for question in ('"', "AND OR NOT", "a* NEAR(b", "{heading}: x", "-- ;", "penguin' OR 1=1", "\0", "^penguin", ""):
        hits(folder, question)
    assert hits(folder, 'penguin" AND (')[0] == ("a.pdf", "page 3")


def test_what_cannot_be_read_is_told_by_file_and_stops_no_other(folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing else")
    (folder / "empty.txt").write_text("")
    (folder / "secret.pdf").write_bytes(encrypted_pdf("x"))
    (folder / "image.txt").write_bytes(b"\x89PNG\0\0")
    (folder / "large.txt").write_bytes(b"word " * 1000)
    (folder / "z.txt").write_text("The last file has an ocelot.")
    done = scanned(folder, limits=ReadingLimits(size_bytes=4000))
    assert set(done.problems) == {"broken.pdf", "empty.txt", "image.txt", "large.txt", "secret.pdf"}
    assert hits(folder, "ocelot") == [("z.txt", "line 1")]


def test_a_file_that_unpacks_to_more_than_the_memory_is_told(folder: Path) -> None:
    given = zipfile.ZipFile(BytesIO(docx("Rooms", "", [["a"]])))
    with given, zipfile.ZipFile(folder / "bomb.docx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name in given.namelist():
            made.writestr(name, bytes(300 << 20) if name == "word/document.xml" else given.read(name))
    done = scanned(folder, limits=ReadingLimits(memory_bytes=200 << 20))
    assert "too much time or memory" in done.problems["bomb.docx"]


def test_hidden_files_links_pipes_and_other_kinds_are_left_out(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("The password is swordfish.")
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "linked").symlink_to(outside)
    (folder / ".hidden.txt").write_text("swordfish")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.txt").write_text("swordfish")
    (folder / "x.exe").write_bytes(b"swordfish")
    os.mkfifo(folder / "pipe.txt")
    done = scanned(folder)
    assert not hits(folder, "swordfish")
    assert done.skipped == {"hidden": 2, "a symbolic link": 2, "of another kind (.exe)": 1, "not a plain file": 1}


def test_only_what_changed_is_read_again(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    (folder / "e.txt").write_text("Now about a lynx.")
    os.utime(folder / "d.md", ns=(1, 1))
    done = scanned(folder)
    assert done.read == 1
    assert scanned(folder).read == 0
    assert hits(folder, "lynx") == [("e.txt", "line 1")]
    assert not hits(folder, "walrus")


def stored_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.parent.glob("index*"))


def test_what_a_file_said_is_erased_with_it(folder: Path) -> None:
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"File {number} is about common things.")
    (folder / "x.txt").write_text("The codename is xylophonix.")
    scanned(folder)
    assert b"xylophonix" in stored_bytes(folder)
    (folder / "x.txt").unlink()
    assert scanned(folder).removed == 1
    assert b"xylophonix" not in stored_bytes(folder)
    assert not hits(folder, "xylophonix")


def test_a_folder_that_is_gone_empties_no_index(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    folder.rename(folder.parent / "away")
    with pytest.raises(OSError, match="papers"):
        scanned(folder)
    assert hits(folder, "penguin")


def test_a_file_that_could_not_be_opened_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.txt").write_text("An ocelot.")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing(folder, os.open))
        assert "cannot be opened" in scanned(folder).problems["a.txt"]
    assert scanned(folder).problems == {}
    assert hits(folder, "ocelot")


def refusing(folder: Path, real: Callable[..., int]) -> Callable[..., int]:
    """`os.open` of a user who may not read the folder's files: tests may run as one who reads all."""

    def opened(path: Path, *rest: Any, **more: Any) -> int:
        if Path(path).parent == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *rest, **more)

    return opened


def test_a_file_that_read_too_slowly_is_tried_again_a_few_times(folder: Path) -> None:
    (folder / "a.html").write_text("<p>An ocelot.</p>")
    slow = ReadingLimits(wall_s=0)
    told = [scanned(folder, limits=slow).problems["a.html"] for _ in range(MAX_TRIES - 1)]
    assert [f"try {number} of {MAX_TRIES}" in text for number, text in enumerate(told, start=1)] == [True] * len(told)
    assert scanned(folder).problems == {}
    assert hits(folder, "ocelot")
    (folder / "a.html").write_text("<p>A lynx.</p>")
    reads = [scanned(folder, limits=slow).read for _ in range(MAX_TRIES + 2)]
    assert reads == [1] * MAX_TRIES + [0, 0]


def test_files_of_a_folder_that_cannot_be_opened_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(folder)
    (folder / "sub2").mkdir()
    (folder / "sub2" / "x.txt").write_text("An ocelot.")
    scanned(folder)
    (folder / "sub2" / "x.txt").unlink()
    real = os.scandir

    def failing(path: Path) -> Any:
        if Path(path).name == "sub":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", failing)
        done = scanned(folder)
    assert (done.kept, done.removed) == (1, 1)
    assert hits(folder, "giraffe")
    assert not hits(folder, "ocelot")


def test_files_of_a_disk_that_is_away_are_kept(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    with closing(sqlite3.connect(folder.parent / "index")) as index, index:
        index.execute("UPDATE files SET device = '-1' WHERE path LIKE 'sub/%'")
    given = (folder / "sub" / "b.docx").read_bytes()
    (folder / "sub" / "b.docx").unlink()
    done = scanned(folder)
    assert (done.kept, done.removed) == (1, 0)
    assert hits(folder, "giraffe")
    (folder / "sub" / "b.docx").write_bytes(given)
    assert scanned(folder).kept == 0
    (folder / "sub" / "b.docx").unlink()
    assert scanned(folder).removed == 1


def test_a_change_that_leaves_size_and_time_alike_is_noticed(folder: Path) -> None:
    file = folder / "a.txt"
    file.write_text("An ocelot.")
    known = file.stat()
    scanned(folder)
    file.write_text("A wombat!!")
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert scanned(folder).read == 1
    (folder / "b.tmp").write_text("The zebra.")
    os.utime(folder / "b.tmp", ns=(known.st_atime_ns, known.st_mtime_ns))
    (folder / "b.tmp").replace(file)
    assert scanned(folder).read == 1
    assert hits(folder, "zebra")


def test_markdown_that_would_take_a_naive_pattern_for_ever_is_read(folder: Path) -> None:
    (folder / "a.md").write_text("# a" + " " * 200_000 + "b\n\nAn ocelot.")
    assert scanned(folder).problems == {}
    assert hits(folder, "ocelot")


def test_the_index_is_its_owners_alone(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    assert (folder.parent / "index").stat().st_mode & 0o777 == 0o600


def test_one_process_at_a_time_writes_an_index(folder: Path) -> None:
    with (
        closing(Index(folder.parent / "index", ("en",))) as index,
        index.writing(folder),
        pytest.raises(IndexBusy),
    ):
        scanned(folder)
    assert scanned(folder).files == 0


def test_another_kind_of_file_is_never_written_as_an_index(folder: Path) -> None:
    with closing(sqlite3.connect(folder.parent / "index")) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(IndexUnusable, match="another kind") as caught:
        scanned(folder)
    assert "Delete" not in str(caught.value)


def test_a_reader_neither_waits_for_a_writer_nor_changes_the_index(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    path = folder.parent / "index"
    with closing(Index(path, ("en",), is_reader=True)) as first, closing(sqlite3.connect(path)) as writer:
        before = first.version
        for _ in range(2):
            Index(path, ("en",)).close()
        assert first.version == before
        writer.execute("BEGIN IMMEDIATE")
        for is_reader in (True, False):
            with closing(Index(path, ("en",), is_reader)) as other:
                assert other.counts() == (6, 7)
    with pytest.raises(IndexUnusable, match="no index yet"):
        Index(folder.parent / "none", ("en",), is_reader=True)
    assert not (folder.parent / "none").exists()


def killed_at(folder: Path, files: int) -> None:
    def tell(scan: Scan) -> None:
        if scan.read == files:
            os.kill(os.getpid(), signal.SIGKILL)

    Scanner(folder, folder.parent / "index", ("en",)).scan(tell)


def test_a_killed_scan_goes_on_where_it_was(folder: Path) -> None:
    for number in range(10):
        (folder / f"{number}.txt").write_text(f"About animal{number}.")
    process = multiprocessing.get_context("fork").Process(target=killed_at, args=(folder, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done = scanned(folder)
    assert (done.read, done.files, done.passages) == (6, 10, 10)


def test_other_languages_make_the_words_anew_and_keep_the_vectors(folder: Path) -> None:
    (folder / "a.txt").write_text("Die Kündigungsfrist beträgt drei Monate.\n\n会議は東京で行われます。")
    scanned(folder)
    with closing(Index(folder.parent / "index", ("en",))) as index:
        (passage,) = index.without_vectors("emb", 9)
        index.put_vectors("emb", {passage.id: b"1234"})
    languages = ("de", "ja")
    assert scanned(folder, languages).read == 0
    for question in ("Kündigungsfristen", "kundigungsfrist", "Monat", "東京"):
        assert hits(folder, question, languages), question
    assert not hits(folder, "大阪", languages)
    with closing(Index(folder.parent / "index", languages)) as index:
        assert index.vectors("emb", 9) == [(passage.id, b"1234")]


def test_two_folders_have_no_index_in_common(folder: Path) -> None:
    write_samples(folder)
    scanned(folder)
    other = folder.parent / "others"
    other.mkdir()
    with pytest.raises(IndexUnusable, match="is the index of"):
        scanned(other)
    assert hits(folder, "giraffe")
    folder.rename(other / "papers")
    assert scanned(other).files == 6


def of(text: str) -> Iterator[tuple[str, str, str]]:
    return ((each.place, each.heading, each.text) for each in cut(markdown(text)))


def test_passages_end_at_paragraphs_and_overlap_a_little() -> None:
    text = "\n\n".join(" ".join([f"p{number}"] * 45) for number in range(20))
    cuts = list(cut(plain(text)))
    assert all(words_in(each.text) <= MAX_WORDS for each in cuts)
    assert [each.first for each in cuts[1:]] == [each.last for each in cuts[:-1]]
    assert "".join(each.text[each.repeated :].replace("\n", "") for each in cuts) == text.replace("\n", "")


def test_passages_know_the_headings_above_them() -> None:
    words = " ".join(["word"] * 70)
    text = f"# Top\n\n{words}\n\n## One\n\n{words}\n\n```\n# no heading\n\nx\n```\n\n## Two\n\n{words}\n"
    assert [(place, heading) for place, heading, _ in of(text)] == [
        ("lines 1-3", "Top"),
        ("lines 5-13", "Top > One"),
        ("lines 15-17", "Top > Two"),
    ]


def test_text_without_paragraphs_is_cut_too() -> None:
    for text in ("word " * 5000, "x" * 50_000, "字" * 3000, "line of four words\n" * 500):
        cuts = list(cut(plain(text)))
        assert len(cuts) > 1
        assert max(words_in(each.text) for each in cuts) <= MAX_WORDS
        assert max(len(each.text) for each in cuts) <= 61_000


def test_text_of_other_encodings_is_read() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        assert decoded("Äpfel kosten 5 €".encode(encoding)) == "Äpfel kosten 5 €"
