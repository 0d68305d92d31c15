'use strict'
// The reference: one Node process passes each line of its input (`NAME TEXT`) on to all who asked for `/NAME` and are
// still there. argv: port. Ends with its input.
const http = require('node:http')
const readline = require('node:readline')
const open = new Map()
http.createServer((req, res) => {
  const name = req.url.slice(1)
  if (!open.has(name)) open.set(name, new Set())
  open.get(name).add(res)
  res.on('close', () => open.get(name).delete(res))
  res.writeHead(200, { 'content-type': 'application/x-ndjson' })
  res.flushHeaders()
}).listen(Number(process.argv[2]), '127.0.0.1')
readline.createInterface({ input: process.stdin }).on('line', line => {
  const at = line.indexOf(' ')
  const text = line.slice(at + 1) + '\n'
  for (const res of open.get(line.slice(0, at)) || []) res.write(text)
}).on('close', () => process.exit())
