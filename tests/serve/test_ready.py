"""What `rayprob serve` is given: names of bundles, options, tokens and ports; first mistakes are answered before Ray starts."""

import os
import socket
from pathlib import Path

import pytest

from rayprob.config.kinds import kind_of
from rayprob.errors import BundleError, ServeError, SpecError
from rayprob.serve.access import is_allowed, read_token
from rayprob.serve.asked import read_served
from rayprob.serve.ready import require_ready, url_of
from rayprob.serve.shares import Share, share_of
from rayprob.serve.spec import ServeFile, ServeSpec, name_and_folder

GOOD = "0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(GOOD + "\n")
    path.chmod(0o600)
    return path


def served(*bundles: str, overrides: tuple[str, ...] = (), **given: object) -> ServeFile:
    return read_served(bundles, given, overrides)


def test_a_bundle_is_named_by_its_run_or_as_asked(tmp_path: Path, bundle_path: str) -> None:
    assert name_and_folder("birds=runs/birds/bundle") == ("birds", "runs/birds/bundle")
    assert name_and_folder("runs/birds/") == ("birds", "runs/birds/")
    assert name_and_folder("runs/birds/bundle") == ("birds", "runs/birds/bundle")
    assert name_and_folder("runs/a=b") == ("a=b", "runs/a=b")
    assert name_and_folder("s3://bucket/runs/x") == ("x", "s3://bucket/runs/x")
    assert served("a/x", "b=b/x").bundles == {"x": "a/x", "b": "b/x"}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.yaml").write_text("name: demo\n")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert served(one, two, f"three={two}").bundles == {"demo": one, "two": two, "three": two}
    (tmp_path / "one" / "run.yaml").write_text("name: [\n")
    assert served(one).bundles == {"one": one}
    with pytest.raises(SpecError, match="two bundles are named x: a/x and b/x; name them, NAME=FOLDER"):
        served("a/x", "b/x")
    with pytest.raises(SpecError, match=r"may have up to 63 letters, digits, dots, dashes and underscores; got 'a b'"):
        served("a b=x")


def test_options_and_keys_override_each_other_and_are_named_in_errors(tmp_path: Path) -> None:
    file = served("x", overrides=("limits.timeout_s=3", "batch.images=8"), port=8080, **{"batch.images": 4})
    assert (file.port, file.limits.timeout_s, file.batch.images) == (8080, 3.0, 8)
    with pytest.raises(SpecError, match=r"--port: .*less than 65536"):
        served("x", port=70_000)
    with pytest.raises(SpecError, match=r"--set limits.timeout=3, rayprob serve has 1 fault:\n.*nearest: timeout_s"):
        served("x", overrides=("limits.timeout=3",))
    with pytest.raises(SpecError, match="the most replicas must be at least the number of replicas, 3; got 2"):
        served("x", **{"replicas.number": 3, "replicas.most": 2})


def test_a_serve_file_is_read_and_known_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("bundles: {demo: /mnt/shared/demo}\nhost: 0.0.0.0\ntoken_variable: TOKEN\n")
    file = served(str(path), port=9000)
    assert (file.bundles, file.host, file.port) == ({"demo": "/mnt/shared/demo"}, "0.0.0.0", 9000)
    kind = kind_of({"bundles": {}})
    assert kind
    assert kind.command == "rayprob serve"
    path.write_text("data: {}\nmodel: {}\n")
    with pytest.raises(SpecError, match="is a run file, not a serve file; use `rayprob train"):
        served(str(path))


def test_what_is_missing_is_named_with_what_to_do(bundle_path: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*/none: it does not exist; give the folder that"):
        require_ready(served(str(tmp_path / "none")))
    with pytest.raises(ServeError, match=r"others can reach 0.0.0.0, so it needs a token; .* add --token-file"):
        require_ready(served(bundle_path, host="0.0.0.0"))
    with pytest.raises(ServeError, match=r"unknown host no.such.host.invalid; give an address of this machine"):
        require_ready(served(bundle_path, host="no.such.host.invalid", token_file=None, overrides=("token_variable=PATH",)))


def test_missing_packages_are_named_with_the_extra(bundle_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServeError, match=r"serve needs python-multipart, ray\[serve\], which is missing; run pip"):
        require_ready(served(bundle_path))


def test_a_port_in_use_is_named_with_another_one(bundle_path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServeError, match=rf"port {port} of 127.0.0.1 is in use; stop .* --port {port + 1}"):
            require_ready(served(bundle_path, port=port))
    require_ready(served(bundle_path, port=port))


def test_a_token_is_read_from_a_private_file_or_a_variable(token_file: Path) -> None:
    assert read_token(str(token_file), None) == GOOD
    assert read_token(None, "SECRET", {"SECRET": GOOD}) == GOOD
    assert read_token(None, None) is None
    with pytest.raises(ServeError, match="the environment variable SECRET is not set"):
        read_token(None, "SECRET", {})
    for mode in (0o640, 0o604, 0o666):
        token_file.chmod(mode)
        with pytest.raises(ServeError, match=rf"other users can read the token file .* \(mode {mode:o}\); run chmod 600"):
            read_token(str(token_file), None)


@pytest.mark.parametrize(
    "text", ["", "short", "two words of sixteen", "ü" * 20, "with\x00zero" * 3, "one-line-of-16-xx\nand-another-one"]
)
def test_a_token_that_protects_little_or_cannot_be_sent_is_refused(text: str) -> None:
    with pytest.raises(ServeError, match="must contain one token of at least 16 ASCII letters, without spaces; to make"):
        read_token(None, "SECRET", {"SECRET": text})


def test_a_missing_token_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"cannot read the token file .*: No such file or directory; to make one: \(umask 077"):
        read_token(str(tmp_path / "none"), None)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 20)
    os.chmod(tmp_path / "bytes", 0o600)
    with pytest.raises(ServeError, match="it is not text"):
        read_token(str(tmp_path / "bytes"), None)


def test_only_the_whole_token_is_allowed() -> None:
    assert is_allowed(None, None)
    assert is_allowed(f"Bearer {GOOD}", GOOD)
    for header in (None, "", "Bearer", GOOD, f"Bearer {GOOD[:-1]}", f"Bearer {GOOD}{GOOD}", "Bearer ü"):
        assert not is_allowed(header, GOOD)


def test_the_address_for_a_browser() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::", 80) == "http://[::1]:80"


@pytest.mark.parametrize(
    ("bundles", "replicas", "resources", "share"),
    [
        (1, {}, {"CPU": 8}, Share(1, 8, 8, 0)),
        (1, {}, {"CPU": 96, "GPU": 8}, Share(8, 12, 12, 1)),
        (2, {}, {"CPU": 96, "GPU": 8}, Share(4, 12, 12, 1)),
        (3, {}, {"CPU": 8, "GPU": 1}, Share(1, 2, 2, 0.3333)),
        (1, {"number": 4}, {"CPU": 2}, Share(4, 0.5, 1, 0)),
        (1, {"most": 4}, {"CPU": 8}, Share(1, 2, 2, 0)),
        (1, {"number": 2, "cpus": 3}, {"CPU": 8}, Share(2, 3, 3, 0)),
        (1, {"most": 4, "cpus": 4, "gpus": 1}, {"CPU": 8, "GPU": 1}, Share(1, 4, 4, 1)),
    ],
)
def test_replicas_share_what_there_is(
    bundles: int, replicas: dict[str, int], resources: dict[str, float], share: Share
) -> None:
    spec = ServeSpec.parse({"bundles": {f"b{place}": "x" for place in range(bundles)}, "replicas": replicas})
    assert share_of(spec, resources) == share


def test_images_of_a_dataset_are_offered_only_where_no_token_is_needed(tmp_path: Path) -> None:
    def offered(**keys: object) -> int:
        return ServeFile.parse({"bundles": {"a": str(tmp_path)}, **keys}).most_examples

    assert [offered(), offered(token_file="token"), offered(token_file="token", examples=3), offered(examples=0)] == [
        12,
        0,
        3,
        0,
    ]
    assert ServeSpec.parse({"bundles": {"a": str(tmp_path)}}).most_examples == 0
