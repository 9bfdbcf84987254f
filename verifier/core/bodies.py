"""What a response's body says, whatever way it was captured in."""

from __future__ import annotations

import binascii
import zlib
from typing import Literal

from msgspec import UNSET, Struct

from verifier.core.canonical import Json, NotJson, TooDeep, parse
from verifier.core.events import Response
from verifier.core.headers import Media
from verifier.core.limits import Limits

Form = Literal["empty", "value", "text", "bytes", "coded", "unreadable"]
_CHARSETS = frozenset(
    ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "utf-16")
)
_INFLATE_FREE_BYTES = 1024 * 1024
_CODINGS_MAX = 3
BODY_TOO_DEEP = "body_too_deep"
_GZIP_MAGIC = b"\x1f\x8b"


class Unreadable(ValueError):
    """The body cannot be read as it says it should be; the message is the doubt to raise."""


class Content(Struct, frozen=True, kw_only=True, gc=False):
    """A body as it was meant.

    `value`: a JSON value (`document`). `text`: `text`, with `data` if it came as bytes. `bytes`: `data` that is no
    text. `coded`: `data` in a content coding that cannot be undone here. `unreadable`: `reason` says why. A body that
    is absent, or has no bytes, is `empty`; JSON's `""` is so only if the content type is not JSON, `null` never is.
    """

    form: Form
    media: Media
    document: Json = None
    text: str | None = None
    data: bytes | None = None
    truncated: bool = False
    reason: str = ""

    @property
    def says_json(self) -> bool:
        """Whether the side means its body as JSON."""
        return self.media.is_json or (self.form == "value" and not isinstance(self.document, str))


def read_content(response: Response, media: Media, codings: tuple[str, ...], limits: Limits) -> Content:
    """Return what the response's body says. Never raises: what cannot be read is `unreadable`."""
    truncated = response.body_truncated
    if response.body is UNSET:
        return Content(form="empty", media=media, truncated=truncated)
    raw = bytes(response.body)
    encoding = response.body_encoding or "json"
    try:
        document = parse(raw)
    except TooDeep:
        return Content(form="unreadable", media=media, reason=BODY_TOO_DEEP, truncated=truncated)
    except NotJson:
        return _of_bytes(raw, media, truncated=truncated)
    if encoding == "json" or (encoding == "text" and not isinstance(document, str)):
        return _of_value(document, raw, media, truncated=truncated)
    if encoding == "text":
        return _of_text(str(document), media, truncated=truncated)
    if encoding != "base64" or not isinstance(document, str):
        return Content(form="unreadable", media=media, reason="body_unreadable", truncated=truncated)
    try:
        data = _decoded(document)
        if codings and data:
            if truncated or any(coding not in ("gzip", "x-gzip", "deflate") for coding in codings):
                return Content(form="coded", media=media, data=data, truncated=truncated)
            data = _plain(data, codings, limits)
    except Unreadable as error:
        return Content(form="unreadable", media=media, reason=str(error), truncated=truncated)
    return _of_bytes(data, media, truncated=truncated)


def document_of(content: Content) -> Json:
    """Return the JSON document a body is. Raises NotJson.

    A JSON string under a content type that is not JSON is a captured text, so it is read once more.
    """
    if content.form == "value":
        if isinstance(content.document, str) and content.media.name and not content.media.is_json:
            return parse(content.document)
        return content.document
    if content.text is None:
        raise NotJson("the body is not text")
    return parse(content.text)


def _of_value(document: Json, raw: bytes, media: Media, *, truncated: bool) -> Content:
    if document == "" and not media.is_json:
        return Content(form="empty", media=media, truncated=truncated)
    text = document if isinstance(document, str) and not media.is_json else raw.decode()
    return Content(form="value", media=media, document=document, text=text, truncated=truncated)


def _of_text(text: str, media: Media, *, truncated: bool) -> Content:
    return Content(form="text" if text else "empty", media=media, text=text, truncated=truncated)


def _of_bytes(data: bytes, media: Media, *, truncated: bool) -> Content:
    if not data:
        return Content(form="empty", media=media, truncated=truncated)
    charset = "utf-8" if media.is_json or media.charset not in _CHARSETS else media.charset
    try:
        text = data.decode(charset)
    except UnicodeDecodeError:
        return Content(form="bytes", media=media, data=data, truncated=truncated)
    return Content(form="text", media=media, text=text, data=data, truncated=truncated)


def _decoded(text: str) -> bytes:
    compact = "".join(text.split())
    try:
        return binascii.a2b_base64(compact.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise Unreadable("body_unreadable") from None


def _plain(data: bytes, codings: tuple[str, ...], limits: Limits) -> bytes:
    """Undo content codings. Data that plainly is not coded was decoded by whoever captured it."""
    if len(codings) > _CODINGS_MAX:
        raise Unreadable("body_unreadable")
    for coding in reversed(codings):
        if coding == "deflate":
            data = _deflated(data, limits)
        elif data.startswith(_GZIP_MAGIC):
            data = _gunzipped(data, limits)
    return data


def _room(data: bytes, limits: Limits) -> int:
    return min(limits.inflate_bytes_max, max(_INFLATE_FREE_BYTES, len(data) * limits.inflate_ratio_max))


def _gunzipped(data: bytes, limits: Limits) -> bytes:
    room = _room(data, limits)
    out = bytearray()
    while data:  # a gzip file may have several members (RFC 1952 section 2.2)
        part, data = _inflated(data, 31, room - len(out))
        out += part
        if not data.startswith(_GZIP_MAGIC) and data.strip(b"\0"):
            raise Unreadable("body_unreadable")
        data = data if data.startswith(_GZIP_MAGIC) else b""
    return bytes(out)


def _deflated(data: bytes, limits: Limits) -> bytes:
    is_zlib = len(data) > 1 and data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0
    try:
        plain, rest = _inflated(data, 15 if is_zlib else -15, _room(data, limits))
    except Unreadable as error:
        if is_zlib or str(error) != "body_unreadable":
            raise
        return data
    if rest:
        raise Unreadable("body_unreadable")
    return plain


def _inflated(data: bytes, window_bits: int, room: int) -> tuple[bytes, bytes]:
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(data, room + 1)
    except zlib.error:
        raise Unreadable("body_unreadable") from None
    if len(plain) > room:
        raise Unreadable("body_too_large")
    if not inflater.eof:
        raise Unreadable("body_unreadable")
    return plain, inflater.unused_data
