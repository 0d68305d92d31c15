'use strict';

// What one program has of npm's packages: its own instance of each, gone with the program.
//
// Node's loader has one instance for the process, and keeps it for good. Here the text of a CommonJS file is compiled
// once for all programs that use it, and run for each of them. Where a file is, Node itself says.

const {
  bind, builtin, compileModule, errorOf, evaluate, isAsync, linkRequests, namespaceOf, requestsOf, statusOf, wrapCommon,
} = require('./esm.js');
const {
  addonOf, compile, folderOf, importsLater, isModule, jsonOf, mayBeModule, nodeModule, release, resolve, resolveImport,
  share, textOf, urlOf, use,
} = require('./files.js');
const {
  apply, defineProperty, endsWith, hasOwn, keysOf, mapDelete, mapGet, mapSet, promiseThen,
} = require('./primordials.js');
const { builtinOf } = require('./require.js');
const { AttributesRefused, ModuleNotFound, find, pinned } = require('./store.js');

const ignore = () => {};

function notSync(file) {
  const error = new Error(`require() cannot be used on an ES module with top-level await: use import() for ${file}`);
  error.code = 'ERR_REQUIRE_ASYNC_MODULE';
  return error;
}

// As Node says it.
function notText() {
  const error = new TypeError('The "id" argument must be of type string');
  error.code = 'ERR_INVALID_ARG_TYPE';
  return error;
}

// What `require` gives of an ES module: its exports, marked for compilers that tell a default one by that.
function required(module) {
  const namespace = namespaceOf(module);
  if (hasOwn(namespace, 'module.exports')) return namespace['module.exports'];
  if (!hasOwn(namespace, 'default') || hasOwn(namespace, '__esModule')) return namespace;
  const marked = { __proto__: null };
  const names = keysOf(namespace);
  for (let i = 0; i < names.length; i++) {
    defineProperty(marked, names[i], { __proto__: null, enumerable: true, get: () => namespace[names[i]] });
  }
  defineProperty(marked, '__esModule', { __proto__: null, enumerable: true, value: true });
  return marked;
}

// Whether the file is what an ES module may be.
function isParsed(file) {
  try {
    compileModule(textOf(file), file, ignore, ignore);
    return true;
  } catch {
    return false;
  }
}

class Packages {
  cache = { __proto__: null }; // `require.cache`: Node's `Module`s by file
  bytes = 0; // of the texts that it has run
  #pins;
  #got = { __proto__: null };
  #modules = new Map(); // ES modules by file
  #found = new Map(); // files by where they were asked for and how: a program has the same one for good
  #added; // files of ES modules that are being linked
  #used = []; // files whose compiled text this program shares
  #forgotten = false;

  // `chosen`: the versions that its program names, as `load` says them. Throws `ModuleNotFound` for what is not there.
  constructor(chosen) {
    this.#pins = pinned(chosen);
  }

  // What a program gets by `require(id)`, where that is not built into Node.
  require(id) {
    return this.#exports(this.#locate(id, false), undefined);
  }

  // The same at once, if it has been required from `folder` before; undefined if not.
  again(folder, id) {
    const file = typeof id === 'string' ? mapGet(this.#found, `${folder}\0${id}`) : undefined;
    return file === undefined ? undefined : this.cache[file]?.exports;
  }

  // The file that this comes from.
  resolve(id) {
    return this.#locate(id, false);
  }

  // The URL of the one that an `import` comes from.
  urlOf(id) {
    return urlOf(this.#locate(id, true));
  }

  // What a program gets by `import`, as a module that is neither bound nor evaluated.
  import(id, attributes) {
    const file = this.#locate(id, true);
    return this.#linked(() => this.#module(id, file, attributes));
  }

  // The program is unloaded: what it left running goes on.
  forget() {
    this.#forgotten = true;
    for (let i = 0; i < this.#used.length; i++) release(this.#used[i]);
    this.#used = [];
  }

  #locate(id, importing) {
    if (typeof id !== 'string') throw new ModuleNotFound(String(id), 'a module is named by text');
    const key = `${importing ? ' ' : ''}\0${id}`;
    const known = mapGet(this.#found, key);
    if (known !== undefined) return known;
    const { name, version, folder, request } = find(id, this.#pins, this.#got);
    // As if by a file that lies beside `node_modules`.
    const filename = `${folder}/webtask.js`;
    const parent = { __proto__: null, id: filename, filename, paths: [`${folder}/node_modules`] };
    try {
      const file = resolve(request, parent, importing);
      mapSet(this.#found, key, file);
      return file;
    } catch (error) {
      if (error?.code === 'MODULE_NOT_FOUND') throw new ModuleNotFound(id, `${name} ${version} has no such file`);
      throw error;
    }
  }

  // --- CommonJS ---------------------------------------------------------------------------------------------------

  #exports(file, parent) {
    const known = this.cache[file];
    if (known !== undefined) return known.exports;
    if (isModule(file)) return this.#requireModule(file);
    const Module = nodeModule();
    const module = new Module(file, parent);
    module.filename = file;
    module.paths = Module._nodeModulePaths(folderOf(file));
    module.require = this.#requireOf(module);
    this.cache[file] = module;
    try {
      this.#fill(module, file);
      module.loaded = true;
    } finally {
      if (!module.loaded) delete this.cache[file];
    }
    return module.exports;
  }

  #fill(module, file) {
    if (endsWith(file, '.json')) {
      module.exports = jsonOf(file);
      return;
    }
    if (endsWith(file, '.node')) {
      module.exports = addonOf(module, file);
      return;
    }
    let run;
    try {
      run = this.#body(file);
    } catch (error) {
      if (!(error instanceof SyntaxError) || !mayBeModule(file) || !isParsed(file)) throw error;
      module.exports = this.#requireModule(file);
      return;
    }
    apply(run, module.exports, [module.exports, module.require, module, file, folderOf(file)]);
  }

  #body(file) {
    const known = this.#forgotten ? undefined : use(file);
    if (known !== undefined) {
      this.#used[this.#used.length] = file;
      // Of what is compiled already a further program has the objects alone.
      this.bytes += known.size >> 2;
      return known.run;
    }
    const text = textOf(file);
    this.bytes += text.length;
    // What it imports later is this program's own instance, so its compiled text is, too.
    if (importsLater(text)) return compile(text, file, this.#dynamic(file));
    const run = compile(text, file, undefined);
    if (!this.#forgotten && share(file, run, text.length)) this.#used[this.#used.length] = file;
    return run;
  }

  #requireOf(module) {
    const Module = nodeModule();
    const folder = folderOf(module.filename);
    const locate = (id, options) => (builtinOf(id) === undefined ? Module._resolveFilename(id, module, false, options) : id);
    const require = (id) => this.again(folder, id) ?? builtinOf(id) ?? this.#required(id, module, folder);
    require.resolve = locate;
    locate.paths = (id) => Module._resolveLookupPaths(id, module);
    require.main = undefined;
    require.extensions = Module._extensions;
    require.cache = this.cache;
    return require;
  }

  #required(id, module, folder) {
    if (typeof id !== 'string') throw notText();
    const file = resolve(id, module, false);
    mapSet(this.#found, `${folder}\0${id}`, file);
    return this.#exports(file, module);
  }

  // --- ES modules -------------------------------------------------------------------------------------------------

  #requireModule(file) {
    const module = this.#linked(() => this.#source(file));
    bind(module);
    if (isAsync(module)) throw notSync(file);
    // What it throws is thrown here.
    apply(promiseThen, evaluate(module), [ignore, ignore]);
    if (statusOf(module) === 'errored') throw errorOf(module);
    return required(module);
  }

  // The module that `work` gives, linked with all that it imports; of what cannot be linked nothing stays.
  #linked(work) {
    if (this.#added !== undefined) return work();
    this.#added = [];
    let module;
    try {
      module = work();
      return module;
    } finally {
      const added = this.#added;
      this.#added = undefined;
      if (module === undefined) for (let i = 0; i < added.length; i++) mapDelete(this.#modules, added[i]);
    }
  }

  #keep(file, module) {
    mapSet(this.#modules, file, module);
    this.#added[this.#added.length] = file;
    return module;
  }

  #module(id, file, attributes) {
    const names = keysOf(attributes);
    const asJson = names.length === 1 && names[0] === 'type' && attributes.type === 'json' && endsWith(file, '.json');
    if (names.length > 0 && !asJson) throw new AttributesRefused(id);
    if (isModule(file)) return this.#source(file);
    const known = mapGet(this.#modules, file);
    if (known !== undefined) return known;
    const exported = this.#exports(file, undefined);
    // It may have turned out to be an ES module.
    return mapGet(this.#modules, file) ?? this.#keep(file, wrapCommon(file, exported));
  }

  #source(file) {
    const known = mapGet(this.#modules, file);
    if (known !== undefined) return known;
    const meta = (object) => {
      object.dirname = folderOf(file);
      object.filename = file;
      object.main = false;
      object.resolve = (id) => (builtinOf(id) === undefined ? urlOf(resolveImport(id, file)) : id);
      object.url = urlOf(file);
    };
    const text = textOf(file);
    this.bytes += text.length;
    const module = this.#keep(file, compileModule(text, urlOf(file), meta, this.#dynamic(file)));
    const requests = requestsOf(module);
    const found = [];
    for (let i = 0; i < requests.length; i++) {
      found[i] = this.#importedBy(file, requests[i].specifier, requests[i].attributes);
    }
    linkRequests(module, found);
    return module;
  }

  #importedBy(file, id, attributes) {
    return builtinOf(id) === undefined ? this.#module(id, resolveImport(id, file), attributes) : builtin(id);
  }

  // The `import()` of a package's file.
  #dynamic(file) {
    return (id, _, attributes) => {
      const module = this.#linked(() => this.#importedBy(file, id, attributes));
      bind(module);
      return apply(promiseThen, evaluate(module), [() => module]);
    };
  }
}

module.exports = { Packages };
