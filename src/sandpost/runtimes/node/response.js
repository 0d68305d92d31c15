'use strict';

// The response object of every exchange: it puts the platform's headers first, keeps a program's own out of that
// namespace, and says when the exchange is over.

const { ServerResponse } = require('node:http');
const { apply, indexOf, slice, startsWith, toLowerCase } = require('./primordials.js');

const storeHeader = ServerResponse.prototype._storeHeader;
const { emit } = ServerResponse.prototype;
const WIRE = 'x-sandpost-wire: 1\r\n';

class Response extends ServerResponse {
  constructor(req, options) {
    super(req, options);
    this.sendDate = false;
    this.lines = ''; // further header lines of the platform, each with its line end
    this.upgrading = false;
    this.handled = false; // whether its request has come to the runtime
    this.exchange = undefined; // its `over()` is called once, when the exchange has ended in whatever way
  }

  emit(...args) {
    if (args[0] === 'close' && this.exchange !== undefined) {
      const { exchange } = this;
      this.exchange = undefined;
      exchange.over();
    }
    return apply(emit, this, args);
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
  if (indexOf(toLowerCase(slice(head, start)), 'x-sandpost-') < 0) return head;
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
  res._header = null; // first: headers cannot be removed from a head that is made
  const names = res.getHeaderNames();
  for (let i = 0; i < names.length; i++) res.removeHeader(names[i]);
  res._removedConnection = false;
  res._removedContLen = false;
  res._removedTE = false;
  res._contentLength = null;
  res._hasBody = res.req.method !== 'HEAD';
  res.chunkedEncoding = false;
  res.statusMessage = undefined;
  res.strictContentLength = false;
}

module.exports = { Response, resetHead };
