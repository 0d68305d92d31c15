'use strict';

// TypeScript to JavaScript, by the compiler that Node has too (Amaro), in machine code (typescript/addon.c). It is loaded
// with the first program that needs it.
//
// Types become blanks, so that every place stays where it is. What has to be rewritten (enums, namespaces, parameter
// properties) comes with a source map.

const { readFileSync } = require('node:fs');
const { compileFunction } = require('node:vm');
const { addonOf } = require('./files.js');
const { further, remember } = require('./places.js');
const { apply, charCodeAt, indexOf, isInteger, lastIndexOf, repeat, slice } = require('./primordials.js');
const { typescript: FOLDER } = require('./settings.js');

const FILE = 'webtask.ts';
// The compiler takes no `return` outside a function. A line of its own, so that columns stay.
const HEAD = 'function webtask() {\n';
const TAIL = '\n}';
const STRIP = { __proto__: null, mode: 'strip-only', sourceMap: false, filename: '' };
const REWRITE = { __proto__: null, mode: 'transform', sourceMap: true, filename: '' };
const UNSUPPORTED = 'UnsupportedSyntax';
const LONG = 1000; // characters of a line beyond which its place alone is told
const TAB = 4; // cells

// Of the compiler's memory, beyond which it is given back after a program. It never shrinks, and to load the compiler
// anew takes less than such a program.
const KEPT = 16 * 1024 * 1024;

let compiler;

// { transform, size, end }: the compiler, how many bytes of memory it has, and what gives them back.
function load() {
  const { end, instantiate } = addonOf({ __proto__: null, exports: {} }, `${FOLDER}/compiler.node`);
  const made = { __proto__: null, exports: {} };
  let memory;
  const instantiated = (imports) => {
    const instance = instantiate(imports);
    memory = instance.memory;
    return instance;
  };
  // Not by `require`, which would keep one that broke.
  const text = readFileSync(`${FOLDER}/index.js`, 'utf8');
  compileFunction(text, ['module', 'require', 'instantiate'])(made, require, instantiated);
  return { __proto__: null, transform: made.exports.transformSync, size: () => memory.buffer.byteLength, end };
}

function giveBack() {
  compiler?.end();
  compiler = undefined;
}

// { code, map }. Throws what the compiler throws, which is { code, message, startLine, startColumn } for what the author
// did.
function callCompiler(source, options) {
  compiler ??= load();
  return apply(compiler.transform, undefined, [source, options]);
}

// JavaScript of `text`, in a function if it is `wrapped`.
function compile(text, wrapped) {
  const source = wrapped ? HEAD + text + TAIL : text;
  const lines = wrapped ? 1 : 0;
  try {
    return { __proto__: null, text: callCompiler(source, STRIP).code, map: undefined, lines };
  } catch (error) {
    if (error?.code !== UNSUPPORTED) throw readable(error, text, lines);
  }
  try {
    const { code, map } = callCompiler(source, REWRITE);
    return { __proto__: null, text: code, map, lines };
  } catch (error) {
    throw readable(error, text, lines);
  }
}

// An error whose stack begins with the place as V8's do. The compiler's has a line, and the cells of a terminal before
// the place in it.
function readable(error, text, lines) {
  if (!isInteger(error?.startLine)) {
    // The compiler itself failed, which it does at what is nested too deeply. From then on it would fail at every
    // program.
    giveBack();
    return failed('The TypeScript compiler failed at this program: is something nested too deeply?', '');
  }
  const { message } = error;
  let line = error.startLine - lines;
  let shown = lineAt(text, line);
  let column = shown === undefined ? 0 : columnAt(shown, error.startColumn);
  if (column === 0) {
    // The end of the program, which the compiler tells in a line of ours behind it.
    line = linesOf(text);
    shown = lineAt(text, line);
    column = shown.length + 1;
  }
  return failed(message, shown.length > LONG
    ? `${FILE}:${line}:${column}\n`
    : `${FILE}:${line}\n${shown}\n${repeat(' ', column - 1)}^\n\n`);
}

function failed(message, place) {
  const error = new SyntaxError(message);
  error.stack = `${place}SyntaxError: ${message}`;
  return error;
}

function linesOf(text) {
  let lines = 1;
  for (let at = indexOf(text, '\n'); at >= 0; at = indexOf(text, '\n', at + 1)) lines++;
  return lines;
}

function lineAt(text, line) {
  let from = 0;
  for (let i = 1; i < line; i++) {
    from = indexOf(text, '\n', from) + 1;
    if (from === 0) return undefined;
  }
  const end = indexOf(text, '\n', from);
  return slice(text, from, end < 0 ? text.length : end);
}

// The column, from 1, of the character that the compiler has so many cells before; 0 if there is none.
function columnAt(line, cells) {
  let width = 0;
  for (let i = 0; i <= line.length; i++) {
    const next = i === line.length ? 1 : cellsOf(line, i, width);
    if (width === cells && next > 0) return i + 1;
    width += next;
  }
  return 0;
}

// How the compiler counts: East Asian characters and pictures take a cell more than their code units, marks that stand
// above others and joiners none.
function cellsOf(line, at, width) {
  const unit = charCodeAt(line, at);
  if (unit === 9) return TAB - (width % TAB);
  if (unit < 0x300) return 1;
  if (unit < 0x370 || (unit >= 0x200b && unit <= 0x200f) || (unit >= 0xfe00 && unit <= 0xfe0f)) return 0;
  const wide = (unit >= 0x1100 && unit <= 0x115f) || (unit >= 0x2e80 && unit <= 0xa4cf) || (unit >= 0xac00 && unit <= 0xd7a3)
    || (unit >= 0xd83c && unit <= 0xd83e) || (unit >= 0xd840 && unit <= 0xd8bf)
    || (unit >= 0xf900 && unit <= 0xfaff) || (unit >= 0xfe30 && unit <= 0xfe6f) || (unit >= 0xff00 && unit <= 0xff60);
  return wide ? 2 : 1;
}

// The body of the function that was put around the program.
function unwrapped(made) {
  const { text } = made;
  if (made.map === undefined) return slice(text, HEAD.length, text.length - TAIL.length);
  // The compiler prints anew; what follows the brace keeps its line.
  return slice(text, indexOf(text, '{') + 1, lastIndexOf(text, '}'));
}

function stripped(text) {
  let made;
  let body;
  try {
    made = compile(text, true);
    body = unwrapped(made);
  } catch (asFunction) {
    // A compiler that failed would do so again.
    if (compiler === undefined) throw asFunction;
    try {
      made = compile(text, false);
      body = made.text;
    } catch (asModule) {
      throw further(asFunction, asModule);
    }
  }
  return { __proto__: null, text: body, file: made.map === undefined ? FILE : remember(made.map, made.lines) };
}

// { text, file }: `text`, TypeScript, as JavaScript with the same places, or with places that `file` leads back.
// Throws SyntaxError.
function strip(text) {
  try {
    return stripped(text);
  } finally {
    if (compiler !== undefined && compiler.size() > KEPT) giveBack();
  }
}

module.exports = { strip };
