'use strict';

// The programs that are loaded: compiled by hash, instantiated at their first call, the least recently used one
// without a call in flight unloaded when there are too many.

const { compile } = require('./compile.js');
const { Made } = require('./made.js');
const { startModule } = require('./modules.js');
const { Packages } = require('./packages.js');
const {
  apply, isInteger, mapDelete, mapForEach, mapGet, mapSet, promiseThen, setImmediate,
} = require('./primordials.js');
const { makeRequire } = require('./require.js');
const { collectGarbage, tighten } = require('./v8flags.js');

const UNCOLLECTED = 8 * 1024 * 1024; // bytes of source that are read before garbage is collected
const GROWTH = 16 * 1024 * 1024; // bytes beyond the first full set of programs that count as not freed

class Program {
  #compiled;
  #starting; // of a module whose top level has begun: its promise, and how many calls wait for it

  constructor(compiled, size, made) {
    this.#compiled = compiled;
    this.size = size;
    this.made = made; // assemblies that were compiled for it
    this.loaded = false; // whether the program has been instantiated
    this.main = undefined; // then: what it returned or exported, a function if the program is valid
    this.arity = 0;
    this.calls = 0; // in flight
    this.used = 0; // clock of the last call
  }

  // Run the program's top level. Throws what it throws, and then nothing has changed. Of a module, which may take its
  // time, the start that is under way: a call that waits for its `promise` counts itself among the `waiting`, and leaves.
  start() {
    if (this.#starting !== undefined) return this.#starting;
    if (this.#compiled.body !== undefined) {
      this.#adopt(runBody(this.#compiled));
      return undefined;
    }
    const starting = { __proto__: null, promise: startModule(this.#compiled.fresh(), this.#compiled.packages), waiting: 0 };
    starting.promise = apply(promiseThen, starting.promise, [
      (main) => {
        if (this.#starting !== starting) return;
        this.#starting = undefined;
        this.#adopt(main);
      },
      (error) => {
        if (this.#starting === starting) this.#starting = undefined;
        throw error;
      },
    ]);
    this.#starting = starting;
    return starting;
  }

  // A call waits for a start no more. One that nobody waits for is given up: it may never end, and the next call begins anew.
  leave(starting) {
    starting.waiting--;
    if (starting.waiting === 0 && this.#starting === starting) this.#starting = undefined;
  }

  // As V8 has it: lines and columns of stacks are its own. What is in C# as a whole has none.
  get text() {
    return this.#compiled.text;
  }

  get file() {
    return this.#compiled.file;
  }

  // Bytes of its source, and of the packages that it has run.
  get weight() {
    return this.size + this.#compiled.packages.bytes;
  }

  forget() {
    this.#compiled.forget();
  }

  #adopt(main) {
    const length = typeof main === 'function' ? main.length : 0;
    this.arity = isInteger(length) ? length : 0;
    this.main = main;
    this.loaded = true;
  }
}

// What a function's body returns or exports.
function runBody({ body, name, packages }) {
  const module = { exports: {}, id: name, filename: name, loaded: false, children: [], paths: [] };
  module.require = makeRequire(packages);
  const returned = apply(body, module.exports, [module.exports, module.require, module, name, '.']);
  module.loaded = true;
  return typeof returned === 'function' ? returned : module.exports;
}

class Programs {
  #byHash = new Map();
  #count = 0;
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

  // Compile and keep: `then(error)`, with what the compiler says, or that one of the `modules` that it names is not there.
  // `wanted()`: whether somebody still waits; once not, `then` may never be called.
  load(hash, bytes, language, modules, wanted, then) {
    let packages;
    try {
      packages = new Packages(modules);
    } catch (error) {
      then(error);
      return;
    }
    tighten();
    this.#collect(bytes.length);
    const made = new Made();
    compile(bytes, language, made, packages, wanted, (error, compiled) => {
      // Another load of the same may have been done first.
      if (error === undefined && this.get(hash) === undefined) this.#keep(hash, new Program(compiled, bytes.length, made));
      then(error);
    });
  }

  #keep(hash, program) {
    this.#makeRoom(program.size);
    program.used = ++this.#clock;
    mapSet(this.#byHash, hash, program);
    this.#count++;
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
    program.forget();
    mapDelete(this.#byHash, hash);
    this.#count--;
  }

  // Summed up when it is asked for: what a program has run of packages grows with its calls.
  #weight() {
    let sum = 0;
    mapForEach(this.#byHash, (program) => {
      sum += program.weight;
    });
    return sum;
  }

  #makeRoom(size) {
    while (this.#count > 0 && (this.#count >= this.#maxCount || this.#weight() + size > this.#maxBytes)) {
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
