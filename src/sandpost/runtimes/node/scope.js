'use strict';

// Which call the running code belongs to, across callbacks, timers and promises.

const { AsyncLocalStorage } = require('node:async_hooks');
const { apply } = require('./primordials.js');

const storage = new AsyncLocalStorage();
const run = AsyncLocalStorage.prototype.run;
const getStore = AsyncLocalStorage.prototype.getStore;

// Call `fn` on `self` with `args` as part of `call`.
function enter(call, fn, self, args) {
  return apply(run, storage, [call, apply, fn, self, args]);
}

// The call that the running code belongs to, finished or not; undefined if it is nobody's.
function current() {
  return apply(getStore, storage, []);
}

module.exports = { current, enter };
