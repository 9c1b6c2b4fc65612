import type { Command } from 'commander'
import type { Explanation } from './api.ts'
import { openClient } from './client.ts'
import { type CliContext, newCommand } from './command.ts'
import { humanDuration } from './output.ts'

/** `skep explain`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  return newCommand('explain', 'Say why a service or task is not as declared')
    .argument('<service|task>')
    .option('--json', 'One JSON document')
    .action(async (name: string, flags: { json?: boolean }) => {
      const client = await openClient(context)
      const explanation = await client.call<Explanation>(
        `/skep/v1/explain/${encodeURIComponent(name)}`,
      )
      io.stdout.write(
        flags.json
          ? `${JSON.stringify(explanation, null, 2)}\n`
          : formatExplanation(explanation, io.nowMs(), io.stdout.columns || 80),
      )
    })
}

/** One paragraph, the reasons, then what happened with the time since. */
export function formatExplanation(
  { summary, reasons, timeline }: Explanation,
  nowMs: number,
  columns: number,
): string {
  const width = Math.max(40, Math.min(columns, 100))
  const parts = [wrap(summary, width, '')]
  if (reasons.length > 0) {
    parts.push('', ...reasons.map((reason) => `- ${wrap(reason, width - 2, '  ')}`))
  }
  if (timeline.length > 0) {
    const times = timeline.map(({ atMs }) => `${humanDuration(Math.max(0, nowMs - atMs))} ago`)
    const timeWidth = Math.max(...times.map(({ length }) => length))
    const indent = ' '.repeat(timeWidth + 2)
    parts.push(
      '',
      ...timeline.map(
        ({ text }, index) =>
          `${(times[index] ?? '').padStart(timeWidth)}  ${wrap(text, Math.max(20, width - indent.length), indent)}`,
      ),
    )
  }
  return `${parts.join('\n')}\n`
}

function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${indent}`)
}
