import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { UserError } from '../base/index.ts'
import type { Io } from './io.ts'

/** What every command is given: the process, and the place that `-H` named before the group. */
export interface CliContext {
  readonly io: Io
  /** Value of the root's `-H`; read it when the command runs, not when it is built. */
  readonly host: () => string | undefined
  /** The whole command line: what of a group has to be loaded. Absent: all of it. */
  readonly args?: readonly string[]
}

/** A failure whose words are already on the terminal, or that has none to say: only the exit code counts. */
export class Exit extends Error {
  override readonly name = 'Exit'
  readonly code: number
  constructor(code: number) {
    super(`exit ${code}`)
    this.code = code
  }
}

/** Collects a flag that may be given several times. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value]
}

/** A wrong flag or argument: exit code 2. */
export function usageError(message: string): CommanderError {
  return new CommanderError(2, 'skep.usage', message)
}

/** Runs a check of flags and arguments: what it refuses is a wrong command line. */
export function checked<T>(check: () => T): T {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    throw usageError(error.next ? `${error.message}. ${error.next}` : error.message)
  }
}

/** Makes a parser's `UserError` one that Commander tells with the flag's name before it. */
export function flag<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      throw new InvalidArgumentError(error.next ? `${error.message}. ${error.next}` : error.message)
    }
  }
}

export function newCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .allowExcessArguments(false)
    .enablePositionalOptions()
}
