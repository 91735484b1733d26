"""A stand-in of W&B's server: what an agent and its runs ask for, and a record of all that they send."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEAM, PROJECT, SWEEP = "team", "mirror", "abcd1234"
PLACE = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": TEAM}}


class Server:
    """Hands out the runs of one sweep, one after another.

    Args:
        points: the parameters of each run.
        stopped: whether the sweep gives up a run, by its number, for the metrics that it has sent: what Hyperband does.
    """

    def __init__(
        self, points: Sequence[Mapping[str, Any]], stopped: Callable[[int, list[dict[str, Any]]], bool]
    ) -> None:
        self.points, self.stopped = points, stopped
        self.address = ""
        self.sweep: str = ""
        """The file that the sweep was made from."""
        self.sent: list[str] = []
        """Every request as text."""
        self.names: dict[str, str] = {}
        """What a run is shown as, by its id; the others likewise."""
        self.configs: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self.history: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.summaries: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, int] = {}
        self.files: dict[str, bytes] = {}
        """Uploads by name; of several, the last."""
        self._begun = 0

    def answer(self, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """To a request in GraphQL."""
        match operation:
            case "Viewer":
                return {"viewer": {"id": "v", "entity": TEAM, "username": "u", "flags": "{}", "teams": {"edges": []}}}
            case "UpsertSweep":
                self.sweep = given["config"]
                return {"upsertSweep": {"sweep": {"name": SWEEP, "project": PLACE}, "configValidationWarnings": []}}
            case "SweepWithRuns":
                found = {"id": "s", "name": SWEEP, "config": self.sweep, "state": "RUNNING", "runs": {"edges": []}}
                return {"project": {"sweep": found}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "a"}}}
            case "Heartbeat":
                commands = json.dumps(self._commands(json.loads(given["runState"])))
                return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": commands}}
            case "UpsertBucket":
                return {"upsertBucket": {"bucket": self._run(given), "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.address}/put/{name}"} for name in given["files"]]
                return {"createRunFiles": {"runID": "storage", "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "CreateArtifact":
                made = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"id": "q", "latestArtifact": None}}
                return {"createArtifact": {"artifact": made}}
        return {}

    def _commands(self, running: Mapping[str, bool]) -> list[dict[str, Any]]:
        if not running:
            if self._begun == len(self.points):
                return [{"type": "exit"}]
            arguments = {name: {"value": value} for name, value in self.points[self._begun].items()}
            self._begun += 1
            run = f"run{self._begun}"
            return [{"type": "run", "run_id": run, "program": "scripts/train.py", "args": arguments}]
        stop = [run for run in running if self.stopped(int(run.removeprefix("run")), self.history[run])]
        return [{"type": "stop", "run_id": run} for run in stop]

    def _run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        name = given["name"]
        if shown := given["displayName"]:
            self.names[name] = shown
        self.configs[name] |= {
            key: item["value"] for key, item in json.loads(given["config"] or "{}").items() if key != "_wandb"
        }
        run = {"id": "storage", "name": name, "displayName": self.names.get(name, ""), "config": "{}"}
        return run | {"sweepName": given["sweep"], "project": PLACE, "historyLineCount": 0}

    def stream(self, run: str, sent: Mapping[str, Any]) -> None:
        """What a run logs while it runs."""
        files = sent.get("files", {})
        self.history[run] += map(json.loads, files.get("wandb-history.jsonl", {}).get("content", []))
        for summary in files.get("wandb-summary.json", {}).get("content", []):
            self.summaries[run] = json.loads(summary)
        if sent.get("complete"):
            self.ends[run] = sent["exitcode"]


@contextmanager
def wandb_server(
    points: Sequence[Mapping[str, Any]],
    stopped: Callable[[int, list[dict[str, Any]]], bool] = lambda *_: False,
) -> Iterator[Server]:
    """A server of this process; its address is ``server.address``."""
    server = Server(points, stopped)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.sent.append(f"{self.path} {body.decode('utf-8', 'replace')}")
            return body

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            server.files[self.path.removeprefix("/put/")] = self._body()
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                assert operation
                self._answer({"data": server.answer(operation[1], asked.get("variables") or {})})
                return
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body))
            self._answer({})

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.handle_error = lambda *_: None  # type: ignore[method-assign] # clients hang up as they like
    server.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
