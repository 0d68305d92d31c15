'use strict';

// Assemblies on their way from one sandbox of a tenant to the next (docs/runtime.md, `made`): records of 32 bytes that
// say what it was made of, 4 that say its length, and the assembly.

const {
  allocUnsafe, bufferConcat, bufferCopy, bufferText, mapDelete, mapGet, mapSet, subarray,
} = require('./primordials.js');

const NAME = 32;
const HEAD = NAME + 4;
const MOST = 4 * 1024 * 1024; // bytes of records, of one program that waits to be asked and of all that came

const given = new Map(); // by name, in hexadecimal: assemblies that came and were not asked for yet
let size = 0;

function digestOf(key) {
  return process.getBuiltinModule('node:crypto').createHash('sha256').update(key).digest();
}

// The assembly that was made of `key` in another sandbox, or undefined.
function take(key) {
  if (size === 0) return undefined;
  const name = bufferText(digestOf(key), 'hex');
  const found = mapGet(given, name);
  if (found === undefined) return undefined;
  mapDelete(given, name);
  size -= found.length;
  return found;
}

// Keep what another sandbox has made. What is no record is left out, with all behind it.
function receive(bytes) {
  for (let at = 0; at + HEAD <= bytes.length;) {
    const length = ((bytes[at + NAME] * 256 + bytes[at + NAME + 1]) * 256 + bytes[at + NAME + 2]) * 256 + bytes[at + NAME + 3];
    const end = at + HEAD + length;
    if (length === 0 || end > bytes.length || size + length > MOST) return;
    const name = bufferText(subarray(bytes, at, at + NAME), 'hex');
    if (mapGet(given, name) === undefined) {
      // A copy: the source that it came with need not stay for it.
      const copy = allocUnsafe(length);
      bufferCopy(bytes, copy, 0, at + HEAD, end);
      mapSet(given, name, copy);
      size += length;
    }
    at = end;
  }
}

// What was made for one program and is still to be asked for.
class Made {
  #records = [];
  #size = 0;

  get empty() {
    return this.#size === 0;
  }

  add(key, assembly) {
    const { length } = assembly;
    if (this.#size + HEAD + length > MOST) return;
    const head = allocUnsafe(HEAD);
    bufferCopy(digestOf(key), head, 0, 0, NAME);
    head[NAME] = length >>> 24;
    head[NAME + 1] = (length >>> 16) & 255;
    head[NAME + 2] = (length >>> 8) & 255;
    head[NAME + 3] = length & 255;
    this.#records[this.#records.length] = head;
    this.#records[this.#records.length] = assembly;
    this.#size += HEAD + length;
  }

  // All of it; from now on there is none.
  hand() {
    const bytes = bufferConcat(this.#records);
    this.#records = [];
    this.#size = 0;
    return bytes;
  }
}

module.exports = { Made, receive, take };
