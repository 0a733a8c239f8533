"""Values that people, programs and broken disks leave where another one belongs."""

import math
import string

from hypothesis import strategies as st

ODD_NUMBERS = (
    0,
    -1,
    1,
    2,
    3.5,
    0.5,
    -0.25,
    1e-320,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**400,
)
ODD_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "\u202e",
        "\n",
        "ü",
        "日本",
        "a=b",
        "a, b",
        "'",
        '"',
        "[/b]",
        "$x$",
        "{0}",
        "%s",
        "~",
        "~nobody/x",
    ),
    *("..", "../x", "/proc", "/dev/null", ".", "s3://", "s3:///x", "file://", "x" * 300, "None", "true", "1e5", "NaN", "0x10"),
    *("bernoulli", "mixture", "auto", "val", "train", "holdout", "identity", "isotonic", "-1", "step", "evaluation", "f00d"),
)
ODD_LISTS = ([], [None], [[]], [1, 2], [-1], [10**6], ["x"], {}, {"a": 1}, {"": None}, [math.nan])
ODD_VALUES = (None, True, False, *ODD_NUMBERS, *ODD_TEXTS, *ODD_LISTS)

# What a YAML or JSON file may hold in place of a scalar, as text.
ODD_SOURCE = (
    *("null", "true", "no", "064", "1:30", ".inf", ".nan", "NaN", "-Infinity", "1e400", "-1", "0", "9223372036854775808", '""'),
    *(
        '"\\u0000"',
        '"\\ud800"',
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "*x",
        "&x [*x]",
        "!!python/object:os.system x",
        "? x",
        "|",
        "- x",
    ),
    *(
        "2024-01-01",
        "0x1F",
        "1_000",
        "~",
        "'",
        '"',
        "[" * 3000,
        "{a: " * 200,
        "<<: x",
        "%",
        "@",
        "`",
        "\t",
        "\x07",
        "#",
        "---",
        "...",
    ),
)

numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(), st.floats())
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12))
values = st.one_of(st.sampled_from(ODD_VALUES), numbers, texts)

# Of a command line: no NUL and no lone surrogate reaches a program as an argument.
arguments = st.one_of(
    st.sampled_from([text for text in ODD_TEXTS if "\0" not in text and text.isprintable()]),
    st.sampled_from(
        ["0", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "0.1", "0.05", "0.5", "1", "1.5", "9" * 30, "1_000", "+3"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(string.punctuation + "P12 ", max_size=12),
).filter(lambda text: not text.startswith("/") or text in ODD_TEXTS)  # a verb must not write beside the copy of the world
