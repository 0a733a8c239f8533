"""What a server counts, in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter("rayprob_requests", "requests by route and status", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "rayprob_request_seconds", "time to answer a request", ["route"], buckets=LATENCIES_S, registry=registry
        )
        self.batches = Histogram(
            "rayprob_batch_images", "images per forward pass", ["bundle"], buckets=BATCHES, registry=registry
        )
        self.images = Counter("rayprob_images", "images computed", ["bundle"], registry=registry)
        self.remembered = Counter(
            "rayprob_remembered_images", "questions answered without a forward pass", ["bundle"], registry=registry
        )
        self.in_flight = Gauge("rayprob_requests_in_flight", "requests that wait or are computed", registry=registry)

    def request(self, route: str, status: int, elapsed_s: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(elapsed_s)

    def answer(self, bundle: str, *, batch: int, is_new: bool) -> None:
        """Count an answer, and the forward pass that it is the first of."""
        (self.images if is_new else self.remembered).labels(bundle).inc()
        if batch:
            self.batches.labels(bundle).observe(batch)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        return generate_latest(self._registry)
