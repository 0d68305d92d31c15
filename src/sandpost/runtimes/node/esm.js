'use strict';

// ES modules by `node:vm`, whose modules go with their program; Node's own loader keeps for good what it loads.

const vm = require('node:vm');
const { requireBuiltin } = require('./require.js');
const { keysOf, mapGet, mapSet, ownKeys, uncurryThis } = require('./primordials.js');
const { loadingNode, quietly, withoutCompilationCache } = require('./v8flags.js');

const { SourceTextModule, SyntheticModule } = vm;
const modulePrototype = Object.getPrototypeOf(SourceTextModule.prototype);
const getterOf = (prototype, name) => uncurryThis(Object.getOwnPropertyDescriptor(prototype, name).get);
const requestsOf = getterOf(SourceTextModule.prototype, 'moduleRequests');
const identifierOf = getterOf(modulePrototype, 'identifier');
const namespaceOf = getterOf(modulePrototype, 'namespace');
const statusOf = getterOf(modulePrototype, 'status');
const errorOf = getterOf(modulePrototype, 'error');
const linkRequests = uncurryThis(SourceTextModule.prototype.linkRequests);
const instantiate = uncurryThis(SourceTextModule.prototype.instantiate);
const isAsync = uncurryThis(SourceTextModule.prototype.hasAsyncGraph);
const evaluate = uncurryThis(modulePrototype.evaluate);
const setExport = uncurryThis(SyntheticModule.prototype.setExport);

const OF_FUNCTIONS = { __proto__: null, length: true, name: true, prototype: true, arguments: true, caller: true };

const builtins = new Map(); // modules built into Node, as modules to import

function synthetic(names, fill, identifier) {
  return new SyntheticModule(names, fill, { __proto__: null, identifier });
}

// Something that is no ES module, as one: its properties by their `names`, all of it as the default one.
function wrap(identifier, exported, names) {
  const exports = ['default'];
  for (let i = 0; i < names.length; i++) {
    if (names[i] !== 'default') exports[exports.length] = names[i];
  }
  const fill = () => {
    setExport(module, 'default', exported);
    for (let i = 1; i < exports.length; i++) setExport(module, exports[i], read(exported, exports[i]));
  };
  // Some of Node's exports are loaded when they are read.
  const module = quietly(synthetic, [exports, () => loadingNode(fill, undefined, []), identifier]);
  return module;
}

function read(exported, name) {
  if (name === 'module.exports') return exported;
  try {
    return exported[name];
  } catch {
    return undefined; // a getter that throws
  }
}

// What a CommonJS file exports, as a module. Node has read its text for the names; here they are known.
function wrapCommon(file, exported) {
  const names = ['module.exports'];
  if (typeof exported === 'object' || typeof exported === 'function') {
    const own = ownKeys(exported ?? {});
    for (let i = 0; i < own.length; i++) {
      if (typeof own[i] === 'string' && !(typeof exported === 'function' && OF_FUNCTIONS[own[i]])) names[names.length] = own[i];
    }
  }
  return wrap(file, exported, names);
}

// `id` as a module.
function builtin(id) {
  const known = mapGet(builtins, id);
  if (known !== undefined) return known;
  const exported = requireBuiltin(id);
  const module = wrap(id, exported, keysOf(exported));
  mapSet(builtins, id, module);
  return module;
}

function make(text, identifier, initializeImportMeta, importModuleDynamically) {
  return new SourceTextModule(text, { __proto__: null, identifier, initializeImportMeta, importModuleDynamically });
}

// The module of `text`, compiled. Throws SyntaxError.
function compileModule(text, identifier, fillMeta, importDynamically) {
  return withoutCompilationCache(quietly, [make, [text, identifier, fillMeta, importDynamically]]);
}

// Bind the imports of what is linked. Throws for a name that a module does not export.
function bind(module) {
  if (statusOf(module) === 'unlinked') instantiate(module);
}

module.exports = {
  bind, builtin, compileModule, errorOf, evaluate, identifierOf, isAsync, linkRequests, namespaceOf, requestsOf, statusOf, wrapCommon,
};
