'use strict';

// C# as its author writes it for Edge.js, a lambda or a class, as what the compiler takes. Pure: text in, text out.

const { charCodeAt, endsWith, indexOf, lastIndexOf, repeat, slice, startsWith, trim } = require('./primordials.js');

// Not `#line hidden`: the compiler takes that for hiding the lines of the same numbers in the author's file, too.
const BEFORE = 'using System; using System.Collections.Generic; using System.Linq; using System.Threading.Tasks; '
  + 'public class Startup { public async Task<object> Invoke(object ___input) { Func<object, Task<object>> ___function =\n';
const AFTER = '\n#line default\n; return await ___function(___input); } }\n';

function isLetter(code) {
  return (code > 64 && code < 91) || (code > 96 && code < 123) || code === 95 || code > 127;
}

function isBlank(code) {
  return code === 32 || (code > 8 && code < 14) || code === 0xfeff || code === 0xa0;
}

// Where what is neither blank nor a comment begins, from `at` on.
function skip(text, at) {
  for (;;) {
    while (at < text.length && isBlank(charCodeAt(text, at))) at++;
    if (startsWith(text, '//', at)) {
      const end = indexOf(text, '\n', at);
      at = end < 0 ? text.length : end + 1;
    } else if (startsWith(text, '/*', at)) {
      const end = indexOf(text, '*/', at + 2);
      at = end < 0 ? text.length : end + 2;
    } else {
      return at;
    }
  }
}

function endOfWord(text, at) {
  let end = at;
  while (end < text.length) {
    const code = charCodeAt(text, end);
    if (!isLetter(code) && !(end > at && code > 47 && code < 58)) break;
    end++;
  }
  return end;
}

// Where the program itself begins, behind its `using` directives.
function start(text) {
  let at = skip(text, 0);
  while (slice(text, at, endOfWord(text, at)) === 'using') {
    const next = skip(text, at + 5);
    const end = indexOf(text, ';', at);
    if (text[next] === '(' || end < 0) break;
    at = skip(text, end + 1);
  }
  return at;
}

// Whether what begins at `at` is an expression: a lambda or a delegate.
function isLambda(text, at) {
  if (text[at] === '(') return true;
  const end = endOfWord(text, at);
  const word = slice(text, at, end);
  return word === 'async' || word === 'delegate' || startsWith(text, '=>', skip(text, end));
}

// { text, references }: without the lines `#r "NAME"`, which become empty.
function withoutReferences(text) {
  const references = [];
  let done = '';
  let from = 0;
  while (from < text.length) {
    let end = indexOf(text, '\n', from);
    if (end < 0) end = text.length;
    const line = trim(slice(text, from, end));
    const word = startsWith(line, '//#r') ? slice(line, 4) : startsWith(line, '#r') ? slice(line, 2) : '';
    const opened = indexOf(word, '"');
    const closed = lastIndexOf(word, '"');
    if (opened > 0 && closed > opened && trim(slice(word, 0, opened)) === '') {
      references[references.length] = slice(word, opened + 1, closed);
    } else {
      done += slice(text, from, end);
    }
    if (end < text.length) done += '\n';
    from = end + 1;
  }
  return { __proto__: null, text: done, references };
}

function lineOf(text, at) {
  let line = 1;
  for (let end = indexOf(text, '\n'); end >= 0 && end < at; end = indexOf(text, '\n', end + 1)) line++;
  return line;
}

function columnOf(text, at) {
  return at - lastIndexOf(slice(text, 0, at), '\n');
}

// { text, references, lambda, end } of `source`, which begins at `line` and `column` of `file`: places that the compiler
// names are the author's, up to `end`.
function prepare(source, file, line, column) {
  const { text, references } = withoutReferences(source);
  const at = start(text);
  const down = lineOf(text, text.length) - 1;
  const end = {
    __proto__: null, file, line: line + down, column: columnOf(text, text.length) + (down === 0 ? column - 1 : 0),
  };
  const padded = repeat(' ', column - 1) + text;
  const first = `#line ${line} "${file}"\n`;
  if (!isLambda(text, at)) return { __proto__: null, text: first + padded, references, lambda: false, end };
  const directives = trim(slice(text, 0, at)) === '' ? '' : `${first}${repeat(' ', column - 1)}${slice(text, 0, at)}\n`;
  const own = lineOf(text, at);
  const indent = columnOf(text, at) - 1 + (own === 1 ? column - 1 : 0);
  let body = slice(text, at);
  // A comment at the end must not hide what follows; neither must a semicolon that somebody put there end it early.
  while (endsWith(body, '\n') || endsWith(body, ' ')) body = slice(body, 0, body.length - 1);
  return {
    __proto__: null,
    text: `${directives}#line default\n${BEFORE}#line ${line + own - 1} "${file}"\n${repeat(' ', indent)}${body}${AFTER}`,
    references,
    lambda: true,
    end,
  };
}

// The text in the comment that is the body of `text`, a function's, and where in it that begins; undefined without one.
function commentIn(text) {
  const opened = indexOf(text, '/*');
  const closed = lastIndexOf(text, '*/');
  if (opened < 0 || closed < opened + 2 || trim(slice(text, closed + 2)) !== '}') return undefined;
  return { __proto__: null, text: slice(text, opened + 2, closed), at: opened + 2 };
}

module.exports = { columnOf, commentIn, lineOf, prepare };
