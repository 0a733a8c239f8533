"""Parts of a run file with options of their own: what is taken, what is refused, and what is written down."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field

from rayprob.config.parts import PartSpec, spec_of
from rayprob.config.spec import Spec
from rayprob.errors import SpecError


class ToolSpec(PartSpec):
    kind: ClassVar[str] = "tool"

    name: str = "hammer"
    weight: float = Field(default=1.0, gt=0)

    @classmethod
    def table(cls) -> Mapping[str, Callable[..., Any]]:
        return {"hammer": hammer, "saw": saw, "level": level}


class HammerSpec(ToolSpec):
    as_written: ClassVar[Mapping[str, Any]] = {"name": "", "teeth": 7}

    claw: bool = False


class SawSpec(ToolSpec):
    later_keys: ClassVar[frozenset[str]] = frozenset({"oiled"})

    teeth: int = 7
    widths: tuple[float, float] = (0.5, 1.0)
    oiled: bool = False


def hammer(spec: HammerSpec) -> None: ...


def saw(spec: SawSpec) -> None: ...


def level(spec: ToolSpec) -> None: ...


class Box(Spec):
    tool: ToolSpec = ToolSpec()


def test_a_name_chooses_the_options() -> None:
    assert isinstance(ToolSpec(), HammerSpec)
    assert ToolSpec(name="saw", teeth=9) == SawSpec(name="saw", teeth=9)
    assert type(ToolSpec(name="level")) is ToolSpec
    assert Box.parse({"tool": {"name": "saw", "widths": [1, 2]}}).tool == ToolSpec(name="saw", widths=(1, 2))
    assert pickle.loads(pickle.dumps(ToolSpec(name="saw"))) == ToolSpec(name="saw")


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"name": "hamer"}, r"tool.name: unknown tool 'hamer'; nearest: hammer; allowed: hammer, saw, level$"),
        ({"teeth": 9}, "tool: teeth is an option of saw, not of the tool hammer, which takes weight, claw; set name: saw, or"),
        ({"name": "saw", "tooth": 9}, "tool: unknown option of the tool saw: 'tooth'; nearest: teeth; allowed: weight, teeth"),
        ({"name": "saw", "widths": [1, "x"]}, r"tool.widths: expected a number"),
        ({"name": "saw", "weight": 0}, "tool.weight: input should be greater than 0"),
        ({"name": None}, r"tool.name: expected text \(found null\)"),
        ([], "tool: expected a mapping with keys of .*claw.*teeth"),
    ],
)
def test_what_a_part_does_not_take_is_refused_by_name(tool: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Box.parse({"tool": tool})


def test_an_option_of_another_part_says_nothing_at_its_default() -> None:
    assert ToolSpec.parse({"name": "level", "teeth": 7, "widths": [0.5, 1.0], "claw": False}) == ToolSpec(name="level")
    with pytest.raises(SpecError, match="widths is an option of saw, not of the tool level, which takes weight"):
        ToolSpec.parse({"name": "level", "widths": [0.5, 2.0]})


def test_what_earlier_versions_wrote_is_written_still_and_what_is_new_only_where_it_is_used() -> None:
    assert ToolSpec().model_dump() == {"name": "hammer", "teeth": 7, "weight": 1.0, "claw": False}
    assert "oiled" not in ToolSpec(name="saw").model_dump()
    assert ToolSpec(name="saw", oiled=True).model_dump()["oiled"] is True
    for spec in (ToolSpec(), ToolSpec(name="saw", oiled=True), ToolSpec(name="level")):
        assert ToolSpec.parse(spec.model_dump()) == spec


def test_a_part_whose_spec_is_of_another_kind_is_refused() -> None:
    def local(spec: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def wrong(spec: Box) -> None: ...

    with pytest.raises(SpecError, match=r"local: the types of its parameters cannot be read .*Nowhere.*; write them at module"):
        spec_of(local, ToolSpec)
    with pytest.raises(SpecError, match=r"wrong: its parameter spec has the type .*Box.*; use ToolSpec or a subclass"):
        spec_of(wrong, ToolSpec)
