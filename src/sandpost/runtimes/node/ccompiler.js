'use strict';

// The C# compiler: Mono's own, as a process of its own, so that its memory goes with it.

const { COMPILATION_FAILED, choose } = require('./failures.js');
const { number } = require('./places.js');
const {
  allocUnsafe, apply, bufferConcat, byteLength, endsWith, indexOf, lastIndexOf, slice, startsWith,
} = require('./primordials.js');
const { loadingNode } = require('./v8flags.js');

const LONGEST = 256 * 1024; // bytes of a source
const LARGEST = 4 * 1024 * 1024; // bytes of an assembly
const DEADLINE = 10_000; // ms
const OUTPUT = 1024 * 1024;
const MONO = '/usr/bin/mono-sgen';
const COMPILER = '/usr/lib/mono/4.5/mcs.exe';
const SOURCE = '/source.cs';
const OPTIONS = [
  COMPILER, '-nologo', '-noconfig', '-codepage:utf8', '-target:library', '-optimize+', '-debug', '-unsafe', '-warn:0', '-reference:System.dll',
  '-reference:System.Core.dll', '-reference:System.Xml.dll', '-reference:Microsoft.CSharp.dll',
];
// Least memory: the garbage of one compilation is not worth a collection.
const ENVIRONMENT = { __proto__: null, PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', MONO_GC_PARAMS: 'nursery-size=4m' };

const SETTINGS = {
  __proto__: null, cwd: '/tmp', encoding: 'utf8', env: ENVIRONMENT, killSignal: 'SIGKILL', maxBuffer: OUTPUT, timeout: DEADLINE,
};
const STREAMS = ['ignore', 'pipe', 'pipe'];

// C# that does not compile. Its stack begins with the place, as V8's do.
class CompilationFailed extends SyntaxError {
  constructor(message, place) {
    super(message);
    this.name = 'SyntaxError';
    this.stack = `${place === '' ? '' : `${place}\n`}SyntaxError: ${message}`;
    choose(this, COMPILATION_FAILED);
  }
}

let modules; // Node's, loaded for whoever needs them

function nodes() {
  modules ??= loadingNode(() => {
    const { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } = process.getBuiltinModule('node:fs');
    const { execFile, spawnSync } = process.getBuiltinModule('node:child_process');
    return { __proto__: null, execFile, mkdtempSync, readFileSync, rmSync, spawnSync, statSync, writeFileSync };
  }, undefined, []);
  return modules;
}

// The first error that the compiler names: `FILE(LINE,COLUMN): error CODE: MESSAGE`. One at the end of the program it
// places behind `last`, which is that end, or in what csource.js puts there.
function firstError(text, { folder, last }) {
  for (let from = 0; from < text.length;) {
    let end = indexOf(text, '\n', from);
    if (end < 0) end = text.length;
    const line = slice(text, from, end);
    from = end + 1;
    const mark = indexOf(line, 'error CS');
    if (mark < 0) continue;
    const message = slice(line, mark + 'error '.length);
    const closed = lastIndexOf(slice(line, 0, mark), '): ');
    const opened = closed < 0 ? -1 : lastIndexOf(slice(line, 0, closed), '(');
    if (opened < 0) return new CompilationFailed(message, '');
    const row = number(line, opened + 1);
    const column = number(line, row.end + 1);
    const behind = row.value === 0 || row.value > last.line || endsWith(slice(line, 0, opened), folder + SOURCE);
    const place = `${last.file}:${behind ? last.line : row.value}:${behind ? last.column : column.value}`;
    // Of a file beside the program an answer has no line and column.
    return new CompilationFailed(startsWith(last.file, '/') ? `${message} (${place})` : message, place);
  }
  return undefined;
}

// Why a compilation that ended like this made nothing.
function failure(ended, job) {
  const named = firstError(`${ended.stdout}${ended.stderr}`, job);
  if (named !== undefined) return named;
  if (ended.error?.code === 'ETIMEDOUT') {
    return new CompilationFailed(`The C# compiler was not done within ${DEADLINE / 1000} s: make the source smaller`, '');
  }
  if (ended.error !== undefined) return new CompilationFailed(`The C# compiler could not be started: ${ended.error.message}`, '');
  return new CompilationFailed(`The C# compiler failed at this source (${ended.signal ?? `status ${ended.status}`}): is something nested too `
    + 'deeply, or is there too little memory?', '');
}

// What a compilation works on: { folder, target, words (of the command), last }. Throws CompilationFailed.
function begin({ text: source, end: last }, references) {
  if (byteLength(source) > LONGEST) {
    throw new CompilationFailed(`C# source has ${LONGEST / 1024} KiB at most: put what is larger into an assembly`, '');
  }
  const { mkdtempSync, writeFileSync } = nodes();
  const job = { __proto__: null, folder: undefined, target: undefined, words: [], last };
  try {
    job.folder = mkdtempSync('/tmp/.csharp-');
    job.target = `${job.folder}/a.dll`;
    writeFileSync(`${job.folder}/source.cs`, source);
  } catch (error) {
    end(job);
    throw unusable(error);
  }
  const { words } = job;
  for (let i = 0; i < OPTIONS.length; i++) words[i] = OPTIONS[i];
  for (let i = 0; i < references.length; i++) words[words.length] = `-reference:${references[i]}`;
  // Traces name files as the source's lines do, and not this folder.
  words[words.length] = `-pathmap:${job.folder}=.`;
  words[words.length] = `-out:${job.target}`;
  words[words.length] = job.folder + SOURCE;
  return job;
}

// What a compilation which ended like this has made: the assembly, behind it its symbols, and behind these in 4 bytes their
// length, the lowest first (EdgeCompiler.cs takes them apart). Throws CompilationFailed.
function resultOf(job, ended) {
  const { readFileSync, statSync } = nodes();
  try {
    if (ended.status !== 0) throw failure(ended, job);
    const symbols = `${job.target}.mdb`;
    const length = statSync(symbols).size;
    const size = statSync(job.target).size + length;
    if (size <= LARGEST) {
      const last = allocUnsafe(4);
      for (let i = 0; i < 4; i++) last[i] = length >>> (8 * i);
      return bufferConcat([readFileSync(job.target), readFileSync(symbols), last]);
    }
    throw new CompilationFailed(`The assembly of this source would have ${size} bytes, more than ${LARGEST}`, '');
  } catch (error) {
    throw error instanceof CompilationFailed ? error : unusable(error);
  } finally {
    end(job);
  }
}

function end(job) {
  if (job.folder !== undefined) nodes().rmSync(job.folder, { __proto__: null, force: true, recursive: true });
}

function unusable(error) {
  return new CompilationFailed(`The C# compiler could not be run: ${error.message}`, '');
}

// The assembly of a prepared source, bytes, at once. Throws CompilationFailed.
function compile(prepared, references) {
  const job = begin(prepared, references);
  const { spawnSync } = nodes();
  return resultOf(job, started(job, spawnSync, [MONO, job.words, { ...SETTINGS, stdio: STREAMS }]));
}

// The same without holding up what else runs: `then(error, assembly)`.
function compileAside(prepared, references, then) {
  let job;
  try {
    job = begin(prepared, references);
  } catch (error) {
    then(error, undefined);
    return;
  }
  const { execFile } = nodes();
  const done = (error, stdout, stderr) => {
    // Of what ran into its deadline Node says no more than that it killed it.
    const code = error !== null && error.killed && error.signal === SETTINGS.killSignal ? 'ETIMEDOUT' : undefined;
    const status = error === null ? 0 : error.code;
    const ended = {
      __proto__: null, status, signal: error?.signal, stdout, stderr,
      error: code === undefined && typeof status !== 'string' ? undefined : { __proto__: null, code, message: error.message },
    };
    let assembly;
    try {
      assembly = resultOf(job, ended);
    } catch (failed) {
      then(failed, undefined);
      return;
    }
    then(undefined, assembly);
  };
  try {
    started(job, execFile, [MONO, job.words, SETTINGS, done]);
  } catch (error) {
    then(error, undefined);
  }
}

// What Node says at once of starting the compiler. Throws CompilationFailed, of a reference that can be no word, too.
function started(job, start, args) {
  try {
    return apply(start, undefined, args);
  } catch (error) {
    end(job);
    throw unusable(error);
  }
}

module.exports = { compile, compileAside };
