"""A Ray of two cores in a process of its own, for sweeps that join it: until its standard input closes."""

import sys

import ray


def main() -> None:
    """Start Ray with the dashboard that Ray Tune needs, say where it is, and wait."""
    started = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=True,
        logging_level="ERROR",
        log_to_driver=False,
    )
    print(started.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
