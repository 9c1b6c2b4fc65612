import type { Command } from 'commander'
import { openClient } from './client.ts'
import { type CliContext, collect, Exit, newCommand } from './command.ts'

interface ApiNetworkReport {
  readonly Nodes: readonly {
    readonly ID: string
    readonly Name: string
    readonly DriftRepaired: number
    readonly MTU?: number
    readonly ClockAheadMs: number
  }[]
  readonly Findings: readonly {
    readonly Node: string
    readonly Network?: string
    readonly What: string
    readonly Next: string
  }[]
  readonly PathsTested: number
}

interface DoctorFlags {
  readonly node?: readonly string[]
  readonly network?: string
  readonly json?: boolean
}

/** `skep net`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const net = newCommand('net', 'The network between and on the nodes, as it really is')
  net
    .command('doctor')
    .description(
      'Look for what is wrong: ways between nodes, firewalls, packet sizes, rules, names, clocks',
    )
    .option('--node <node>', 'This node alone, and its ways to others (may be repeated)', collect)
    .option('--network <network>', 'What is about this network, or about all of them')
    .option('--json', 'One JSON document')
    .action(async (flags: DoctorFlags) => {
      const client = await openClient(context)
      const query = { nodes: (flags.node ?? []).join(','), network: flags.network }
      const report = await client.call<ApiNetworkReport>('/skep/v1/networks/doctor', {
        query,
        signal: io.signal,
      })
      io.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report))
      if (report.Findings.length > 0) throw new Exit(1)
    })
  return net
}

/** One line a node, then each finding with what to do. */
export function formatReport({ Nodes, Findings, PathsTested }: ApiNetworkReport): string {
  const lines = Nodes.map(({ Name, DriftRepaired, MTU, ClockAheadMs }) => {
    const facts = [
      ...(MTU === undefined ? [] : [`packets of ${MTU} bytes`]),
      `clock ${ClockAheadMs < 0 ? '-' : '+'}${Math.abs(ClockAheadMs)} ms`,
      `${DriftRepaired} ${DriftRepaired === 1 ? 'difference' : 'differences'} repaired since its daemon started`,
    ]
    return `${Name}: ${facts.join(', ')}`
  })
  lines.push(`${PathsTested} ways between nodes tested.`, '')
  for (const { Node, Network, What, Next } of Findings) {
    const where = Network === undefined ? Node : `${Node}, network ${Network}`
    lines.push(`${where}: ${What}.`, `  ${Next}`, '')
  }
  const count = Findings.length
  lines.push(
    count === 0 ? 'Nothing is wrong.' : `${count} ${count === 1 ? 'finding' : 'findings'}.`,
  )
  return `${lines.join('\n')}\n`
}
