"""The body of a request: read in bounded memory, as an image's bytes or as multipart/form-data with the fields of a form."""

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from rayprob.errors import SpecError
from rayprob.serve.faults import TooLarge
from rayprob.serve.options import MOST_BYTES, Options, read_options

FORM = "multipart/form-data"
FIELDS = ("image", "options")


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Return the body. Raises TooLarge as soon as it is known to be larger, whether or not the request states its length."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated[:20]) > most_bytes:
        raise _too_large(most_bytes)
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(received)


async def read_image(request: Request, most_bytes: int) -> tuple[bytes, Options]:
    """Return an image's bytes and the options, which are in the query string or a field of the form. Raises SpecError."""
    body = await read_body(request, most_bytes)
    in_url = request.query_params.getlist("options")
    unknown = set(request.query_params) - {"options"}
    if unknown or len(in_url) > 1:
        raise SpecError(f"expected only ?options=JSON in the URL, once; found {', '.join(sorted(unknown)) or 'it twice'}")
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        if not body:
            raise SpecError("the request has no image: its body is empty; with curl, check the path after @")
        return body, read_options(in_url[0] if in_url else None)
    image, in_form = await _read_form(request, body)
    if in_url and in_form is not None:
        raise SpecError("options are given twice, in the URL and in the form; keep one of them")
    return image, read_options(in_url[0] if in_url else in_form)


async def _read_form(request: Request, body: bytes) -> tuple[bytes, str | None]:
    """Return the fields `image` and `options` of a form. Raises SpecError for anything else."""
    parser = MultiPartParser(request.headers, _once(body), max_files=1, max_fields=1, max_part_size=MOST_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        why = getattr(error, "message", None) or f"{FORM} cannot be read"
        raise SpecError(f"{why}; send one file named image, and options as text") from error
    unknown = [name for name in form if name not in FIELDS]
    image, options = form.get("image"), form.get("options")
    if unknown or not isinstance(image, UploadFile) or isinstance(options, UploadFile):
        found = ", ".join(f"{name!r:.80}" for name in form) or "nothing"
        raise SpecError(f"expected a form with one file named image, and optionally options as text; found {found}")
    return await image.read(), options


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
    yield b""


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than the {most_bytes:,} bytes that are allowed; send less, such as a smaller image")
