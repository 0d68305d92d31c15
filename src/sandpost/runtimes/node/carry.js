'use strict';

// Values between JavaScript and .NET: a text, and beside it what text has no form for (functions, bytes, dates, numbers
// that are none). Edge.js itself follows whatever it is given, so that a cycle, a BigInt, a Symbol or a getter that throws
// would end the process; it cuts text at a null character; and it takes ten times as long for an object. What has nothing
// beside it is the text alone, all else an array that begins with the text.
//
// The text for .NET needs no search for ends, no escapes, and no object of ours (Reader.cs reads it):
//   n t f              null, true, false
//   dNUMBER;           a number, as JSON has it
//   sLENGTH:STRING     a string, its length in units of UTF-16
//   uINDEX;            a string that stands beside, as bytes of UTF-16: with a null character or half a pair of surrogates
//   xINDEX;            what else stands beside
//   [VALUES]  {KEYS and VALUES in turns}
//
// The text for JavaScript is JSON behind a digit, the sum of 1 if there are marks in it, 2 if it is an exception, and 4 if
// that is for a result which cannot be handed over. A string
// that begins with a null character then is not itself: with a second one behind it that one and what follows are the
// string, else what follows is the number of a value beside the text.

const { types: { isDate } } = require('node:util');
const { SCRIPT_ERROR, choose, textOf } = require('./failures.js');
const { number } = require('./places.js');
const {
  apply, bufferOf, charCodeAt, dateTime, defineProperty, indexOf, isArray, isFinite, isView, isWellFormed, keysOf, parseJson,
  slice, startsWith, toPrimitive,
} = require('./primordials.js');

const DEPTH = 100;
const LONGEST = 1 << 24; // elements of an array
const PIECE = 1 << 16; // characters that are put together at once: what V8 keeps of each addition until then is more than text
const EARLIEST = -62135596800000; // DateTime.MinValue
const LATEST = 253402300799999; // DateTime.MaxValue
const NUL = '\0';
const MARKED = 1;
const FAILED = 2;
const REFUSED = 4;

class NotCarried extends TypeError {
  constructor(where, why) {
    super(`${where} cannot be handed to .NET: ${why}`);
    this.code = 'ERR_EDGE_VALUE';
    this.statusCode = 400;
    choose(this, SCRIPT_ERROR);
  }
}

class Carrier {
  #outward;
  #what;
  #above = [];
  #names = []; // by level, where in what is above the value stands
  #text = '';
  #before = '';
  #carried = [undefined];

  constructor(outward, what) {
    this.#outward = outward;
    this.#what = what;
  }

  // What goes to Edge.js.
  get carried() {
    const text = this.#before + this.#text;
    if (this.#carried.length === 1) return text;
    this.#carried[0] = text;
    return this.#carried;
  }

  string(value) {
    if (indexOf(value, NUL) < 0 && isWellFormed(value)) this.#text += `s${value.length}:${value}`;
    else this.#aside('u', bufferOf(value, 'utf16le'));
  }

  value(value) {
    if (this.#text.length > PIECE) this.#putTogether();
    switch (typeof value) {
      case 'string':
        this.string(value);
        break;
      case 'bigint':
        throw this.#refused('it is a BigInt; make it a number or text');
      case 'symbol':
        throw this.#refused('it is a Symbol');
      case 'function':
        this.#aside('x', this.#outward(value));
        break;
      case 'number':
        if (isFinite(value)) this.#text += `d${value};`;
        else this.#aside('x', value);
        break;
      case 'object':
        if (value === null) this.#text += 'n';
        else this.#object(value);
        break;
      case 'boolean':
        this.#text += value ? 't' : 'f';
        break;
      default:
        this.#text += 'n';
    }
  }

  #putTogether() {
    charCodeAt(this.#text, 0); // has V8 make one text of it
    this.#before += this.#text;
    this.#text = '';
  }

  #aside(letter, value) {
    const carried = this.#carried;
    this.#text += `${letter}${carried.length};`;
    carried[carried.length] = value;
  }

  #object(value) {
    if (isView(value)) {
      this.#aside('x', bufferOf(value.buffer, value.byteOffset, value.byteLength));
      return;
    }
    if (isDate(value)) {
      this.#aside('x', this.#date(value));
      return;
    }
    const above = this.#above;
    if (above.length === DEPTH) throw this.#refused(`it is deeper than ${DEPTH} levels`);
    for (let i = 0; i < above.length; i++) {
      if (above[i] === value) throw this.#refused('it contains itself');
    }
    above[above.length] = value;
    if (isArray(value)) this.#list(value);
    else this.#map(value);
    above.length--;
    this.#names.length = above.length;
  }

  #list(value) {
    const length = this.#read(value, 'length');
    this.#names.length = this.#above.length - 1;
    if (length > LONGEST) throw this.#refused(`it has more than ${LONGEST} elements`);
    this.#text += '[';
    for (let i = 0; i < length; i++) this.value(this.#read(value, i));
    this.#text += ']';
  }

  #map(value) {
    const keys = this.#keysOf(value);
    this.#text += '{';
    for (let i = 0; i < keys.length; i++) {
      this.string(keys[i]);
      this.value(this.#read(value, keys[i]));
    }
    this.#text += '}';
  }

  #read(object, key) {
    this.#names[this.#above.length - 1] = key;
    try {
      return object[key];
    } catch (error) {
      throw this.#refused(`reading it failed: ${textOf(error)}`);
    }
  }

  // What `for..in` gives, as Edge.js does.
  #keysOf(object) {
    const names = [];
    try {
      for (const name in object) names[names.length] = name;
    } catch (error) {
      throw this.#refused(`its keys cannot be listed: ${textOf(error)}`);
    }
    return names;
  }

  #date(value) {
    const time = apply(dateTime, value, []);
    if (!(time >= EARLIEST && time <= LATEST)) throw this.#refused('it is a date that .NET does not have');
    const made = new Date(time);
    // Edge.js asks the date for a number, on a way that a program may have changed.
    defineProperty(made, toPrimitive, { __proto__: null, value: () => time });
    return made;
  }

  #refused(why) {
    let where = this.#what;
    for (let i = 0; i < this.#names.length; i++) {
      const name = this.#names[i];
      where += typeof name === 'number' ? `[${name}]` : `.${name}`;
    }
    return new NotCarried(where, why);
  }
}

// What Edge.js is to hand to .NET for `value`, in which `outward(fn)` makes functions ready. Throws NotCarried. `what`:
// what it is called. `before`: a string that goes before it, if there is to be one.
function carry(value, outward, what, before) {
  const carrier = new Carrier(outward, what);
  if (before !== undefined) carrier.string(before);
  carrier.value(value);
  return carrier.carried;
}

// The value of what .NET has handed over, in which `inward(fn)` makes functions ready.
function uncarry(carried, inward) {
  const text = textOfCarried(carried);
  const value = parseJson(slice(text, 1));
  return hasBit(text, MARKED) ? settled(value, carried, inward) : value;
}

// Whether that is an exception.
function isFailure(carried) {
  return hasBit(textOfCarried(carried), FAILED);
}

// Whether that says that a result could not be handed over.
function isRefusal(carried) {
  return hasBit(textOfCarried(carried), REFUSED);
}

function textOfCarried(carried) {
  return typeof carried === 'string' ? carried : carried[0];
}

function hasBit(text, bit) {
  return (charCodeAt(text, 0) & bit) !== 0;
}

function settled(value, carried, inward) {
  if (typeof value === 'string') {
    if (!startsWith(value, NUL)) return value;
    if (startsWith(value, NUL, 1)) return slice(value, 1);
    const found = carried[number(value, 1).value];
    return typeof found === 'function' ? inward(found) : found;
  }
  if (typeof value !== 'object' || value === null) return value;
  const keys = keysOf(value);
  for (let i = 0; i < keys.length; i++) {
    const one = value[keys[i]];
    if (typeof one === 'string' || typeof one === 'object') {
      defineProperty(value, keys[i], {
        __proto__: null, value: settled(one, carried, inward), enumerable: true, configurable: true, writable: true,
      });
    }
  }
  return value;
}

module.exports = { carry, isFailure, isRefusal, uncarry };
