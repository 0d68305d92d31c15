'use strict';

// What failed, as the JSON body of docs/runtime.md and as text for the log. Reads values that a program threw:
// any of them may be a trap, so every read is guarded and JSON is put together from texts alone.

const { types: { isNativeError } } = require('node:util');
const {
  charCodeAt, indexOf, isInteger, jsonOf, slice, startsWith, stringOf, trim,
} = require('./primordials.js');

const FILE = 'webtask.js';
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
  message: 'This runtime runs JavaScript: send application/javascript.',
};
const INTERNAL = { __proto__: null, error: 'The runtime failed at a request; its connection was closed.' };

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
function cleanStack(stack) {
  const compiler = startsWith(stack, `${FILE}:`);
  let kept = '';
  let entered = false;
  let at = 0;
  while (at < stack.length && kept.length < STACK) {
    let end = indexOf(stack, '\n', at);
    if (end < 0) end = stack.length;
    const line = slice(stack, at, end);
    at = end + 1;
    if (startsWith(line, '    at ')) {
      if (compiler || (entered && indexOf(line, OURS) >= 0)) break;
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

function number(text, at) {
  let value = 0;
  let digits = 0;
  for (let code; at < text.length; at++, digits++) {
    code = charCodeAt(text, at);
    if (code < 48 || code > 57) break;
    value = value * 10 + code - 48;
  }
  return { __proto__: null, value: digits > 0 && digits < 10 ? value : 0, end: at };
}

// Line and column in the program, from 1; 0 is unknown. A syntax error's stack begins with `webtask.js:LINE`, the
// line itself and a line with a caret below the place; another's has frames with `webtask.js:LINE:COLUMN`.
function placeOf(stack) {
  const none = { __proto__: null, line: 0, column: 0 };
  if (stack === undefined) return none;
  const at = indexOf(stack, `${FILE}:`);
  if (at < 0) return none;
  const line = number(stack, at + FILE.length + 1);
  if (stack[line.end] === ':') {
    return { __proto__: null, line: line.value, column: number(stack, line.end + 1).value };
  }
  if (at !== 0) return none;
  const source = line.end + 1;
  const marks = indexOf(stack, '\n', source) + 1;
  const end = marks > 0 ? indexOf(stack, '\n', marks) : -1;
  if (end < 0) return { __proto__: null, line: line.value, column: 0 };
  let column = marks;
  while (column < end && (stack[column] === ' ' || stack[column] === '\t')) column++;
  // Nothing marked: the end of the program, unless the line was too long to be marked.
  const known = stack[column] === '^' || column - marks === marks - 1 - source;
  return { __proto__: null, line: line.value, column: known ? column - marks + 1 : 0 };
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
  FILE, bodyOf, cleanStack, recordOf, chosenStatus, isObject,
  SCRIPT_ERROR, SYNC_EXCEPTION, ASYNC_EXCEPTION, NOT_SERIALIZABLE, COMPILATION_FAILED, NO_FUNCTION, WRONG_SIGNATURE,
  EXIT, CRASH, UNKNOWN_CODE, BAD_REQUEST, UNSUPPORTED_LANGUAGE, INTERNAL,
};
