// What programs do every day with Node and the image's tools, a step each; the answer names the steps that failed.
const fs = require('fs'), os = require('os'), net = require('net'), http = require('http'), dgram = require('dgram');
const childProcess = require('child_process'), crypto = require('crypto'), dns = require('dns'), zlib = require('zlib');
const { Worker } = require('worker_threads');
const { once } = require('events');

const folder = fs.mkdtempSync('/tmp/ordinary-');
const at = (name) => `${folder}/${name}`;

const steps = {
  'files are written, copied, moved, linked and removed': () => {
    fs.writeFileSync(at('a'), 'x'.repeat(100000));
    fs.copyFileSync(at('a'), at('b'), fs.constants.COPYFILE_FICLONE);
    fs.cpSync(folder, `${folder}x`, { recursive: true });
    fs.rmSync(`${folder}x`, { recursive: true });
    fs.symlinkSync('a', at('soft'));
    fs.linkSync(at('a'), at('hard'));
    fs.readlinkSync(at('soft'));
    fs.renameSync(at('b'), at('c'));
    fs.truncateSync(at('c'), 10);
    for (const _ of fs.readdirSync(folder, { withFileTypes: true }));
  },
  'times, modes and owners are set': () => {
    fs.writeFileSync(at('m'), '');
    fs.utimesSync(at('m'), 1, 1);
    fs.chmodSync(at('m'), 0o600);
    fs.chownSync(at('m'), process.getuid(), process.getgid());
    fs.accessSync(at('m'));
    fs.statfsSync('/tmp');
    process.umask(process.umask());
  },
  'descriptors are synced and read in pieces': () => {
    const fd = fs.openSync(at('d'), 'w+');
    fs.writevSync(fd, [Buffer.from('ab'), Buffer.from('cd')], 0);
    fs.readvSync(fd, [Buffer.alloc(3)], 0);
    fs.fsyncSync(fd);
    fs.fdatasyncSync(fd);
    fs.ftruncateSync(fd, 1);
    fs.futimesSync(fd, 1, 1);
    fs.fchmodSync(fd, 0o600);
    fs.closeSync(fd);
  },
  'a folder is watched': async () => {
    const watcher = fs.watch(folder);
    setTimeout(() => fs.writeFileSync(at('w'), ''), 10);
    await once(watcher, 'change');
    watcher.close();
  },
  'threads wait for one another': async () => {
    const code = 'Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0, 5);'
      + ' require("worker_threads").parentPort.postMessage(1)';
    await once(new Worker(code, { eval: true }), 'message');
  },
  'a shell and its tools': () => {
    const lines = [
      'echo hi | cat | tee /dev/null | wc -c', 'ls -la /tmp', 'date', 'df /tmp', 'id', 'nproc', 'uname -a', 'stat /etc',
      'find /tmp -maxdepth 1', 'tar cf q.tar c && gzip q.tar && tar xzf q.tar.gz', 'cp -a /etc/passwd p', 'cp p p2',
      'sort p', 'mv p p3', 'mkfifo f', 'timeout 2 true', 'bash -c "trap : INT; sleep 0.01 & wait"', 'du -s /tmp',
      'touch -d @1 t', 'tail -n1 p3', 'od -N4 /dev/urandom', 'openssl rand -hex 3', 'awk "BEGIN { print 1 }"', 'nice true',
      'head -c10 /dev/zero | od', 'nohup true', 'dd if=/dev/zero of=z bs=1k count=2', 'rm -rf z f', 'xargs -n1 echo < p3',
      'stdbuf -o0 echo', 'shuf -n1 p3', 'mktemp', 'sha256sum p3', 'kill -0 $$', 'ulimit -n 100', 'umask 022', 'truncate -s 9 t',
    ];
    const failed = lines.filter((line) => childProcess.spawnSync('sh', ['-c', line], { cwd: folder }).status !== 0);
    if (failed.length) throw new Error(failed.join('; '));
  },
  'children speak, are killed and live on their own': async () => {
    fs.writeFileSync(at('child.js'), "process.on('message', (m) => { process.send(m); process.disconnect(); })");
    const child = childProcess.fork(at('child.js'));
    child.send('x');
    await once(child, 'message');
    const sleeper = childProcess.spawn('sleep', ['9'], { detached: true, stdio: 'ignore' });
    sleeper.kill();
    const [, signal] = await once(sleeper, 'exit');
    if (signal !== 'SIGTERM') throw new Error(signal);
  },
  'a cluster': async () => {
    fs.writeFileSync(at('cluster.js'), "require('http').createServer().listen(0)");
    const cluster = require('cluster');
    cluster.setupPrimary({ exec: at('cluster.js') });
    const worker = cluster.fork();
    await once(worker, 'listening');
    worker.kill();
    await once(worker, 'exit');
  },
  'TCP and unix sockets with their options': async () => {
    for (const where of [0, at('socket')]) {
      const server = net.createServer((socket) => {
        if (where === 0) socket.setNoDelay(true).setKeepAlive(true, 1000);
        socket.on('error', () => {}).end('x');
      });
      await once(server.listen(where), 'listening');
      const client = net.connect(where === 0 ? { port: server.address().port, host: '127.0.0.1' } : { path: where });
      await once(client, 'data');
      if (where === 0) client.resetAndDestroy(); else client.destroy();
      server.close();
    }
  },
  'HTTP, and fetch': async () => {
    const server = http.createServer((req, res) => res.end('x'.repeat(100000))).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
    server.closeAllConnections();
    server.close();
  },
  'UDP with its options': async () => {
    const udp = dgram.createSocket({ type: 'udp4', reuseAddr: true, reusePort: true, recvBufferSize: 9999 });
    udp.bind(0);
    await once(udp, 'listening');
    udp.setBroadcast(true);
    udp.setTTL(3);
    udp.setMulticastTTL(2);
    udp.setMulticastLoopback(true);
    udp.send('x', udp.address().port, '127.0.0.1');
    await once(udp, 'message');
    udp.close();
  },
  'names are looked up, in vain': async () => {
    const said = await dns.promises.lookup('example.invalid').catch((error) => error.code);
    const asked = await new dns.promises.Resolver({ timeout: 50, tries: 1 }).resolve4('a.invalid').catch((error) => error.code);
    if (said === 'EPERM' || asked === 'EPERM') throw new Error(`${said} ${asked}`);
  },
  'the machine is looked at': () => {
    if (!(os.cpus().length && os.totalmem() && os.freemem() && os.uptime() && os.version())) throw new Error('nothing');
    os.loadavg();
    os.getPriority();
    os.setPriority(5);
    os.userInfo();
    process.memoryUsage();
    process.resourceUsage();
    process.report.getReport();
    process.getgroups();
    if (!Object.keys(os.networkInterfaces()).includes('eth0')) throw new Error('no interface');
  },
  'signals and the process itself': async () => {
    const heard = once(process, 'SIGUSR2');
    process.kill(process.pid, 'SIGUSR2');
    await heard;
    process.title = 'ordinary';
    require('tty').isatty(1);
  },
  'crypto, compression, WebAssembly, compiled code': async () => {
    crypto.scryptSync('a', 'b', 10);
    crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
    await new Promise((done) => crypto.pbkdf2('a', 'b', 100, 10, 'sha1', done));
    zlib.gunzipSync(zlib.gzipSync('x'.repeat(100000)));
    new WebAssembly.Memory({ initial: 1, maximum: 9, shared: true }).grow(3);
    new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])));
    let sum = 0;
    for (let i = 0; i < 1e7; i++) sum += i;
  },
};

const failed = {};
for (const [name, step] of Object.entries(steps)) {
  try { await step(); } catch (error) { failed[name] = String(error?.stack ?? error); }
}
fs.rmSync(folder, { recursive: true });
return failed;
