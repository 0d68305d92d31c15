"""The store of modules, which all tenants' programs load code from: putting something there, or leading out of it.

Weaker: a cache of packages that is shared and that who comes first fills, or names that are joined to a path as they come.
Must: nothing can be written, renamed, linked or mounted there, whatever its mode says; no name that is required leads to a file
that is none of a package's.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs'), path = require('path');
const folders = ['/modules', '/modules/npm', '/modules/pypi'];
const versions = [];
const walk = (top, depth) => {
  for (const entry of fs.readdirSync(top, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name[0] === '.' || versions.length > 100) continue;
    const found = path.join(top, entry.name);
    versions.push(found);
    if (depth) walk(found, depth - 1);
  }
};
for (const registry of folders.slice(1)) walk(registry, 4);
const tries = (folder) => ({
  write: () => fs.writeFileSync(folder + '/evil.js', 'module.exports = 1'),
  folder: () => fs.mkdirSync(folder + '/evil'),
  link: () => fs.symlinkSync('/tmp', folder + '/evil'),
  rename: () => fs.renameSync(folder, folder + '2'),
  open: () => fs.chmodSync(folder, 0o777),
  time: () => fs.utimesSync(folder, 1, 1),
  remove: () => fs.rmSync(folder, { recursive: true }),
});
const done = [];
for (const folder of [...folders, ...versions]) {
  for (const [name, action] of Object.entries(tries(folder))) {
    try { action(); done.push(`${name} ${folder}`) } catch { /* as it must be */ }
  }
}
fs.mkdirSync('/tmp/npm/evil/1.0.0/node_modules/evil', { recursive: true });
fs.writeFileSync('/tmp/npm/evil/1.0.0/node_modules/evil/index.js', 'module.exports = 1');
const names = ['../../tmp/npm/evil', 'x/../../../../tmp/npm/evil', '@../../tmp/npm/evil', 'evil@1.0.0/../../../../../tmp/npm/evil',
  '/tmp/npm/evil', 'file:///tmp/npm/evil', 'evil@../../../tmp/npm/evil/1.0.0', '..', '.', '@x/..', '%2e%2e/tmp'];
for (const name of names) {
  try { require(name); done.push(`require ${name}`) } catch { /* as it must be */ }
}
return { done, tried: (folders.length + versions.length) * 7 + names.length };
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found["done"], f"done: {found['done']}")
    return f"{found['tried']} ways refused"


CASE = Case(part="escape", title="The store of modules", attack=attack)
