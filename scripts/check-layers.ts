/**
 * Checks that imports between the folders of `src/` point one way, and that decisions stay pure.
 * Tests may import what they like. Prints one line per fault; ends with status 1 when there is one.
 */
import { glob, readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { checkFile, type Fault } from './layer-rules.ts'

const root = resolve(import.meta.dirname, '..')
const files: string[] = []
for await (const file of glob('src/**/*.ts', { cwd: root })) files.push(file)

const faults: Fault[] = []
for (const file of files.sort()) {
  faults.push(...checkFile(file, await readFile(resolve(root, file), 'utf8')))
}
for (const { file, line, what } of faults) console.log(`${file}:${line} ${what}`)
console.log(`${files.length} files, ${faults.length} faults`)
process.exitCode = faults.length > 0 ? 1 : 0
