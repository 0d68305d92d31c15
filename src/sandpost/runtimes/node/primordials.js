'use strict';

// The built-in functions that the runtime works with, taken before any program can replace them. Runtime code
// calls these and no method of a built-in prototype, uses no `for..of`, no spread and no destructuring of arrays
// (they go through `Array.prototype[Symbol.iterator]`), and no regular expression methods (they look up `exec`).

const uncurryThis = Function.prototype.bind.bind(Function.prototype.call);

module.exports = {
  apply: Reflect.apply,
  defineProperty: Object.defineProperty,
  getOwnPropertyDescriptor: Object.getOwnPropertyDescriptor,
  getPrototypeOf: Object.getPrototypeOf,
  hasOwn: Object.hasOwn,
  keysOf: Object.keys,
  isInteger: Number.isInteger,
  stringOf: String,
  ownKeys: Reflect.ownKeys,
  jsonOf: JSON.stringify,
  parseJson: JSON.parse,
  endsWith: uncurryThis(String.prototype.endsWith),
  indexOf: uncurryThis(String.prototype.indexOf),
  lastIndexOf: uncurryThis(String.prototype.lastIndexOf),
  slice: uncurryThis(String.prototype.slice),
  startsWith: uncurryThis(String.prototype.startsWith),
  toLowerCase: uncurryThis(String.prototype.toLowerCase),
  charCodeAt: uncurryThis(String.prototype.charCodeAt),
  trim: uncurryThis(String.prototype.trim),
  mapGet: uncurryThis(Map.prototype.get),
  mapSet: uncurryThis(Map.prototype.set),
  mapDelete: uncurryThis(Map.prototype.delete),
  mapForEach: uncurryThis(Map.prototype.forEach),
  promisePrototype: Promise.prototype,
  promiseThen: Promise.prototype.then,
  bufferFrom: Buffer.from,
  bufferConcat: Buffer.concat,
  bufferWrite: uncurryThis(Buffer.prototype.write),
  bufferCopy: uncurryThis(Buffer.prototype.copy),
  bufferText: uncurryThis(Buffer.prototype.toString),
  bufferSwap16: uncurryThis(Buffer.prototype.swap16),
  subarray: uncurryThis(Buffer.prototype.subarray),
  allocUnsafe: Buffer.allocUnsafe,
  byteLength: Buffer.byteLength,
  reallyExit: process.reallyExit,
  setTimeout,
  setImmediate,
};
