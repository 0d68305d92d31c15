"""No key that was made is in anything that a run writes, whichever way it came and whatever was wrong with the request."""

import os
from pathlib import Path

import pytest

from sandpost.model.names import SYSTEM
from support.http import exchange, request
from support.logs import until_said
from support.platform import Platform

HELLO = "return function (cb) { cb(null, 1) }"


def test_keys_that_are_sent_in_every_wrong_way_are_written_nowhere(running: Platform) -> None:
    running.set_tenant("careful")
    key = running.api("POST", "/api/tenants/careful/keys", {}).json["key"]
    made = running.command("key", "create", "--json")
    assert made.returncode == 0, made.stderr
    assert {key} < running.keys
    assert len(running.keys) > 1
    for one in (running.key, *running.keys):
        bearer = {"Authorization": f"Bearer {one}"}
        for method, target, headers in (
            ("POST", f"/careful?key={one}", {}),
            ("POST", f"/_{one}?key={one}", {}),
            ("GET", f"/_{one}", bearer),
            ("GET", f"/api/tenants?kye={one}", bearer),
            ("GET", f"/api/tenants/{one}", bearer),
            ("GET", f"/api/{one}", bearer),
            ("DELETE", f"/api/keys/{one}", bearer),
            ("GET", f"/logs/tenant/careful?offset={one}", bearer),
            ("GET", f"/logs/tenant/careful?follow=false&f.msg={one}", bearer),
            ("GET", f"/logs/system?since={one}&key={one}", {}),
            ("PUT", "/api/tenants/careful", {"Authorization": f"Basic {one}"}),
            ("PUT", "/api/tenants/careful", bearer),
        ):
            body = HELLO if method == "POST" else f'{{"limits": "{one}"}}' if method == "PUT" else None
            request(running.port, method, target, body, headers)
        exchange(running.port, f"GET /careful?key={one} HTTP/9.9\r\nAuthorization: Bearer {one}\r\n\r\n".encode())
    until_said(running.host.logs_dir, SYSTEM, "management request refused")
    assert running.shown_keys() == []


@pytest.mark.parametrize("where", ["state_dir", "run_dir"])
def test_a_key_in_any_file_is_found(running: Platform, where: str) -> None:
    path = Path(getattr(running.host, where), "planted")
    path.write_text(f'{{"msg": "{running.key}"}}')
    try:
        assert running.shown_keys() == [f"{path} has the key {running.key[:12]}.."]
    finally:
        path.unlink()


def test_a_key_in_what_was_printed_is_found(running: Platform) -> None:
    key, running.key = running.key, "this is what serve printed"
    os.write(running._log.fileno(), running.key.encode())
    try:
        assert any(found.startswith("output has the key") for found in running.shown_keys())
    finally:
        running.key = key
