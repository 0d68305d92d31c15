"""The resolver as a sandbox sees it: a real egress process in a lab without a way out."""

import asyncio
import socket
import struct
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import msgspec
import pytest

from sandpost.egress.budget import SLOW
from sandpost.model import messages as m
from support.egress_lab import ONE, PLATFORM, RESOLVER, SECOND, STRANGER, TWO, Lab, ede, in_lab, sock_in, texts, zone

WORLD = zone(
    "www.example.com 300 A 203.0.113.5",
    "alias.example.com 300 CNAME www.example.com.",
    'www.example.com 60 TXT "hello"',
    "evil.example.com 300 A 203.0.113.5",
    "evil.example.com 300 A 10.0.0.5",
    "metadata.example.com 300 CNAME deep.example.com.",
    "deep.example.com 300 A 169.254.169.254",
    "loop.example.com 300 CNAME pool.example.com.",
    "pool.example.com 300 CNAME loop.example.com.",
    "long.example.com 300 TXT " + " ".join(f'"{"x" * 200}"' for _ in range(6)),
    "web.example.com 300 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.5 ipv6hint=2001:db8::1 ech=AAT+DQAA",
    "mail.example.com 300 MX 10 www.example.com.",
    "5.113.0.203.in-addr.arpa 300 PTR www.example.com.",
)


def test_names_of_the_world_are_found_and_kept() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        outside = lab.resolver(WORLD)
        for _ in range(3):
            answer = await lab.ask("www.example.com")
            assert texts(answer) == ["203.0.113.5"]
            assert answer.flags & dns.flags.RA
        assert outside.asked == [("www.example.com", "A")]
        assert texts(await lab.ask("alias.example.com")) == ["www.example.com.", "203.0.113.5"]
        assert texts(await lab.ask("www.example.com", "TXT")) == ['"hello"']
        assert texts(await lab.ask("mail.example.com", "MX")) == ["10 www.example.com."]
        assert texts(await lab.ask("5.113.0.203.in-addr.arpa", "PTR")) == ["www.example.com."]
        missing = await lab.ask("nowhere.example.com")
        assert missing.rcode() == dns.rcode.NXDOMAIN
        await lab.until(lambda: lab.figure("sandpost_questions_total") == 8)
        assert lab.figure("sandpost_questions_kept_total") == 2
        assert lab.figure("sandpost_ways") == 1

    in_lab(body)


def test_an_answer_with_a_forbidden_address_is_none_and_is_noted() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(WORLD)
        for name, address in (("evil.example.com", "10.0.0.5"), ("metadata.example.com", "169.254.169.254")):
            answer = await lab.ask(name)
            assert (answer.rcode(), texts(answer)) == (dns.rcode.REFUSED, [])
            [(code, text)] = ede(answer)
            assert code == 17
            assert address in text
        await lab.until(lambda: len(lab.said("name_filtered")) == 2)
        assert lab.notes[0].sandbox_id == f"of-{ONE}"
        assert lab.said("name_filtered")[0].startswith("evil.example.com: it leads to 10.0.0.5")
        await lab.until(lambda: lab.figure("sandpost_questions_refused_total", reason="name_filtered") == 2)

    in_lab(body)


def test_no_ipv6_address_reaches_a_sandbox_and_clients_go_on_with_ipv4() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        outside = lab.resolver(zone("www.example.com 300 AAAA ::ffff:10.0.0.5"))
        answer = await lab.ask("www.example.com", "AAAA")
        assert (answer.rcode(), texts(answer), ede(answer)) == (dns.rcode.NOERROR, [], [])
        assert outside.asked == []

    in_lab(body)


def test_https_records_carry_no_ech_and_no_hints_that_go_around() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.way(TWO, "allow:web.example.com", "listed")
        lab.resolver(WORLD)
        assert texts(await lab.ask("web.example.com", "HTTPS")) == ['1 . alpn="h2" ipv4hint="203.0.113.5"']
        assert texts(await lab.ask("web.example.com", "HTTPS", TWO)) == ['1 . alpn="h2"']

    in_lab(body)


def test_what_is_not_answered() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.way(TWO, "none", "quiet")
        outside = lab.resolver(WORLD)
        for kind in ("ANY", "AXFR", "NULL", "DS", "HINFO"):
            assert (await lab.ask("www.example.com", kind)).rcode() == dns.rcode.REFUSED, kind
        for name in ("localhost", "printer.local", "metadata.google.internal", "x.onion", "me.example", "intranet",
                     "router.home.arpa", "www.example.lan"):  # fmt: skip
            answer = await lab.ask(name)
            assert (answer.rcode(), ede(answer)[0][0]) == (dns.rcode.NXDOMAIN, 15), name
        for name in ("5.0.0.10.in-addr.arpa", "254.169.254.169.in-addr.arpa", "0.0.127.in-addr.arpa", "1.0.ip6.arpa"):
            assert (await lab.ask(name, "PTR")).rcode() == dns.rcode.NXDOMAIN, name
        answer = await lab.ask("www.example.com", source=TWO)
        assert (answer.rcode(), ede(answer)[0][0]) == (dns.rcode.REFUSED, 18)
        assert (await lab.ask(r"a\.b.example.com")).rcode() == dns.rcode.REFUSED
        assert outside.asked == []

    in_lab(body)


def test_an_allow_list_resolves_its_names_alone() -> None:
    async def body(lab: Lab) -> None:
        lab.way(ONE, "allow:alias.example.com,*.sub.example.com")
        outside = lab.resolver(WORLD)
        assert texts(await lab.ask("alias.example.com")) == ["www.example.com.", "203.0.113.5"]
        for name in ("www.example.com", "sub.example.com", "xalias.example.com", r"a\.sub.example.com"):
            assert (await lab.ask(name)).rcode() == dns.rcode.REFUSED, name
        assert (await lab.ask("www.example.com", "AAAA")).rcode() == dns.rcode.REFUSED
        await lab.until(lambda: any("www.example.com" in text for text in lab.said("name_refused")))
        assert "add `www.example.com` to this tenant's egress" in lab.said("name_refused")[0]
        assert [name for name, _ in outside.asked] == ["alias.example.com"]

    in_lab(body)


def test_an_alias_loop_and_a_long_text_are_refused_with_a_reason() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        outside = lab.resolver(WORLD)
        answer = await lab.ask("loop.example.com")
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert "loop" in ede(answer)[0][1]
        answer = await lab.ask("long.example.com", "TXT")
        assert answer.rcode() == dns.rcode.REFUSED
        assert "1024 bytes" in ede(answer)[0][1]
        # It did not fit a datagram, so it was asked by TCP.
        assert outside.by_tcp == 1

    in_lab(body)


def test_large_answers_are_truncated_and_had_by_tcp() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(zone(*(f"many.example.com 300 A 203.0.113.{n}" for n in range(100))))
        answer = await lab.ask("many.example.com", edns=-1)
        assert answer.flags & dns.flags.TC
        assert texts(answer) == []
        loop = asyncio.get_running_loop()
        with await lab.connect(PLATFORM, 53) as sock:
            for _ in range(2):
                wire = dns.message.make_query("many.example.com", "A").to_wire()
                await loop.sock_sendall(sock, struct.pack("!H", len(wire)) + wire)
                length = int.from_bytes(await loop.sock_recv(sock, 2), "big")
                data = b""
                while len(data) < length:
                    data += await loop.sock_recv(sock, length - len(data))
                assert len(texts(dns.message.from_wire(data))) == 100

    in_lab(body)


def test_questions_upstream_have_ports_ids_and_spellings_of_their_own() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        script = zone(*(f"host{n}.spelled-with-many-letters.example 300 A 203.0.113.5" for n in range(12)))
        outside = lab.resolver(script)
        for n in range(12):
            assert texts(await lab.ask(f"host{n}.spelled-with-many-letters.example")) == ["203.0.113.5"]
        assert len(set(outside.sources)) > 8
        assert len(set(outside.ids)) > 8
        assert len({name[5:] for name in outside.spelled}) > 8

    in_lab(body)


def test_forged_answers_are_not_taken() -> None:
    async def body(lab: Lab) -> None:
        lab.way()

        def forge(query: dns.message.Message) -> bytes | dns.message.Message:
            good = WORLD(query)
            assert isinstance(good, dns.message.Message)
            for change in ("id", "name", "type", "query"):
                bad = dns.message.make_response(query)
                bad.answer.append(dns.rrset.from_text("www.example.com.", 300, "IN", "A", "203.0.113.66"))
                if change == "id":
                    bad.id ^= 1
                elif change == "query":
                    bad.flags &= ~dns.flags.QR
                else:
                    name, kind = ("other.example.com.", "A") if change == "name" else ("www.example.com.", "TXT")
                    bad.question = dns.message.make_query(name, kind).question
                outside.udp.sendto(bad.to_wire(), ("203.0.113.1", outside.sources[-1]))
            stranger = sock_in(lab.names.outside, socket.SOCK_DGRAM, SECOND)
            bad = dns.message.make_response(query)
            bad.answer.append(dns.rrset.from_text("www.example.com.", 300, "IN", "A", "203.0.113.66"))
            stranger.sendto(bad.to_wire(), ("203.0.113.1", outside.sources[-1]))
            stranger.close()
            return good

        outside = lab.resolver(forge)
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        assert len(outside.asked) == 1

    in_lab(body)


def test_a_resolver_that_spells_otherwise_is_asked_by_tcp() -> None:
    async def body(lab: Lab) -> None:
        lab.way()

        def lower(query: dns.message.Message) -> dns.message.Message:
            response = WORLD(query)
            assert isinstance(response, dns.message.Message)
            response.question[0].name = query.question[0].name.canonicalize()
            return response

        outside = lab.resolver(lower)
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        assert outside.by_tcp == 1

    in_lab(body)


@pytest.mark.long
def test_a_dead_resolver_costs_a_moment_and_two_dead_ones_a_reason_within_5_s() -> None:
    def two(lab: Lab) -> None:
        lab.host = msgspec.structs.replace(lab.host, resolvers=[f"{RESOLVER}:53", f"{SECOND}:53"])

    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(lambda _: None)
        good = lab.resolver(WORLD, SECOND)
        began = time.monotonic()
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        assert time.monotonic() - began < 2
        # It rests: the next one is asked at once, not after the 0.8 s that a first try has.
        began = time.monotonic()
        assert texts(await lab.ask("alias.example.com"))[-1] == "203.0.113.5"
        assert time.monotonic() - began < 0.8
        good.script = lambda _: None
        began = time.monotonic()
        answer = await lab.ask("mail.example.com", "MX")
        assert time.monotonic() - began < 5
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert ede(answer)[0][0] == 22
        assert "did not answer" in ede(answer)[0][1]
        await lab.until(lambda: lab.figure("sandpost_resolver_failures_total", resolver=f"{RESOLVER}:53") >= 2)
        await lab.until(lambda: len(lab.said("upstream_failed")) == 1)

    in_lab(body, two)


@pytest.mark.long
def test_a_resolver_that_cuts_without_end_or_fails_is_given_up() -> None:
    async def body(lab: Lab) -> None:
        lab.way()

        def cut(query: dns.message.Message) -> dns.message.Message:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            return response

        outside = lab.resolver(cut)
        answer = await lab.ask("www.example.com")
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert "cuts its answers" in ede(answer)[0][1]

        def fail(query: dns.message.Message) -> dns.message.Message:
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.SERVFAIL)
            return response

        outside.script = fail
        before = len(outside.asked)
        answer = await lab.ask("mail.example.com", "MX")
        assert (answer.rcode(), ede(answer)[0][1]) == (dns.rcode.SERVFAIL, f"{RESOLVER}:53: says SERVFAIL")
        assert len(outside.asked) == before + 1
        outside.script = lambda _: b"\xff" * 40
        assert (await lab.ask("other.example.com")).rcode() == dns.rcode.SERVFAIL

    in_lab(body)


def test_a_resolver_that_leads_back_to_us_is_given_up_and_asked_few_questions() -> None:
    """As where the host's resolver was set to ask the sandboxes' one."""

    def itself(lab: Lab) -> None:
        lab.host = msgspec.structs.replace(lab.host, resolvers=[f"{PLATFORM}:53"])

    async def body(lab: Lab) -> None:
        lab.way()
        began = time.monotonic()
        answer = await lab.ask("www.example.com")
        assert time.monotonic() - began < 5
        assert (answer.rcode(), ede(answer)[0][1]) == (dns.rcode.SERVFAIL, f"{PLATFORM}:53: says REFUSED")
        await lab.until(lambda: lab.figure("sandpost_questions_refused_total", reason="unknown_sandbox") == 1)

    in_lab(body, itself)


def test_a_tenant_does_not_learn_what_another_asked() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.way(TWO, "public", "other")
        outside = lab.resolver(WORLD)
        for source in (ONE, TWO, ONE, TWO):
            await lab.ask("www.example.com", source=source)
        assert len(outside.asked) == 2

    in_lab(body)


def test_a_question_may_be_quicker_than_the_news_of_its_sandbox() -> None:
    def patient(lab: Lab) -> None:
        lab.before = "from sandpost.egress import ways; ways.HOLD = 1.5; "

    async def body(lab: Lab) -> None:
        lab.resolver(WORLD)
        asking = asyncio.create_task(lab.ask("www.example.com"))
        await asyncio.sleep(0.1)
        lab.way()
        assert texts(await asking) == ["203.0.113.5"]
        began = time.monotonic()
        answer = await lab.ask("www.example.com", source=STRANGER)
        assert answer.rcode() == dns.rcode.REFUSED
        assert 1.4 < time.monotonic() - began < 5

    in_lab(body, patient)


def test_who_asks_too_much_is_refused_alone() -> None:
    def slow(lab: Lab) -> None:
        lab.host = msgspec.structs.replace(lab.host, egress_rate=20)

    async def body(lab: Lab) -> None:
        lab.way()
        lab.way(TWO, "public", "other")
        lab.resolver(WORLD)
        await lab.ask("www.example.com")
        loop = asyncio.get_running_loop()
        with sock_in(lab.names.inside, socket.SOCK_DGRAM, ONE) as sock:
            sock.connect((PLATFORM, 53))
            wire = dns.message.make_query("www.example.com", "A").to_wire()
            for _ in range(5000):
                with pytest.MonkeyPatch.context():
                    try:
                        sock.send(wire)
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
            began = time.monotonic()
            assert texts(await lab.ask("www.example.com", source=TWO)) == ["203.0.113.5"]
            assert time.monotonic() - began < 3
            rcodes = []
            while True:
                try:
                    async with asyncio.timeout(1):
                        rcodes.append(dns.message.from_wire(await loop.sock_recv(sock, 4096)).rcode())
                except TimeoutError:
                    break
        assert 30 <= rcodes.count(dns.rcode.NOERROR) <= 80
        # Told, but not each time.
        assert 10 <= rcodes.count(dns.rcode.REFUSED) <= 60
        await lab.until(lambda: lab.said("too_many_questions"))

    in_lab(body, slow)


def test_a_tunnel_is_slowed_and_then_refused() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        outside = lab.resolver(WORLD)

        async def send(n: int) -> tuple[int, float]:
            began = time.monotonic()
            answer = await lab.ask(f"{n:04d}{'d' * 50}.tunnel.example")
            return answer.rcode(), time.monotonic() - began

        first = [await send(n) for n in range(10)]
        rest = await asyncio.gather(*(send(n) for n in range(10, 60)))
        assert {rcode for rcode, _ in first} == {dns.rcode.NXDOMAIN}
        # Of those that are slowed each takes as long; of these one may, on a busy machine.
        assert sorted(took for _, took in first)[5] < SLOW
        found = [took for rcode, took in rest if rcode == dns.rcode.NXDOMAIN]
        assert 18 <= len(found) < 30
        assert max(found) > 0.2
        assert {rcode for rcode, _ in rest} == {dns.rcode.NXDOMAIN, dns.rcode.REFUSED}
        # As much as was let through was asked upstream, and other names are none the worse.
        assert len(outside.asked) == 10 + len(found)
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        await lab.until(lambda: lab.said("too_many_names"))

    in_lab(body)


def test_an_end_is_acknowledged_when_nothing_is_under_way() -> None:
    async def body(lab: Lab) -> None:
        way = lab.way()
        outside = lab.resolver(lambda _: None)
        asking = asyncio.create_task(lab.ask("www.example.com", within=1))
        await lab.until(lambda: outside.asked)
        lab.gone(way, 7)
        await lab.until(lambda: lab.acks == [7], 1)
        # Its successor at the same address does not get the answer that was on its way.
        lab.way(ONE, "public", "next", "another")
        with pytest.raises(TimeoutError):
            await asking
        lab.say(m.Gone(seq=8, sandbox_id="unknown", tenant="x", word="idle", message=""))
        await lab.until(lambda: lab.acks == [7, 8], 1)

    in_lab(body)


def test_an_end_that_is_told_while_it_starts_is_acknowledged_once_what_waits_is_taken() -> None:
    async def body(lab: Lab) -> None:
        way = lab.way()
        lab.resolver(lambda _: None)
        lab.kill()
        asking = asyncio.create_task(lab.ask("www.example.com", within=3))
        await asyncio.sleep(0.1)
        lab.whole = False
        await lab.start()
        lab.gone(way, 7)
        await lab.until(lambda: lab.acks == [7], 3)
        # Its successor, which reaches nothing, has not asked.
        lab.way(ONE, "none", "next", "another")
        with pytest.raises(TimeoutError):
            await asking
        assert lab.notes == []

    in_lab(body)


def test_without_the_controller_who_is_known_is_served_and_its_table_counts_when_it_is_back() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        two = lab.way(TWO, "public", "other")
        lab.resolver(WORLD)
        lab.controller.close()
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        lab.ways.remove(two)
        hellos = lab.hellos
        lab.open_controller()
        await lab.until(lambda: lab.hellos > hellos)
        assert texts(await lab.ask("www.example.com")) == ["203.0.113.5"]
        assert (await lab.ask("www.example.com", source=TWO)).rcode() == dns.rcode.REFUSED

    in_lab(body)


def test_a_question_that_waits_while_egress_is_killed_is_answered_by_the_next() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(WORLD)
        lab.kill()
        asking = asyncio.create_task(lab.ask("www.example.com"))
        await asyncio.sleep(0.1)
        await lab.start()
        assert texts(await asking) == ["203.0.113.5"]

    in_lab(body)


def test_settings_are_taken_up_while_it_runs() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(WORLD, SECOND)
        lab.host = msgspec.structs.replace(lab.host, resolvers=[f"{SECOND}:53"], own_names=["www.example.com"])
        lab.write_host()
        for channel in lab.supervisor.channels:
            channel.send(m.Reload())
        await lab.until(lambda: "settings taken up" in lab.log.read_text())
        assert texts(await lab.ask("mail.example.com", "MX")) == ["10 www.example.com."]
        assert (await lab.ask("www.example.com")).rcode() == dns.rcode.NXDOMAIN

    in_lab(body)


def test_questions_that_wait_and_connections_are_bounded_and_others_are_served() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.way(TWO, "public", "other")
        outside = lab.resolver(lambda _: None)
        waiting = [asyncio.create_task(lab.ask(f"a{n}.example.com", within=2)) for n in range(70)]
        await lab.until(lambda: lab.said("too_many_questions"))
        assert len({name for name, _ in outside.asked}) == 64
        refused = [task for task in waiting if task.done()]
        assert [task.result().rcode() for task in refused] == [dns.rcode.REFUSED] * 6
        outside.script = WORLD
        assert texts(await lab.ask("www.example.com", source=TWO)) == ["203.0.113.5"]
        await asyncio.gather(*waiting, return_exceptions=True)
        loop = asyncio.get_running_loop()
        held = [await lab.connect(PLATFORM, 53) for _ in range(16)]
        with await lab.connect(PLATFORM, 53) as one_more:
            assert await asyncio.wait_for(loop.sock_recv(one_more, 10), 2) == b""
        # Who says nothing is let go, and makes room.
        assert await asyncio.wait_for(loop.sock_recv(held[0], 10), 8) == b""
        for sock in held:
            sock.close()

    in_lab(body)
