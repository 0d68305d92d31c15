'use strict';

// One call of a program, from its request to its one answer.
//
// A call is settled once, by whatever comes first: the callback, a throw, a rejection, the end of its client. The
// flag is set before anything of the program's is read, so a getter or a `toJSON` that calls back again finds it
// set. If answering itself fails (the program called back at the edge of its stack), the call is put on a list by
// plain assignments, which cannot fail, and answered when the stack is shallow again.

const { types: { isAsyncFunction, isPromise } } = require('node:util');
const { mend } = require('./builtins.js');
const failures = require('./failures.js');
const frames = require('./frames.js');
const { apply, getPrototypeOf, hasOwn, jsonOf, promisePrototype, promiseThen } = require('./primordials.js');
const { addBody, fillContext, firstSegment, hasBody, hideRaw, readBody } = require('./request.js');
const { resetHead } = require('./response.js');
const { bindEvents, enter } = require('./scope.js');

const SOURCE = { __proto__: null, webtask: 'x-sandpost-source: webtask\r\n', compiler: 'x-sandpost-source: compiler\r\n', '': '' };
const JSON_TYPE = 'content-type: application/json\r\n';

let unanswered; // list of calls that are settled and could not be answered yet, linked by `next`

class Call {
  constructor(program, req, res, reqId, frameId) {
    this.program = program;
    this.req = req;
    this.res = res;
    this.reqId = reqId;
    this.frameId = frameId;
    this.upgrade = undefined; // { socket, head } of an upgrade request
    this.written = 0; // bytes that an upgrade's socket had carried before it
    this.settled = false;
    this.gone = false; // settled by the end of its client
    this.kind = undefined; // how it failed, or undefined
    this.value = undefined; // result or error
    this.lines = ''; // further header lines of a failure
    this.starting = undefined; // the start of its program that it waits for
    this.next = undefined;
  }

  // The exchange has ended: answered, or its client is gone.
  over() {
    this.program.calls--;
    this.gone = !this.settled;
    this.settled = true;
    this.leave();
  }

  // It waits for the start of its program no more.
  leave() {
    const { starting } = this;
    this.starting = undefined;
    if (starting !== undefined) this.program.leave(starting);
  }
}

function settle(call, kind, value) {
  if (call.settled) return;
  call.settled = true;
  call.kind = kind;
  call.value = value;
  try {
    answer(call);
  } catch {
    call.next = unanswered;
    unanswered = call;
  }
}

function answer(call) {
  if (call.kind === undefined) succeed(call);
  else fail(call);
}

// Answer those that could not be answered when they were settled. Called where the stack is shallow.
function answerLate() {
  let call = unanswered;
  unanswered = undefined;
  while (call !== undefined) {
    const { next } = call;
    call.next = undefined;
    try {
      answer(call);
    } catch {
      call.res.destroy();
    }
    call = next;
  }
}

function succeed(call) {
  let body = '{}';
  if (call.value) {
    try {
      body = jsonOf(call.value);
      if (typeof body !== 'string') throw new TypeError(`A ${typeof call.value} has no JSON form`);
    } catch (error) {
      call.kind = failures.NOT_SERIALIZABLE;
      call.value = error;
      fail(call);
      return;
    }
  }
  const { res } = call;
  if (res.destroyed || res._headerSent) return;
  if (res._header) resetHead(res);
  res.statusCode = 200;
  res.lines = SOURCE.webtask + JSON_TYPE + wishes(call.program);
  res.end(body);
}

// Header lines that say what is to be had or done here, of an answer about `program`.
function wishes({ made }) {
  return made.empty ? notice.replace : `${notice.replace}x-sandpost-made: 1\r\n`;
}

// Header line that asks for a successor of this sandbox, once it is needed.
const notice = { __proto__: null, replace: '' };

// Something of this process is worn out for good.
function askReplaced() {
  notice.replace = 'x-sandpost-replace: 1\r\n';
}

function fail(call) {
  const { kind, value, reqId, frameId, res } = call;
  const carried = kind.message === undefined;
  frames.write(50, frameId, failures.recordOf(kind, carried, value));
  if (res.destroyed || res.writableEnded) return;
  if (res._headerSent || (call.upgrade !== undefined && call.upgrade.socket.bytesWritten > call.written)) {
    // Its head is out: the answer is broken off, so that nobody takes it for whole.
    res.destroy();
    return;
  }
  const status = kind === failures.SCRIPT_ERROR ? failures.chosenStatus(value, kind.status) : kind.status;
  refuse(res, kind, status, reqId, carried, value, call.lines);
}

// Write the answer for `kind` to a response whose head is not out.
function refuse(res, kind, status, reqId, carried, value, lines) {
  const body = failures.bodyOf(kind, status, reqId, carried, value);
  resetHead(res);
  if (kind === failures.ASYNC_EXCEPTION || kind.reason === 'exit' || kind.reason === 'crash') {
    // It may have come out of a listener in the HTTP parser, whose connection then is of no more use.
    res.shouldKeepAlive = false;
  }
  res.statusCode = status;
  res.lines = `${SOURCE[kind.source]}x-sandpost-error: ${kind.reason}\r\n${lines}${JSON_TYPE}${notice.replace}`;
  res.end(body);
}

// Charge an exception that nobody caught to `call`, if it can still be told, else to the log.
function charge(call, error) {
  if (call !== undefined && !call.settled) settle(call, failures.ASYNC_EXCEPTION, error);
  else frames.write(50, call === undefined ? '' : call.frameId, failures.recordOf(failures.ASYNC_EXCEPTION, true, error));
}

// --- calling the program ------------------------------------------------------------------------------------

function callback(call) {
  return (error, value) => {
    if (call.settled) {
      // Nobody gets it any more: the log does.
      if (error) frames.write(50, call.frameId, failures.recordOf(failures.SCRIPT_ERROR, true, error));
      else if (!call.gone) frames.write(40, call.frameId, 'The callback was called after the call had been answered: ignored.');
      return;
    }
    if (error) settle(call, failures.kindOf(error, failures.SCRIPT_ERROR), error);
    else settle(call, undefined, value);
  };
}

// A promise's value is the answer unless it is undefined or `(context, req, res)` answers by itself; its rejection
// counts like the callback's error. Another's `then` is the program's: read once, and allowed to throw.
function awaitPromise(call, returned, answers) {
  if (!failures.isObject(returned)) return;
  const plain = isPromise(returned) && getPrototypeOf(returned) === promisePrototype && !hasOwn(returned, 'then');
  const then = plain ? promiseThen : returned.then;
  if (typeof then !== 'function') return;
  apply(then, returned, [
    (value) => {
      if (answers && value !== undefined) settle(call, undefined, value);
    },
    (error) => {
      if (call.settled) frames.write(50, call.frameId, failures.recordOf(failures.SCRIPT_ERROR, true, error));
      else settle(call, failures.kindOf(error, failures.SCRIPT_ERROR), error);
    },
  ]);
}

function invoke(call, args, answers) {
  try {
    awaitPromise(call, apply(call.program.main, undefined, args), answers);
  } catch (error) {
    if (call.settled) frames.write(50, call.frameId, failures.recordOf(failures.SYNC_EXCEPTION, true, error));
    else settle(call, failures.kindOf(error, failures.SYNC_EXCEPTION), error);
  }
  if (unanswered !== undefined) answerLate();
}

// Go on with the call once the program's top level has run.
function waitFor(call, starting) {
  call.starting = starting;
  starting.waiting++;
  apply(promiseThen, starting.promise, [
    () => {
      call.leave();
      run(call);
      mend(call.frameId);
    },
    (error) => {
      call.leave();
      if (call.settled) frames.write(50, call.frameId, failures.recordOf(failures.COMPILATION_FAILED, true, error));
      else settle(call, failures.COMPILATION_FAILED, error);
      mend(call.frameId);
    },
  ]);
}

function invokeCallback(call) {
  invoke(call, [callback(call)], true);
}

function invokeContext(call, bytes) {
  const cb = callback(call);
  // The one parameter of an async function is the callback and has the context's properties as well: its author may
  // have meant either.
  const context = fillContext(call.program.arity === 1 ? cb : {}, call.req, call.reqId);
  if (bytes !== undefined) addBody(context, call.req, bytes);
  invoke(call, call.program.arity === 1 ? [cb] : [context, cb], true);
}

function invokeRequest(call) {
  const { req, res } = call;
  hideRaw(req);
  bindEvents(req, call, charge);
  bindEvents(res, call, charge);
  if (call.upgrade !== undefined) {
    bindEvents(call.upgrade.socket, call, charge);
    req.upgrade = call.upgrade;
  }
  res.lines = SOURCE.webtask + wishes(call.program);
  res.strictContentLength = true;
  req.x_wt = { container: firstSegment(req.url), url_format: 1 };
  invoke(call, [fillContext({}, req, call.reqId), req, res], false);
}

// Call the program, which has been instantiated.
function run(call) {
  if (call.settled) return;
  const { arity, main } = call.program;
  if (typeof main !== 'function') {
    settle(call, failures.NO_FUNCTION, undefined);
  } else if (arity < 1 || arity > 3) {
    settle(call, failures.WRONG_SIGNATURE, undefined);
  } else if (arity === 3) {
    invokeRequest(call);
  } else if (arity === 1 && !isAsyncFunction(main)) {
    invokeCallback(call);
  } else if (hasBody(call.req)) {
    readBody(call.req, (bytes) => {
      enter(call, invokeContext, undefined, [call, bytes]);
      mend(call.frameId);
    });
  } else {
    invokeContext(call, undefined);
  }
}

function begin(call) {
  const { program } = call;
  let starting;
  if (!program.loaded) {
    try {
      starting = program.start();
    } catch (error) {
      settle(call, failures.COMPILATION_FAILED, error);
      return;
    }
  }
  if (starting === undefined) run(call);
  else waitFor(call, starting);
}

// Run `call`; its answer comes when it comes. The program counts as in use until the exchange is over.
function start(call) {
  call.program.calls++;
  call.res.exchange = call;
  enter(call, begin, undefined, [call]);
  mend(call.frameId);
}

module.exports = {
  Call, answerLate, askReplaced, charge, hasUnanswered: () => unanswered !== undefined, notice, refuse, settle, start, wishes,
};
