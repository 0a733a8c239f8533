"""MLflow: a run of the tracking server or the local store at a URI, with the run file as parameters and rows as metrics."""

import hashlib
import json
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from rayprob.errors import SpecError, one_line
from rayprob.files import uris
from rayprob.runs.tracking.sink import NUMBERS, Notes, ServiceSpec, Sink, TrackedRun, scalars

T = TypeVar("T")
log = logging.getLogger(__name__)
SQLITE = "sqlite:///"
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
SECRETS = ("password", "passwd", "pwd", "token", "access_token", "api_key", "key", "secret")
# The client's own limits, of 7 retries of 120 s each, would keep a command waiting for a server that is away.
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
MOST_PARAMETERS, MOST_METRICS = 100, 1000  # in a request
MOST_IN_KEY, MOST_IN_VALUE = 250, 500  # letters; later versions of MLflow take more
IN_EVERY_ROW = ("loss", "mAP", "nll_nats", "elapsed_s")  # of its kind; mAP and nll_nats only where they are finite
UNNAMED = "rayprob"  # the experiment of runs without a group
STATUS = {"finished": "FINISHED", "early": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowSpec(ServiceSpec):
    """A run of MLflow per run; `mlflow: URI` sets the URI alone. Needs `pip install 'rayprob[mlflow]'`.

    Credentials are never part of a run file: MLflow reads them from the environment, such as MLFLOW_TRACKING_TOKEN.
    """

    package: ClassVar[str] = "mlflow"
    short: ClassVar[str] = "uri"

    uri: str
    """The tracking server, such as http://mlflow:5000, or a local store, such as sqlite:///mlflow.db."""
    experiment: str | None = None
    """The experiment; by default the group, or rayprob for a run without one."""

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        if fault := fault_of(uri):
            raise PydanticCustomError("said_whole", "{fault}", {"fault": fault})  # which hides the URI, a secret perhaps
        return uri

    def absolute(self) -> Self:
        """Return these options with the absolute path of a local store."""
        if not self.uri.startswith(SQLITE):
            return self
        return self.model_copy(update={"uri": SQLITE + uris.absolute(self.uri.removeprefix(SQLITE))})


def fault_of(uri: str) -> str:
    """Return why a tracking URI cannot be used, without the URI itself; "" if it can."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "expected a URI such as http://mlflow:5000 or sqlite:///mlflow.db"
    is_server = parts.scheme in ("http", "https")
    if parts.password or (is_server and parts.username) or any(key.lower() in SECRETS for key, _ in parse_qsl(parts.query)):
        return (
            "the URI contains a user name, password or token, which would be written to run.yaml; leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment (for a "
            "database, a password file such as ~/.pgpass)"
        )
    if parts.scheme.partition("+")[0] not in SCHEMES:
        return f"expected a URI of {', '.join(SCHEMES)}, such as http://mlflow:5000; for a local store use sqlite:///mlflow.db"
    return ""


class MlflowSink(Sink):
    """Writes through MLflow's client, so that a run of the process's own is left alone."""

    def __init__(self, spec: MlflowSpec, run: TrackedRun) -> None:
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it reports each table of a new local store
        self._spec, self._run = spec, run
        self._id = ""
        self._sent: defaultdict[str, set[int]] = defaultdict(set)  # the steps of each kind of row that the service has
        try:
            self._client = MlflowClient(spec.uri)
        except Exception as error:
            raise SpecError(f"tracking.mlflow.uri cannot be opened: {one_line(error)}") from error

    def open(self, known: Notes) -> Notes:
        """Continue the run of an earlier start, or of a call that failed, or create one."""
        self._id = known.get("run_id") or self._id
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
            run = self._client.get_run(self._id)
            self._find_sent(run)
        else:
            run = self._client.create_run(self._experiment(), tags=self._tags(), run_name=self._run.name)
            self._id = run.info.run_id
        self._describe(run)
        return {"run_id": self._id}

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log the numbers of a step or an evaluation, unless the service has them; facts of a start become tags."""
        if kind == "start":
            facts = {f"rayprob.{name}": str(value) for name, value in values.items() if isinstance(value, int | str)}
            self._log(tags=facts)
        elif kind in NUMBERS and step not in self._sent[kind]:
            self._log(metrics={f"{kind}/{name}": value for name, value in scalars(values)}, step=step)
            self._sent[kind].add(step)

    def close(self, ending: str) -> None:
        """Set how the run ended."""
        self._client.set_terminated(self._id, STATUS[ending])

    def summarise(self, known: Notes, numbers: Mapping[str, float]) -> None:
        """Log numbers that differ from the last ones of their names."""
        self._id = known["run_id"]
        logged = self._client.get_run(self._id).data.metrics
        self._log(metrics={name: value for name, value in numbers.items() if logged.get(key_of(name)) != value}, step=0)

    def _experiment(self) -> str:
        name = self._spec.experiment or self._spec.group or UNNAMED
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _tags(self) -> dict[str, str]:
        group = {"group": self._spec.group} if self._spec.group else {}
        tags = {f"rayprob.{name}": text for name, text in {**self._run.facts, **group}.items()}
        commit = self._run.facts.get("git_commit")
        return {**tags, "mlflow.source.name": "rayprob", **({"mlflow.source.git.commit": commit} if commit else {})}

    def _describe(self, run: Any) -> None:
        """Log the run file and the dataset, unless the run has them; rows follow even if MLflow does not take these."""
        for what, log_part in {"the run file": self._log_parameters, "the dataset": self._log_dataset}.items():
            try:
                log_part(run)
            except Exception as error:  # whatever the client raises
                log.warning("tracking.mlflow: %s is not logged until the next start: %s", what, one_line(error))

    def _log_dataset(self, run: Any) -> None:
        from mlflow.entities import Dataset, DatasetInput

        root = self._run.settings.get("data", {}).get("root", "")
        roots = [root] if isinstance(root, str) else list(root)
        name = " + ".join(uris.split(one)[1] for one in roots)
        digest = self._run.facts.get("dataset_fingerprint", "")
        has_dataset = bool(run.inputs and run.inputs.dataset_inputs)
        if name and digest and not has_dataset:
            dataset = Dataset(name[:MOST_IN_KEY], digest, "rayprob", json.dumps(roots))
            self._client.log_inputs(self._id, datasets=[DatasetInput(dataset)])

    def _log_parameters(self, run: Any) -> None:
        missing = ((name, value) for name, value in flattened(self._run.settings) if key_of(name) not in run.data.params)
        for part in _parts(missing, MOST_PARAMETERS):
            self._log(parameters=dict(part))

    def _log(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now_ms = round(time.time() * 1000)
        for part in _parts((metrics or {}).items(), MOST_METRICS):
            self._client.log_batch(self._id, metrics=[Metric(key_of(name), value, now_ms, step) for name, value in part])
        if parameters or tags:
            self._client.log_batch(
                self._id,
                params=[Param(key_of(name), value) for name, value in (parameters or {}).items()],
                tags=[RunTag(name, value) for name, value in (tags or {}).items()],
            )

    def _find_sent(self, run: Any) -> None:
        """Find the steps of each kind of row that the run has, by the metrics that every row of the kind has."""
        for name in run.data.metrics:
            kind, _, rest = name.partition("/")
            if rest in IN_EVERY_ROW:
                self._sent[kind].update(point.step for point in self._client.get_metric_history(self._id, name))


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of a run file, dotted, with their values as short text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:MOST_IN_VALUE]


def key_of(name: str) -> str:
    """Return a name as MLflow takes it, which is another one for each name: what MLflow refuses is written in hexadecimal."""
    whole = re.sub(r"[^/\w.\- :]", lambda found: _hexadecimal(found[0]), name)
    key = "/".join(_hexadecimal(part) if part in ("", ".", "..") else part for part in whole.split("/"))
    if len(key) <= MOST_IN_KEY:
        return key
    return f"{key[: MOST_IN_KEY - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _hexadecimal(text: str) -> str:
    return f"_{text.encode().hex()}_"


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


SINKS = {"mlflow": MlflowSink}
