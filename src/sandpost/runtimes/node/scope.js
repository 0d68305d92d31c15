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

// Run the listeners of `emitter` as part of `call`: Node emits a connection's events in no call's context. What a
// listener throws there goes to `thrown(call, error)`, since on its way up it would leave the context again.
function bindEvents(emitter, call, thrown) {
  const { emit, listenerCount } = emitter;
  emitter.emit = (...args) => {
    if (apply(listenerCount, emitter, [args[0]]) === 0 || current() === call) return apply(emit, emitter, args);
    try {
      return enter(call, emit, emitter, args);
    } catch (error) {
      thrown(call, error);
      return true;
    }
  };
}

module.exports = { bindEvents, current, enter };
