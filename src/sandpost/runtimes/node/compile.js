'use strict';

// From a program's bytes to what can be run: the body of a function, or an ES module.
//
// Which of the two is decided by reading it: as the body of a function first, and where it is none, as a module.

const { isUtf8 } = require('node:buffer');
const { compileFunction } = require('node:vm');
const { compileModule, dynamicImport } = require('./modules.js');
const { forget, further, mapped, placeOf } = require('./places.js');
const { bufferSwap16, bufferText, indexOf, slice, startsWith, subarray } = require('./primordials.js');
const { strip } = require('./typescript.js');
const { withoutCompilationCache } = require('./v8flags.js');

const csharp = () => require('./csharp.js'); // for whoever needs it
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];

// Program text from its bytes: UTF-8, or UTF-16 that says so by its mark. Throws SyntaxError.
function decode(bytes) {
  if (bytes.length >= 2 && bytes.length % 2 === 0) {
    if (bytes[0] === 0xff && bytes[1] === 0xfe) return bufferText(subarray(bytes, 2), 'utf16le');
    if (bytes[0] === 0xfe && bytes[1] === 0xff) return bufferText(bufferSwap16(subarray(bytes, 2)), 'utf16le');
  }
  if (!isUtf8(bytes)) throw new SyntaxError('The program is not UTF-8 text: save it as UTF-8');
  const text = bufferText(bytes, 'utf8');
  return startsWith(text, '\ufeff') ? slice(text, 1) : text;
}

function asFunction(text, file, packages) {
  const importModuleDynamically = indexOf(text, 'import') < 0 ? undefined : dynamicImport(packages);
  const options = { __proto__: null, filename: file, importModuleDynamically };
  return withoutCompilationCache(compileFunction, [text, PARAMETERS, options]);
}

// `body` is the function, or undefined for a module. `text` is what V8 keeps as well: it costs nothing.
class Compiled {
  constructor(text, file, name, packages) {
    this.file = file;
    this.name = name; // the same for its author
    this.packages = packages; // what it has of npm
    this.text = text;
    this.module = undefined;
    this.body = undefined;
    try {
      this.body = asFunction(text, file, packages);
    } catch (error) {
      try {
        this.module = compileModule(text, file, packages);
      } catch (other) {
        throw further(error, other);
      }
    }
  }

  // A module that has not run; a second one if the first failed.
  fresh() {
    const module = this.module ?? compileModule(this.text, this.file, this.packages);
    this.module = undefined;
    return module;
  }

  forget() {
    this.packages.forget();
    if (rewritten(this.file)) forget(this.file);
  }
}

function rewritten(file) {
  return file.length > 'webtask.ts'.length;
}

// A program in C#, whose function `start` gives.
function compiledElsewhere(start, { file }, packages) {
  return { __proto__: null, text: '', file, name: file, packages, body: start, forget() {} };
}

// `then(error, compiled)`, at once but for C#; assemblies of it go to `made`. An error is a SyntaxError, whose stack begins with the place in the
// author's source. `packages`: what the program has of npm. `wanted()`: whether somebody still waits; once not, `then` may
// never be called.
function compile(bytes, language, made, packages, wanted, then) {
  let compiled;
  try {
    const text = decode(bytes);
    if (language.csharp) {
      csharp().compileProgram(text, made, wanted, (error, start) => {
        then(error, error === undefined ? compiledElsewhere(start, language, packages) : undefined);
      });
      return;
    }
    compiled = compileText(text, language, packages);
  } catch (error) {
    then(error, undefined);
    return;
  }
  then(undefined, compiled);
}

function compileText(text, language, packages) {
  if (!language.typescript) return new Compiled(text, language.file, language.file, packages);
  const made = strip(text);
  try {
    return new Compiled(made.text, made.file, language.file, packages);
  } catch (error) {
    if (!rewritten(made.file)) throw error;
    // The line that V8 shows is the compiler's: the place alone is the author's.
    const { line, column } = placeOf(`webtask.ts${slice(error.stack, made.file.length)}`);
    error.stack = mapped(`${made.file}:${line}:${column}\nSyntaxError: ${error.message}`);
    forget(made.file);
    throw error;
  }
}

module.exports = { compile };
