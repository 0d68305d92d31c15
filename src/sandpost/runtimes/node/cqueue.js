'use strict';

// Compilations that hold nobody up, one after another: each compiler takes some 40 MiB of the tenant's memory.

const { compileAside } = require('./ccompiler.js');
const { mapDelete, mapGet, mapSet } = require('./primordials.js');

const jobs = new Map(); // that are not done, by key: { key, prepared, references, waiting, next }
let first; // of those that wait, linked by `next`
let last;
let running = false;

function isWanted({ waiting }) {
  for (let i = 0; i < waiting.length; i++) if (waiting[i].wanted()) return true;
  return false;
}

function advance() {
  while (!running && first !== undefined) {
    const job = first;
    first = job.next;
    if (isWanted(job)) run(job);
    else mapDelete(jobs, job.key);
  }
}

function run(job) {
  running = true;
  compileAside(job.prepared, job.references, (error, assembly) => {
    running = false;
    mapDelete(jobs, job.key);
    for (let i = 0; i < job.waiting.length; i++) job.waiting[i].then(error, assembly);
    advance();
  });
}

// `then(error, assembly)` of a prepared source, in its turn; who asks for the same `key` meanwhile hears of the same
// compilation. One whose turn comes when nobody who asked is `wanted()` any more is left out, and they hear nothing.
function compileInTurn(key, prepared, references, wanted, then) {
  const waiter = { __proto__: null, wanted, then };
  const known = mapGet(jobs, key);
  if (known !== undefined) {
    known.waiting[known.waiting.length] = waiter;
    return;
  }
  const job = { __proto__: null, key, prepared, references, waiting: [waiter], next: undefined };
  mapSet(jobs, key, job);
  if (first === undefined) first = job;
  else last.next = job;
  last = job;
  advance();
}

module.exports = { compileInTurn };
