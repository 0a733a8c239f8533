"""Many requests at a time: more than fit are refused, late ones are given up, and a stopping server finishes open ones."""

import asyncio
import hashlib

import httpx
import pytest

from rayprob.predict.images import ImageBytes
from rayprob.serve.app import Front, make_app
from rayprob.serve.faults import Busy
from rayprob.serve.gate import Gate
from rayprob.serve.generation import Computed, Generation, Waiting, forecast_together
from rayprob.serve.options import Options
from rayprob.serve.seen import SeenImages
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import make_bundle
from tests.serve.here import Here


class Held(Here):
    """A service whose forward passes wait until they are released."""

    def __init__(self, service: BundleService) -> None:
        super().__init__(service)
        self.released = asyncio.Event()

    async def computed(self, waiting: Waiting) -> Computed:
        await self.released.wait()
        return await super().computed(waiting)


def caller(held: Held, limits: Limits) -> tuple[httpx.AsyncClient, Gate]:
    app = make_app(Front({"small": held}, limits, page={}))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here"), app.state.gate


async def until(gate: Gate, in_flight: int) -> None:
    while gate.in_flight != in_flight:
        await asyncio.sleep(0.001)


def test_more_requests_than_fit_are_refused_with_when_to_try_again(service: BundleService) -> None:
    async def scene() -> None:
        held = Held(service)
        client, gate = caller(held, Limits(in_flight=2))
        open_ = [asyncio.create_task(client.post("/v1/predict", content=photo(20 + place))) for place in (0, 1)]
        await until(gate, 2)
        refused = await client.post("/v1/predict", content=photo(1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"].startswith("2 requests are in flight, as many as are allowed")
        held.released.set()
        assert [(await one).status_code for one in open_] == [200, 200]
        assert (await client.post("/v1/predict", content=photo(1))).status_code == 200

    asyncio.run(scene())


def test_a_request_without_an_answer_in_time_is_given_up(service: BundleService) -> None:
    async def scene() -> None:
        client, gate = caller(Held(service), Limits(timeout_s=0.05))
        response = await client.post("/v1/predict", content=photo(30))
        assert response.status_code == 504
        assert response.json()["error"]["message"] == "no answer within 0.05 s; send the request again later"
        assert gate.in_flight == 0

    asyncio.run(scene())


def test_a_stopping_server_answers_open_requests_and_refuses_new_ones(service: BundleService) -> None:
    async def scene() -> None:
        held = Held(service)
        client, gate = caller(held, Limits())
        open_ = asyncio.create_task(client.post("/v1/predict", content=photo(40)))
        await until(gate, 1)
        draining = asyncio.create_task(gate.drain(60))
        await asyncio.sleep(0)
        refused = await client.post("/v1/predict", content=photo(41))
        assert (refused.status_code, "stopping" in refused.text) == (503, True)
        held.released.set()
        assert (await open_).status_code == 200
        assert await draining == 0

    asyncio.run(scene())


def test_a_drain_gives_up_in_time_and_counts_what_is_left() -> None:
    async def scene() -> None:
        gate = Gate(3)
        with gate.passed():
            assert await gate.drain(0.01) == 1
        with pytest.raises(Busy), gate.passed():
            pass

    asyncio.run(scene())


def test_requests_finish_with_the_generation_that_they_began_with(bundle_path: str, tmp_path: object) -> None:
    """A bundle that changes while a request waits: it is answered by the old one, at the old one's image size."""

    async def scene() -> None:
        make_bundle(1, {"name": "bernoulli"}).save(f"{tmp_path}/bundle")
        service = BundleService("small", f"{tmp_path}/bundle", Limits())
        held = Held(service)
        old = service.generation.fingerprint
        content = photo(1)
        sha256 = hashlib.sha256(content).hexdigest()
        open_ = asyncio.create_task(held.predict(sha256, content, Options()))
        while held.passes == 0 and not open_.done():
            make_bundle(2, {"name": "bernoulli"}, size_px=48).save(f"{tmp_path}/bundle")
            await asyncio.sleep(0.05)
            assert service.reload()
            held.released.set()
            await open_
        first, second = await open_, await held.predict(sha256, content, Options())
        assert first.value
        assert second.value
        assert first.value["fingerprint"] == old != second.value["fingerprint"]

    asyncio.run(scene())


def test_images_of_two_generations_are_computed_apart_and_come_back_in_order(tmp_path: object) -> None:
    generations = []
    for size_px in (32, 48):
        make_bundle(size_px, {"name": "bernoulli"}, size_px=size_px).save(f"{tmp_path}/{size_px}")
        generations.append(Generation.load(f"{tmp_path}/{size_px}", SeenImages(9, 9999)))
    old, new = generations
    images = [(old, 0), (new, 1), (old, 2), (new, 3), (new, 4)]
    waiting = [Waiting.of(generation, ImageBytes("image", photo(place))) for generation, place in images]
    together = forecast_together(waiting)
    assert [computed.batch for computed in together] == [2, 3, 0, 0, 0]
    for one, computed in zip(waiting, together, strict=True):
        alone = forecast_together([one])[0].forecast.distribution.marginals()
        assert computed.forecast.distribution.marginals() == pytest.approx(alone, abs=1e-5)
