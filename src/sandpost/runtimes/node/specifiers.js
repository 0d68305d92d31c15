'use strict';

// Names and versions of npm's packages, and what a program says when it wants one: `NAME[@VERSION][/PATH]`. Pure.

const { charCodeAt, indexOf, slice, toLowerCase } = require('./primordials.js');

const LONGEST_NAME = 214;
const LONGEST_VERSION = 64;
const NEVER = { __proto__: null, node_modules: true, 'favicon.ico': true };

function isDigit(code) {
  return code >= 48 && code <= 57;
}

function isLetter(code) {
  return (code >= 65 && code <= 90) || (code >= 97 && code <= 122);
}

// What npm takes for a new package, and capitals, which old ones have.
function isPart(text) {
  for (let i = 0; i < text.length; i++) {
    const code = charCodeAt(text, i);
    if (isDigit(code) || isLetter(code) || code === 126) continue; // ~
    if (i === 0 || (code !== 45 && code !== 46 && code !== 95)) return false; // - . _
  }
  return text.length > 0;
}

function isName(name) {
  if (name.length > LONGEST_NAME || NEVER[toLowerCase(name)]) return false;
  if (name[0] !== '@') return isPart(name);
  const slash = indexOf(name, '/');
  return slash > 0 && isPart(slice(name, 1, slash)) && isPart(slice(name, slash + 1));
}

// The number in `text`, as semver writes one; -1 if it is none.
function numberOf(text) {
  if (text.length === 0 || text.length > 15 || (text.length > 1 && text[0] === '0')) return -1;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const code = charCodeAt(text, i);
    if (!isDigit(code)) return -1;
    value = value * 10 + code - 48;
  }
  return value;
}

function isWord(text) {
  for (let i = 0; i < text.length; i++) {
    const code = charCodeAt(text, i);
    if (!isDigit(code) && !isLetter(code) && code !== 45) return false;
  }
  return text.length > 0;
}

// `text` at its points, or at its commas.
function split(text, separator) {
  const parts = [];
  let from = 0;
  for (let at = indexOf(text, separator); at >= 0; at = indexOf(text, separator, from)) {
    parts[parts.length] = slice(text, from, at);
    from = at + 1;
  }
  parts[parts.length] = slice(text, from);
  return parts;
}

// One exact version (semver 2.0, without build metadata): its three numbers, and what a pre-release has behind them;
// undefined for anything else.
function versionOf(text) {
  if (text.length > LONGEST_VERSION) return undefined;
  const dash = indexOf(text, '-');
  const core = split(dash < 0 ? text : slice(text, 0, dash), '.');
  if (core.length !== 3) return undefined;
  for (let i = 0; i < 3; i++) {
    core[i] = numberOf(core[i]);
    if (core[i] < 0) return undefined;
  }
  const pre = dash < 0 ? [] : split(slice(text, dash + 1), '.');
  for (let i = 0; i < pre.length; i++) {
    const number = numberOf(pre[i]);
    if (number >= 0) pre[i] = number;
    else if (!isWord(pre[i]) || allDigits(pre[i])) return undefined;
  }
  return { __proto__: null, core, pre };
}

function allDigits(text) {
  for (let i = 0; i < text.length; i++) if (!isDigit(charCodeAt(text, i))) return false;
  return true;
}

// Which of two versions is newer: above 0 if it is `a`. A pre-release is older than all that are none.
function compare(a, b) {
  if ((a.pre.length === 0) !== (b.pre.length === 0)) return a.pre.length === 0 ? 1 : -1;
  for (let i = 0; i < 3; i++) if (a.core[i] !== b.core[i]) return a.core[i] - b.core[i];
  for (let i = 0; i < a.pre.length && i < b.pre.length; i++) {
    const one = a.pre[i];
    const other = b.pre[i];
    if (one === other) continue;
    if (typeof one !== typeof other) return typeof one === 'number' ? -1 : 1;
    return one > other ? 1 : -1;
  }
  return a.pre.length - b.pre.length;
}

// What `id` names: `name`, `version` ('' if it says none), and the `path` in the package with its slash. `name` is
// undefined where npm allows no such name. The version is as it is written there, and may be none.
function parse(id) {
  const scope = id[0] === '@' ? indexOf(id, '/') + 1 : 0;
  const slash = indexOf(id, '/', scope);
  const head = slash < 0 ? id : slice(id, 0, slash);
  const at = indexOf(head, '@', scope > 0 ? scope : 1);
  const name = at < 0 ? head : slice(head, 0, at);
  return {
    __proto__: null,
    name: isName(name) ? name : undefined,
    version: at < 0 ? '' : slice(head, at + 1),
    versioned: at >= 0,
    path: slash < 0 ? '' : slice(id, slash),
  };
}

module.exports = { compare, parse, split, versionOf };
