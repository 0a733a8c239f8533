"""Parses a user's XML file. A document type, and so every entity, is refused, so that nothing can expand."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from rayprob.errors import SourceError
from rayprob.files import storage

AGAIN = "export it again"


def read_xml(uri: str) -> Element:
    """Return the root of an XML file. Raises SourceError if it is not XML, and StorageError if it cannot be read."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(name: str, *_: object) -> None:
        raise SourceError(f"{uri} declares the document type {name:.80}, which annotations do not need; {AGAIN}")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(storage.read_bytes(uri), True)
        return builder.close()
    except expat.ExpatError as error:
        raise SourceError(f"{uri} is not readable XML: {error}; {AGAIN}") from error
    except (ValueError, LookupError, AssertionError) as error:  # an unknown encoding
        raise SourceError(f"{uri} is not readable XML: {error}; {AGAIN}") from error


def text_of(node: Element, path: str) -> str | None:
    """Return the stripped text at a path below a node; None if there is no such node."""
    text = node.findtext(path)
    return (text.strip() or None) if text else None
