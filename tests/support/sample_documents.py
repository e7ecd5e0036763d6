"""PDF and DOCX files as bytes, with a given text."""

import zipfile
from collections.abc import Sequence
from io import BytesIO


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF of these pages, each a line of ASCII."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects += [
            f"{page} /Contents {5 + 2 * at} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    out, offsets = BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, 2)
    for number, each in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{each}\nendobj\n".encode())
    table = out.tell()
    rows = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}".encode())
    out.write(f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode())
    return out.getvalue()


def pdf_with_code_points(code_points: Sequence[str]) -> bytes:
    """A PDF whose text is ABC…, and means these code units of UTF-16, each in hexadecimal."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import NameObject, StreamObject

    letters = "".join(chr(65 + at) for at in range(len(code_points)))
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf([letters]))))
    meanings = "\n".join(f"<{65 + at:02X}> <{each}>" for at, each in enumerate(code_points))
    stream = StreamObject()
    stream.set_data(f"begincmap\n{len(code_points)} beginbfchar\n{meanings}\nendbfchar\nendcmap".encode())
    font = writer.pages[0]["/Resources"]["/Font"]["/F1"]  # type: ignore[index]
    font[NameObject("/ToUnicode")] = writer._add_object(stream)
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def encrypted_pdf(password: str, algorithm: str = "RC4-128") -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf(["Secret."]))))
    writer.encrypt(password, algorithm=algorithm)
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def docx_of(body: str, notes: str = "") -> bytes:
    """A DOCX file with this XML as its body, and as its footnotes, whose prefix is `w`."""
    names = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(docx("", "", [[""]]))) as given, zipfile.ZipFile(out, "w") as made:
        for name in given.namelist():
            part = given.read(name).decode() if name.endswith((".xml", ".rels")) else given.read(name)
            if name == "word/document.xml":
                part = f"<w:document {names}><w:body>{body}</w:body></w:document>"
            if name == "word/_rels/document.xml.rels":
                note = f'<Relationship Id="notes" Type="{kinds}/footnotes" Target="footnotes.xml"/>'
                part = str(part).replace("</Relationships>", f"{note}</Relationships>")
            made.writestr(name, part)
        made.writestr("word/footnotes.xml", f"<w:footnotes {names}>{notes}</w:footnotes>")
    return out.getvalue()


def docx(title: str, text: str, rows: Sequence[Sequence[str]]) -> bytes:
    """A DOCX file with a heading, a paragraph and a table."""
    from docx import Document

    document = Document()
    document.add_heading(title, level=1)
    document.add_paragraph(text)
    table = document.add_table(rows=len(rows), cols=len(rows[0]))
    for at, row in enumerate(rows):
        for place, cell in enumerate(row):
            table.cell(at, place).text = cell
    out = BytesIO()
    document.save(out)
    return out.getvalue()
