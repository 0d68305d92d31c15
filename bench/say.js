// A program of a tenant. Writes lines at a pace, each with the moment at which it is written (CLOCK_MONOTONIC, ns), and
// answers how many. Query: `how` (`console` or `raw`), `rate` (lines a second), `seconds`, `size` (characters of a line).
return function (context, cb) {
  const { how } = context.data
  const [rate, seconds, size] = ['rate', 'seconds', 'size'].map(name => Number(context.data[name]))
  const write = how === 'raw' ? line => process.stdout.write(line + '\n') : line => console.log(line)
  const began = process.hrtime.bigint()
  const pause = Math.max(10, 1000 / rate)
  let written = 0
  function turn () {
    const passed = Number(process.hrtime.bigint() - began) / 1e9
    for (const due = Math.floor(Math.min(passed, seconds) * rate); written < due; written++) {
      write(`at=${process.hrtime.bigint()};`.padEnd(size, 'x'))
    }
    if (passed >= seconds) cb(null, written)
    else setTimeout(turn, pause * (0.5 + Math.random()))
  }
  turn()
}
