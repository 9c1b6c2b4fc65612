import { buffer } from 'node:stream/consumers'
import type { Command } from 'commander'
import { messageOf, UserError } from '../base/index.ts'
import type { ApiSecret } from './api.ts'
import { filtersQuery, openClient, parseFilters } from './client.ts'
import { type CliContext, checked, collect, Exit, newCommand } from './command.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { ago, type Column, formatInspect, formatList } from './output.ts'
import { inspectAll } from './service-command.ts'
import { pairs } from './service-spec.ts'

/** `skep secret` or `skep config`: they differ in what they hold, and what may be seen of it. */
export function buildDataCommand(context: CliContext, kind: 'secret' | 'config'): Command {
  const { io } = context
  const command = newCommand(
    kind,
    kind === 'secret' ? 'Secrets: data that only tasks see' : 'Configs: files of services',
  )
  const path = `/${kind}s`

  addListOptions(command.command('ls').alias('list').description(`List ${kind}s`)).action(
    async (flags: LsFlags) => {
      const query = filtersQuery(checked(() => parseFilters(flags.filter)))
      const client = await openClient(context)
      const found = await client.call<ApiSecret[]>(path, { query })
      const sorted = [...found].sort((a, b) =>
        a.Spec.Name.localeCompare(b.Spec.Name, 'en', { numeric: true }),
      )
      const columns: readonly Column<ApiSecret>[] = [
        { field: 'ID', header: 'ID', value: ({ ID }) => ID },
        { field: 'Name', header: 'NAME', value: ({ Spec }) => Spec.Name },
        ...(kind === 'secret'
          ? [
              {
                field: 'Driver',
                header: 'DRIVER',
                value: ({ Spec }: ApiSecret) => Spec.Driver?.Name ?? '',
              },
            ]
          : []),
        { field: 'CreatedAt', header: 'CREATED', value: (one) => ago(one.CreatedAt, io.nowMs()) },
        { field: 'UpdatedAt', header: 'UPDATED', value: (one) => ago(one.UpdatedAt, io.nowMs()) },
        {
          field: 'Labels',
          header: 'LABELS',
          value: ({ Spec }) =>
            Object.entries(Spec.Labels ?? {})
              .map(([key, value]) => `${key}=${value}`)
              .join(','),
          hidden: true,
        },
      ]
      io.stdout.write(
        checked(() =>
          formatList(sorted, columns, flags, { objects: sorted, quiet: ({ ID }) => ID }),
        ),
      )
    },
  )

  command
    .command('inspect')
    .argument(`<${kind}...>`)
    .description(kind === 'secret' ? 'Show secrets, but not their data' : 'Show configs whole')
    .option('-f, --format <template>', "json, or '{{.Spec.Name}}'")
    .option('--json', 'One JSON document, which is the default')
    .action(async (names: string[], flags: { format?: string }) => {
      const client = await openClient(context)
      const { objects, missing } = await inspectAll<ApiSecret>(client, io, names, `${kind}s`)
      io.stdout.write(checked(() => formatInspect(objects, flags)))
      if (missing) throw new Exit(1)
    })

  command
    .command('create')
    .argument('<name>')
    .argument('[file]', 'Where the data is; - or nothing: standard input')
    .description(`Create a ${kind}`)
    .option('-l, --label <label>', 'Label, key=value (may be repeated)', collect)
    .option('--template-driver <driver>', 'Driver that fills in templates: golang')
    .action(
      async (
        name: string,
        file: string | undefined,
        flags: { label?: readonly string[]; templateDriver?: string },
      ) => {
        const labels = checked(() => pairs('--label', flags.label ?? []))
        const isInput = file === undefined || file === '-'
        if (isInput && io.stdin.isTTY) {
          io.stderr.write(`Type the ${kind}'s data, and end it with Ctrl-D.\n`)
        }
        const data = isInput
          ? await buffer(io.stdin)
          : await io.readFile(file).catch((cause: unknown) => {
              throw new UserError('invalidInput', `cannot read ${file}: ${messageOf(cause)}`, {
                cause,
              })
            })
        const client = await openClient(context)
        const { ID } = await client.call<{ ID: string }>(`${path}/create`, {
          method: 'POST',
          body: {
            Name: name,
            Labels: labels,
            Data: data.toString('base64'),
            ...(flags.templateDriver && { Templating: { Name: flags.templateDriver } }),
          },
        })
        io.stdout.write(`${ID}\n`)
      },
    )

  command
    .command('rm')
    .alias('remove')
    .argument(`<${kind}...>`)
    .description(`Remove ${kind}s`)
    .action(async (names: string[]) => {
      const client = await openClient(context)
      let isFailed = false
      for (const name of names) {
        try {
          await client.call(`${path}/${encodeURIComponent(name)}`, { method: 'DELETE' })
          io.stdout.write(`${name}\n`)
        } catch (error) {
          isFailed = true
          io.stderr.write(`skep: ${messageOf(error)}\n`)
        }
      }
      if (isFailed) throw new Exit(1)
    })

  return command
}
