'use strict';

// Log records as frames on descriptor 3 (docs/runtime.md, "Frames"). Never blocks, never throws, bounded.

const fs = require('node:fs');
const { writeSync } = fs;
const {
  allocUnsafe, bufferCopy, bufferFrom, bufferWrite, byteLength, setTimeout, slice, subarray,
} = require('./primordials.js');

const FD = 3;
const FRAME = 4096; // PIPE_BUF: written whole or not at all
const HEADER = 8;
const RECORD = 65536;
const QUEUE = 256 * 1024;
const SPENT = 1024; // places of frames that are gone, before those behind them move up
const RETRY = 20; // ms until a full FIFO is tried again
const MORE = 1;
const NOTICE = 2;

const scratch = allocUnsafe(FRAME);
const open = isNamedFifo();

// What waits for room: whole frames in order, from `first` on.
let queue = [];
let first = 0;
let queued = 0;
let waiting = false;

// What was dropped since the last notice.
let droppedRecords = 0;
let droppedBytes = 0;

// libuv has pipes of its own, and one of them may be descriptor 3 if nobody handed us one: ours has a name.
function isNamedFifo() {
  try {
    return fs.fstatSync(FD).isFIFO() && !fs.readlinkSync(`/proc/self/fd/${FD}`).startsWith('pipe:');
  } catch {
    return false;
  }
}

// Returns 'done', 'full' or 'lost' (no reader, or an error that another try will not mend).
function put(bytes, length) {
  try {
    writeSync(FD, bytes, 0, length);
    return 'done';
  } catch (error) {
    return error.code === 'EAGAIN' ? 'full' : 'lost';
  }
}

function head(target, level, flags, textLength, idLength) {
  target[0] = 0xf5;
  target[1] = 1;
  target[2] = level;
  target[3] = flags;
  target[4] = textLength >> 8;
  target[5] = textLength & 0xff;
  target[6] = idLength;
  target[7] = 0;
}

function enqueue(bytes, length) {
  const kept = allocUnsafe(length);
  bufferCopy(bytes, kept, 0, 0, length);
  queue[queue.length] = kept;
  queued += length;
  if (!waiting) {
    waiting = true;
    setTimeout(drain, RETRY).unref();
  }
}

function drain() {
  waiting = false;
  while (first < queue.length) {
    const frame = queue[first];
    if (put(frame, frame.length) === 'full') {
      // Never empty, it would grow for ever.
      if (first > SPENT) {
        const rest = [];
        for (let i = first; i < queue.length; i++) rest[rest.length] = queue[i];
        queue = rest;
        first = 0;
      }
      waiting = true;
      setTimeout(drain, RETRY).unref();
      return;
    }
    queue[first++] = undefined;
    queued -= frame.length;
  }
  queue = [];
  first = 0;
  if (droppedRecords === 0) return;
  const text = `${droppedRecords} log records (${droppedBytes} bytes) were dropped: they came faster than they are read`;
  droppedRecords = 0;
  droppedBytes = 0;
  send(40, NOTICE, '', text);
}

// A record's text as at most RECORD bytes; what is cut is not even encoded.
function encode(text) {
  if (text.length * 3 <= RECORD) return bufferFrom(text, 'utf8');
  const total = byteLength(text);
  if (total <= RECORD) return bufferFrom(text, 'utf8');
  const mark = ` [${total - RECORD} bytes cut]`;
  const bytes = subarray(bufferFrom(slice(text, 0, RECORD), 'utf8'), 0, RECORD);
  bufferWrite(bytes, mark, RECORD - mark.length, 'latin1');
  return bytes;
}

function send(level, flags, id, text) {
  const idLength = id.length;
  const room = FRAME - HEADER - idLength;
  const start = HEADER + idLength;
  bufferWrite(scratch, id, HEADER, 'latin1');
  if (text.length * 3 <= room) {
    const length = bufferWrite(scratch, text, start, 'utf8');
    head(scratch, level, flags, length, idLength);
    if (queued > 0 || put(scratch, start + length) === 'full') enqueue(scratch, start + length);
    return;
  }
  const bytes = encode(text);
  for (let at = 0; at < bytes.length; at += room) {
    const length = bytes.length - at > room ? room : bytes.length - at;
    bufferCopy(bytes, scratch, start, at, at + length);
    head(scratch, level, at + length < bytes.length ? flags | MORE : flags, length, idLength);
    if (queued > 0 || put(scratch, start + length) === 'full') enqueue(scratch, start + length);
  }
}

// Record `text` at `level` (10 to 50) for the call `id` ('' for none), its request id and behind a space its trace id.
function write(level, id, text) {
  if (!open) return;
  if (queued > 0 && queued + (text.length > RECORD ? RECORD : text.length) > QUEUE) {
    droppedRecords++;
    droppedBytes += byteLength(text);
    return;
  }
  send(level, 0, id, text);
}

// Before the process ends: hand over what fits, wait for nothing.
function flush() {
  if (open && queued > 0) drain();
}

module.exports = { write, flush, open };
