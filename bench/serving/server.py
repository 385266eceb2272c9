"""The server as a process of its own, with a model that is made up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
MODEL = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
    "eos_token_id": None,
}
"""Two layers, and a token for each byte: what is measured is the server, not the model."""
KV_BLOCKS = 1024
"""So few that prefixes are evicted, and all of them are touched within seconds: memory that grows is none of theirs."""
END_S = 90
"""How long a server may take from SIGTERM to its end."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that listens.

    Attributes
    ----------
    process, engine_pid
        The server's process, and the id of its engine's.
    host, port
        Where it listens.
    log
        The file of its standard error.
    """

    process: subprocess.Popen[str]
    engine_pid: int
    host: str
    port: int
    log: Path

    @property
    def pids(self) -> dict[str, int]:
        """The ids of its processes."""
        return {"server": self.process.pid, "engine": self.engine_pid}

    def metrics(self) -> dict[str, float]:
        """Return its metrics, by name and labels without those that all have."""
        with urlopen(f"http://{self.host}:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        samples = (re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line) for line in lines if not line.startswith("#"))
        return {_name(each[1], each[2] or ""): float(each[3]) for each in samples if each}

    def stop(self) -> int | None:
        """Send SIGTERM; return the exit status, None where it does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return None

    def complaints(self) -> list[str]:
        """Return what its log holds beside what it says in good order."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if " INFO " not in line]


def _name(name: str, labels: str) -> str:
    own = [each for each in labels.split(",") if each and not each.startswith(("model_name=", "engine="))]
    return name + (f"{{{','.join(own)}}}" if own else "")


@contextmanager
def serving(folder: Path, options: Sequence[str]) -> Iterator[Server]:
    """Start ``python -m engine serve`` with the options, and a model in ``folder``; it is dead in the end.

    Raises
    ------
    RuntimeError
        If it does not start, with what it said.
    """
    (folder / "config.json").write_text(json.dumps(MODEL))
    log = folder / "server.log"
    command = [sys.executable, "-m", "engine", "serve", "--model", str(folder / "config.json")]
    command += ["--load-format", "dummy", "--served-model-name", "tiny", "--port", "0"]
    command += ["--num-gpu-blocks-override", str(KV_BLOCKS), *options]
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = re.search(r" at http://([\d.]+):(\d+): ", process.stdout.readline())
        if said is None:
            raise RuntimeError(f"the server did not start: {log.read_text().strip()}")
        engine = engine_pid(process.pid)
        yield Server(process=process, engine_pid=engine, host=said[1], port=int(said[2]), log=log)
    finally:
        process.kill()
        process.communicate()


def engine_pid(server_pid: int) -> int:
    """Return the id of the engine's process: of the server's children the one with the most memory."""
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    return max(map(int, children), key=resident_bytes)


def resident_bytes(pid: int) -> int:
    """Return what a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Return the seconds of processors that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
