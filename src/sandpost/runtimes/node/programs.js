'use strict';

// The programs that are loaded: compiled by hash, instantiated at their first call, the least recently used one
// without a call in flight unloaded when there are too many.

const { isUtf8 } = require('node:buffer');
const vm = require('node:vm');
const { FILE } = require('./failures.js');
const {
  apply, bufferSwap16, bufferText, isInteger, mapDelete, mapForEach, mapGet, mapSet, setImmediate, slice, startsWith,
  subarray,
} = require('./primordials.js');
const { collectGarbage, loadingNode, tighten, withoutCompilationCache } = require('./v8flags.js');

const { compileFunction } = vm;
const { getBuiltinModule } = process;
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const OPTIONS = {
  __proto__: null, filename: FILE, importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
};
const UNCOLLECTED = 8 * 1024 * 1024; // bytes of source that are read before garbage is collected
const GROWTH = 16 * 1024 * 1024; // bytes beyond the first full set of programs that count as not freed

class ModuleNotFound extends Error {
  constructor(id) {
    super(`Cannot find module '${id}': a program can require the modules built into Node`);
    this.code = 'MODULE_NOT_FOUND';
  }
}

function requireBuiltin(id) {
  const found = typeof id === 'string' ? loadingNode(getBuiltinModule, process, [id]) : undefined;
  if (found === undefined) throw new ModuleNotFound(String(id));
  return found;
}

// Each program has a function of its own, so that one cannot change what another requires.
function makeRequire() {
  const require = (id) => requireBuiltin(id);
  require.resolve = (id) => {
    // Loaded for whoever needs it: most programs do not, and every boot would pay for it.
    if (typeof id !== 'string' || !requireBuiltin('node:module').isBuiltin(id)) throw new ModuleNotFound(String(id));
    return id;
  };
  require.cache = Object.create(null);
  return require;
}

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

class Program {
  constructor(code, size) {
    this.code = code; // the compiled module body
    this.size = size;
    this.loaded = false; // whether the module has been instantiated
    this.main = undefined; // then: what it returned or exported, a function if the program is valid
    this.arity = 0;
    this.calls = 0; // in flight
    this.used = 0; // clock of the last call
  }

  // Run the module's top level. Throws what it throws, and then nothing has changed.
  instantiate() {
    const module = { exports: {}, id: FILE, filename: FILE, loaded: false, children: [], paths: [] };
    module.require = makeRequire();
    const returned = apply(this.code, module.exports, [module.exports, module.require, module, FILE, '.']);
    module.loaded = true;
    const main = typeof returned === 'function' ? returned : module.exports;
    const length = typeof main === 'function' ? main.length : 0;
    this.arity = isInteger(length) ? length : 0;
    this.main = main;
    this.loaded = true;
  }
}

function compile(bytes) {
  return new Program(withoutCompilationCache(compileFunction, [decode(bytes), PARAMETERS, OPTIONS]), bytes.length);
}

class Programs {
  #byHash = new Map();
  #count = 0;
  #bytes = 0;
  #clock = 0;
  #read = 0; // bytes of source since garbage was collected
  #maxCount;
  #maxBytes;

  // Whether unloading frees memory.
  #unloaded = 0; // since the last look
  #base = 0; // resident bytes when programs were first unloaded
  #baseHeap = 0; // live bytes then
  growing = false;

  constructor(maxCount, maxBytes) {
    this.#maxCount = maxCount;
    this.#maxBytes = maxBytes;
  }

  // The program of this hash, marked as used now, or undefined.
  get(hash) {
    const program = mapGet(this.#byHash, hash);
    if (program !== undefined) program.used = ++this.#clock;
    return program;
  }

  // Compile and keep. Throws what the compiler says.
  load(hash, bytes) {
    if (this.get(hash) !== undefined) return;
    tighten();
    this.#collect(bytes.length);
    const program = compile(bytes);
    this.#makeRoom(program.size);
    program.used = ++this.#clock;
    mapSet(this.#byHash, hash, program);
    this.#count++;
    this.#bytes += program.size;
  }

  // What a large program was read from and its text lie outside V8's heap, where V8 lets up to 128 MiB of garbage gather.
  #collect(size) {
    this.#read += size;
    if (this.#read <= UNCOLLECTED) return;
    this.#read = size;
    collectGarbage();
  }

  // Unload one, called or not.
  forget(hash) {
    const program = mapGet(this.#byHash, hash);
    if (program === undefined) return;
    mapDelete(this.#byHash, hash);
    this.#count--;
    this.#bytes -= program.size;
  }

  #makeRoom(size) {
    while (this.#count > 0 && (this.#count >= this.#maxCount || this.#bytes + size > this.#maxBytes)) {
      let oldest;
      let oldestHash;
      mapForEach(this.#byHash, (program, hash) => {
        if (program.calls === 0 && (oldest === undefined || program.used < oldest.used)) {
          oldest = program;
          oldestHash = hash;
        }
      });
      if (oldest === undefined) return; // all are being called; calls at once are bounded by the proxy
      this.forget(oldestHash);
      this.#unloaded++;
    }
    if (this.#unloaded >= this.#maxCount) {
      this.#unloaded = 0;
      setImmediate(() => this.#look());
    }
  }

  // After every `maxCount` unloaded programs: has memory grown since the first time, garbage not counted? What holds
  // it is the tenant's code (timers, globals), so the cure is another process.
  #look() {
    const resident = process.memoryUsage.rss();
    if (this.#base !== 0 && resident - this.#base < GROWTH) return;
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    if (this.#base === 0) {
      this.#base = process.memoryUsage.rss();
      this.#baseHeap = heapUsed + external;
    } else {
      this.growing = heapUsed + external - this.#baseHeap > GROWTH;
      this.#base = resident;
    }
  }
}

module.exports = { Programs };
