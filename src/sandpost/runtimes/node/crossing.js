'use strict';

// The real Edge.js, and calls both ways through it: what goes in is checked, what comes back keeps to its call. .NET
// comes into the process with the first function: Mono, or CoreCLR where the image has it and the program wants it.

const { AsyncResource } = require('node:async_hooks');
const { askReplaced, charge } = require('./calls.js');
const { carry, isFailure, isRefusal, uncarry } = require('./carry.js');
const { CRASH, EXIT, NOT_SERIALIZABLE, SCRIPT_ERROR, choose, cut, isObject, textOf } = require('./failures.js');
const frames = require('./frames.js');
const { blameFor } = require('./guard.js');
const { mapped } = require('./places.js');
const { apply, defineProperty, isInteger, keysOf } = require('./primordials.js');
const { current } = require('./scope.js');
const { environment } = require('./settings.js');
const { loadingNode } = require('./v8flags.js');

// What `AsyncLocalStorage.snapshot()` is made of. It gives a function with accessors of its own, each a new shape to V8:
// that takes 3 us, and all that hangs on it (the whole call) stays until a full collection.
const { runInAsyncScope } = AsyncResource.prototype;
const FOLDER = `${__dirname}/../edge`;
const NATIVE = `${FOLDER}/node_modules/edge-js/build/Release/edge_coreclr.node`;
// Edge.js' own switch, a variable of the environment. A process can have one .NET: the first function decides.
const SWITCH = 'EDGE_USE_CORECLR';
// What Mono reads when it starts: a small nursery, no helper threads for the collector, no debugger at a crash. Where its
// native half is Edge.js is not to take from a program, nor to leave to the next.
const MONO = {
  __proto__: null, EDGE_NATIVE: undefined, MONO_GC_PARAMS: 'nursery-size=1m,major=marksweep', MONO_DEBUG: 'no-gdb-backtrace',
};
// The same for CoreCLR (sizes in hexadecimal): it sees the machine's memory and not the tenant's limit, so what dies young
// has 4 MiB, and all 4 GiB of addresses instead of 256. Edge.js looks for .NET along PATH. Mapping code twice, once to write
// and once to run, is against attacks from within: a sandbox is guarded from without, and this saves memory.
const CORECLR = {
  __proto__: null, PATH: '/usr/lib/dotnet', EDGE_NATIVE: undefined,
  EDGE_BOOTSTRAP_DIR: `${FOLDER}/node_modules/edge-js/lib/bootstrap/bin/Release`,
  DOTNET_EnableDiagnostics: '0', DOTNET_EnableWriteXorExecute: '0', DOTNET_GCgen0size: '400000', DOTNET_gcConcurrent: '0',
  DOTNET_GCConserveMemory: '5', DOTNET_GCRegionRange: '100000000', DOTNET_TieredPGO: '0',
};

let real;
let coreclr = false;
let started = false; // our classes there

class WrongUse extends TypeError {
  constructor(message, code = 'ERR_EDGE_USE') {
    super(message);
    this.code = code;
    this.statusCode = 400;
    choose(this, SCRIPT_ERROR);
  }
}

function set(variables, name, value) {
  if (value === undefined) delete variables[name];
  else variables[name] = value;
}

function loadEdge() {
  const { dlopen, getBuiltinModule } = process;
  const { createRequire } = getBuiltinModule('node:module');
  coreclr = !!process.env[SWITCH];
  if (coreclr && !getBuiltinModule('node:fs').existsSync(NATIVE)) {
    throw new WrongUse(
      `${SWITCH} is set, and there is no CoreCLR here: the operator's setting \`image.coreclr\` puts it into sandboxes`,
      'ERR_EDGE_NO_CORECLR',
    );
  }
  const settings = coreclr ? CORECLR : MONO;
  const before = { __proto__: null };
  const names = keysOf(settings);
  for (let i = 0; i < names.length; i++) before[names[i]] = environment[names[i]];
  try {
    for (let i = 0; i < names.length; i++) set(environment, names[i], settings[names[i]]);
    const required = createRequire(`${FOLDER}/`);
    if (coreclr) {
      const loaded = required('edge-js');
      if (typeof required(NATIVE).initializeClrFunc !== 'function') throw notStarted();
      return loaded;
    }
    // Mono's own libraries look for its functions among those that all can see.
    const { RTLD_GLOBAL, RTLD_LAZY } = getBuiltinModule('node:os').constants.dlopen;
    process.dlopen = (module, file) => apply(dlopen, process, [module, file, RTLD_LAZY | RTLD_GLOBAL]);
    return required('edge-js');
  } finally {
    process.dlopen = dlopen;
    for (let i = 0; i < names.length; i++) set(environment, names[i], before[names[i]]);
  }
}

// Edge.js does not say it. CoreCLR tries to start once a process.
function notStarted() {
  askReplaced();
  return new Error('CoreCLR could not start: call again, or raise `limits.memory` if that does not help');
}

// The function of .NET that `options` name to Edge.js and `own` to our class there, ready to be called. Throws what .NET
// says against it.
function functionOf(options, own) {
  real ??= loadingNode(loadEdge, undefined, []);
  // Edge.js looks each time.
  process.env.EDGE_CS_NATIVE = `${FOLDER}/sandpost-edge.dll`;
  if (coreclr) process.env[SWITCH] = '1';
  const native = real.func({ ...options, sandpost: started ? own : { ...own, log: frames.open, ends } });
  started = true;
  const refused = native(null, true);
  if (refused !== null) resultOf(refused);
  return inward(native);
}

// What .NET calls before it ends the process: the call that it does so for is answered while it waits.
function ends(told, done) {
  blameFor(told[0], told[1] === 'exit' ? EXIT : CRASH, cut(told[2]));
  done(null, null);
}

// --- calls, both ways -----------------------------------------------------------------------------------------

// A function of .NET as JavaScript calls it: `(data, callback)`, or `(data, true)` for the result at once.
function inward(native) {
  return function edge(data, callback) {
    const call = current();
    const wanted = typeof callback === 'function';
    let input;
    try {
      input = carry(data, outward, 'The input', call === undefined ? '' : call.frameId);
    } catch (error) {
      if (!wanted) throw error;
      apply(callback, undefined, [error]);
      return undefined;
    }
    if (!wanted) return callback ? resultOf(native(input, true)) : native(input);
    const here = new AsyncResource('edge');
    return native(input, (error, answer) => apply(runInAsyncScope, here, [tell, undefined, call, callback, error, answer]));
  };
}

// What .NET answers, or its exception, thrown.
function resultOf(answer) {
  const value = uncarry(answer, inward);
  if (!isFailure(answer)) return value;
  const error = errorOf(value);
  if (isRefusal(answer)) choose(error, NOT_SERIALIZABLE);
  throw error;
}

// Edge.js' own call of a callback is nobody's, and so is what is thrown there.
function tell(call, callback, error, answer) {
  try {
    let failed = error;
    let result;
    try {
      if (!failed) result = resultOf(answer);
    } catch (thrown) {
      failed = thrown;
    }
    if (failed) apply(callback, undefined, [failed]);
    else apply(callback, undefined, [undefined, result]);
  } catch (thrown) {
    charge(call, thrown);
  }
}

// A function of JavaScript as .NET calls it. It belongs to whose it was when it was handed over.
function outward(fn) {
  const here = new AsyncResource('edge');
  return (payload, done) => {
    let answered = false;
    const answer = (error, value) => {
      if (answered) return;
      answered = true;
      if (error !== undefined && error !== null) {
        done(shown(error));
        return;
      }
      let carried;
      try {
        carried = carry(value, outward, 'The answer', undefined);
      } catch (refused) {
        done(shown(refused));
        return;
      }
      done(null, carried);
    };
    try {
      const value = uncarry(payload, inward);
      apply(runInAsyncScope, here, [fn, undefined, value, answer]);
    } catch (error) {
      answer(error);
    }
  };
}

// An error as the text that .NET gets.
function shown(error) {
  let stack;
  try {
    stack = isObject(error) ? error.stack : undefined;
  } catch {
    // Its text must do.
  }
  return (typeof stack === 'string' ? mapped(stack) : textOf(error)) || 'Error';
}

// An exception of .NET as an error.
function errorOf(failure) {
  const error = new Error(failure.message);
  const hidden = (key, value) => defineProperty(error, key, { __proto__: null, value, configurable: true, writable: true });
  hidden('name', failure.name);
  hidden('stack', failure.stack);
  const keys = keysOf(failure.properties);
  for (let i = 0; i < keys.length; i++) {
    if (keys[i] !== 'name' && keys[i] !== 'message' && keys[i] !== 'stack') error[keys[i]] = failure.properties[keys[i]];
  }
  if (error.statusCode === undefined && isInteger(error.StatusCode)) error.statusCode = error.StatusCode;
  if (failure.inner) error.InnerException = errorOf(failure.inner);
  return error;
}

module.exports = { WrongUse, functionOf };
