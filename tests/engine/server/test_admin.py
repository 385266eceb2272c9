"""Asking for the policy that rules, and for another."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from engine.server.admin import admin_router
from engine.server.client import ServerError
from tests.engine.server.watched import Watched, ready

KEY = {"X-Key": "open"}


def only_with_key(request: Request) -> None:
    if request.headers.get("X-Key") != "open":
        raise HTTPException(403)


@pytest.fixture
def http() -> TestClient:
    app = FastAPI()
    app.state.max_body_bytes = 1000
    app.include_router(admin_router(Watched(ready()), dependencies=[Depends(only_with_key)]))

    @app.exception_handler(ServerError)
    async def answer(_request: Request, error: ServerError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    return TestClient(app)


def test_nobody_gets_through_without_a_key(http: TestClient) -> None:
    assert http.get("/admin/policy").status_code == 403
    assert http.post("/admin/policy", json={"policy": "orca"}).status_code == 403
    assert http.get("/admin/policy", headers=KEY).json()["policy"] == "sarathi-serve"


def test_a_policy_takes_another_ones_place(http: TestClient) -> None:
    asked = {"policy": "vllm-v1", "max_num_batched_tokens": 4096}
    answer = http.post("/admin/policy", json=asked, headers=KEY)
    assert answer.status_code == 200
    assert asked.items() <= answer.json().items()
    assert http.get("/admin/policy", headers=KEY).json() == answer.json()


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"policy": "best"}, 400, "unknown policy 'best'"),
        ({"policy": "orca", "max_num_seq": 3}, 400, "max_num_seq"),
        ({}, 400, "key 'policy' is missing"),
        ([], 422, ""),
        ({"policy": "orca" + " " * 1000}, 413, ""),
    ],
)
def test_what_is_no_policy_leaves_the_old_one(http: TestClient, asked: object, status: int, says: str) -> None:
    answer = http.post("/admin/policy", json=asked, headers=KEY)
    assert answer.status_code == status
    assert says in answer.text
    assert http.get("/admin/policy", headers=KEY).json()["policy"] == "sarathi-serve"
