"""`Client`: asks a server started by `rayprob serve`, and answers as `Model.predict` does."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, overload

from rayprob.api.encoded import encoded
from rayprob.api.served_answer import SentImage, ServedAnswer
from rayprob.errors import QueryError, RayprobError, ServeError, UnknownImage, as_error, one_line
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.evidence import truth_of

if TYPE_CHECKING:  # these import PyTorch, which a client needs only for tensors
    from rayprob.api.inputs import Images, OneImage

AT_A_TIME = 8  # requests for a list of images
Explain = bool | Sequence[str]


class Client:
    """A server of bundles, started by `rayprob serve`.

    `token` is the token of the server's `--token-file`; `bundle` is the name of one of its bundles, by default the first.
    Messages of errors are those of the server: QueryError, LabelError, SampleError and so on, as `Model.predict` raises them;
    ServeError if the server does not answer or refuses the request.

    Example::

        client = rp.Client("http://127.0.0.1:8000")
        answer = client.predict("photo.jpg", queries="P(person & book)", evidence={"dining table": True})
        answer.label_set, answer.marginals["book"], answer.prob("P(count >= 3)")
    """

    def __init__(self, url: str, *, token: str | None = None, bundle: str | None = None, timeout_s: float = 120.0) -> None:
        import requests

        if not url.startswith(("http://", "https://")):
            raise ServeError(f"{url!r} is not the URL of a server; `rayprob serve` prints it, such as http://127.0.0.1:8000")
        self.url, self.bundle = url.rstrip("/"), bundle
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {token}"} if token else {})

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels in column order."""
        return self._label_space.names

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that choose label sets, besides any number from 0 to 1."""
        return tuple(rule["name"] for rule in self._facts["rules"])

    @property
    def guarantees(self) -> dict[str, str]:
        """What each rule guarantees, as a sentence."""
        return {rule["name"]: rule["guarantee"] for rule in self._facts["rules"] if rule["guarantee"]}

    @overload
    def predict(
        self,
        images: "OneImage",
        *,
        evidence: Mapping[str, bool] | None = ...,
        rule: str | None = ...,
        queries: str | Sequence[str] = ...,
        top: int = ...,
        explain: Explain = ...,
    ) -> ServedAnswer: ...

    @overload
    def predict(
        self,
        images: "Images",
        *,
        evidence: Mapping[str, bool] | None = ...,
        rule: str | None = ...,
        queries: str | Sequence[str] = ...,
        top: int = ...,
        explain: Explain = ...,
    ) -> list[ServedAnswer]: ...

    def predict(
        self,
        images: "OneImage | Images",
        *,
        evidence: Mapping[str, bool] | None = None,
        rule: str | None = None,
        queries: str | Sequence[str] = (),
        top: int = 5,
        explain: Explain = False,
    ) -> ServedAnswer | list[ServedAnswer]:
        """Return the answer for an image, or a list of answers for a list of images, in order.

        Images are those of `Model.predict`; files are sent as they are, others as PNG. `top` labels and label sets are listed.
        `explain` asks for maps that explain the label set, or these labels. Raises as the class documents.

        Example::

            client.predict(["a.jpg", "b.jpg"], rule="recall@0.1")
        """
        asked = [queries] if isinstance(queries, str) else list(queries)
        explained = explain if isinstance(explain, bool) else list(explain)
        stated = {str(name): truth_of(name, is_present) for name, is_present in (evidence or {}).items()}
        options = {"queries": asked, "evidence": stated, "rule": rule, "top": top, "explain": explained}
        is_several = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4  # arrays and tensors of a batch
        if not is_several:
            return self._predict(images, options)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            return list(pool.map(lambda image: self._predict(image, options), cast(Sequence[Any], images)))

    def __repr__(self) -> str:
        return f"Client({self.url!r}{f', bundle={self.bundle!r}' if self.bundle else ''})"

    def _predict(self, image: Any, options: Mapping[str, Any]) -> ServedAnswer:
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "image"
        content = encoded(image)
        whole = {"marginals": True, "bundle": self.bundle, **options}
        said = self._sent(content, whole)
        sent = SentImage(name, self._label_space, lambda more: self._again(content, said["sha256"], more))
        return ServedAnswer(sent, whole, said)

    def _again(self, content: bytes, sha256: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Ask about an image that was sent before; send it again if the server does not remember it."""
        try:
            return self._json("POST", "/v1/query", json={"sha256": sha256, **options})
        except UnknownImage:
            return self._sent(content, options)

    def _sent(self, content: bytes, options: Mapping[str, Any]) -> dict[str, Any]:
        form = {"files": {"image": ("image", content)}, "data": {"options": json.dumps(options)}}
        return self._json("POST", "/v1/predict", **form)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self._json("GET", "/v1/labels", params={"bundle": self.bundle} if self.bundle else {})

    @cached_property
    def _label_space(self) -> LabelSpace:
        names = tuple(self._facts["labels"])
        return LabelSpace(names, tuple(range(1, len(names) + 1)))

    def _json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        """Return the answer to a request. Raises the server's error, and ServeError without an answer in JSON."""
        import requests

        try:
            response = self._session.request(method, self.url + path, timeout=self._timeout_s, **sent)
            found: dict[str, Any] = response.json()
        except requests.exceptions.JSONDecodeError as error:
            raise _foreign(self.url, response.status_code) from error
        except requests.exceptions.Timeout as error:
            raise ServeError(f"{self.url} did not answer within {self._timeout_s:g} s; try again") from error
        except (requests.exceptions.RequestException, ValueError) as error:
            raise ServeError(f"no server answers at {self.url} ({_cause_of(error)}); start one: `rayprob serve`") from error
        if response.ok:
            return found
        raise _error_of(found, self.url, response.status_code)


def _cause_of(error: BaseException) -> str:
    """Return the innermost cause of an error, such as `connection refused`, without the layers of libraries around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else one_line(error, 200)


def _foreign(url: str, status: int) -> ServeError:
    return ServeError(f"{url} does not answer like `rayprob serve` (status {status}); check the URL")


def _error_of(found: Any, url: str, status: int) -> RayprobError:
    """Return the error that a server sent."""
    said = found.get("error") if isinstance(found, dict) else None
    if not isinstance(said, dict) or not isinstance(said.get("message"), str):
        return _foreign(url, status)
    error = as_error({"kind": str(said.get("kind")), "message": said["message"]})
    if isinstance(error, QueryError):
        error.at = said.get("at")
    return error
