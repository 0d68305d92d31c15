'use strict';

// `require('edge')`: what Edge.js offers programs. Each source is compiled once.

const { askReplaced } = require('./calls.js');
const { compile } = require('./ccompiler.js');
const { compileInTurn } = require('./cqueue.js');
const { WrongUse, functionOf } = require('./crossing.js');
const { columnOf, commentIn, lineOf, prepare } = require('./csource.js');
const { isObject, textOf } = require('./failures.js');
const { take } = require('./made.js');
const { fileAt, mapped, number } = require('./places.js');
const {
  endsWith, functionText, indexOf, isArray, jsonOf, mapGet, mapSet, slice, startsWith, stringOf, toLowerCase, weakGet, weakSet,
} = require('./primordials.js');
const { current } = require('./scope.js');

const FILE = 'webtask.cs';
const MANY = 512; // sources, whose assemblies .NET never forgets, until a successor is asked for

const assemblies = new Map(); // by what they were made of: { number, assembly (until .NET has it), lambda (its function, once there is one) }
let count = 0;

// The first place in the program that `stack` names, by the author's lines: { file, line, column }, or undefined.
function firstPlace(stack) {
  const text = mapped(stack);
  const at = fileAt(text);
  if (at < 0) return undefined;
  const line = number(text, at + FILE.length + 1);
  const column = number(text, line.end + 1);
  return { __proto__: null, file: slice(text, at, at + FILE.length), line: line.value, column: column.value };
}

// Where a function begins whose text is `text`: { place, certain }. `certain`: it is so for each of this text in the program.
// One that stands there more than once begins behind `func(`, where the program calls us; so does, as far as anybody knows,
// one of a package.
function whereIs(text) {
  const program = current()?.program;
  const all = program === undefined ? '' : program.text;
  const at = indexOf(all, text);
  const once = at >= 0 && indexOf(all, text, at + 1) < 0;
  let place = once ? firstPlace(`${program.file}:${lineOf(all, at)}:${columnOf(all, at)}`) : undefined;
  if (place === undefined) {
    place = firstPlace(stringOf(new Error().stack));
    if (place !== undefined) place.column += 'func('.length;
  }
  return { __proto__: null, place, certain: once || at < 0 };
}

// The source in a file, as edge-cs takes it by its name.
function sourceIn(name) {
  const file = process.getBuiltinModule('node:path').resolve(name);
  // The compiler is told the name in quotes.
  if (indexOf(file, '"') >= 0 || indexOf(file, '\n') >= 0) {
    throw new WrongUse('The name of a file of C# source must have no quotes and be one line.');
  }
  let text;
  try {
    text = process.getBuiltinModule('node:fs').readFileSync(file, 'utf8');
  } catch (error) {
    throw new WrongUse(`The C# source ${name} cannot be read (${error.message}): what ends in .cs or .csx names a file; give the `
      + 'name of one that is there, or the source itself.');
  }
  return prepare(startsWith(text, '\ufeff') ? slice(text, 1) : text, file, 1, 1);
}

// The source that `given` is, a text, the name of a file or a function with a comment: { prepared (for the compiler), certain }.
// `certain`: whether the same text always is the same source in the program.
function sourceOf(given) {
  if (typeof given === 'string') {
    const low = toLowerCase(slice(given, -'.csx'.length));
    const isFile = endsWith(low, '.cs') || low === '.csx';
    return { __proto__: null, prepared: isFile ? sourceIn(given) : prepare(given, FILE, 1, 1), certain: !isFile };
  }
  const text = functionText(given);
  const comment = commentIn(text);
  if (comment === undefined) {
    throw new WrongUse('If .NET source is given as a JavaScript function, its body must be a /* ... */ comment.');
  }
  const { place, certain } = whereIs(text);
  if (place === undefined) return { __proto__: null, prepared: prepare(comment.text, FILE, 1, 1), certain };
  const down = lineOf(text, comment.at) - 1;
  const column = columnOf(text, comment.at) + (down === 0 ? place.column - 1 : 0);
  return { __proto__: null, prepared: prepare(comment.text, place.file, place.line + down, column), certain };
}

function checkReferences(references) {
  if (references === undefined) return [];
  if (isArray(references)) {
    let texts = true;
    for (let i = 0; i < references.length; i++) texts = texts && typeof references[i] === 'string';
    if (texts) return references;
  }
  throw new WrongUse('The references property must be an array of strings.');
}

function isName(name) {
  return name === undefined || typeof name === 'string';
}

function optionsOf(language, given) {
  let options = given;
  if (options === undefined) options = language;
  else if (typeof language !== 'string' || toLowerCase(language) !== 'cs') {
    throw new WrongUse(`Unsupported language '${textOf(language)}': Edge.js runs C# here ('cs').`);
  }
  if (typeof options === 'string' && endsWith(toLowerCase(options), '.dll')) options = { assemblyFile: options };
  else if (typeof options === 'string' || typeof options === 'function') options = { source: options };
  if (!isObject(options)) throw new WrongUse('Specify the source code as string or provide an options object.');
  return options;
}

// Functions of lambdas, by program and then by the text that `func` got: the talk's own way, which a program goes at every call.
const written = new WeakMap();

function writtenIn(program) {
  let own = weakGet(written, program);
  if (own === undefined) {
    own = new Map();
    weakSet(written, program, own);
  }
  return own;
}

function textIn(given) {
  if (typeof given === 'string') return given;
  return typeof given === 'function' ? functionText(given) : undefined;
}

// Edge.js' `func([language,] source | options)`.
function func(...args) {
  const call = current();
  const text = args.length === 1 && call !== undefined ? textIn(args[0]) : undefined;
  if (text === undefined) return make(args).run;
  const own = writtenIn(call.program);
  const known = mapGet(own, text);
  if (known !== undefined) return known;
  const made = make(args);
  if (made.lasting) mapSet(own, text, made.run);
  return made.run;
}

// { run, lasting }: a function, and whether the same text is to give the same one.
function make(args) {
  const options = optionsOf(args[0], args[1]);
  const { assemblyFile, methodName, source, typeName } = options;
  const references = checkReferences(options.references);
  if (!isName(typeName) || !isName(methodName)) throw new WrongUse('The typeName and methodName properties must be strings.');
  if (assemblyFile !== undefined) {
    if (source !== undefined) throw new WrongUse('Provide either an assemblyFile or source property, but not both.');
    return { __proto__: null, lasting: false, run: ofFile(assemblyFile, typeName, methodName) };
  }
  if (typeof source !== 'string' && typeof source !== 'function') {
    throw new WrongUse('Provide a DLL or .NET source as a string or function, or an options object with an assemblyFile or source.');
  }
  const { prepared, certain } = sourceOf(source);
  return { __proto__: null, lasting: certain && prepared.lambda, run: ofSource(prepared, references, typeName, methodName) };
}

function ofFile(file, typeName, methodName) {
  if (typeof file !== 'string' || !endsWith(toLowerCase(file), '.dll')) throw new WrongUse('The assemblyFile must be the name of a .dll.');
  const { basename, resolve } = process.getBuiltinModule('node:path');
  let type = typeName;
  if (type === undefined) {
    type = `${basename(slice(file, 0, file.length - '.dll'.length))}.Startup`;
  }
  return functionOf({ source: FILE, typeName: type, methodName }, { file: resolve(file), references: [] });
}

// What is known of a prepared source, undefined if it is new here.
function lookUp(prepared, given) {
  const references = [];
  for (let i = 0; i < given.length; i++) references[i] = given[i];
  for (let i = 0; i < prepared.references.length; i++) references[references.length] = prepared.references[i];
  const key = jsonOf([prepared.text, references]);
  return { __proto__: null, key, references, known: mapGet(assemblies, key) };
}

// The same of what another sandbox of the tenant has made.
function taken(key, references) {
  const assembly = isPortable(references) ? take(key) : undefined;
  return assembly === undefined ? undefined : keep(key, assembly);
}

// Whether what was made of these is the same wherever it is made again.
function isPortable(references) {
  for (let i = 0; i < references.length; i++) if (indexOf(references[i], '/') >= 0) return false;
  return true;
}

function keep(key, assembly) {
  if (count === MANY) askReplaced();
  const known = { __proto__: null, number: stringOf(count++), assembly, lambda: undefined };
  mapSet(assemblies, key, known);
  return known;
}

// What a prepared source does, compiled if it is new here.
function ofSource(prepared, given, typeName, methodName) {
  const { key, references, known: found } = lookUp(prepared, given);
  let known = found ?? taken(key, references);
  if (known === undefined) {
    known = keep(key, compile(prepared, references));
    const call = current();
    if (call !== undefined && isPortable(references)) call.program.made.add(key, known.assembly);
  }
  // A lambda has no state of its own, and a program may ask for it at every call.
  if (known.lambda !== undefined) return known.lambda;
  const own = { key: known.number, references };
  if (known.assembly !== undefined) own.assembly = known.assembly;
  const options = prepared.lambda ? { source: FILE } : { source: FILE, typeName, methodName };
  const made = functionOf(options, own);
  known.assembly = undefined; // .NET has it now
  if (prepared.lambda) known.lambda = made;
  return made;
}

// A whole program in C#: `then(error, start)`, where `start()` gives its function and runs code of the program's.
// What was made goes to `made`. `wanted()`: whether somebody waits for it.
function compileProgram(text, made, wanted, then) {
  const prepared = prepare(text, FILE, 1, 1);
  const start = () => ofSource(prepared, [], undefined, undefined);
  const { key, references, known } = lookUp(prepared, []);
  if (known !== undefined || taken(key, references) !== undefined) {
    then(undefined, start);
    return;
  }
  compileInTurn(key, prepared, references, wanted, (error, assembly) => {
    if (error === undefined && mapGet(assemblies, key) === undefined) {
      keep(key, assembly);
      if (isPortable(references)) made.add(key, assembly);
    }
    then(error, start);
  });
}

module.exports = { compileProgram, edge: { __proto__: null, func } };
