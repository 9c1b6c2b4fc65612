/** Ends with status 0 when `node_modules` holds just what `package-lock.json` asks for on this machine. */
import { readFileSync } from 'node:fs'

interface Locked {
  readonly version?: string
  readonly optional?: boolean
}

function parseLock(path: string): ReadonlyMap<string, Locked> {
  const lock = JSON.parse(readFileSync(path, 'utf8')) as { packages: Record<string, Locked> }
  return new Map(Object.entries(lock.packages).filter(([folder]) => folder !== ''))
}

const wanted = parseLock('package-lock.json')
const installed = parseLock('node_modules/.package-lock.json')
const differs = [...wanted].some(([folder, { version, optional }]) => {
  const found = installed.get(folder)
  return found === undefined ? optional !== true : found.version !== version
})
const extra = [...installed.keys()].some((folder) => !wanted.has(folder))
process.exitCode = differs || extra ? 1 : 0
