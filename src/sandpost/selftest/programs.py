"""Pieces that several cases put into their programs, of JavaScript but for what is called Python's and C#'s."""

PYTHON = "# sandpost: language=python\n"
"""The first line of a program in Python."""

_CSHARP = """// sandpost: language=csharp
using System; using System.Collections.Generic; using System.Diagnostics; using System.IO; using System.Linq;
using System.Runtime.InteropServices; using System.Text; using System.Threading; using System.Threading.Tasks;
public unsafe class Startup {
  %s
  public Task<object> Invoke(dynamic context) { return Task.FromResult<object>(new { seen = Attack() }); }
  object Attack() {
%s
  }
}
"""


def csharp(body: str, beside: str = "") -> str:
    """Return a program in C# that answers with what `body` returns, as `seen`; `beside` stands in the same class."""
    return _CSHARP % (beside, body)


CONNECT = """
const net = require('net');
const connect = (host, port, patience = 800) => new Promise((done) => {
  const socket = net.connect({ host, port });
  const end = (outcome) => { socket.destroy(); done(outcome) };
  socket.setTimeout(patience, () => end('timeout'));
  socket.on('connect', () => end('connected'));
  socket.on('error', (error) => end(error.code || error.name));
});
const reached = async (places) => {
  const outcomes = await Promise.all(places.map(([host, port]) => connect(host, port)));
  return places.filter((_, index) => outcomes[index] === 'connected').map(([host, port]) => `${host}:${port}`);
};
"""
"""`await reached([[host, port], ..])`: those that a connection was had to."""

NATIVE = """
const fs = require('fs');
const native = (text) => {
  fs.writeFileSync('/tmp/calls', Buffer.from(text, 'base64'), { mode: 0o700 });
  const done = require('child_process').spawnSync('/tmp/calls', { timeout: 5000, maxBuffer: 1 << 24 });
  fs.unlinkSync('/tmp/calls');
  return { output: done.stdout?.toString('base64') ?? '', signal: done.signal };
};
"""
"""`native(text)` runs a program of `machine_code`, in base64: what its calls returned, and the signal that ended it."""
