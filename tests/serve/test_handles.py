"""The parts between HTTP and the replicas: a lost replica is replaced by another, and images keep their replica."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from rayprob.errors import BundleError, ServeError
from rayprob.serve.faults import Busy
from rayprob.serve.on_ray import OnHandle
from rayprob.serve.options import Options
from rayprob.serve.reply import Reply
from rayprob.serve.router_on_ray import ByImage
from rayprob.serve.run_on_ray import _as_ours

SHA256 = "0" * 64


class Handle:
    """A handle whose calls raise these errors, one after the other, and then answer."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0
        self.query = self

    async def remote(self, *arguments: Any) -> Reply:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return Reply({"arguments": len(arguments)})


def asked(handle: Handle) -> Reply:
    return asyncio.run(OnHandle(handle).query(SHA256, Options()))


def test_a_request_whose_replica_ends_is_answered_by_another() -> None:
    handle = Handle(ActorDiedError(), ActorDiedError())
    assert asked(handle).value == {"arguments": 2}
    assert handle.calls == 3


def test_a_request_that_ends_three_replicas_is_not_sent_to_a_fourth() -> None:
    handle = Handle(*[ActorDiedError()] * 9)
    with pytest.raises(Busy, match="3 replicas ended before they answered; send the request again later"):
        asked(handle)
    assert handle.calls == 3


def test_replicas_that_are_full_refuse_with_when_to_try_again() -> None:
    with pytest.raises(Busy, match="no replica can take the request"):
        asked(Handle(BackPressureError(num_queued_requests=1, max_queued_requests=1)))


def test_an_error_of_another_kind_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        asked(Handle(ZeroDivisionError()))


def preferred(replicas: list[Any], image: str) -> list[str]:
    ranks = asyncio.run(ByImage.choose_replicas(None, replicas, SimpleNamespace(args=[image])))  # type: ignore[arg-type]
    return [replica.replica_id.unique_id for (replica,) in ranks]


def test_an_image_keeps_its_replica_when_others_come_and_go() -> None:
    replicas = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=f"replica-{number}")) for number in range(4)]
    images = [f"image-{number}" for number in range(400)]
    first = {image: preferred(replicas, image)[0] for image in images}
    assert all(preferred(replicas[::-1], image) == preferred(replicas, image) for image in images[:20])
    assert min(Counter(first.values()).values()) > 60  # of 100
    fewer = {image: preferred(replicas[:3], image)[0] for image in images}
    assert {image for image in images if fewer[image] != first[image]} == {
        image for image in images if first[image] == "replica-3"
    }


def test_the_error_that_a_replica_ended_with_is_raised_as_ours() -> None:
    message = "The deployment failed to start once: Traceback ...\nrayprob.errors.BundleError: weights are damaged\n"
    deployment = SimpleNamespace(message=message)
    serve = SimpleNamespace(
        status=lambda: SimpleNamespace(applications={"rayprob": SimpleNamespace(deployments={"bundle-a": deployment})})
    )
    with pytest.raises(BundleError, match=r"^weights are damaged$"), _as_ours(serve):
        raise RuntimeError("Deploying application rayprob failed")
    deployment.message = "Traceback ...\nNameError: x\n"
    with pytest.raises(ServeError, match="did not start the application: it failed; NameError: x"), _as_ours(serve):
        raise RuntimeError("it failed")
