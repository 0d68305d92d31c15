'use strict';

// V8 flags that are changed while the runtime runs. On the command line each of them costs 15 ms of CPU at every
// boot, because the code cache of Node's own modules carries a hash of the flags and is then rejected (24.19);
// changed later, they cost that only to modules of Node's that are loaded meanwhile. So those are loaded under the
// flags of the start.

const { setFlagsFromString } = require('node:v8');
const { apply } = require('./primordials.js');

// The old generation grows by 40 % before it is collected. By default it may double and more, since V8 sees the
// machine's memory and not the tenant's limit: a program with 30 MiB alive was killed at 128 MiB for its garbage;
// like this 70 MiB alive fit.
const TIGHT = '--heap-growing-percent=40';
const LOOSE = '--heap-growing-percent=0';
let tight = false;

// From now on keep garbage small. Called when the sandbox gets its first program.
function tighten() {
  if (tight) return;
  tight = true;
  setFlagsFromString(TIGHT);
  lazyFetch();
}

function under(flag, after, fn, self, args) {
  setFlagsFromString(flag);
  try {
    return apply(fn, self, args);
  } finally {
    setFlagsFromString(after);
  }
}

// Call `fn` on `self` with `args` under the flags with which Node's own modules were cached.
function loadingNode(fn, self, args) {
  return tight ? under(LOOSE, TIGHT, fn, self, args) : apply(fn, self, args);
}

// Call `fn` with the compilation cache off: it keeps some 1 KiB of every compiled function for good (24.19).
function withoutCompilationCache(fn, args) {
  return under('--no-compilation-cache', '--compilation-cache', fn, undefined, args);
}

// Call `fn` without a word of Node's about what it finds experimental: programs never asked for that.
function quietly(fn, args) {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return apply(fn, undefined, args);
  } finally {
    process.emitWarning = emitWarning;
  }
}

// The first `fetch` loads the largest of Node's modules (60 ms, 110 ms without its cache).
function lazyFetch() {
  const original = globalThis.fetch;
  const first = function fetch(...args) {
    if (globalThis.fetch === first) globalThis.fetch = original;
    return loadingNode(original, globalThis, args);
  };
  globalThis.fetch = first;
}

let gc;

// A full collection. V8 hands the function out only now: from the start it would be in every program's reach.
function collectGarbage() {
  if (gc === undefined) {
    setFlagsFromString('--expose-gc');
    gc = require('node:vm').runInNewContext('gc');
    setFlagsFromString('--no-expose-gc');
  }
  gc();
}

module.exports = { collectGarbage, loadingNode, quietly, tighten, withoutCompilationCache };
