'use strict';

// Failures and ends of the process, charged to the call that caused them.

const { mend } = require('./builtins.js');
const failures = require('./failures.js');
const frames = require('./frames.js');
const { answerLate, charge, settle } = require('./calls.js');
const { apply } = require('./primordials.js');
const { current } = require('./scope.js');

// Signals that do not end a process that has no listener for them.
const HARMLESS = {
  __proto__: null, 0: true, SIGCHLD: true, SIGCONT: true, SIGPIPE: true, SIGSTOP: true, SIGTSTP: true, SIGTTIN: true,
  SIGTTOU: true, SIGURG: true, SIGUSR1: true, SIGWINCH: true, 13: true, 17: true, 18: true, 19: true, 20: true,
  21: true, 22: true, 23: true, 28: true, 10: true,
};

let dropStranded; // closes the connections whose request never came to us
let callOf; // the call in flight whose frames have this id
let ending = false;

// An exception or rejection that nobody caught: the call in whose context it arose gets the answer, the process
// lives on. One that arose in a call that has been answered, or in none, is a log record.
function onUncaught(error) {
  const call = current();
  // A built-in that was broken in a turn we did not see may have thrown in Node's own code, on a request's way to us.
  if (mend(call === undefined ? '' : call.frameId)) dropStranded();
  answerLate();
  charge(call, error);
}

// Answer the call that ends the process, before it does: the write reaches the kernel at once. Whoever else is in
// flight then is this call's neighbour.
function blame(kind, message) {
  const call = current();
  blameCall(call, call === undefined ? '' : call.frameId, kind, message);
}

function blameCall(call, frameId, kind, message) {
  if (call === undefined || call.settled) {
    frames.write(50, frameId, message);
  } else {
    call.lines = `x-sandpost-end: ${kind.reason}\r\n`;
    settle(call, { __proto__: null, ...kind, message }, undefined);
    answerLate();
  }
  frames.flush();
}

// The same for code that ends the process from without JavaScript, as part of the call whose frames have `frameId`.
function blameFor(frameId, kind, message) {
  const call = ending ? undefined : callOf(frameId); // the first one is to blame
  ending = true;
  blameCall(call, frameId, kind, message);
}

function install(dropper, finder) {
  dropStranded = dropper;
  callOf = finder;
  process.on('uncaughtException', onUncaught);
  process.on('unhandledRejection', onUncaught);

  const { abort, exit, kill, reallyExit, removeAllListeners } = process;

  // Programs remove listeners that they did not add: ours must stay, or the next exception ends the process.
  process.removeAllListeners = function removeAll(...args) {
    apply(removeAllListeners, process, args);
    if (!process.listeners('uncaughtException').includes(onUncaught)) process.on('uncaughtException', onUncaught);
    if (!process.listeners('unhandledRejection').includes(onUncaught)) process.on('unhandledRejection', onUncaught);
    return process;
  };

  process.exit = function exitProcess(...args) {
    if (!ending) {
      ending = true;
      blame(failures.EXIT, `process.exit(${args.length > 0 ? String(args[0]) : ''}) ended the process.`);
    }
    try {
      return apply(exit, process, args);
    } finally {
      // A listener of `exit` threw: exit none the less.
      apply(reallyExit, process, [1]);
    }
  };
  process.reallyExit = function exitAtOnce(...args) {
    if (!ending) {
      ending = true;
      blame(failures.EXIT, 'process.reallyExit ended the process.');
    }
    return apply(reallyExit, process, args);
  };
  process.abort = function abortProcess() {
    blame(failures.CRASH, 'process.abort ended the process.');
    abort();
  };
  process.kill = function killProcess(pid, signal = 'SIGTERM') {
    const own = pid === 0 || pid === process.pid || pid === -process.pid;
    if (own && !HARMLESS[signal] && process.listenerCount(signal) === 0) {
      blame(failures.CRASH, `process.kill(${pid}, ${String(signal)}) ended the process.`);
    }
    return kill(pid, signal);
  };
}

module.exports = { blameFor, install };
