"""An XML file of a user as a tree, without anything in it that could expand: a document type is refused, entities with it."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from rayprob.errors import SourceError
from rayprob.files import storage

AGAIN = "export it again"


def read_xml(uri: str) -> Element:
    """Return the root of an XML file. Raises SourceError where it is not XML, and StorageError where it cannot be read."""
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
        raise SourceError(f"{uri} is not XML that can be read: {error}; {AGAIN}") from error
    except (ValueError, LookupError, AssertionError) as error:  # an unknown encoding
        raise SourceError(f"{uri} is not XML that can be read: {error}; {AGAIN}") from error


def text_of(node: Element, path: str) -> str | None:
    """Return the text at a path below a node, without blanks around it; None where there is none."""
    text = node.findtext(path)
    return (text.strip() or None) if text else None
