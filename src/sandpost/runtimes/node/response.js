'use strict';

// The request and response objects of every exchange. `Response` puts the platform's headers first and keeps a
// program's own out of that namespace; both run the listeners of a `(context, req, res)` program in its call's
// context, since Node emits their events in that of the connection.

const { IncomingMessage, ServerResponse } = require('node:http');
const { apply, indexOf, slice, startsWith, toLowerCase } = require('./primordials.js');
const { enter } = require('./scope.js');

const storeHeader = ServerResponse.prototype._storeHeader;
const emitRequest = IncomingMessage.prototype.emit;
const emitResponse = ServerResponse.prototype.emit;
const WIRE = 'x-sandpost-wire: 1\r\n';

class Request extends IncomingMessage {
  call = undefined; // set for `(context, req, res)`

  emit(...args) {
    return this.call === undefined ? apply(emitRequest, this, args) : enter(this.call, emitRequest, this, args);
  }
}

class Response extends ServerResponse {
  call = undefined; // set for `(context, req, res)`
  lines = ''; // further header lines of the platform, each with its line end
  upgrading = false;
  onGone = undefined; // called once, when the exchange is over in whatever way

  constructor(req, options) {
    super(req, options);
    this.sendDate = false;
    this.strictContentLength = true;
  }

  emit(...args) {
    if (args[0] === 'close' && this.onGone !== undefined) {
      const gone = this.onGone;
      this.onGone = undefined;
      gone();
    }
    return this.call === undefined ? apply(emitResponse, this, args) : enter(this.call, emitResponse, this, args);
  }

  _storeHeader(firstLine, headers) {
    if (this.statusCode < 200 && !(this.upgrading && this.statusCode === 101)) {
      throw new RangeError(`${this.statusCode} cannot be the status of an answer: use 200 to 599`);
    }
    const own = firstLine + WIRE + this.lines;
    apply(storeHeader, this, [own, headers]);
    if (headers) this._header = withoutOurs(this._header, own.length);
  }
}

// `head` without the header lines from `start` on whose names are the platform's.
function withoutOurs(head, start) {
  if (indexOf(toLowerCase(head), 'x-sandpost-', start) < 0) return head;
  let kept = slice(head, 0, start);
  for (let at = start; at < head.length;) {
    const end = indexOf(head, '\r\n', at) + 2;
    const line = slice(head, at, end);
    if (!startsWith(toLowerCase(line), 'x-sandpost-')) kept += line;
    at = end;
  }
  return kept;
}

// Forget what a program said about its head, none of which has been sent.
function resetHead(res) {
  const names = res.getHeaderNames();
  for (let i = 0; i < names.length; i++) res.removeHeader(names[i]);
  res._removedConnection = false;
  res._removedContLen = false;
  res._removedTE = false;
  res._header = null;
  res._contentLength = null;
  res._hasBody = res.req.method !== 'HEAD';
  res.chunkedEncoding = false;
  res.statusMessage = undefined;
  res.strictContentLength = false;
}

module.exports = { Request, Response, resetHead };
