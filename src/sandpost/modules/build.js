'use strict';
// The program of the builder: installs one package by npm or pip, in a sandbox like any tenant's, and answers with a tar
// of it. It is trusted with nothing: what it sends is judged outside, entry by entry (sandpost.modules.judge).
const { spawn } = require('node:child_process');
const fs = require('node:fs');

const [BUILD, META] = ['/tmp/build', '/tmp/meta'];
const NPM = '/usr/local/lib/node_modules/npm/bin/npm-cli.js';
const PYTHON = '/usr/bin/python3';
const PIP = '/usr/local/lib/pip/pip';
const TOLD = 65536; // characters of what a program printed that are looked at, the last ones
const ENVIRONMENT = { PATH: process.env.PATH, HOME: '/tmp', LANG: 'C.UTF-8', PIP_CONFIG_FILE: '/dev/null' };
// The registry, or the way there, does not answer now: another time it may.
const AWAY = /\b(ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNECTIONTIMEOUT|ERESPONSETIMEOUT|ETRANSFERTIMEOUT|EHOSTUNREACH|ENETUNREACH|EPIPE|ERR_SOCKET_TIMEOUT|EIDLETIMEOUT|ERR_STREAM_PREMATURE_CLOSE|E429|E5\d\d)\b|Retrying \(Retry|(?:HTTP error|Error) (?:429|5\d\d)\b|Temporary failure in name resolution|Connection (?:reset|refused|aborted|broken)|Read timed out|(?:Connect|Read)Timeout/;
// Who was asked in vain, by the name in the URL: what a connection failed at is an address, the registry's as any other's.
const HOST = String.raw`\w+:\/\/(?:[^/@\s]*@)?(\[[^\]\s]*\]|[^/:?#\s"]+)`;
const ASKED = new RegExp(String.raw`request to ${HOST}\S* failed| - GET ${HOST}|getaddrinfo \w+ ([\w.-]+)|host='([^']+)'`);

class Failed extends Error {}
class Away extends Error {}

module.exports = async function (context, req, res) {
  const order = JSON.parse(context.query.order);
  try {
    fs.mkdirSync(BUILD);
    fs.mkdirSync(META);
    const [integrity, content] = order.registry === 'npm' ? await npm(order) : await pip(order);
    fs.writeFileSync(`${META}/.integrity.json`, JSON.stringify(integrity));
    send(res, content);
  } catch (error) {
    if (!(error instanceof Failed || error instanceof Away)) throw error;
    const body = JSON.stringify({ away: error instanceof Away, reason: error.message });
    res.writeHead(error instanceof Away ? 424 : 422, { 'content-type': 'application/json' });
    res.end(body);
  }
};

async function npm(order) {
  fs.writeFileSync(`${BUILD}/package.json`, '{"private":true}');
  const common = ['--userconfig=/dev/null', '--globalconfig=/tmp/none', '--cache=/tmp/npm', `--registry=${order.url}`,
    '--json', '--loglevel=error', '--logs-max=0', '--no-audit', '--no-fund', '--no-update-notifier', '--no-bin-links',
    '--no-package-lock', '--omit=dev', '--fetch-retries=1', '--fetch-retry-mintimeout=1000',
    '--fetch-retry-maxtimeout=3000', '--fetch-timeout=30000'];
  const arguments_ = [NPM, 'install', `${order.name}@${order.version}`, '--ignore-scripts', ...common];
  judge(order, await run(process.execPath, arguments_, BUILD));
  if (order.scripts) {
    // Of this one package; those that it depends on stay as they came.
    judge(order, await run(process.execPath, [NPM, 'rebuild', order.name, '--foreground-scripts', ...common], BUILD));
  }
  const lock = `${BUILD}/node_modules/.package-lock.json`;
  const integrity = {};
  for (const [path, one] of Object.entries(JSON.parse(fs.readFileSync(lock, 'utf8')).packages)) {
    integrity[`${path.slice(path.lastIndexOf('node_modules/') + 13)}@${one.version}`] = one.integrity ?? '';
  }
  fs.rmSync(lock);
  const found = JSON.parse(fs.readFileSync(`${BUILD}/node_modules/${order.name}/package.json`, 'utf8')).version;
  if (found !== order.version) throw new Failed(`the registry gave version ${found} for ${order.version}`);
  return [integrity, 'node_modules'];
}

async function pip(order) {
  const url = new URL(order.url);
  const report = '/tmp/report.json';
  const arguments_ = ['-I', PIP, 'install', `${order.name}==${order.version}`, '--isolated', '--no-input',
    '--disable-pip-version-check', '--no-cache-dir', '--no-compile', '--no-warn-script-location',
    '--root-user-action=ignore', '--progress-bar=off', '--retries=1', '--timeout=30', `--index-url=${order.url}`,
    `--target=${BUILD}`, `--report=${report}`, ...(url.protocol === 'http:' ? [`--trusted-host=${url.host}`] : [])];
  let done = await run(PYTHON, [...arguments_, '--only-binary=:all:'], '/tmp');
  if (done.status !== 0 && order.scripts && !AWAY.test(done.told)) {
    // Built from its source, whose code runs then; what it depends on comes as wheels.
    fs.rmSync(BUILD, { recursive: true });
    fs.mkdirSync(BUILD);
    done = await run(PYTHON, [...arguments_, '--only-binary=:all:', `--no-binary=${order.name}`], '/tmp');
  }
  judge(order, done);
  const integrity = {};
  for (const one of JSON.parse(fs.readFileSync(report, 'utf8')).install) {
    const hash = one.download_info.archive_info?.hashes?.sha256;
    integrity[`${one.metadata.name}@${one.metadata.version}`] = hash ? `sha256:${hash}` : '';
  }
  // Scripts of a package name an interpreter of this place.
  fs.rmSync(`${BUILD}/bin`, { recursive: true, force: true });
  // Nobody can write beside it later: compiled here, and not compared with the sources' dates.
  await run(PYTHON, ['-I', '-m', 'compileall', '-q', '--invalidation-mode=unchecked-hash', '-s', BUILD, BUILD], '/tmp');
  return [integrity, '.'];
}

function judge(order, { status, told }) {
  if (status === 0) return;
  const text = summary(told);
  const name = ASKED.exec(told)?.slice(1).find(Boolean);
  if (name && !order.hosts.some((known) => bare(known) === bare(name))) {
    throw new Failed(`it fetches from ${name}, which is not the registry: add that to \`modules.hosts\` if you trust it`);
  }
  if (/\bENOSPC\b|No space left on device/.test(told)) {
    throw new Failed('it does not fit into `modules.memory` while it is installed: raise that if you trust it');
  }
  if (AWAY.test(told)) throw new Away(`the registry does not answer (${text})`);
  if (/\bE404\b|\bETARGET\b/.test(told)) throw new Failed(`the registry has no such version (${text})`);
  if (/\bEINTEGRITY\b|THESE PACKAGES DO NOT MATCH THE HASHES/.test(told)) {
    throw new Failed(`what came is not what the registry's hashes say (${text})`);
  }
  if (/No matching distribution found|Could not find a version/.test(told)) {
    throw new Failed(`the index has no such version, or no wheel of it for this Python (${text}); \`--scripts\` lets it`
      + ' be built from its source');
  }
  throw new Failed(`it cannot be installed (${text})`);
}

function bare(host) {
  return host.toLowerCase().replace(/^\[|\]$/g, '');
}

// What npm or pip said, in a line.
function summary(told) {
  try {
    const { code, summary: said } = JSON.parse(told.slice(told.indexOf('{'), told.lastIndexOf('}') + 1)).error;
    return `${code}: ${said}`.replace(/\s+/g, ' ').slice(0, 300);
  } catch {
    // pip shows what a build printed between two lines of its own.
    const built = /lines of output\]\n([^]*?)\[end of output\]/.exec(told)?.[1];
    const lines = (built ?? told).split('\n').map((line) => line.trim()).filter(Boolean);
    const errors = lines.filter((line) => /error/i.test(line));
    return (errors.length && !built ? errors : lines).slice(-2).join(' | ').slice(0, 300);
  }
}

function run(command, arguments_, cwd) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, arguments_, { cwd, env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    let told = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        told = (told + text).slice(-TOLD);
        console.log(text.trimEnd().slice(0, 4096));
      });
    }
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, told: signal ? `${told}\nended by ${signal}` : told }));
  });
}

function send(res, content) {
  const tar = spawn('tar', ['--format=gnu', '--hard-dereference', '--sort=name', '--numeric-owner', '--owner=0', '--group=0',
    '-cf', '-', '-C', META, '.integrity.json', '-C', BUILD, content], { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'inherit'] });
  res.writeHead(200, { 'content-type': 'application/x-tar' });
  tar.stdout.pipe(res, { end: false });
  // Broken off rather than short: half an archive must not look like a whole one.
  tar.on('close', (status) => (status === 0 ? res.end() : res.destroy()));
}
