/**
 * Adds to `package-lock.json` the optional packages of other platforms that are missing in it.
 *
 * A registry that lacks such a package makes `npm install` leave it out of the lock, and `npm ci` then refuses the
 * lock everywhere. Run this after `npm install`; it says what it added. With `--check` it changes nothing and ends with
 * status 1 when something is missing.
 */
import { readFileSync, writeFileSync } from 'node:fs'

interface Locked {
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly [key: string]: unknown
}

interface Lock {
  packages: Record<string, Locked>
}

const path = 'package-lock.json'
const lock = JSON.parse(readFileSync(path, 'utf8')) as Lock
const systems = [
  'aix',
  'android',
  'darwin',
  'freebsd',
  'linux',
  'netbsd',
  'openbsd',
  'openharmony',
  'sunos',
  'win32',
]

/** What a name like `@biomejs/cli-linux-x64-musl` says of its platform. */
function platformOf(name: string): Locked {
  const words = name.split(/[/-]/)
  const at = words.findIndex((word) => systems.includes(word))
  const [os = '', cpu = '', kind = ''] = words.slice(Math.max(at, 0))
  if (at < 0)
    throw new Error(`${name} is missing in the lock and names no platform: run npm install`)
  const libc = kind.startsWith('musl')
    ? { libc: ['musl'] }
    : kind === 'gnu'
      ? { libc: ['glibc'] }
      : {}
  return { cpu: [cpu], os: [os], ...libc }
}

const missing = Object.values(lock.packages)
  .flatMap(({ optionalDependencies = {} }) => Object.entries(optionalDependencies))
  .filter(([name]) => lock.packages[`node_modules/${name}`] === undefined)

if (missing.length > 0 && process.argv.includes('--check')) {
  console.log(
    `${path} lacks ${missing.length} packages of other platforms: run node scripts/complete-lock.ts`,
  )
  process.exitCode = 1
} else if (missing.length > 0) {
  for (const [name, version] of missing) {
    const entry = { version, dev: true, optional: true, ...platformOf(name) }
    lock.packages[`node_modules/${name}`] = entry
    console.log(`added ${name}@${version}`)
  }
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, 'en'))
  writeFileSync(
    path,
    `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`,
  )
}
