import type { Command } from 'commander'
import { messageOf } from '../base/index.ts'
import type { ApiNetwork } from './api.ts'
import { filtersQuery, openClient, parseFilters } from './client.ts'
import { type CliContext, checked, collect, Exit, newCommand, usageError } from './command.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { type Column, formatInspect, formatList, shortId } from './output.ts'
import { inspectAll } from './service-command.ts'
import { pairs } from './service-spec.ts'

/** `skep network`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const network = newCommand('network', 'Networks: what services reach each other over')

  addListOptions(network.command('ls').alias('list').description('List networks')).action(
    async (flags: LsFlags) => {
      const query = filtersQuery(checked(() => parseFilters(flags.filter)))
      const client = await openClient(context)
      const networks = await client.call<ApiNetwork[]>('/networks', { query })
      const sorted = [...networks].sort((a, b) =>
        a.Name.localeCompare(b.Name, 'en', { numeric: true }),
      )
      const columns: readonly Column<ApiNetwork>[] = [
        {
          field: 'ID',
          header: 'NETWORK ID',
          value: ({ Id }) => shortId(Id, flags.trunc === false),
        },
        { field: 'Name', header: 'NAME', value: ({ Name }) => Name },
        { field: 'Driver', header: 'DRIVER', value: ({ Driver }) => Driver },
        { field: 'Scope', header: 'SCOPE', value: ({ Scope }) => Scope },
        {
          field: 'Internal',
          header: 'INTERNAL',
          value: (one) => String(one.Internal),
          hidden: true,
        },
        { field: 'CreatedAt', header: 'CREATED AT', value: ({ Created }) => Created, hidden: true },
      ]
      io.stdout.write(
        checked(() =>
          formatList(sorted, columns, flags, {
            objects: sorted,
            quiet: ({ Id }) => shortId(Id, flags.trunc === false),
          }),
        ),
      )
    },
  )

  network
    .command('inspect')
    .argument('<network...>')
    .description('Show networks whole')
    .option('-f, --format <template>', "json, or '{{.Name}}'")
    .option('-v, --verbose', 'With the services on it')
    .option('--scope <scope>', 'swarm or local')
    .option('--json', 'One JSON document, which is the default')
    .action(
      async (names: string[], flags: { format?: string; verbose?: boolean; scope?: string }) => {
        const client = await openClient(context)
        const { objects, missing } = await inspectAll<ApiNetwork>(client, io, names, 'networks', {
          ...(flags.verbose && { verbose: true }),
          ...(flags.scope && { scope: flags.scope }),
        })
        io.stdout.write(checked(() => formatInspect(objects, flags)))
        if (missing) throw new Exit(1)
      },
    )

  network
    .command('create')
    .argument('<name>')
    .description('Create a network')
    .option('-d, --driver <driver>', 'overlay reaches every node, bridge this one', 'overlay')
    .option('--attachable', 'Let plain containers join')
    .option('--internal', 'No way out')
    .option('--ingress', 'The network of published ports')
    .option('--ipv6', 'With IPv6 addresses')
    .option('--subnet <subnet>', 'As 10.9.0.0/24 (may be repeated)', collect)
    .option('--gateway <address>', "The subnet's gateway (may be repeated)", collect)
    .option('--ip-range <range>', 'Addresses that are given out (may be repeated)', collect)
    .option('--ipam-driver <driver>', 'Driver of addresses', 'default')
    .option('-o, --opt <name=value>', 'Option of the driver (may be repeated)', collect)
    .option('--label <label>', 'Label, key=value (may be repeated)', collect)
    .action(async (name: string, flags: NetworkFlags) => {
      const { subnet = [], gateway = [], ipRange = [] } = flags
      if (gateway.length > subnet.length || ipRange.length > subnet.length) {
        throw usageError('each --gateway and --ip-range belongs to a --subnet: name that too.')
      }
      const options = checked(() => pairs('--opt', flags.opt ?? []))
      const labels = checked(() => pairs('--label', flags.label ?? []))
      const client = await openClient(context)
      const answer = await client.call<{ Id: string; Warning?: string }>('/networks/create', {
        method: 'POST',
        body: {
          Name: name,
          Driver: flags.driver,
          Scope: '',
          Internal: flags.internal ?? false,
          Attachable: flags.attachable ?? false,
          Ingress: flags.ingress ?? false,
          ConfigOnly: false,
          ConfigFrom: null,
          ...(flags.ipv6 && { EnableIPv6: true }),
          IPAM: {
            Driver: flags.ipamDriver,
            Options: {},
            Config: subnet.map((text, index) => ({
              Subnet: text,
              ...(gateway[index] && { Gateway: gateway[index] }),
              ...(ipRange[index] && { IPRange: ipRange[index] }),
            })),
          },
          Options: options,
          Labels: labels,
        },
      })
      if (answer.Warning) io.stderr.write(`skep: warning: ${answer.Warning}\n`)
      io.stdout.write(`${answer.Id}\n`)
    })

  network
    .command('rm')
    .alias('remove')
    .argument('<network...>')
    .description('Remove networks')
    .action(async (names: string[]) => {
      const client = await openClient(context)
      let isFailed = false
      for (const name of names) {
        try {
          await client.call(`/networks/${encodeURIComponent(name)}`, { method: 'DELETE' })
          io.stdout.write(`${name}\n`)
        } catch (error) {
          isFailed = true
          io.stderr.write(`skep: ${messageOf(error)}\n`)
        }
      }
      if (isFailed) throw new Exit(1)
    })

  return network
}

interface NetworkFlags {
  readonly driver: string
  readonly attachable?: boolean
  readonly internal?: boolean
  readonly ingress?: boolean
  readonly ipv6?: boolean
  readonly subnet?: readonly string[]
  readonly gateway?: readonly string[]
  readonly ipRange?: readonly string[]
  readonly ipamDriver: string
  readonly opt?: readonly string[]
  readonly label?: readonly string[]
}
