'use strict';

// The languages that this runtime runs, by what `load` says in `content-type`. One that says nothing is JavaScript.

const JAVASCRIPT = { __proto__: null, file: 'webtask.js', typescript: false, csharp: false };
const TYPESCRIPT = { __proto__: null, file: 'webtask.ts', typescript: true, csharp: false };
const CSHARP = { __proto__: null, file: 'webtask.cs', typescript: false, csharp: true };

const BY_TYPE = {
  __proto__: null,
  '': JAVASCRIPT,
  'application/javascript': JAVASCRIPT,
  'application/x-javascript': JAVASCRIPT,
  'text/javascript': JAVASCRIPT,
  'application/typescript': TYPESCRIPT,
  'text/typescript': TYPESCRIPT,
  'application/x-csharp': CSHARP,
  'text/csharp': CSHARP,
  'text/x-csharp': CSHARP,
};

// The language of a media type, undefined if it does not run here.
function languageOf(type) {
  return BY_TYPE[type];
}

module.exports = { languageOf };
