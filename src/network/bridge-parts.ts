import type { UserError } from '../base/index.ts'
import { hostNamespace } from './namespace.ts'

/** Lines told to one process: each waits for a lock of the kernel, which others may hold. */
const linesAtOnce = 200

/** Something that bridges have, as `<what> dev <bridge>`, and how `ip` is asked and told of it. */
export interface PartKind {
  /** Prints, as JSON, what `read` reads. */
  readonly listCommand: readonly string[]
  /** What `ip -batch` needs before. */
  readonly options: readonly string[]
  readonly read: (json: string, bridges: ReadonlySet<string>) => ReadonlySet<string>
  /** Lines for `ip -batch` that make of the ones the others. */
  readonly change: (present: ReadonlySet<string>, wanted: ReadonlySet<string>) => readonly string[]
  /** What `ip` says of one that is gone, perhaps with its bridge: it need not be taken away. */
  readonly harmless: RegExp
  readonly refused: (line: string) => UserError
  /** What is said of so many that were not as they should be. */
  readonly drift: (count: number) => string
}

/** What bridges have of one kind: what was told last is not told again. */
export class BridgeParts {
  readonly #kind: PartKind
  /** As last told. Undefined: it has to be looked at. */
  #applied: ReadonlySet<string> | undefined

  constructor(kind: PartKind) {
    this.#kind = kind
  }

  /** Makes them be those. */
  async apply(wanted: ReadonlySet<string>, bridges: ReadonlySet<string>): Promise<void> {
    if (this.#applied) await this.#tell(this.#kind.change(this.#applied, wanted), wanted)
    else await this.repair(wanted, bridges)
  }

  /** Looks at what is there on these bridges, and puts it right. Resolves with what was not, in words. */
  async repair(
    wanted: ReadonlySet<string>,
    bridges: ReadonlySet<string>,
    /** What `listCommand` printed just now, where that is known. */
    listing?: string,
  ): Promise<readonly string[]> {
    if (bridges.size === 0) {
      this.#applied = undefined
      return []
    }
    const { listCommand, read, change, drift } = this.#kind
    const [program = '', ...args] = listCommand
    const json = listing ?? (await hostNamespace.run(program, args))?.stdout ?? ''
    const lines = change(read(json, bridges), wanted)
    await this.#tell(lines, wanted)
    return lines.length === 0 ? [] : [drift(lines.length)]
  }

  /** They go with their bridges. */
  forget(): void {
    this.#applied = undefined
  }

  async #tell(lines: readonly string[], wanted: ReadonlySet<string>): Promise<void> {
    const { options, harmless, refused } = this.#kind
    if (lines.length > 0) this.#applied = undefined
    for (let start = 0; start < lines.length; start += linesAtOnce) {
      const input = `${lines.slice(start, start + linesAtOnce).join('\n')}\n`
      const result = await hostNamespace.run('ip', [...options, '-force', '-batch', '-'], input)
      const [first] = (result?.stderr ?? '')
        .split('\n')
        .filter((line) => line !== '' && !harmless.test(line))
      if (first !== undefined) throw refused(first)
    }
    this.#applied = wanted
  }
}
