import { UserError } from '../base/index.ts'
import { parseTemplate } from './template.ts'

/** One column of a list: docker's field name, its heading, and what a row shows there. */
export interface Column<Row> {
  readonly field: string
  readonly header: string
  readonly value: (row: Row) => string
  /** Left out of the default table, present in templates and JSON. */
  readonly hidden?: boolean
}

export interface ListFlags {
  readonly format?: string
  readonly json?: boolean
  readonly quiet?: boolean
}

/**
 * Lists rows as docker does: a table, `--format 'table {{.A}}\t{{.B}}'`, one template or one JSON object a row, or with `--quiet`
 * only the `quiet` text. `--json` gives one document of `objects`, the API's own, whole.
 */
export function formatList<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  flags: ListFlags,
  {
    objects,
    quiet,
  }: { readonly objects: readonly unknown[]; readonly quiet: (row: Row) => string },
): string {
  if (flags.json) return `${JSON.stringify(objects, null, 2)}\n`
  const format = flags.format?.trim() ?? 'table'
  if (flags.quiet && flags.format === undefined)
    return rows.map((row) => `${quiet(row)}\n`).join('')
  if (format === 'table') {
    const shown = columns.filter(({ hidden }) => !hidden)
    return table([
      shown.map(({ header }) => header),
      ...rows.map((row) => shown.map(({ value }) => value(row))),
    ])
  }
  const fields = (row: Row) =>
    Object.fromEntries(columns.map(({ field, value }) => [field, value(row)]))
  if (format === 'json') return rows.map((row) => `${JSON.stringify(fields(row))}\n`).join('')
  const isTable = format.startsWith('table ')
  const source = isTable ? format.slice(6).trim() : (flags.format ?? '')
  checkFields(source, columns)
  const template = parseTemplate(source)
  if (!isTable) return rows.map((row) => `${template(fields(row))}\n`).join('')
  const headers = Object.fromEntries(columns.map(({ field, header }) => [field, header]))
  return table([headers, ...rows.map(fields)].map((row) => template(row).split('\t')))
}

/** A slip in a field's name would show as `<no value>`: it is refused instead. */
function checkFields<Row>(source: string, columns: readonly Column<Row>[]): void {
  for (const [, action = ''] of source.matchAll(/\{\{(.*?)\}\}/g)) {
    for (const [, field = ''] of action
      .replace(/"[^"]*"/g, '')
      .matchAll(/(?:^|[\s(])\.([A-Za-z]\w*)/g)) {
      if (columns.some((column) => column.field === field)) continue
      throw new UserError('invalidInput', `the template's field .${field} is unknown`, {
        next: `There are ${columns.map((column) => `.${column.field}`).join(', ')}.`,
      })
    }
  }
}

/** Aligns cells, three blanks between columns, as docker does. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    row.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, widthOf(cell))
    })
  }
  return rows
    .map((row) => {
      const cells = row.map((cell, index) =>
        index === row.length - 1
          ? cell
          : cell + ' '.repeat((widths[index] ?? 0) - widthOf(cell) + 3),
      )
      return `${cells.join('')}\n`
    })
    .join('')
}

function widthOf(text: string): number {
  return Array.from(text).length
}

/** Objects as `inspect` shows them: a JSON list, or each through a template. */
export function formatInspect(
  objects: readonly unknown[],
  flags: { readonly format?: string },
): string {
  if (flags.format === undefined) return `${JSON.stringify(objects, null, 4)}\n`
  if (flags.format === 'json') return `${JSON.stringify(objects)}\n`
  const template = parseTemplate(flags.format)
  return objects.map((object) => `${template(object)}\n`).join('')
}

/** `3 minutes`, `About an hour`: docker's words. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000)
  if (seconds < 1) return 'Less than a second'
  if (seconds === 1) return '1 second'
  if (seconds < 60) return `${seconds} seconds`
  const minutes = Math.floor(seconds / 60)
  if (minutes === 1) return 'About a minute'
  if (minutes < 60) return `${minutes} minutes`
  const hours = Math.round(ms / 3_600_000)
  if (hours === 1) return 'About an hour'
  if (hours < 48) return `${hours} hours`
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`
  return `${Math.floor(hours / 24 / 365)} years`
}

/** `About an hour ago`. */
export function ago(time: string, nowMs: number): string {
  const ms = Date.parse(time)
  return Number.isNaN(ms) ? '' : `${humanDuration(Math.max(0, nowMs - ms))} ago`
}

/** An id as tables show it: its first 12 characters. */
export function shortId(id: string, noTrunc = false): string {
  return noTrunc ? id : id.slice(0, 12)
}

/** `1m30s` of nanoseconds, as Go prints a duration. */
export function formatDurationNs(ns: number): string {
  if (ns === 0) return '0s'
  if (Math.abs(ns) < 1e9) {
    if (Math.abs(ns) >= 1e6) return `${ns / 1e6}ms`
    return Math.abs(ns) >= 1e3 ? `${ns / 1e3}µs` : `${ns}ns`
  }
  const sign = ns < 0 ? '-' : ''
  const seconds = Math.abs(ns) / 1e9
  const hours = Math.floor(seconds / 3600)
  const minutes = Math.floor((seconds % 3600) / 60)
  const rest = Number((seconds % 60).toFixed(9))
  if (hours > 0) return `${sign}${hours}h${minutes}m${rest}s`
  return minutes > 0 ? `${sign}${minutes}m${rest}s` : `${sign}${rest}s`
}

/** `1.5GiB`, four digits, as docker prints. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`
}
