'use strict';

// Programs that are ES modules.

const vm = require('node:vm');
const {
  bind, builtin, compileModule: compile, evaluate, identifierOf, linkRequests, namespaceOf, requestsOf,
} = require('./esm.js');
const { builtinOf } = require('./require.js');
const { NOWHERE, placeOf } = require('./places.js');
const { apply, defineProperty, keysOf, promiseThen, uncurryThis } = require('./primordials.js');
const { AttributesRefused, ModuleNotFound } = require('./store.js');

const { Script, SyntheticModule } = vm;
const runInThisContext = uncurryThis(Script.prototype.runInThisContext);

const URL = 'file:///webtask.js'; // absolute, for `createRequire(import.meta.url)`

function imported(packages, specifier, attributes) {
  if (builtinOf(specifier) === undefined) return packages.import(specifier, attributes);
  if (keysOf(attributes).length > 0) throw new AttributesRefused(specifier);
  return builtin(specifier);
}

// What a program's `import()` does. Not async by itself: what it throws rejects the program's promise.
function dynamicImport(packages) {
  return (specifier, _, attributes) => {
    const module = imported(packages, specifier, attributes);
    bind(module);
    return apply(promiseThen, evaluate(module), [() => module]);
  };
}

function metaOf(packages) {
  return (meta) => {
    meta.dirname = '/';
    meta.filename = '/webtask.js';
    meta.main = false;
    meta.resolve = (specifier) => (builtinOf(specifier) === undefined ? packages.urlOf(specifier) : specifier);
    meta.url = URL;
  };
}

let thrower;

// V8 notes beside an error where in the source it is, and `node:vm` puts it into the stack of what a script throws.
function decorated(error) {
  if (thrower === undefined) thrower = new Script('$sandpostThrow()');
  try {
    defineProperty(globalThis, '$sandpostThrow', {
      __proto__: null,
      configurable: true,
      value: () => {
        throw error;
      },
    });
    runInThisContext(thrower);
  } catch {
    // It is `error`, or no name can be defined any more.
  }
  delete globalThis.$sandpostThrow;
  return error;
}

// The module of `text`, compiled. Throws SyntaxError.
function compileModule(text, file, packages) {
  try {
    return compile(text, file, metaOf(packages), dynamicImport(packages));
  } catch (error) {
    throw decorated(error);
  }
}

// What `module` imports, each as a module. Throws what cannot be imported, with its place if V8 tells it.
function importsOf(module, packages) {
  const requests = requestsOf(module);
  const found = [];
  for (let i = 0; i < requests.length; i++) {
    try {
      found[i] = imported(packages, requests[i].specifier, requests[i].attributes);
    } catch (error) {
      // What a package throws as it is loaded has places of its own.
      if (!(error instanceof ModuleNotFound) && !(error instanceof AttributesRefused)) throw error;
      const place = placeOfImport(module, found, requests.length);
      if (place.line > 0) error.stack = `${identifierOf(module)}:${place.line}:${place.column}\n${error.name}: ${error.message}`;
      throw error;
    }
  }
  return found;
}

// Where the first import behind those `found` is: V8 says so of names that an empty module does not export.
function placeOfImport(module, found, count) {
  const nothing = new SyntheticModule([], () => {}, { __proto__: null, identifier: 'nothing' });
  for (let i = found.length; i < count; i++) found[i] = nothing;
  linkRequests(module, found);
  try {
    bind(module);
  } catch (error) {
    return placeOf(decorated(error).stack);
  }
  return NOWHERE;
}

// Run a module's top level; a promise of its default export. Throws what keeps it from beginning.
function startModule(module, packages) {
  linkRequests(module, importsOf(module, packages));
  try {
    bind(module);
  } catch (error) {
    throw decorated(error);
  }
  return apply(promiseThen, evaluate(module), [() => namespaceOf(module).default]);
}

module.exports = { compileModule, dynamicImport, startModule };
