"""Load on a server: clients in threads that send images one after the other, and what they measured."""

import http.client
import itertools
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Outcomes:
    """What clients saw: seconds per answered request, statuses (0: no answer), and the fingerprints of the bundles."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    fingerprints: set[bytes] = field(default_factory=set)

    @property
    def per_s(self) -> float:
        """Answered requests per second."""
        return len(self.seconds) / self.elapsed_s

    @property
    def failed(self) -> int:
        """Requests with another status than 200."""
        return sum(count for status, count in self.statuses.items() if status != 200)

    def percentile_ms(self, percent: int) -> float:
        """Return the latency that `percent` of the answered requests did not exceed."""
        if len(self.seconds) < 2:
            return 1e3 * sum(self.seconds)
        return 1e3 * statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        latencies = " ".join(f"{self.percentile_ms(percent):7.0f}" for percent in (50, 95, 99))
        return f"{self.per_s:8.1f} {latencies} {1e3 * max(self.seconds, default=0):7.0f} {self.failed:6d}"


FINGERPRINT = re.compile(rb'"fingerprint":"(\w+)"')
HEADING = f"{'req/s':>8} {'p50 ms':>7} {'p95 ms':>7} {'p99 ms':>7} {'max ms':>7} {'errors':>6}"


class Load:
    """`clients` threads that send images until `stop`, or until `most` requests were sent."""

    def __init__(self, url: str, images: Sequence[bytes], clients: int, most: int | None = None) -> None:
        self._place, self._images, self._most = urlsplit(url), images, most
        self._number, self._lock, self._stopping = itertools.count(), threading.Lock(), threading.Event()
        self.outcomes = Outcomes()
        self._threads = [threading.Thread(target=self._send_all) for _ in range(clients)]

    def run(self) -> Outcomes:
        """Send all requests, and return what the clients saw."""
        self.start()
        return self.finish()

    def start(self) -> None:
        """Start the clients."""
        self._started_s = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> Outcomes:
        """Let each client finish its request, and return what they saw."""
        self._stopping.set()
        return self.finish()

    def finish(self) -> Outcomes:
        """Wait for the clients, and return what they saw."""
        for thread in self._threads:
            thread.join()
        self.outcomes.elapsed_s = time.perf_counter() - self._started_s
        return self.outcomes

    def _send_all(self) -> None:
        connection = http.client.HTTPConnection(str(self._place.hostname), self._place.port, timeout=120)
        while not self._stopping.is_set() and ((number := next(self._number)) < (self._most or number + 1)):
            started_s = time.perf_counter()
            status = self._sent(connection, self._images[number % len(self._images)])
            with self._lock:
                self.outcomes.statuses[status] += 1
                if status == 200:
                    self.outcomes.seconds.append(time.perf_counter() - started_s)
        connection.close()

    def _sent(self, connection: http.client.HTTPConnection, image: bytes) -> int:
        try:
            connection.request("POST", "/v1/predict", body=image)
            response = connection.getresponse()
            self.outcomes.fingerprints.update(FINGERPRINT.findall(response.read()))
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0
        return response.status
