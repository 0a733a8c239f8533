"""From a manifest to batches: deterministic, exactly-once, resumable at any step."""
