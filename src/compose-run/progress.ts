import type { Step } from './run-world.ts'

interface Shown {
  step: Step
  readonly startedMs: number
  endedMs: number | undefined
}

const frames = ['⠋', '⠙', '⠸', '⠴', '⠦', '⠇']
const marks = { done: '✔', warning: '!', error: '✘' } as const
const paints = { working: 33, done: 32, warning: 33, error: 31 } as const
/** Layers of an image that are shown below it. */
const layersMax = 5

/** The steps of an operation as a tree that is drawn anew as they go on. */
export class ProgressTree {
  readonly #byId = new Map<string, Shown>()

  put(step: Step, nowMs: number): void {
    const known = this.#byId.get(step.id)
    const endedMs = step.state === 'working' ? undefined : nowMs
    if (known === undefined) this.#byId.set(step.id, { step, startedMs: nowMs, endedMs })
    else {
      known.step = { ...step, ...(known.step.parent && { parent: known.step.parent }) }
      known.endedMs = endedMs
    }
  }

  get isEmpty(): boolean {
    return this.#byId.size === 0
  }

  /** The lines of the tree at a time, none wider than `columns` and at most `rows`: what is done goes first. */
  draw(nowMs: number, columns: number, rows: number, colour: boolean): readonly string[] {
    const all = [...this.#byId.values()]
    const tops = all.filter(({ step }) => step.parent === undefined)
    const done = tops.filter(({ step }) => step.state !== 'working').length
    const lines = [`[+] Running ${done}/${tops.length}`]
    const width = Math.max(0, ...tops.map(({ step }) => step.id.length))
    for (const top of tops) {
      lines.push(this.#line(top, nowMs, columns, width, '', colour))
      if (top.step.state !== 'working') continue
      const layers = all.filter(
        ({ step }) => step.parent === top.step.id && step.state === 'working',
      )
      for (const layer of layers.slice(0, layersMax)) {
        lines.push(this.#line(layer, nowMs, columns, width - 2, '  ', colour))
      }
    }
    if (lines.length <= rows) return lines
    // Too much for the screen: what still goes on is kept, at the end.
    const [head = '', ...rest] = lines
    return [head, ...rest.slice(rest.length - rows + 1)]
  }

  #line(
    { step, startedMs, endedMs }: Shown,
    nowMs: number,
    columns: number,
    width: number,
    indent: string,
    colour: boolean,
  ): string {
    const mark =
      step.state === 'working'
        ? (frames[Math.floor(nowMs / 100) % frames.length] ?? '')
        : marks[step.state]
    const seconds = `${(((endedMs ?? nowMs) - startedMs) / 1000).toFixed(1)}s`
    const left = ` ${indent}${mark} ${step.id.padEnd(width)}  ${step.text}`
    const room = columns - seconds.length - 1
    const cut = left.length > room ? `${left.slice(0, Math.max(0, room - 1))}…` : left.padEnd(room)
    const line = `${cut}${seconds}`
    if (!colour) return line
    return `\u001b[${paints[step.state]}m${line}\u001b[0m`
  }
}

/** A step as one line for logs and pipes; layers of images are left out. */
export function plainLine(step: Step): string | undefined {
  return step.parent === undefined ? ` ${step.id}  ${step.text}` : undefined
}
