"""The query language, parsed into a `Query` by recursive descent.

    P(fork & knife)                   both are present
    P(cat | dog)                      cat, given that dog is present
    P(fork | dining table, !person)   evidence: a comma means and, ! means not
    P(person & (car | bus))           inside parentheses a bar means or
    P(count >= 3)                     number of labels present; also < <= > == !=
    P(count{fork, knife} == 1)        number of labels of a group
    P(exactly {person, dog})          these and no other
    P("count" & "a | b" & "5"" nut")  quotes, for names that need them; a quote inside a name is doubled

    query  = "P(" listed ["|" listed] ")"       one     = "!" one | "(" either ")" | count | exactly | label
    listed = both {"," both}                    count   = "count" [group] comparison number
    both   = one {"&" one}                      exactly = "exactly" group
    either = both {"|" both}                    group   = "{" [label {"," label}] "}"

A label is written as its label space names it, spaces included; any name can be quoted. Errors show the text with a caret under
the error.
"""

import re
from dataclasses import dataclass

from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.queries.expression import And, Count, Exactly, Expression, Label, Not, Or, Query
from rayprob.registry import unknown

TOKEN = re.compile(
    r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<symbol><=|>=|==|!=|[&|!(){},<>=])|(?P<words>[^&|!(){},<>="\s](?:[^&|!(){},<>="]*[^&|!(){},<>="\s])?))'
)
COMPARISONS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "==", "=": "==", "!=": "!="}
DEEPEST = 100


@dataclass(frozen=True)
class Token:
    """One symbol, quoted name, run of words, or the end of the text; `start` and `end` are positions in the text."""

    kind: str
    text: str
    start: int
    end: int


def read(text: str, label_space: LabelSpace) -> Query:
    """Parse a query. Raises QueryError, which points at the error."""
    return _Reader(text, label_space).query()


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text; the last one marks its end."""
    tokens, place = [], 0
    end = len(text.rstrip())
    while place < end:
        match = TOKEN.match(text, place)
        if match is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise fault("this quote is not closed", text, start, end)
        kind = str(match.lastgroup)
        place = match.end()
        start = match.start(kind) - (kind == "quoted")
        said = " ".join(match[kind].split()) if kind == "words" else match[kind].replace('""', '"')
        tokens.append(Token(kind, said, start, place))
    return [*tokens, Token("end", "", end, end + 1)]


def fault(message: str, text: str, start: int, end: int) -> QueryError:
    """Return the error for the part of `text` from `start`, which is its `at`, to `end`."""
    error = QueryError(f"{message}\n  {text}\n  {' ' * start}{'^' * max(1, end - start)}")
    error.at = start
    return error


def all_of(parts: list[Expression]) -> Expression:
    """Return the expression that holds where all parts hold."""
    return parts[0] if len(parts) == 1 else And(tuple(parts))


class _Reader:
    """Walks the tokens once, one method for each rule of the grammar."""

    def __init__(self, text: str, label_space: LabelSpace) -> None:
        self.text, self.label_space = text, label_space
        self.tokens = tokens_of(text)
        self.place = 0
        self.depth = 0

    def query(self) -> Query:
        if self.next.kind == "end":
            raise QueryError("the query is empty; ask for example P(fork & knife) or P(cat | dog)")
        if not (self.next.text == "P" and self.tokens[self.place + 1].text == "("):
            raise self.fault("a query starts with P(")
        self.place += 2
        event = all_of(self.listed())
        given = tuple(self.listed()) if self.take("|") else ()
        if self.next.text == "|" and self.next.kind == "symbol":
            raise self.fault("the evidence has begun already; write `or` in parentheses: (car | bus)")
        self.expect(")", "the query")
        if self.next.kind != "end":
            raise self.fault("the query ended before this")
        return Query(event, given, self.label_space)

    def listed(self) -> list[Expression]:
        parts = [self.both()]
        while self.take(","):
            parts.append(self.both())
        return parts

    def either(self) -> Expression:
        parts = [self.both()]
        while self.take("|"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Expression:
        parts = [self.one()]
        while self.take("&"):
            parts.append(self.one())
        return all_of(parts)

    def one(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fault(f"more than {DEEPEST} levels of parentheses or negations")
        part = self.one_inside()
        self.depth -= 1
        return part

    def one_inside(self) -> Expression:
        if self.take("!"):
            return Not(self.one())
        if self.take("("):
            part = self.either()
            self.expect(")", "the parenthesis")
            return part
        following = self.tokens[min(self.place + 1, len(self.tokens) - 1)]
        keyword = self.next.text if self.next.kind == "words" and following.kind == "symbol" else ""
        if keyword == "count" and following.text in ("{", *COMPARISONS):
            return self.count()
        if keyword == "exactly" and following.text == "{":
            self.place += 1
            return Exactly(self.group())
        return self.label()

    def count(self) -> Count:
        self.place += 1
        opening = self.next
        group = self.group() if opening.text == "{" else None
        if group == ():
            raise self.fault("an empty group has nothing to count", opening)
        if self.next.kind != "symbol" or self.next.text not in COMPARISONS:
            raise self.fault(f"count needs a comparison, one of {' '.join(COMPARISONS)}")
        comparison = COMPARISONS[self.advance().text]
        if not (self.next.kind == "words" and re.fullmatch("[0-9]{1,9}", self.next.text)):
            raise self.fault("count compares with a whole number")
        return Count(group, comparison, int(self.advance().text))

    def group(self) -> tuple[Label, ...]:
        self.expect("{", "the group")
        labels: dict[Label, None] = {}
        while not self.take("}"):
            if labels:
                self.expect(",", "the group", "'}'")
            labels[self.label()] = None
        return tuple(sorted(labels, key=lambda label: label.column))

    def label(self) -> Label:
        if self.next.kind not in ("words", "quoted"):
            raise self.fault("a label is missing here")
        column = self.label_space.find(self.next.text)
        if column is None:
            raise self.fault(unknown(self.next.text, self.label_space.names, "label"))
        self.advance()
        return Label(column, self.label_space.names[column])

    @property
    def next(self) -> Token:
        return self.tokens[self.place]

    def advance(self) -> Token:
        self.place += 1
        return self.tokens[self.place - 1]

    def take(self, symbol: str) -> bool:
        found = self.next.kind == "symbol" and self.next.text == symbol
        self.place += found
        return found

    def expect(self, symbol: str, what: str, other: str = "") -> None:
        if not self.take(symbol):
            raise self.fault(f"{what} needs {repr(symbol) + (f' or {other}' if other else '')} here")

    def fault(self, message: str, token: Token | None = None) -> QueryError:
        token = token or self.next
        return fault(message, self.text, token.start, token.end)
