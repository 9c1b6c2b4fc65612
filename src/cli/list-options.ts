import type { Command } from 'commander'
import { collect } from './command.ts'
import type { ListFlags } from './output.ts'

export interface LsFlags extends ListFlags {
  readonly filter?: readonly string[]
  readonly trunc?: boolean
}

/** `--format --json -q`, and `--filter`, `--no-trunc` of lists. */
export function addListOptions(command: Command, { filters = true } = {}): Command {
  command
    .option('--format <template>', "table, json, 'table {{.Name}}', or '{{.Name}}' for each row")
    .option('--json', "One JSON document of the API's own objects")
    .option('-q, --quiet', 'Only ids')
    .option('--no-trunc', 'Show ids and messages whole')
  if (filters) {
    command.option('-f, --filter <key=value>', 'Only what matches (may be repeated)', collect)
  }
  return command
}
