// A program of a tenant that never rests. Query: `how` (writes `raw` lines, `console` lines, or computes: `nothing`),
// `seconds`. Raw writes wait while nobody reads them; console's never do.
const { writeSync } = require('node:fs')
return function (context, cb) {
  const end = Date.now() + 1000 * Number(context.data.seconds)
  const line = 'x'.repeat(99)
  const many = (line + '\n').repeat(640)
  const turn = {
    raw () { writeSync(1, many) },
    console () { for (let count = 0; count < 100; count++) console.log(line) },
    nothing () { for (const until = Date.now() + 5; Date.now() < until;); }
  }[context.data.how]
  let turns = 0
  function go () {
    if (Date.now() >= end) return cb(null, turns)
    turns++
    turn()
    setImmediate(go)
  }
  go()
}
