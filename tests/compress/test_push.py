"""Pushing to a stand-in of the hub: what arrives there, and what is said where it refuses."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mirror import MirrorEncoder
from tests.conftest import ROOT

TOKEN = "hf_" + "a" * 34


@dataclass
class Hub:
    """The few addresses of the hub that a push asks for."""

    server: ThreadingHTTPServer
    refuse: int | None = None
    repositories: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, {"error": "You are not allowed to write here"}
        if path == "/api/repos/create":
            self.repositories.append(json.loads(body))
            return 200, {"url": f"{self.address}/someone/encoder", "id": "someone/encoder"}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"commitUrl": f"{self.address}/someone/encoder/commit/1", "commitOid": "1", "success": True}
        return 404, {}


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(b"")

        def do_HEAD(self) -> None:
            self.reply(b"")

        def do_POST(self) -> None:
            found.tokens.add(self.headers.get("authorization"))
            self.reply(self.rfile.read(int(self.headers.get("content-length") or 0)))

        def reply(self, body: bytes) -> None:
            status, content = found.answer(self.path.partition("?")[0], body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    found = Hub(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    MirrorEncoder.load(tiny_bert, "mean").save(folder, {"README.md": "# A card\n"})
    return folder


def exported(folder: Path, endpoint: str, token: str | None, *typed: str) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")} | ({"HF_TOKEN": token} if token else {})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | own
    command = [sys.executable, str(ROOT / "scripts" / "export.py"), f"hydra.run.dir={folder}/run", *typed]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_every_file_arrives(hub: Hub, encoder: Path, tmp_path: Path) -> None:
    result = exported(tmp_path, hub.address, TOKEN, f"encoder={encoder}", "push=someone/encoder")
    assert result.returncode == 0, result.stderr
    assert f"pushed to {hub.address}/someone/encoder" in result.stdout + result.stderr
    assert hub.repositories == [{"name": "encoder", "organization": "someone", "visibility": "private"}]
    there = {str(path.relative_to(encoder)): path.read_bytes() for path in encoder.rglob("*") if path.is_file()}
    assert hub.files == there
    assert hub.tokens == {f"Bearer {TOKEN}"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert TOKEN.encode() not in written


def test_the_smaller_one_is_pushed(hub: Hub, encoder: Path, eval_dir: Path, tmp_path: Path) -> None:
    typed = [f"encoder={encoder}", f"eval.data_dir={eval_dir}", "weights=fp16", "push=someone/encoder", "private=false"]
    result = exported(tmp_path, hub.address, TOKEN, *typed)
    assert result.returncode == 0, result.stderr
    assert hub.repositories[0]["visibility"] == "public"
    assert hub.files["model.safetensors"] == (tmp_path / "run" / "encoder" / "model.safetensors").read_bytes()
    assert b"Made smaller of" in hub.files["README.md"]


@pytest.mark.parametrize(
    ("name", "token", "reason"),
    [
        ("someone/encoder", None, "push=someone/encoder needs a token of the hub: run hf auth login, or set HF_TOKEN."),
        ("encoder", TOKEN, "push=encoder does not say whose it is: write push=your-name/encoder."),
        ("some--one/en..coder", TOKEN, "is no name on the hub"),
    ],
)
def test_refused_at_once(name: str, token: str | None, reason: str, encoder: Path, hub: Hub, tmp_path: Path) -> None:
    result = exported(tmp_path, hub.address, token, f"encoder={encoder}", f"push={name}")
    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert hub.repositories == []


def test_the_hub_refuses(hub: Hub, encoder: Path, tmp_path: Path) -> None:
    hub.refuse = 403
    result = exported(tmp_path, hub.address, TOKEN, f"encoder={encoder}", "push=someone/encoder")
    assert result.returncode == 1
    assert "push=someone/encoder: the hub refuses (You are not allowed to write here)" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_hub_does_not_answer(encoder: Path, tmp_path: Path) -> None:
    result = exported(tmp_path, "http://127.0.0.1:9", TOKEN, f"encoder={encoder}", "push=someone/encoder")
    assert result.returncode != 0
    assert "push=someone/encoder: the hub does not answer" in result.stderr
    assert "Traceback" not in result.stderr
