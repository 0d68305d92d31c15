'use strict'
// The reference: what one Node process answers when nothing stands before it. argv: port, the answer's body.
const http = require('node:http')
const body = Buffer.from(process.argv[3])
const headers = { 'content-type': 'application/json', 'content-length': body.length }
http.createServer((req, res) => {
  req.resume()
  req.on('end', () => { res.writeHead(200, headers); res.end(body) })
}).listen(Number(process.argv[2]), '127.0.0.1')
