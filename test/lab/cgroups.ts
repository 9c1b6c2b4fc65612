import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pause } from './namespaces.ts'

const mounted = '/sys/fs/cgroup'
/** A lab's share of the processor beside what else runs: it is many hosts. */
const sharesOfLab = 16_384

/** Every hierarchy of this machine: one of version 2, or several of version 1. */
function hierarchies(): readonly string[] {
  if (existsSync(join(mounted, 'cgroup.controllers'))) return [mounted]
  const found = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, path, type]) => path?.startsWith(mounted) && /^cgroup2?$/.test(type ?? ''))
    .map(([, path]) => path ?? '')
  return [...new Set(found)]
}

/** Gives a lab its share of the processor. What the engines make of it below is theirs. */
export async function makeCgroup(name: string): Promise<void> {
  for (const root of hierarchies()) {
    const shares = join(root, name, 'cpu.shares')
    if (!existsSync(join(root, 'cpu.shares'))) continue
    await mkdir(join(root, name), { recursive: true })
    await writeFile(shares, `${sharesOfLab}`)
  }
}

/** Removes the cgroup with all below it. Those of processes that are just ending are waited for. */
export async function removeCgroup(name: string): Promise<void> {
  for (const root of hierarchies()) {
    for (let left = 1_200; existsSync(join(root, name)); left--) {
      try {
        await removeTree(join(root, name))
      } catch (error) {
        if (left === 0) throw error
        await pause(50)
      }
    }
  }
}

async function removeTree(path: string): Promise<void> {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(path, entry.name))
  }
  await rmdir(path)
}
