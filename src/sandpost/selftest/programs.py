"""Pieces of JavaScript that several cases put into their programs."""

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
