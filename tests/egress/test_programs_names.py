"""Names as programs look them up: the image's own Node and C library, in the lab, with a sandbox's resolv.conf."""

import asyncio
import json

from bench.running import image_root

from sandpost.walls import names
from support.egress_lab import Lab, in_lab, zone

PROGRAM = """
const dns = require('node:dns').promises;
const told = (promise) => promise.then((value) => value, (error) => error.code);
(async () => {
  const name = 'www.example.com';
  console.log(JSON.stringify({
    lookup: await told(dns.lookup(name, { all: true })),
    resolve4: await told(dns.resolve4(name)),
    resolve6: await told(dns.resolve6(name)),
    txt: await told(dns.resolveTxt(name)),
    srv: await told(dns.resolveSrv('_http._tcp.example.com')),
    reverse: await told(dns.reverse('203.0.113.5')),
    missing: await told(dns.lookup('nowhere.example.com')),
    rebound: await told(dns.lookup('evil.example.com')),
    local: await told(dns.lookup('localhost', { family: 4 })),
    servers: dns.getServers(),
  }));
})();
"""


def test_node_finds_names_both_ways() -> None:
    async def body(lab: Lab) -> None:
        lab.way()
        lab.resolver(
            zone(
                "www.example.com 300 A 203.0.113.5",
                'www.example.com 300 TXT "a text"',
                "_http._tcp.example.com 300 SRV 1 2 80 www.example.com.",
                "5.113.0.203.in-addr.arpa 300 PTR www.example.com.",
                "evil.example.com 300 A 192.168.1.1",
            )
        )
        resolv_conf = lab.folder / "resolv.conf"
        resolv_conf.write_text(names.render(lab.host))
        script = 'mount --bind "$1" "$2/etc/resolv.conf" && mount --rbind /dev "$2/dev" && mount -t proc proc "$2/proc" && exec chroot "$2" /usr/local/bin/node -e "$3"'
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", lab.names.inside, "unshare", "--mount", "--pid", "--fork", "--kill-child", "timeout", "20", "sh", "-c", script, "sh",
            str(resolv_conf), image_root(), PROGRAM, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        assert json.loads(out) == {
            "lookup": [{"address": "203.0.113.5", "family": 4}],
            "resolve4": ["203.0.113.5"],
            "resolve6": "ENODATA",
            "txt": [["a text"]],
            "srv": [{"name": "www.example.com", "port": 80, "priority": 1, "type": "SRV", "weight": 2}],
            "reverse": ["www.example.com"],
            "missing": "ENOTFOUND",
            "rebound": "ENOTFOUND",
            "local": {"address": "127.0.0.1", "family": 4},
            "servers": ["198.18.31.255"],
        }

    in_lab(body)
