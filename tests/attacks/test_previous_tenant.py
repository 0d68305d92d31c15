"""What a tenant leaves wherever he can, looked for by the next one who has his user id, his address and his place.

Weaker: files of the same uid in a folder that all share, a process that went on, a socket that still listens, counts of the
kernel for each user.
Must: the next owner sees what the first one of that place saw: nothing.
"""

from typing import Any

import pytest

from support.lab import until
from support.platform import FEW_SLOTS, Platform, platform

pytestmark = pytest.mark.long

LEAVE = """return function (cb) {
  const fs = require('fs'), net = require('net'), { spawn } = require('child_process');
  const folders = ['/tmp', '/dev/shm', '/dev/mqueue', '/var/tmp', '/run', '/run/lock', '/home', '/', process.cwd()];
  for (const folder of folders) for (const name of ['left', '.left'])
    try { fs.mkdirSync(`${folder}/${name}-folder`); fs.writeFileSync(`${folder}/${name}`, 'left', { mode: 0o666 }) } catch {}
  for (let n = 0; n < 5; n++) spawn('/bin/sleep', ['600'], { detached: true, stdio: 'ignore' }).unref();
  const listeners = [8001, '/tmp/left.sock', '\\0left'].map((where) => net.createServer(() => {}).on('error', () => {}).listen(where));
  for (let n = 0; n < 100; n++) try { fs.watch('/tmp') } catch {}
  const socket = require('dgram').createSocket('udp4').on('error', () => {}).bind(8002);
  globalThis.kept = [listeners, socket];
  setTimeout(() => cb(null, fs.readdirSync('/tmp').sort()), 100);
}"""
LOOK = """return function (cb) {
  const fs = require('fs');
  const lines = (path) => { try { return fs.readFileSync(path, 'utf8').split('\\n').slice(1).filter(Boolean) } catch (error) { return [error.code] } };
  const own = [];
  const walk = (folder) => {
    let all = [];
    try { all = fs.readdirSync(folder, { withFileTypes: true }) } catch {}
    for (const one of all) {
      const path = folder + one.name;
      try { if (fs.lstatSync(path).uid === process.getuid()) own.push(path) } catch {}
      if (one.isDirectory() && path !== '/proc') walk(path + '/');
    }
  };
  walk('/');
  let watches = 0;
  const held = [];
  try { for (; watches < 2000; watches++) held.push(fs.watch('/tmp')) } catch {}
  for (const one of held) one.close();
  cb(null, {
    own, watches, left: globalThis.kept !== undefined,
    processes: fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).length,
    listening: [...lines('/proc/net/tcp'), ...lines('/proc/net/tcp6')].filter((line) => line.split(/ +/)[4] === '0A').length,
    others: [...lines('/proc/net/udp'), ...lines('/proc/net/udp6'), ...lines('/proc/net/raw'), ...lines('/proc/net/packet')].length,
    abstract: lines('/proc/net/unix').filter((line) => line.includes('@')).length,
    queues: [...lines('/proc/sysvipc/shm'), ...lines('/proc/sysvipc/sem'), ...lines('/proc/sysvipc/msg')],
    keys: lines('/proc/keys'),
  });
}"""


def test_the_next_owner_of_a_place_sees_what_the_first_one_saw() -> None:
    with platform(None, pool_size="2", **FEW_SLOTS) as running:
        first: dict[int, dict[str, Any]] = {}
        compared = 0
        for number in range(2 * running.host.slots):
            tenant = f"owner-{number}"
            answer = running.call(tenant, LOOK)
            assert answer.status == 200, answer.body
            found = answer.json
            [slot] = [record["slot"] for record in running.records() if record["tenant"] == tenant]
            if slot in first:
                assert found == first[slot], f"slot {slot} had another owner, and shows it"
                compared += 1
            first.setdefault(slot, found)
            left = running.call(tenant, LEAVE)
            assert "left" in left.json, left.body
            _end(running, tenant)
        assert compared >= running.host.slots // 2
        assert found["own"] == []


def _end(running: Platform, tenant: str) -> None:
    assert running.api("PUT", f"/api/tenants/{tenant}", {}).status == 201
    assert running.api("DELETE", f"/api/tenants/{tenant}").status in {200, 204}
    assert until(lambda: all(record["tenant"] != tenant for record in running.records()), 20)
