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
