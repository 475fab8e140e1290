# SPDX-License-Identifier: Apache-2.0
"""Invoices as CSV (RFC 4180) and PDF."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ....errors import Unsupported
from ....model.billing import Invoice, Line, write_money

_HEAD = ("project", "what", "size", "first", "last", "quantity", "unit", "price", "amount", "currency")
_WIDTH, _HEIGHT = 595, 842  # points: A4
_MARGIN, _LEADING, _ROWS = 50, 14, 46
_COLUMNS = ((50, 22), (170, 10), (225, 12), (290, 21), (395, 16), (480, 21))  # where each begins, and its characters


def as_csv(invoice: Invoice) -> str:
    """Quantities and prices exact, amounts with six decimals; the last row is the total."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_HEAD)
    for line in invoice.lines:
        writer.writerow((line.project, line.what, line.size, line.first, line.last, line.quantity, line.unit,
                         line.price, write_money(line.amount), invoice.currency))  # fmt: skip
    writer.writerow(("", "total", "", "", "", "", "", "", write_money(invoice.total), invoice.currency))
    return out.getvalue()


def as_pdf(invoice: Invoice) -> bytes:
    """Pages of A4 in Helvetica, with a table of the lines.

    :raise Unsupported: without the package that writes PDF.
    """
    try:
        import pydyf
    except ImportError:
        raise Unsupported(
            "hyperd has no pydyf to write PDF with", hint="pip install 'hypercontainer[billing]', or take CSV or JSON"
        ) from None
    document = pydyf.PDF()
    fonts = {
        name: pydyf.Dictionary({"Type": "/Font", "Subtype": "/Type1", "BaseFont": f"/{base}",
                                "Encoding": "/WinAnsiEncoding"})
        for name, base in (("F1", "Helvetica"), ("F2", "Helvetica-Bold"))
    }  # fmt: skip
    for font in fonts.values():
        document.add_object(font)
    resources = pydyf.Dictionary({"Font": pydyf.Dictionary({n: f.reference for n, f in fonts.items()})})
    for rows in _pages(invoice):
        stream = pydyf.Stream(compress=True)
        for y, (bold, x, text) in rows:
            stream.begin_text()
            stream.set_font_size("F2" if bold else "F1", 9)
            stream.set_text_matrix(1, 0, 0, 1, x, y)
            stream.show_text_string(text)
            stream.end_text()
        document.add_object(stream)
        document.add_page(pydyf.Dictionary({
            "Type": "/Page", "Parent": document.pages.reference, "MediaBox": pydyf.Array([0, 0, _WIDTH, _HEIGHT]),
            "Resources": resources, "Contents": stream.reference,
        }))  # fmt: skip
    out = io.BytesIO()
    document.write(out)
    return out.getvalue()


Text = tuple[int, tuple[bool, int, str]]  # its height on the page; whether it is bold, where it begins, what it says


def _pages(invoice: Invoice) -> Iterator[list[Text]]:
    about = f"No. {invoice.number}, issued {invoice.issued_at[:10]}" if invoice.number else "not issued: an estimate"
    lines = [_cells(line) for line in invoice.lines]
    lines.append(["Total", "", "", "", "", f"{write_money(invoice.total)} {invoice.currency}"])
    for first in range(0, len(lines), _ROWS):
        y = _HEIGHT - _MARGIN
        page: list[Text] = [
            (y, (True, _MARGIN, f"Invoice of {invoice.organisation_name}, {invoice.month}")),
            (y - _LEADING, (False, _MARGIN, about)),
        ]
        y -= 3 * _LEADING
        for row in [["Project", "What", "Size", "Used", "Price", "Amount"], *lines[first : first + _ROWS]]:
            bold = row[0] in ("Project", "Total")
            for (x, width), cell in zip(_COLUMNS, row, strict=True):
                page.append((y, (bold, x, cell if len(cell) <= width else f"{cell[: width - 1]}~")))
            y -= _LEADING
        yield page


def _cells(line: Line) -> list[str]:
    return [line.project, line.what, line.size, line.used, line.price, write_money(line.amount)]
