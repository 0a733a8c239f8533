"""Bundles on Ray Serve: one deployment per bundle, whose replicas compute, behind one that speaks HTTP and computes nothing.

An image passes the HTTP deployment, which hashes it, to a replica, which decodes it, waits for a batch, answers and remembers
the forecast. A request that loses its replica is sent to another one, so that clients do not see it. PyTorch is imported by the
replicas only: neither the command nor the HTTP process needs it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rayprob import plugins
from rayprob.cluster import import_ray
from rayprob.errors import one_line
from rayprob.files import uris
from rayprob.serve.access import read_token
from rayprob.serve.faults import Busy
from rayprob.serve.options import Options
from rayprob.serve.reply import Reply
from rayprob.serve.shares import Share, share_of
from rayprob.serve.spec import ServeSpec

HTTP = "http"
ATTEMPTS = 3
STATE_S = 60.0


@dataclass(frozen=True)
class ReplicaStart:
    """One replica: which bundle, and with how many threads."""

    name: str
    folder: str
    spec: ServeSpec
    threads: int
    plugin_folders: tuple[str, ...]


class BundleReplica:
    """A process that answers with one bundle."""

    def __init__(self, start: ReplicaStart) -> None:
        import torch

        from rayprob.serve.batches import Batches
        from rayprob.serve.generation import forecast_together
        from rayprob.serve.service import BundleService

        _close_grpc()
        torch.set_num_threads(start.threads)
        plugins.look_in(start.plugin_folders)
        self._service = BundleService(
            start.name,
            start.folder,
            start.spec.limits,
            threads=start.threads + 1,
            most_of_dataset=start.spec.most_examples,
        )
        self._batches = Batches(start.spec.batch, forecast_together)
        if start.spec.reload_s:
            threading.Thread(target=self._reload, args=(start.spec.reload_s,), daemon=True, name="reload").start()

    async def predict(self, sha256: str, content: bytes, options: Options) -> Reply:
        """Answer for an image."""
        return await self._service.predict(sha256, content, options, self._batches.forward)

    async def query(self, sha256: str, options: Options) -> Reply:
        """Answer for an image that this replica remembers."""
        return await self._service.query(sha256, options)

    async def facts(self) -> dict[str, Any]:
        """Return what the bundle is."""
        return await asyncio.to_thread(self._service.facts)

    async def state(self) -> dict[str, Any]:
        """Return which bundle answers."""
        return self._service.state()

    async def is_ready(self) -> bool:
        """Return whether the bundle is loaded, which it is once this object exists."""
        return True

    async def example(self, name: str) -> bytes | None:
        """Return an image to try."""
        return await asyncio.to_thread(self._service.examples.read, name)

    def _reload(self, every_s: float) -> None:
        while True:
            time.sleep(every_s)
            self._service.reload()


class OnHandle:
    """A bundle as the HTTP deployment calls it: by a handle to its replicas."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def predict(self, sha256: str, content: bytes, options: Options) -> Reply:
        """Answer for an image."""
        reply: Reply = await self._call("predict", sha256, content, options)
        return reply

    async def query(self, sha256: str, options: Options) -> Reply:
        """Answer for an image that a replica remembers."""
        reply: Reply = await self._call("query", sha256, options)
        return reply

    async def facts(self) -> dict[str, Any]:
        """Return what the bundle is."""
        found: dict[str, Any] = await self._call("facts")
        return found

    async def is_ready(self) -> bool:
        """Return whether a replica answers."""
        return bool(await self._call("is_ready"))

    async def example(self, name: str) -> bytes | None:
        """Return an image to try."""
        found: bytes | None = await self._call("example", name)
        return found

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Call a replica; if it ends before it answers, another one. Raises Busy."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        for _ in range(ATTEMPTS):
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except RayActorError as error:
                logging.getLogger(__name__).warning("a replica ended before it answered: %s", one_line(error))
            except (BackPressureError, DeploymentUnavailableError) as error:
                raise Busy("no replica can take the request; send it again later") from error
        raise Busy(f"{ATTEMPTS} replicas ended before they answered; send the request again later")


class HttpReplica:
    """The process that speaks HTTP; `serve.ingress` adds the application as `app`."""

    app: Any

    def __init__(self, *bundles: Any) -> None:
        """`bundles` are bound so that Serve starts them first; the application finds them by name."""

    async def drain(self, timeout_s: float) -> int:
        """Refuse new requests, wait for open ones, and return how many did not finish in time."""
        left: int = await self.app.state.gate.drain(timeout_s)
        return left


def build(args: dict[str, Any]) -> Any:
    """Return the application that a Serve config names by `import_path: rayprob.serve.on_ray:build`.

    `args` has the keys of a serve file, without host and port. Raises SpecError.
    """
    return application(ServeSpec.parse(args, "args"))


def application(spec: ServeSpec) -> Any:
    """Return the Serve application of a spec, for the resources of the cluster that this process has joined."""
    from ray import serve

    ray = import_ray()
    share = share_of(spec, ray.cluster_resources())
    bound = []
    for name, folder in spec.bundles.items():
        start = ReplicaStart(name, uris.absolute(folder), spec, share.threads, tuple(plugins.folders()))
        bound.append(serve.deployment(BundleReplica).options(name=_deployment(name), **_options(spec, share)).bind(start))
    wrapped = serve.ingress(_maker(spec))(HttpReplica)
    return serve.deployment(wrapped).options(name=HTTP, **_http_options(spec)).bind(*bound)


def state_of(name: str, app: str) -> dict[str, Any]:
    """Return the state of a bundle that an application serves: `BundleService.state`."""
    from ray import serve

    handle = serve.get_deployment_handle(_deployment(name), app)
    state: dict[str, Any] = handle.state.remote().result(timeout_s=STATE_S)
    return state


def _maker(spec: ServeSpec) -> Callable[[], Any]:
    """Return the function that makes the application, in its own process."""
    limits, names = spec.limits, list(spec.bundles)
    token_file, token_variable = spec.token_file and uris.absolute(spec.token_file), spec.token_variable

    def make() -> Any:
        from ray import serve

        from rayprob.serve.app import Front, make_app

        _close_grpc()
        bundles = {name: OnHandle(serve.get_deployment_handle(_deployment(name))) for name in names}
        return make_app(Front(bundles, limits, read_token(token_file, token_variable)))

    return make


def _deployment(name: str) -> str:
    return f"bundle-{name}"


def _options(spec: ServeSpec, share: Share) -> dict[str, Any]:
    """Return the options of a bundle's deployment. A replica takes more requests than fit a batch: some are being decoded."""
    from ray.serve.config import RequestRouterConfig

    from rayprob.serve.router_on_ray import ByImage

    number: Mapping[str, Any] = {"num_replicas": share.replicas}
    if spec.replicas.most:
        load = {"target_ongoing_requests": 2 * spec.batch.images}
        number = {"autoscaling_config": {"min_replicas": share.replicas, "max_replicas": spec.replicas.most, **load}}
    return {
        **number,
        "ray_actor_options": {"num_cpus": share.cpus, "num_gpus": share.gpus},
        "max_ongoing_requests": 3 * spec.batch.images,
        "request_router_config": RequestRouterConfig(request_router_class=ByImage),
        "graceful_shutdown_timeout_s": spec.drain_s,
        "max_constructor_retry_count": 1,
    }


def _http_options(spec: ServeSpec) -> dict[str, Any]:
    """Return the options of the HTTP deployment, which refuses what is too much itself, with a message."""
    return {
        "num_replicas": 1,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": 2 * spec.limits.in_flight + 100,
        "graceful_shutdown_timeout_s": spec.drain_s,
    }


def _close_grpc() -> None:
    """Keep the gRPC server of this replica from listening, unless Ray's settings make Serve use it.

    Serve 2.60 opens it in every replica, on all interfaces and without a token, and unpickles what arrives there.
    """
    from ray.serve._private import constants, replica

    if not (constants.RAY_SERVE_USE_GRPC_BY_DEFAULT or constants.RAY_SERVE_PROXY_USE_GRPC):
        replica.add_port_to_grpc_server = lambda server, address: 0
