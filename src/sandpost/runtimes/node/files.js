'use strict';

// Files of npm's packages, for all programs: what they are, where Node finds one from another, and what CommonJS
// compiles to, as long as a program uses it.

const { readFileSync } = require('node:fs');
const { compileFunction } = require('node:vm');
const {
  apply, charCodeAt, endsWith, indexOf, lastIndexOf, mapDelete, mapGet, mapSet, parseJson, slice, startsWith,
} = require('./primordials.js');
const { requireBuiltin } = require('./require.js');
const { modules: root } = require('./settings.js');
const { withoutCompilationCache } = require('./v8flags.js');

const STORE = `${root}/`; // what lies there never changes
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const FOR_IMPORT = { __proto__: null, conditions: new Set(['node', 'import', 'module-sync', 'node-addons']) };
const { dlopen } = process;

const bodies = new Map(); // by file of the store: what it compiles to, and how many programs use that
const addons = new Map(); // by file: modules in machine code, which a process loads once
const types = new Map(); // by folder of the store: the "type" of its package.json

let node; // Node's own module `module`; loaded with the first package
let url;

function nodeModule() {
  if (node === undefined) {
    node = requireBuiltin('node:module');
    url = requireBuiltin('node:url');
  }
  return node;
}

function folderOf(file) {
  return slice(file, 0, lastIndexOf(file, '/'));
}

function textOf(file) {
  const text = readFileSync(file, 'utf8');
  return startsWith(text, '\ufeff') ? slice(text, 1) : text;
}

function jsonOf(file) {
  try {
    return parseJson(textOf(file));
  } catch (error) {
    error.message = `${file}: ${error.message}`;
    throw error;
  }
}

function urlOf(file) {
  nodeModule();
  return url.pathToFileURL(file).href;
}

// Where Node finds `request` from `parent`, a `Module` or what looks like one; for `import` or for `require`.
function resolve(request, parent, importing) {
  return nodeModule()._resolveFilename(request, parent, false, importing ? FOR_IMPORT : undefined);
}

// The same from a file, by what stands in an `import`.
function resolveImport(id, file) {
  const paths = nodeModule()._nodeModulePaths(folderOf(file));
  const request = startsWith(id, 'file:') ? url.fileURLToPath(id) : id;
  return resolve(request, { __proto__: null, id: file, filename: file, paths }, true);
}

function readType(file) {
  const found = nodeModule().findPackageJSON(url.pathToFileURL(file));
  return found === undefined ? undefined : jsonOf(found).type;
}

// What package.json says of files like `file`: `module`, `commonjs`, or nothing.
function typeOf(file) {
  const folder = folderOf(file);
  if (!startsWith(file, STORE)) return readType(file);
  const known = mapGet(types, folder);
  if (known !== undefined) return known.type;
  const type = readType(file);
  mapSet(types, folder, { __proto__: null, type });
  return type;
}

function isModule(file) {
  return endsWith(file, '.mjs') || (endsWith(file, '.js') && typeOf(file) === 'module');
}

// Whether what is no CommonJS may be an ES module, as of a file of which nothing is said.
function mayBeModule(file) {
  return endsWith(file, '.js') && typeOf(file) === undefined;
}

// What a module in machine code exports: of one process, since most can be loaded once.
function addonOf(module, file) {
  const known = mapGet(addons, file);
  if (known !== undefined) return known.exports;
  apply(dlopen, process, [module, file]);
  mapSet(addons, file, module);
  return module.exports;
}

function compile(text, file, importModuleDynamically) {
  return withoutCompilationCache(compileFunction, [text, PARAMETERS, { __proto__: null, filename: file, importModuleDynamically }]);
}

// Whether there is an `import()` in a text, or what looks like one.
function importsLater(text) {
  for (let at = indexOf(text, 'import'); at >= 0; at = indexOf(text, 'import', at + 6)) {
    let next = at + 6;
    while (charCodeAt(text, next) <= 32) next++;
    if (text[next] === '(' || text[next] === '/') return true;
  }
  return false;
}

// Count one more program that uses what a file compiles to, if it is compiled.
function use(file) {
  const body = mapGet(bodies, file);
  if (body === undefined) return undefined;
  body.users++;
  return body;
}

// Let further programs use what `size` characters compile to, if the file is one that stays as it is; says whether it is.
function share(file, run, size) {
  if (!startsWith(file, STORE)) return false;
  mapSet(bodies, file, { __proto__: null, run, size, users: 1 });
  return true;
}

function release(file) {
  const body = mapGet(bodies, file);
  if (body !== undefined && --body.users === 0) mapDelete(bodies, file);
}

module.exports = {
  addonOf, compile, folderOf, importsLater, isModule, jsonOf, mayBeModule, nodeModule, release, resolve, resolveImport,
  share, textOf, urlOf, use,
};
