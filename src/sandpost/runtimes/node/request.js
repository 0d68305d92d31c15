'use strict';

// What a program gets of a request: query, context, body.

const { IncomingMessage } = require('node:http');
const { parse: parseQuery } = require('node:querystring');
const {
  bufferConcat, bufferText, charCodeAt, defineProperty, indexOf, keysOf, lastIndexOf, parseJson, slice, startsWith, toLowerCase, trim,
} = require('./primordials.js');

const QUERY = { __proto__: null, maxKeys: 0 };
// Where Node keeps how many raw lines `req.headersDistinct` is made of.
const COUNT = Object.getOwnPropertySymbols(new IncomingMessage(null)).find((key) => key.description === 'kHeadersCount');

// Whether a header's name begins with `x-sandpost-`, in any case.
function isOurs(name) {
  const prefix = 'x-sandpost-';
  for (let i = 0; i < prefix.length; i++) {
    const code = charCodeAt(name, i);
    if ((code > 64 && code < 91 ? code + 32 : code) !== charCodeAt(prefix, i)) return false;
  }
  return true;
}

// The platform's headers are not the program's business; neither is `expect`, which is between proxy and runtime alone.
function isHidden(name) {
  return isOurs(name) || (name.length === 6 && toLowerCase(name) === 'expect');
}

function visibleHeaders(req) {
  const { headers } = req;
  const names = keysOf(headers);
  const visible = {};
  for (let i = 0; i < names.length; i++) {
    if (!isHidden(names[i])) visible[names[i]] = headers[names[i]];
  }
  req.headers = visible;
  return visible;
}

function hideRaw(req) {
  const { rawHeaders } = req;
  let kept = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (isHidden(rawHeaders[i])) continue;
    rawHeaders[kept] = rawHeaders[i];
    rawHeaders[kept + 1] = rawHeaders[i + 1];
    kept += 2;
  }
  rawHeaders.length = kept;
  req[COUNT] = kept;
}

function put(object, key, value) {
  if (key === '__proto__') {
    defineProperty(object, key, {
      __proto__: null, value, enumerable: true, configurable: true, writable: true,
    });
  } else {
    object[key] = value;
  }
}

// `data` gets what the query has, too. The platform's own keys are left out, wherever they come from.
function readQuery(url, query, data) {
  const mark = indexOf(url, '?');
  if (mark < 0) return;
  const parsed = parseQuery(slice(url, mark + 1), '&', '=', QUERY);
  const keys = keysOf(parsed);
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (key === 'key' || startsWith(key, 'webtask_')) continue;
    put(query, key, parsed[key]);
    put(data, key, parsed[key]);
  }
}

// Fill `context`: a plain object, or the callback of an async function with one parameter.
function fillContext(context, req, reqId) {
  const query = {};
  const data = {};
  readQuery(req.url, query, data);
  context.id = reqId;
  context.query = query;
  context.params = {};
  context.secrets = {};
  context.data = data;
  context.meta = {};
  context.headers = visibleHeaders(req);
  return context;
}

// The path's first segment, which names the tenant.
function firstSegment(url) {
  const mark = indexOf(url, '?');
  const path = mark < 0 ? url : slice(url, 0, mark);
  const end = indexOf(path, '/', 1);
  return slice(path, 1, end < 0 ? path.length : end);
}

function mediaType(req) {
  const type = req.headers['content-type'];
  if (typeof type !== 'string') return '';
  const end = indexOf(type, ';');
  return toLowerCase(trim(end < 0 ? type : slice(type, 0, end)));
}

function hasBody(req) {
  const { headers } = req;
  const length = headers['content-length'];
  return (length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined;
}

// Call `then(bytes)` with the whole body; nothing, if the client goes away first.
function readBody(req, then) {
  const chunks = [];
  req.on('data', (chunk) => {
    chunks[chunks.length] = chunk;
  });
  req.on('end', () => {
    const bytes = chunks.length === 1 ? chunks[0] : bufferConcat(chunks);
    chunks.length = 0; // so that a collection while `then` runs frees them
    then(bytes);
  });
  req.on('error', () => {}); // the client is gone: `close` says so on the response
}

// `body_raw`, and `body` if it is a form or valid JSON.
function addBody(context, req, bytes) {
  if (bytes.length === 0) return;
  const text = bufferText(bytes, 'utf8');
  context.body_raw = text;
  const type = mediaType(req);
  if (type === 'application/x-www-form-urlencoded') {
    const parsed = parseQuery(text, '&', '=', QUERY);
    const keys = keysOf(parsed);
    const body = {};
    for (let i = 0; i < keys.length; i++) put(body, keys[i], parsed[keys[i]]);
    context.body = body;
  } else if (type === 'application/json' || (lastIndexOf(type, '+json') === type.length - 5 && type.length > 5)) {
    try {
      context.body = parseJson(text);
    } catch {
      // Invalid JSON is ignored: the program has `body_raw`.
    }
  }
}

module.exports = { addBody, fillContext, firstSegment, hasBody, hideRaw, mediaType, readBody };
