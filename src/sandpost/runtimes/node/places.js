'use strict';

// Where in its source a program failed, out of the texts that V8 and the TypeScript compiler make.
//
// A TypeScript program that had to be rewritten (enums, namespaces) has a file name of its own, `webtask.ts?N`; what
// is said of such a file is put back to the author's lines here, by its source map.

const { charCodeAt, indexOf, mapDelete, mapGet, mapSet, parseJson, slice } = require('./primordials.js');

const STEM = 'webtask.';
const REWRITTEN = 'webtask.ts?';
const NOWHERE = { __proto__: null, line: 0, column: 0 };

const maps = new Map(); // by N: the source map's JSON, and what it says once somebody asked
let last = 0;

// Keep the map of a rewritten program, whose source had `lines` lines of ours before it; returns its file's name.
function remember(json, lines) {
  last++;
  mapSet(maps, last, { __proto__: null, json, lines, map: undefined });
  return `${REWRITTEN}${last}`;
}

function forget(file) {
  mapDelete(maps, number(file, REWRITTEN.length).value);
}

function number(text, at) {
  let value = 0;
  let digits = 0;
  for (let code; at < text.length; at++, digits++) {
    code = charCodeAt(text, at);
    if (code < 48 || code > 57) break;
    value = value * 10 + code - 48;
  }
  return { __proto__: null, value: digits > 0 && digits < 10 ? value : 0, end: at };
}

// The author's place of a place in the rewritten program; none is known for what the compiler added.
function original(id, line, column) {
  const entry = mapGet(maps, id);
  if (entry === undefined) return NOWHERE;
  if (entry.map === undefined) {
    const { SourceMap } = process.getBuiltinModule('node:module');
    entry.map = new SourceMap(parseJson(entry.json));
  }
  const { originalLine, originalColumn } = entry.map.findEntry(line - 1, column - 1);
  if (typeof originalLine !== 'number' || originalLine < entry.lines) return NOWHERE;
  return { __proto__: null, line: originalLine + 1 - entry.lines, column: originalColumn + 1 };
}

// `text` with the author's places. What was not rewritten stays as it is.
function mapped(text) {
  if (last === 0) return text;
  let done = '';
  let from = 0;
  for (let at = indexOf(text, REWRITTEN); at >= 0; at = indexOf(text, REWRITTEN, from)) {
    const id = number(text, at + REWRITTEN.length);
    done += `${slice(text, from, at)}webtask.ts`;
    from = id.end;
    if (text[from] !== ':') continue;
    const line = number(text, from + 1);
    if (text[line.end] !== ':') continue;
    const column = number(text, line.end + 1);
    const place = original(id.value, line.value, column.value);
    if (place.line > 0) done += `:${place.line}:${place.column}`;
    from = column.end;
  }
  return done + slice(text, from);
}

// Where a name of a program's file, followed by a colon, begins in `text`; -1 if there is none.
function fileAt(text) {
  for (let at = indexOf(text, STEM); at >= 0; at = indexOf(text, STEM, at + 1)) {
    const end = at + STEM.length;
    if ((text[end] === 'j' || text[end] === 't' || text[end] === 'c') && text[end + 1] === 's' && text[end + 2] === ':') return at;
  }
  return -1;
}

// Line and column in the program, from 1; 0 is unknown. A syntax error's stack begins with `webtask.js:LINE`, the
// line itself and a line with a caret below the place; another's has frames with `webtask.js:LINE:COLUMN`.
function placeOf(stack) {
  if (stack === undefined) return NOWHERE;
  const at = fileAt(stack);
  if (at < 0) return NOWHERE;
  const behind = at + STEM.length + 3;
  const line = number(stack, slice(stack, behind, behind + 5) === 'line ' ? behind + 5 : behind);
  if (stack[line.end] === ':') {
    return { __proto__: null, line: line.value, column: number(stack, line.end + 1).value };
  }
  // A frame of .NET's: ` in ./webtask.cs:LINE`, or `:line LINE`.
  if (slice(stack, at - ' in ./'.length, at) === ' in ./') return { __proto__: null, line: line.value, column: 0 };
  if (at !== 0) return NOWHERE;
  const source = line.end + 1;
  const marks = indexOf(stack, '\n', source) + 1;
  const end = marks > 0 ? indexOf(stack, '\n', marks) : -1;
  if (end < 0) return { __proto__: null, line: line.value, column: 0 };
  let column = marks;
  while (column < end && (stack[column] === ' ' || stack[column] === '\t')) column++;
  // Nothing marked: the end of the program, unless the line was too long to be marked.
  const known = stack[column] === '^' || column - marks === marks - 1 - source;
  return { __proto__: null, line: line.value, column: known ? column - marks + 1 : 0 };
}

// Of two errors about the same source, read in two ways, the one that came further: that reading was meant.
function further(one, other) {
  const a = placeOf(one.stack);
  const b = placeOf(other.stack);
  return b.line > a.line || (b.line === a.line && b.column > a.column) ? other : one;
}

module.exports = { NOWHERE, fileAt, forget, further, mapped, number, placeOf, remember };
