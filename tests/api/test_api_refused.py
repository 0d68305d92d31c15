"""What is refused stands in the api's log, without a word of the caller's, and not more often than the operator can read."""

import json
from typing import Any

from sandpost.api.refused import RATE
from support.installation import KEY, Installation, installation, wait_for


def told(api: Installation, text: str = "management request refused") -> list[dict[str, Any]]:
    return [record for record in map(json.loads, api.log().splitlines()) if record["msg"] == text]


def test_what_is_refused_is_told_with_who_asked_and_why() -> None:
    with installation() as api:
        api.call("PUT", "/api/tenants/mine", {})
        key = api.call("POST", "/api/tenants/mine/keys", {}).json()["key"]
        secret = "a-password-in-the-wrong-place"
        asked = [
            (api.call("GET", "/api/tenants/theirs", key=key), "/api/tenants/{tenant}", "mine"),
            (api.call("GET", f"/logs/tenant/mine?tail={secret}", key=key), "/logs/tenant/{tenant}", "mine"),
            (api.call("GET", "/logs/system", key=KEY), "/logs/system", None),
            (api.call("PUT", "/api/tenants/mine", {secret: secret}), "/api/tenants/{tenant}", "the operator"),
            (api.call("GET", f"/api/{secret}", key=""), "other", None),
        ]
        wait_for(lambda: len(told(api)) == len(asked))
        for record, (answer, route, caller) in zip(told(api), asked, strict=True):
            said = answer.json()
            assert (record["status"], record["reason"], record["req_id"]) == (
                said["code"],
                said["reason"],
                said["req_id"],
            )
            assert (record["route"], record.get("caller"), record["component"]) == (route, caller, "api")
        assert {record["status"] for record in told(api)} == {400, 403, 404}
        assert secret not in api.log()
        assert key not in api.log()
        assert api.call("GET", "/api/tenants/mine").status_code == 200
        assert len(told(api)) == len(asked)


def test_a_flood_of_refusals_is_summed_by_the_second_and_none_is_left_out() -> None:
    with installation() as api:
        flood = 4 * RATE
        for _ in range(flood):
            assert api.call("GET", "/api/tenants", key="wrong").status_code == 403

        def all_told() -> bool:
            sums = told(api, "more management requests were refused")
            assert all(sum(one["statuses"].values()) == one["requests"] for one in sums)
            counted: int = len(told(api)) + sum(one["requests"] for one in sums)
            return counted == flood

        wait_for(all_told)
        assert told(api, "more management requests were refused")
