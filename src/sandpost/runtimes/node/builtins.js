'use strict';

// Built-in functions that Node's own HTTP server looks up while it works. A program that replaces one by a function
// that does not do its work would leave every later call of its tenant hanging until the deadline. After each turn
// of a program we look whether they are the same; a replacement that works may stay, any other is undone, and a
// record says so. So are names on Object.prototype that Node's streams would take for options. (Both lists: what of
// all built-ins and of all names in Node's sources made 24.19 hang; runtime code itself uses saved functions.)

const frames = require('./frames.js');
const { apply, defineProperty, getOwnPropertyDescriptor, ownKeys, reallyExit, stringOf } = require('./primordials.js');

const objectPrototype = Object.prototype;
const arrayPrototype = Array.prototype;
const functionPrototype = Function.prototype;
const stringPrototype = String.prototype;
const regExpPrototype = RegExp.prototype;
const typedArrayPrototype = Object.getPrototypeOf(Uint8Array.prototype);
const { species } = Symbol;
const eight = new Uint8Array(8);

function sample(a, b) {
  return this.n + a + b;
}

const WATCHED = [
  [functionPrototype, 'apply', (f) => apply(f, sample, [{ n: 1 }, [2, 3]]) === 6],
  [functionPrototype, 'bind', (f) => apply(f, sample, [{ n: 1 }, 2])(3) === 6],
  [functionPrototype, 'call', (f) => apply(f, sample, [{ n: 1 }, 2, 3]) === 6],
  [arrayPrototype, 'push', (f) => {
    const array = [1];
    return apply(f, array, [2]) === 2 && array.length === 2 && array[1] === 2;
  }],
  [arrayPrototype, 'pop', (f) => {
    const array = [1, 2];
    return apply(f, array, []) === 2 && array.length === 1;
  }],
  [stringPrototype, 'charCodeAt', (f) => apply(f, 'ab', [1]) === 98],
  [stringPrototype, 'slice', (f) => apply(f, 'abc', [1, 2]) === 'b'],
  [stringPrototype, 'toLowerCase', (f) => apply(f, 'aB', []) === 'ab'],
  [regExpPrototype, 'exec', (f) => apply(f, /b/, ['abc']).index === 1 && apply(f, /b/, ['a']) === null],
  [regExpPrototype, 'test', (f) => apply(f, /b/, ['abc']) === true && apply(f, /b/, ['a']) === false],
  [Array, species, () => Array[species] === Array],
  [Promise, species, () => Promise[species] === Promise],
  [typedArrayPrototype, 'length', () => eight.length === 8],
  [typedArrayPrototype, 'byteLength', () => eight.byteLength === 8],
];
const originals = WATCHED.map((entry) => ({ __proto__: null, ...getOwnPropertyDescriptor(entry[0], entry[1]) }));

const OPTIONS = [
  '_httpMessage', 'blockList', 'captureRejections', 'defaultEncoding', 'encoding', 'highWaterMark', 'keepAliveInitialDelay',
  'objectMode', 'readableObjectMode', 'removeListener', 'resume', 'signal', 'timeout', 'typeOfService', 'writableObjectMode',
  'write', 'writev',
];

// What was found to be in order last.
let { apply: knownApply, bind: knownBind, call: knownCall } = functionPrototype;
let { push: knownPush, pop: knownPop } = arrayPrototype;
let { charCodeAt: knownCharCodeAt, slice: knownSlice, toLowerCase: knownToLowerCase } = stringPrototype;
let { exec: knownExec, test: knownTest } = regExpPrototype;
let knownKeys = ownKeys(objectPrototype).length;

// Written out, since this runs at every call: each comparison is a nanosecond.
function unchanged() {
  return functionPrototype.apply === knownApply && functionPrototype.bind === knownBind
    && functionPrototype.call === knownCall && arrayPrototype.push === knownPush && arrayPrototype.pop === knownPop
    && stringPrototype.charCodeAt === knownCharCodeAt && stringPrototype.slice === knownSlice
    && stringPrototype.toLowerCase === knownToLowerCase && regExpPrototype.exec === knownExec
    && regExpPrototype.test === knownTest && Array[species] === Array && Promise[species] === Promise
    && eight.length === 8 && eight.byteLength === 8 && ownKeys(objectPrototype).length === knownKeys;
}

// Undo what programs broke; says whether there was something. Called where the stack is shallow; `frameId` is the call
// that had its turn.
function mend(frameId) {
  try {
    if (unchanged()) return false;
  } catch {
    // A getter in place of a function: looked at below.
  }
  let undone = '';
  try {
    for (let i = 0; i < WATCHED.length; i++) {
      if (works(i)) continue;
      defineProperty(WATCHED[i][0], WATCHED[i][1], originals[i]);
      undone += ` ${stringOf(WATCHED[i][1])}`;
    }
    for (let i = 0; i < OPTIONS.length; i++) {
      if (getOwnPropertyDescriptor(objectPrototype, OPTIONS[i]) === undefined) continue;
      if (!delete objectPrototype[OPTIONS[i]]) throw new TypeError(OPTIONS[i]);
      undone += ` ${OPTIONS[i]}`;
    }
  } catch {
    // Defined so that it cannot be undone: no call would be answered any more.
    apply(reallyExit, process, [1]);
  }
  const broken = undone !== '';
  if (broken) {
    frames.write(50, frameId, `Built-in objects were changed so that Node cannot work; undone:${undone}`);
  }
  knownApply = functionPrototype.apply;
  knownBind = functionPrototype.bind;
  knownCall = functionPrototype.call;
  knownPush = arrayPrototype.push;
  knownPop = arrayPrototype.pop;
  knownCharCodeAt = stringPrototype.charCodeAt;
  knownSlice = stringPrototype.slice;
  knownToLowerCase = stringPrototype.toLowerCase;
  knownExec = regExpPrototype.exec;
  knownTest = regExpPrototype.test;
  knownKeys = ownKeys(objectPrototype).length;
  return broken;
}

function works(i) {
  try {
    return WATCHED[i][2](originals[i].get === undefined ? WATCHED[i][0][WATCHED[i][1]] : undefined);
  } catch {
    return false;
  }
}

module.exports = { mend };
