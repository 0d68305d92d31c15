'use strict';

// What failed, as the JSON body of docs/runtime.md and as text for the log. Reads values that a program threw:
// any of them may be a trap, so every read is guarded and JSON is put together from texts alone.

const { types: { isNativeError } } = require('node:util');
const { fileAt, mapped, placeOf } = require('./places.js');
const { indexOf, isInteger, jsonOf, slice, startsWith, stringOf, weakGet, weakSet } = require('./primordials.js');

// Characters that are passed on of a stack, and of each other text. At six bytes a character, the most that JSON makes
// of one, a failure stays below the 512 KiB that a proxy reads of the answer to a load.
const STACK = 32768;
const TEXT = 16384;
const OURS = `${__dirname}/`;

const SCRIPT_ERROR = {
  __proto__: null,
  status: 400, reason: 'script_error', source: 'webtask', error: 'Script returned an error.',
};
const SYNC_EXCEPTION = {
  __proto__: null,
  status: 500, reason: 'sync_exception', source: 'webtask',
  error: 'Script generated an unhandled synchronous exception.',
};
const ASYNC_EXCEPTION = {
  __proto__: null,
  status: 500, reason: 'async_exception', source: 'webtask',
  error: 'Script generated an unhandled asynchronous exception.',
};
const NOT_SERIALIZABLE = {
  __proto__: null,
  status: 400, reason: 'not_serializable', source: 'webtask',
  error: 'Error when JSON serializing the result of the JavaScript code.',
};
const COMPILATION_FAILED = {
  __proto__: null,
  status: 400, reason: 'compilation_failed', source: 'compiler', error: 'Supplied code does not compile or load.',
};
const NO_FUNCTION = {
  __proto__: null,
  status: 400, reason: 'no_function', source: 'compiler', message: 'Invalid webtask code',
  error: 'Supplied code must return or export a function.',
};
const WRONG_SIGNATURE = {
  __proto__: null,
  status: 400, reason: 'wrong_signature', source: 'compiler', message: 'Invalid webtask code',
  error: 'The function must have one of these signatures: function (cb), function (context, cb), '
    + 'function (context, req, res).',
};
const EXIT = { __proto__: null, status: 500, reason: 'exit', source: 'webtask', error: 'Script ended its process.' };
const CRASH = { __proto__: null, status: 500, reason: 'crash', source: 'webtask', error: 'Script ended its process.' };
const UNKNOWN_CODE = {
  __proto__: null,
  status: 404, reason: 'unknown_code', source: '', message: 'No program with this hash is loaded here: load it first.',
};
const BAD_REQUEST = { __proto__: null, status: 400, reason: 'bad_request', source: '' };
const UNSUPPORTED_LANGUAGE = {
  __proto__: null,
  status: 415, reason: 'unsupported_language', source: '',
  message: 'This runtime runs JavaScript, TypeScript and C#: send application/javascript, application/typescript or text/x-csharp.',
};
const INTERNAL = { __proto__: null, error: 'The runtime failed at a request; its connection was closed.' };

const chosen = new WeakMap(); // errors of the runtime's own that are another kind of failure than where they are thrown

// Whoever is told of `error`, it fails as `kind`.
function choose(error, kind) {
  weakSet(chosen, error, kind);
}

// How `error` fails, where it would fail as `kind`.
function kindOf(error, kind) {
  return (isObject(error) && weakGet(chosen, error)) || kind;
}

function read(object, key) {
  try {
    return object[key];
  } catch {
    return undefined;
  }
}

function textOf(value) {
  try {
    return stringOf(value);
  } catch {
    return '[a value that cannot be shown]';
  }
}

function isObject(value) {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

// A stack without the runtime's and Node's internal frames: it ends where the program was entered. What the compiler
// says begins with the place and has no frame of the program's at all.
function cleanStack(raw) {
  const stack = mapped(raw);
  const compiler = fileAt(stack) === 0;
  let kept = '';
  let entered = false;
  let at = 0;
  while (at < stack.length && kept.length < STACK) {
    let end = indexOf(stack, '\n', at);
    if (end < 0) end = stack.length;
    const line = slice(stack, at, end);
    at = end + 1;
    if (startsWith(line, '    at ')) {
      // Below what a package did as it was loaded stand the frames of who required it.
      if (compiler || (entered && indexOf(line, OURS) >= 0 && fileAt(slice(stack, end)) < 0)) break;
      if (indexOf(line, OURS) >= 0 || indexOf(line, 'node:internal/') >= 0) continue;
      entered = true;
    }
    kept += (kept === '' ? '' : '\n') + line;
  }
  return slice(kept, 0, STACK);
}

function stackOf(value) {
  const stack = isObject(value) ? read(value, 'stack') : undefined;
  return typeof stack === 'string' ? cleanStack(stack) : undefined;
}

// The status that an error chose for itself, if it may.
function chosenStatus(value, fallback) {
  const status = isObject(value) ? read(value, 'statusCode') : undefined;
  return isInteger(status) && status >= 400 && status <= 599 ? status : fallback;
}

function cut(text) {
  const { length } = text;
  return length > TEXT ? `${slice(text, 0, TEXT)} [${length - TEXT} characters cut]` : text;
}

function field(name, text) {
  return text === undefined ? '' : `,"${name}":${jsonOf(text)}`;
}

// Of an object that is no error the JSON, of a large one and of everything else a text.
function detailsOf(value) {
  if (isObject(value) && typeof value !== 'function' && !isNativeError(value)) {
    try {
      const json = jsonOf(value);
      if (typeof json === 'string') return json.length > TEXT ? field('details', cut(json)) : `,"details":${json}`;
    } catch {
      // A cycle, a BigInt, a trap: its text must do.
    }
  }
  return field('details', cut(textOf(value)));
}

// The body of a failure. `carried`: it carries `value`, which the program threw, rejected or called back with.
function bodyOf(kind, status, reqId, carried, value) {
  let body = `{"code":${status},"reason":"${kind.reason}"`;
  if (reqId !== '') body += field('req_id', reqId);
  body += field('error', kind.error);
  if (!carried) return `${body}${field('message', kind.message)}}`;
  const compiling = kind === COMPILATION_FAILED;
  body += detailsOf(value);
  let message = isObject(value) ? read(value, 'message') : undefined;
  const stack = stackOf(value);
  if (compiling) {
    const place = placeOf(stack);
    message = `Compilation failed: ${cut(typeof message === 'string' ? message : textOf(value))}`;
    if (place.line > 0) {
      message += ` (line ${place.line}${place.column > 0 ? `, column ${place.column}` : ''})`;
      body += `,"line":${place.line}${place.column > 0 ? `,"column":${place.column}` : ''}`;
    }
  }
  if (isObject(value)) {
    const name = read(value, 'name');
    if (typeof name === 'string') body += field('name', cut(name));
  }
  if (typeof message === 'string') body += field('message', compiling ? message : cut(message));
  return `${body}${field('stack', stack)}}`;
}

// The log record of a failure.
function recordOf(kind, carried, value) {
  if (!carried) return kind.source === 'compiler' ? `${kind.message}: ${kind.error}` : kind.message;
  const title = kind.error;
  const stack = stackOf(value);
  if (stack !== undefined && stack !== '') return `${title}\n${stack}`;
  const message = isObject(value) ? read(value, 'message') : undefined;
  const text = typeof message === 'string' ? message : textOf(value);
  return `${title}\n${text}`;
}

module.exports = {
  bodyOf, choose, chosenStatus, cleanStack, cut, isObject, kindOf, recordOf, textOf,
  SCRIPT_ERROR, SYNC_EXCEPTION, ASYNC_EXCEPTION, NOT_SERIALIZABLE, COMPILATION_FAILED, NO_FUNCTION, WRONG_SIGNATURE,
  EXIT, CRASH, UNKNOWN_CODE, BAD_REQUEST, UNSUPPORTED_LANGUAGE, INTERNAL,
};
