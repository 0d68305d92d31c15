'use strict';

// The wire of docs/runtime.md: one HTTP server, four operations.

const http = require('node:http');
const { duplexPair } = require('node:stream');
const { mend } = require('./builtins.js');
const { Call, answerLate, askReplaced, hasUnanswered, notice, refuse, settle, start, wishes } = require('./calls.js');
const failures = require('./failures.js');
const frames = require('./frames.js');
const { charCodeAt, mapDelete, mapForEach, mapSet, subarray, toLowerCase } = require('./primordials.js');
const { receive } = require('./made.js');
const { number } = require('./places.js');
const { languageOf } = require('./languages.js');
const { Programs } = require('./programs.js');
const { hasBody, mediaType, readBody } = require('./request.js');
const { Response } = require('./response.js');

const { nextTick } = process;
const MAX_HEAD = 128 * 1024;
const BACKLOG = 511;
const MAX_REQ_ID = 64;
const MALFORMED = 'HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\nx-sandpost-error: bad_request\r\n'
  + 'connection: close\r\ncontent-length: 0\r\n\r\n';

function isHash(text) {
  if (typeof text !== 'string' || text.length !== 64) return false;
  for (let i = 0; i < 64; i++) {
    const code = charCodeAt(text, i);
    if (code < 48 || (code > 57 && code < 97) || code > 102) return false;
  }
  return true;
}

// The platform's own header lines of a request. Node merges headers by way of objects that inherit, where a program
// may have put things; the raw lines are as they came. One that comes twice is none.
class Lines {
  constructor({ rawHeaders }) {
    this.op = undefined;
    this.code = undefined;
    this.made = undefined;
    this.reqId = undefined;
    this.traceId = undefined;
    this.modules = undefined;
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const { length } = rawHeaders[i];
      if (length < 13 || length > 18) continue;
      const value = rawHeaders[i + 1];
      switch (toLowerCase(rawHeaders[i])) {
        case 'x-sandpost-op':
          this.op = this.op === undefined ? value : '';
          break;
        case 'x-sandpost-code':
          this.code = this.code === undefined ? value : '';
          break;
        case 'x-sandpost-made':
          this.made = this.made === undefined ? value : '';
          break;
        case 'x-sandpost-req':
          this.reqId = this.reqId === undefined ? value : '';
          break;
        case 'x-sandpost-trace':
          this.traceId = this.traceId === undefined ? value : '';
          break;
        case 'x-sandpost-modules':
          this.modules = this.modules === undefined ? value : '';
          break;
        default:
      }
    }
    if (this.reqId === undefined || !isReqId(this.reqId)) this.reqId = '';
    // What frames say of the call.
    this.frameId = this.traceId === undefined || this.reqId === '' ? this.reqId : `${this.reqId} ${this.traceId}`;
    if (this.frameId.length > MAX_REQ_ID) this.frameId = this.reqId;
  }
}

// Whether `text` is short printable ASCII, as frames and bodies need it.
function isReqId(text) {
  if (text.length > MAX_REQ_ID) return false;
  for (let i = 0; i < text.length; i++) {
    const code = charCodeAt(text, i);
    if (code < 33 || code > 126) return false;
  }
  return true;
}

function noContent(res) {
  res.statusCode = 204;
  res.lines = notice.replace;
  res.end();
}

// The program is loaded.
function loaded(res, program) {
  res.statusCode = 204;
  res.lines = program === undefined ? notice.replace : wishes(program);
  res.end();
}

// The program in the body of a load, behind which `made` bytes may stand that another sandbox has made of it.
function withoutMade(body, made) {
  const length = made === undefined ? 0 : number(made, 0).value;
  if (length === 0 || length > body.length) return body;
  receive(subarray(body, body.length - length));
  return subarray(body, 0, body.length - length);
}

function badRequest(res, reqId, message) {
  refuse(res, { __proto__: null, ...failures.BAD_REQUEST, message }, 400, reqId, false, undefined, '');
}

class Runtime {
  #programs;
  connect = undefined; // makes the server take a stream as a new connection

  constructor(maxPrograms, maxBytes) {
    this.#programs = new Programs(maxPrograms, maxBytes);
  }

  // `expects`: the client waits for a 100 before it sends the body.
  handle(req, res, expects, upgrade) {
    res.handled = true;
    try {
      if (hasUnanswered()) answerLate();
      this.#dispatch(new Lines(req), req, res, expects, upgrade);
    } catch (error) {
      // Nothing here throws by itself: a built-in was broken in a turn that we did not see.
      mend('');
      frames.write(50, '', failures.recordOf(failures.INTERNAL, true, error));
      res.destroy();
    }
  }

  #dispatch(lines, req, res, expects, upgrade) {
    switch (lines.op) {
      case 'call':
        this.#call(lines, req, res, expects, upgrade);
        return;
      case 'probe':
        noContent(res);
        return;
      case 'load':
        if (expects) res.writeContinue();
        this.#load(lines, req, res);
        return;
      case 'warm':
        this.#warm(res);
        return;
      case 'made':
        this.#made(lines, res);
        return;
      default:
        badRequest(res, lines.reqId, 'x-sandpost-op must be probe, warm, load, call or made.');
    }
  }

  #call({ code, reqId, frameId }, req, res, expects, upgrade) {
    const program = this.#programs.get(code);
    if (program === undefined) {
      refuse(res, failures.UNKNOWN_CODE, 404, reqId, false, undefined, 'x-sandpost-unknown: 1\r\n');
      return;
    }
    if (expects) res.writeContinue();
    const call = new Call(program, req, res, reqId, frameId);
    if (upgrade !== undefined) {
      call.upgrade = upgrade;
      call.written = upgrade.socket.bytesWritten;
    }
    start(call);
  }

  // What was compiled for a program, and was not asked for before.
  #made({ code, reqId }, res) {
    const program = this.#programs.get(code);
    if (program === undefined) {
      refuse(res, failures.UNKNOWN_CODE, 404, reqId, false, undefined, 'x-sandpost-unknown: 1\r\n');
      return;
    }
    res.statusCode = 200;
    res.lines = 'content-type: application/octet-stream\r\n';
    res.end(program.made.hand());
  }

  #load({ code, made, modules, reqId, frameId }, req, res) {
    const language = languageOf(mediaType(req));
    if (!isHash(code)) {
      badRequest(res, reqId, 'x-sandpost-code must be the SHA-256 of the program in lower-case hexadecimal.');
    } else if (language === undefined) {
      refuse(res, failures.UNSUPPORTED_LANGUAGE, 415, reqId, false, undefined, '');
    } else if (this.#programs.get(code) !== undefined) {
      noContent(res);
    } else {
      readBody(req, (body) => {
        const bytes = withoutMade(body, made);
        this.#programs.load(code, bytes, language, modules, () => !res.destroyed, (error) => {
          if (this.#programs.growing) askReplaced();
          if (error === undefined) loaded(res, this.#programs.get(code));
          else settle(new Call(undefined, req, res, reqId, frameId), failures.COMPILATION_FAILED, error);
        });
      });
    }
  }

  // Once through everything that a tenant's first answer needs, on a connection within the process: parsing,
  // loading, calling, answering.
  #warm(res) {
    const [near, far] = duplexPair();
    near.on('error', () => {});
    near.on('end', () => {
      this.#programs.forget(WARM_UP_HASH);
      noContent(res);
    });
    near.resume();
    this.connect(far);
    near.write(WARM_UP);
  }
}

const WARM_UP_SOURCE = 'return function (context, cb) { cb(null, { data: context.data }); };';
const WARM_UP_HASH = '0'.repeat(64);
const WARM_UP = `PUT / HTTP/1.1\r\nx-sandpost-op: load\r\nx-sandpost-code: ${WARM_UP_HASH}\r\n`
  + `content-length: ${WARM_UP_SOURCE.length}\r\n\r\n${WARM_UP_SOURCE}`
  + `GET /?a=b HTTP/1.1\r\nx-sandpost-op: call\r\nx-sandpost-code: ${WARM_UP_HASH}\r\nconnection: close\r\n\r\n`;

const sockets = new Map();

// Close every connection that is idle or whose request was lost before it came to `handle`.
function dropStranded() {
  mapForEach(sockets, (_, socket) => {
    const res = socket._httpMessage;
    if (res === null || res === undefined || !res.handled) socket.destroy();
  });
}

// The call in flight whose frames have this id; undefined if there is none.
function callOf(frameId) {
  let found;
  mapForEach(sockets, (_, socket) => {
    const call = socket._httpMessage?.exchange;
    if (call !== undefined && call.frameId === frameId) found = call;
  });
  return found;
}

// Start listening; `then(port)`.
function listen(settings, then) {
  const runtime = new Runtime(settings.programs, settings.programBytes);

  const server = http.createServer({
    ServerResponse: Response,
    // The proxy has the deadlines: no answer, body or idle connection is ended here.
    requestTimeout: 0,
    headersTimeout: 0,
    keepAliveTimeout: 0,
    connectionsCheckingInterval: 0x7fffffff,
    maxHeaderSize: MAX_HEAD,
    requireHostHeader: false,
    // Only calls may be upgrades; all else, and what has a body, is an ordinary request.
    shouldUpgradeCallback: (req) => !hasBody(req) && new Lines(req).op === 'call',
  });
  server.maxHeadersCount = 0;
  runtime.connect = (stream) => server.emit('connection', stream);

  server.prependListener('connection', (socket) => {
    mapSet(sockets, socket, true);
    socket.on('close', () => mapDelete(sockets, socket));
  });
  server.on('request', (req, res) => runtime.handle(req, res, false, undefined));
  server.on('checkContinue', (req, res) => runtime.handle(req, res, true, undefined));
  server.on('checkExpectation', (req, res) => runtime.handle(req, res, false, undefined));
  server.on('upgrade', (req, socket, head) => {
    const res = new Response(req);
    res.upgrading = true;
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    res.on('finish', () => {
      res.detachSocket(socket);
      socket.destroySoon();
      // Node says it of answers to requests, and of those alone.
      nextTick(() => res.emit('close'));
    });
    socket.on('error', () => {}); // `close` follows and tells the program
    socket.on('end', () => socket.end()); // no half-open connections
    socket.on('close', () => {
      if (!req.destroyed) req.destroy();
    });
    runtime.handle(req, res, false, { socket, head });
  });
  server.on('clientError', (error, socket) => {
    if (socket.writable && socket.bytesWritten === 0) socket.end(MALFORMED);
    else socket.destroy();
  });
  server.once('listening', () => then(server.address().port));
  // What `server.listen` comes to. On the way it would load the resolver, compile its patterns, and load `cluster` with
  // all that starts child processes: 6 ms of CPU at every boot.
  server._listen2('0.0.0.0', settings.port, 4, BACKLOG);
}

module.exports = { callOf, dropStranded, listen };
