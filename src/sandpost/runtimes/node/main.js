'use strict';

// The runtime inside a sandbox. Its wire is docs/runtime.md.

const settings = require('./settings.js');
const frames = require('./frames.js');
const { current } = require('./scope.js');

require('./console.js').install((level, text) => {
  const call = current();
  frames.write(level, call === undefined ? '' : call.frameId, text);
});
const server = require('./server.js');
require('./guard.js').install(server.dropStranded, server.callOf);
server.listen(settings, (port) => {
  if (settings.ready !== undefined) tellReady(settings.ready);
  if (settings.portFile !== '') require('node:fs').writeFileSync(settings.portFile, String(port));
});

// So that whoever waits need not try again and again. Before any program runs.
function tellReady(fd) {
  const { closeSync, writeSync } = require('node:fs');
  try {
    writeSync(fd, '1');
    closeSync(fd);
  } catch {
    // Nobody waits any more.
  }
}
