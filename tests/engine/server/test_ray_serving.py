"""``python -m engine serve --replicas 2``: two real engines, placed by a real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest
from openai.types import Completion

pytest.importorskip("ray", reason="replicas need the extra [ray]")

from prometheus_client.parser import text_string_to_metric_families

from engine.engine import Engine
from engine.sampling import SamplingParams
from engine.server.tokenizers import server_tokenizer
from engine.session import EngineSettings, build_engine, policy_choice
from tests.engine.server.http_double import wait_until
from tests.engine.server.test_http_serve import CONFIG

GREEDY = {"model": "tiny", "temperature": 0}
ADMIN = {"Authorization": "Bearer admin"}


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def pid(self, replica: int) -> int:
        """The latest process of a replica, as the log says."""
        said = [line for line in self.lines if f"replica {replica} is up: process" in line]
        return int(said[-1].split()[-1])

    def ups(self) -> int:
        return sum("is up: process" in line for line in self.lines)

    def metric(self, name: str, label: str = "", value: str = "") -> dict[str, float]:
        """The values of a metric by engine."""
        samples = [
            sample
            for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
            for sample in family.samples
            if sample.name == name and sample.labels.get(label, "") == value
        ]
        return {sample.labels["engine"]: sample.value for sample in samples}

    def policies(self) -> dict[str, str]:
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        samples = [
            sample for family in families for sample in family.samples if sample.name == "charioteer:policy_info"
        ]
        return {sample.labels["engine"]: sample.labels["policy"] for sample in samples}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tiny") / "config.json"
    file.write_text(json.dumps(CONFIG))
    return file


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "engine", "serve", "--model", str(model), "--load-format", "dummy", "--port", "0"]
    command += ["--served-model-name", "tiny", "--replicas", "2", "--router", "round-robin", "--max-model-len", "2048"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CHARIOTEER_ADMIN_KEY": "admin"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving tiny at http://127.0.0.1:"), line + process.communicate()[1]
        made = Served(process, line.split(" at ")[1].split(": ")[0])
        threading.Thread(target=lambda: made.lines.extend(process.stderr or ()), daemon=True).start()
        wait_until(lambda: made.ups() == 2)
        yield made
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def alone(model: Path) -> Engine:
    """A single engine of the same model."""
    settings = EngineSettings(model=str(model), load_format="dummy", max_model_len=2048)
    return build_engine(settings, policy_choice(settings), longest=None, tokenizer=server_tokenizer(str(model)))


def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def test_requests_are_spread_and_tokens_are_those_of_one_engine(served: Served, alone: Engine) -> None:
    prompts = [[3 * each, 5, 7 + each] for each in range(6)]
    expected = [request.text for request in alone.generate(prompts, SamplingParams(max_tokens=12, temperature=0))]
    answers = [client(served).completions.create(**GREEDY, prompt=prompt, max_tokens=12) for prompt in prompts]
    assert [answer.choices[0].text for answer in answers] == expected
    assert served.metric("vllm:request_success_total", "finished_reason", "length") == {"0": 3, "1": 3}


def test_a_policy_rules_both(served: Served) -> None:
    assert served.policies() == {"0": "vllm-v1", "1": "vllm-v1"}
    asked = {"policy": "sarathi-serve", "max_num_batched_tokens": 256}
    answer = httpx.post(f"{served.url}/admin/policy", json=asked, headers=ADMIN)
    assert answer.json()["policy"] == "sarathi-serve"
    assert served.policies() == {"0": "sarathi-serve", "1": "sarathi-serve"}


def test_a_replica_that_is_killed_takes_only_what_had_begun(served: Served) -> None:
    before = served.metric("vllm:request_success_total", "finished_reason", "length")
    streams = [client(served).completions.create(**GREEDY, prompt="x", max_tokens=1800, stream=True) for _ in range(2)]
    chunks = [iter(stream) for stream in streams]
    for each in chunks:
        next(each)
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        answer = client(served).completions.create(**GREEDY, prompt="y", max_tokens=1000)
        outcomes[answer.choices[0].text] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(served.metric("vllm:num_requests_running").values()) == 10)
    killed = served.pid(0)
    os.kill(killed, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert list(outcomes.values()) == [8]
    ends = sorted(end_of(each) for each in chunks)
    assert ends[0] == "length"
    assert "process is gone" in ends[1]
    assert httpx.get(f"{served.url}/health").status_code == 200
    wait_until(lambda: served.ups() == 3, seconds=60)
    assert served.pid(0) != killed
    assert served.policies() == {"0": "sarathi-serve", "1": "sarathi-serve"}
    for _ in range(2):
        client(served).completions.create(**GREEDY, prompt="x", max_tokens=2)
    after = served.metric("vllm:request_success_total", "finished_reason", "length")
    assert sum(after.values()) - sum(before.values()) == 1 + 8 + 2
    assert after["0"] > before["0"]


def end_of(chunks: Iterator[Completion]) -> str:
    try:
        return str([chunk.choices[0].finish_reason for chunk in chunks][-1])
    except openai.APIError as error:
        return f"no end: {error}"


def test_nothing_is_left_of_it(served: Served) -> None:
    family = descendants(served.process.pid)
    assert {served.pid(0), served.pid(1)} <= set(family)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(timeout=60) == 0
    wait_until(lambda: not [pid for pid in family if alive(pid)])
    assert not [line for line in served.lines if "Traceback" in line]


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
