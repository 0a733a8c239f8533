"""Blocks in which the program's `__main__` is put aside, alone and at the same time."""

import sys
from contextlib import ExitStack

import pytest

from rayprob.processes import without_main


def test_blocks_that_overlap_put_the_programs_main_back_with_the_last() -> None:
    main = sys.modules["__main__"]
    first, second = ExitStack(), ExitStack()
    first.enter_context(without_main())  # as two threads enter and leave: the first is left first
    second.enter_context(without_main())
    first.close()
    assert sys.modules["__main__"] is not main
    second.close()
    assert sys.modules["__main__"] is main


def test_an_error_in_a_block_puts_the_programs_main_back() -> None:
    main = sys.modules["__main__"]
    with pytest.raises(ValueError, match="inside"), without_main():
        raise ValueError("inside")
    assert sys.modules["__main__"] is main
