import { createHash } from 'node:crypto'
import { glob, readFile } from 'node:fs/promises'
import { resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')
const min = 1_000_000
const max = 2 ** 31

/**
 * A number drawn by the code in `src/` itself, from 1,000,000 on: what changes a byte of it gets another, and what failed with it fails
 * again until the code has changed. So tests meet what nobody has seen yet, and never fail by chance alone.
 */
export async function drawnFromCode(): Promise<number> {
  const files: string[] = []
  for await (const file of glob('src/**/*.ts', { cwd: root })) files.push(file)
  const hash = createHash('sha256')
  for (const file of files.sort())
    hash.update(`${file}\0`).update(await readFile(resolve(root, file)))
  return min + (hash.digest().readUInt32BE() % (max - min))
}
