"""The model card of a bundle: what it is, what it was made from, how good it is, and what was not tested.

`card.json` is plain data, `card.md` the same as a page with the front matter that Hugging Face reads.
"""

from rayprob.runs.card.files import carded, read_card, stored_card, write_card

__all__ = ["carded", "read_card", "stored_card", "write_card"]
