"""What only people know about a model: licences, authors, and what it is for. A part of run files; the model card states it."""

from typing import Annotated

from pydantic import Field

from rayprob.config.spec import Spec

Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class CardSpec(Spec):
    """Statements for the model card, which `not stated` replaces where they are missing. They change no result.

    Licenses are names as Hugging Face and SPDX have them, such as apache-2.0 or cc-by-4.0.
    """

    weights_license: Text | None = None
    """License of the trained weights."""
    code_license: Text | None = None
    """License of the code that trained them."""
    data_license: Text | None = None
    """License of the images and annotations."""
    authors: tuple[Text, ...] = ()
    """Who made the model."""
    intended_use: Text | None = None
    """What the model is for."""
    out_of_scope: Text | None = None
    """What the model must not be used for."""
