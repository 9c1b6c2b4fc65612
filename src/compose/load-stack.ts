import { messageOf, UserError } from '../base/index.ts'
import { lowerStack, type Stack } from './lower.ts'
import { mergeStackFiles } from './merge.ts'
import { parseStackFile, type StackSources } from './parse-file.ts'
import type { StackFile } from './stack-file.ts'

/** Reads stack files (absolute paths), later ones over earlier ones, into one stack. Throws `invalidInput`. */
export async function loadStack(
  name: string,
  paths: readonly string[],
  sources: StackSources,
): Promise<Stack> {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) {
    throw new UserError('invalidInput', `"${name}" is no name for a stack`, {
      next: 'Use letters, digits, "-", "_" and ".".',
    })
  }
  return lowerStack(name, await readStackFiles(paths, sources))
}

/** The files as one, before they are named for a stack. */
export async function readStackFiles(
  paths: readonly string[],
  sources: StackSources,
): Promise<StackFile> {
  let merged: StackFile | undefined
  for (const path of paths) {
    const text = await sources.readFile(path).catch((cause: unknown) => {
      throw new UserError('invalidInput', `cannot read ${path}: ${messageOf(cause)}`, { cause })
    })
    const file = await parseStackFile(path, text.toString(), sources)
    merged = merged === undefined ? file : mergeStackFiles(merged, file)
  }
  if (merged === undefined || Object.keys(merged.services).length === 0) {
    throw new UserError('invalidInput', `${paths.join(', ') || 'the stack'} has no services`, {
      next: 'A stack file begins with services:.',
    })
  }
  return merged
}
