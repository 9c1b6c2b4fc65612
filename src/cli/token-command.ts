import type { Command } from 'commander'
import { parseDurationNs } from '../compose/index.ts'
import { openClient } from './client.ts'
import { type CliContext, checked, collect, newCommand } from './command.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { type Column, formatList } from './output.ts'
import { count, oneOf, pairs } from './service-spec.ts'

interface ApiToken {
  readonly ID: string
  readonly Role: string
  readonly Labels: Readonly<Record<string, string>>
  readonly CreatedAt: string
  readonly ExpiresAt?: string
  readonly UsesLeft?: number
}

interface CreateFlags {
  readonly role: string
  readonly label?: readonly string[]
  readonly ttl?: string
  readonly maxUses?: string
  readonly quiet?: boolean
}

/** `skep token`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const token = newCommand(
    'token',
    'Join tokens with bounds: until when, how often, with which labels',
  )

  token
    .command('create')
    .description('Make a join token; it is shown once')
    .option('--role <role>', 'worker or manager', 'worker')
    .option(
      '-l, --label <label>',
      'Label of the nodes that join with it (may be repeated)',
      collect,
    )
    .option('--ttl <duration>', 'How long it is taken, as 30m or 24h (default: for good)')
    .option('--max-uses <number>', 'How many nodes may join with it (default: any number)')
    .option('-q, --quiet', 'Only the token')
    .action(async (flags: CreateFlags) => {
      const body = checked(() => ({
        Role: oneOf('--role', flags.role, ['worker', 'manager']),
        Labels: pairs('--label', flags.label ?? []),
        LifeSeconds:
          flags.ttl === undefined ? 0 : Math.max(1, Math.round(parseDurationNs(flags.ttl) / 1e9)),
        UsesMax: flags.maxUses === undefined ? 0 : count('--max-uses', flags.maxUses),
      }))
      const client = await openClient(context)
      const made = await client.call<ApiToken & { readonly Token: string }>('/skep/v1/tokens', {
        method: 'POST',
        body,
      })
      if (flags.quiet) io.stdout.write(`${made.Token}\n`)
      else {
        io.stdout.write(
          `Join token ${made.ID} for ${made.Role}s${boundsOf(made)}. It is not shown again:\n\n    ${made.Token}\n`,
        )
      }
    })

  addListOptions(token.command('ls').alias('list').description('List join tokens'), {
    filters: false,
  }).action(async (flags: LsFlags) => {
    const client = await openClient(context)
    const tokens = await client.call<ApiToken[]>('/skep/v1/tokens')
    const columns: readonly Column<ApiToken>[] = [
      { field: 'ID', header: 'ID', value: ({ ID }) => ID },
      { field: 'Role', header: 'ROLE', value: ({ Role }) => Role },
      {
        field: 'Labels',
        header: 'LABELS',
        value: ({ Labels }) =>
          Object.entries(Labels)
            .map(([name, value]) => `${name}=${value}`)
            .join(','),
      },
      { field: 'ExpiresAt', header: 'EXPIRES AT', value: ({ ExpiresAt = 'never' }) => ExpiresAt },
      {
        field: 'UsesLeft',
        header: 'USES LEFT',
        value: ({ UsesLeft }) => (UsesLeft === undefined ? 'any' : String(UsesLeft)),
      },
      {
        field: 'CreatedAt',
        header: 'CREATED AT',
        value: ({ CreatedAt }) => CreatedAt,
        hidden: true,
      },
    ]
    io.stdout.write(
      checked(() => formatList(tokens, columns, flags, { objects: tokens, quiet: ({ ID }) => ID })),
    )
  })

  token
    .command('rm')
    .alias('remove')
    .argument('<id...>')
    .description('Remove join tokens: nobody joins with them any more')
    .action(async (ids: string[]) => {
      const client = await openClient(context)
      for (const id of ids) {
        await client.call(`/skep/v1/tokens/${encodeURIComponent(id)}`, { method: 'DELETE' })
        io.stdout.write(`${id}\n`)
      }
    })

  return token
}

function boundsOf({ ExpiresAt, UsesLeft }: ApiToken): string {
  const bounds = [
    ...(ExpiresAt === undefined ? [] : [`until ${ExpiresAt}`]),
    ...(UsesLeft === undefined ? [] : [`for ${UsesLeft} join${UsesLeft === 1 ? '' : 's'}`]),
  ]
  return bounds.length === 0 ? '' : `, ${bounds.join(', ')}`
}
