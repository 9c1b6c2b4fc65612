import { ProgressTree, plainLine, type Step } from '../compose-run/index.ts'
import type { Io } from './io.ts'

/** Pause between two drawings of the tree, ms. */
const drawPauseMs = 100

/** Shows the steps of an operation on standard error, and keeps them clear of other lines there. */
export interface ProgressView {
  readonly put: (step: Step) => void
  /** A line between the steps. */
  readonly say: (text: string) => void
  /** Draws a last time; later steps are not shown. */
  readonly end: () => void
}

export type ProgressMode = 'auto' | 'tty' | 'plain' | 'json' | 'quiet'

/** `colour`: whether escape sequences may be written at all. */
export function openProgress(io: Io, mode: ProgressMode, colour: boolean): ProgressView {
  const { stderr } = io
  const isTree = mode === 'tty' || (mode === 'auto' && stderr.isTTY === true && colour)
  if (isTree) return openTree(io, colour)
  let isOver = false
  const told = new Map<string, string>()
  const lineOf = (step: Step): string | undefined => {
    if (mode === 'json') return JSON.stringify(step)
    const line = plainLine(step)
    // A step that says the same again (a pull's layers) is told once.
    if (line === undefined || told.get(step.id) === line) return undefined
    told.set(step.id, line)
    return line
  }
  return {
    put(step) {
      if (isOver || mode === 'quiet') return
      const line = lineOf(step)
      if (line !== undefined) stderr.write(`${line}\n`)
    },
    say(text) {
      stderr.write(`${text}\n`)
    },
    end() {
      isOver = true
    },
  }
}

function openTree(io: Io, colour: boolean): ProgressView {
  const { stderr } = io
  const tree = new ProgressTree()
  let drawn = 0
  let isOver = false
  let timer: NodeJS.Timeout | undefined
  const size = (): { columns: number; rows: number } => {
    const columns = 'columns' in stderr ? Number(stderr.columns) : 80
    const rows = 'rows' in stderr ? Number(stderr.rows) : 24
    return { columns: columns > 0 ? columns : 80, rows: rows > 0 ? rows : 24 }
  }
  const erase = (): string => (drawn > 0 ? `\u001b[${drawn}A\u001b[J` : '')
  const draw = (before = ''): void => {
    const { columns, rows } = size()
    const lines = tree.isEmpty ? [] : tree.draw(io.nowMs(), columns, Math.max(2, rows - 1), colour)
    stderr.write(`${erase()}${before}${lines.map((line) => `${line}\n`).join('')}`)
    drawn = lines.length
  }
  const stop = (): void => {
    clearInterval(timer)
    timer = undefined
  }
  return {
    put(step) {
      if (isOver) return
      tree.put(step, io.nowMs())
      timer ??= setInterval(draw, drawPauseMs).unref()
    },
    say(text) {
      if (isOver) stderr.write(`${text}\n`)
      else draw(`${text}\n`)
    },
    end() {
      if (isOver) return
      isOver = true
      stop()
      if (!tree.isEmpty) draw()
      drawn = 0
    },
  }
}
