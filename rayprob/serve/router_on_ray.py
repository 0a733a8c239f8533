"""Sends all questions about an image to the replica that remembers it."""

import hashlib
import random

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class ByImage(RequestRouter):  # type: ignore[misc]  # Ray has no types here
    """Prefers one replica for each image, as long as that is not full.

    Replicas rank by a hash of their id and the image's (rendezvous hashing, Thaler and Ravishankar 1998): if replicas come or
    go, only the images of these change places. The first argument of a call is the image's hash.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas one by one, the preferred one first; for a call without an image, in any order."""
        image = pending_request.args[0] if pending_request and pending_request.args else random.random()

        def rank(replica: RunningReplica) -> bytes:
            return hashlib.blake2b(f"{image} {replica.replica_id.unique_id}".encode(), digest_size=8).digest()

        return [[replica] for replica in sorted(candidate_replicas, key=rank)]
