'use strict';

// What the engine tells the runtime, by environment (docs/runtime.md, "Process").

const { join } = require('node:path');

function natural(name, fallback) {
  const text = process.env[name];
  if (text === undefined || text === '') return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} must be a whole number, not \`${text}\``);
  return value;
}

module.exports = {
  // What native code sees of it, whatever programs put in its place.
  environment: process.env,
  // The folder of its compiler in the image, beside the Node that runs us.
  typescript: join(process.execPath, '../../lib/amaro'),
  port: natural('SANDPOST_PORT', 8000),
  ready: natural('SANDPOST_READY', undefined),
  portFile: process.env.SANDPOST_PORT_FILE || '',
  modules: process.env.SANDPOST_MODULES || '/modules',
  programs: natural('SANDPOST_PROGRAMS', 256) || 1,
  programBytes: natural('SANDPOST_PROGRAM_BYTES', 16 * 1024 * 1024),
};
