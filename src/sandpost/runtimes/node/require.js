'use strict';

// What programs can require: the modules built into Node, Edge.js, and packages of npm that are installed.

const { ModuleNotFound } = require('./store.js');
const { loadingNode } = require('./v8flags.js');

const { getBuiltinModule } = process;

const csharp = () => require('./csharp.js'); // for whoever needs it
const EDGE = { __proto__: null, edge: true, 'edge-js': true };

// A module built into Node, or into the image; undefined if `id` names none.
function builtinOf(id) {
  // Changing V8's flags, as it takes to ask Node, costs as much as finding a file.
  if (typeof id !== 'string' || id[0] === '.' || id[0] === '/') return undefined;
  return EDGE[id] ? csharp().edge : loadingNode(getBuiltinModule, process, [id]);
}

function requireBuiltin(id) {
  const found = builtinOf(id);
  if (found === undefined) throw new ModuleNotFound(String(id), 'it is not built into Node');
  return found;
}

// Each program has a function of its own, so that one cannot change what another requires.
function makeRequire(packages) {
  const require = (id) => packages.again('', id) ?? builtinOf(id) ?? packages.require(id);
  // Not by `isBuiltin`: most programs do without `node:module`, and every boot would pay for it.
  require.resolve = (id) => (builtinOf(id) === undefined ? packages.resolve(id) : id);
  require.cache = packages.cache;
  return require;
}

module.exports = { builtinOf, makeRequire, requireBuiltin };
