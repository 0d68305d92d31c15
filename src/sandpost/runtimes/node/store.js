'use strict';

// Which modules of npm there are: folders `npm/NAME/VERSION` of the platform's store, each complete since it is there.
//
// They are found by listing, and nothing is looked for that is not listed: on gVisor a name that was looked for in vain
// stays missing for this sandbox.

const { readdirSync } = require('node:fs');
const { COMPILATION_FAILED, choose: failAs } = require('./failures.js');
const { indexOf, slice } = require('./primordials.js');
const { modules: root } = require('./settings.js');
const { compare, parse, split, versionOf } = require('./specifiers.js');

const NPM = `${root}/npm`;

class ModuleNotFound extends Error {
  constructor(id, why) {
    super(`Cannot find module '${id}': ${why}`);
    this.code = 'MODULE_NOT_FOUND';
    // Wherever nobody catches it, as at the load: no fault of the function's, and there is something to do.
    failAs(this, COMPILATION_FAILED);
  }
}

class AttributesRefused extends TypeError {
  constructor(id) {
    super(`'${id}' is imported with attributes, of which there is none here but "json" as the type of JSON`);
  }
}

// What is in a folder of the store; nothing if there is none.
function list(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function has(names, wanted) {
  for (let i = 0; i < names.length; i++) if (names[i] === wanted) return true;
  return false;
}

// The versions of a package that are there, the newest first.
function versionsOf(name) {
  const slash = indexOf(name, '/');
  if (!has(list(NPM), slash < 0 ? name : slice(name, 0, slash))) return [];
  if (slash >= 0 && !has(list(`${NPM}/${slice(name, 0, slash)}`), slice(name, slash + 1))) return [];
  const found = [];
  const names = list(`${NPM}/${name}`);
  for (let i = 0; i < names.length; i++) {
    const version = versionOf(names[i]);
    if (version === undefined) continue;
    // There are few of one package: each goes before the first that is older.
    let at = found.length;
    for (; at > 0 && compare(version, found[at - 1].version) > 0; at--) found[at] = found[at - 1];
    found[at] = { __proto__: null, name: names[i], version };
  }
  for (let i = 0; i < found.length; i++) found[i] = found[i].name;
  return found;
}

function told(versions) {
  let text = '';
  for (let i = 0; i < versions.length && i < 10; i++) text += `${i > 0 ? ', ' : ''}${versions[i]}`;
  return versions.length > 10 ? `${text} and ${versions.length - 10} more` : text;
}

function command(name, version) {
  return `\`sandpost module add npm:${name}@${version}\``;
}

// The version that `id` gets: `wanted`, or the newest where that is ''. Throws `ModuleNotFound` that says what there is.
function choose(id, name, wanted) {
  const versions = versionsOf(name);
  if (wanted === '') {
    if (versions.length > 0) return versions[0];
    throw new ModuleNotFound(id, `it is not installed: ${command(name, 'VERSION')}`);
  }
  if (has(versions, wanted)) return wanted;
  if (versionOf(wanted) === undefined) {
    const there = versions.length > 0 ? `of ${name} there is ${told(versions)}` : `${name} is not installed: ${command(name, 'VERSION')}`;
    throw new ModuleNotFound(id, `'${wanted}' is not one exact version; ${there}`);
  }
  const others = versions.length > 0 ? `of ${name} there is ${told(versions)}` : 'it is not installed';
  throw new ModuleNotFound(id, `${others}: ${command(name, wanted)}`);
}

// What of a module's name no store could have, in words; undefined if it is a name.
function refusal(id, { name, version, versioned }) {
  if (id === '') return 'it has no name';
  if (id[0] === '.' || id[0] === '/') {
    return 'a program has no files beside it: it can use the modules built into Node, and those of npm that are installed';
  }
  if (indexOf(id, ':') >= 0) return 'it is not built into Node, and there are no modules by URL';
  if (name === undefined) return 'npm allows no such name';
  if (versioned && version === '') return 'there is no version behind `@`';
  return undefined;
}

// Where the package is that `id` means: its version's `folder`, and the `request` that finds it from there. `pins` has
// the versions that the program chose, by name, for where `id` says none; `got` those that it has got so, which it keeps.
// Throws `ModuleNotFound`.
function find(id, pins, got) {
  const said = parse(id);
  const why = refusal(id, said);
  if (why !== undefined) throw new ModuleNotFound(id, why);
  const chosen = said.version || pins[said.name] || '';
  const before = got[said.name];
  const kept = chosen === '' && before !== undefined && has(versionsOf(said.name), before);
  const version = kept ? before : choose(id, said.name, chosen);
  if (chosen === '') got[said.name] = version;
  return { __proto__: null, name: said.name, version, folder: `${NPM}/${said.name}/${version}`, request: said.name + said.path };
}

// What a program chooses, from the text `NAME[@VERSION],..` of its load: versions by name. Throws `ModuleNotFound` for
// what is not there.
function pinned(text) {
  const pins = { __proto__: null };
  if (text === undefined || text === '') return pins;
  const items = split(text, ',');
  for (let i = 0; i < items.length; i++) {
    const said = parse(items[i]);
    const why = said.path !== '' ? 'npm allows no such name' : refusal(items[i], said);
    if (why !== undefined) throw new ModuleNotFound(items[i], why);
    choose(items[i], said.name, said.version);
    pins[said.name] = said.version;
  }
  return pins;
}

module.exports = { AttributesRefused, ModuleNotFound, NPM, find, pinned };
