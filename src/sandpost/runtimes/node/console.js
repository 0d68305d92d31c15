'use strict';

// `console` writes frames with a level and the id of the call in whose context it is used; `process.stdout`
// and `process.stderr` stay raw. Node's own console formats, groups and counts; we replace where it writes.

const { cleanStack } = require('./failures.js');
const { mapped } = require('./places.js');
const { apply, defineProperty, endsWith, slice } = require('./primordials.js');

const LEVELS = {
  error: 50, warn: 40, assert: 40, log: 30, info: 30, debug: 20, trace: 10,
  count: 30, countReset: 40, dir: 30, dirxml: 30, group: 30, groupCollapsed: 30, table: 30,
  time: 40, timeEnd: 30, timeLog: 30,
};

// `write(level, text)` takes each message.
function install(write) {
  const { console } = globalThis;
  let level = 0; // of the method that was called; inner calls (trace calls error) keep the outer one's

  const stream = (fallback) => ({
    __proto__: null,
    isTTY: false,
    write(text) {
      const message = endsWith(text, '\n') ? slice(text, 0, text.length - 1) : text;
      write(level || fallback, level === LEVELS.trace ? cleanStack(message) : mapped(message));
      return true;
    },
    on() {},
    once() {},
    removeListener() {},
    listenerCount: () => 0,
  });
  defineProperty(console, '_stdout', { __proto__: null, value: stream(30), configurable: true, writable: true });
  defineProperty(console, '_stderr', { __proto__: null, value: stream(50), configurable: true, writable: true });

  for (const name of Object.keys(LEVELS)) {
    const original = console[name];
    const own = LEVELS[name];
    console[name] = {
      [name](...args) {
        if (level !== 0) return apply(original, console, args);
        level = own;
        try {
          return apply(original, console, args);
        } finally {
          level = 0;
        }
      },
    }[name];
  }
}

module.exports = { install };
