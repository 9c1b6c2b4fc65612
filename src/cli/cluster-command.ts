import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { ApiSwarm } from './api.ts'
import { type Client, openClient } from './client.ts'
import { type CliContext, newCommand, usageError } from './command.ts'

const rebalanceLabel = 'skep.rebalance'
/** Pause between looks at moves under way, ms. */
const lookPauseMs = 1_000

interface ApiMove {
  readonly TaskID: string
  readonly Name: string
  readonly From: string
  readonly To: string
  readonly Because: string
}
interface ApiPlan {
  readonly Moves: readonly ApiMove[]
  readonly Skipped: readonly { readonly Service: string; readonly Because: string }[]
}

interface RebalanceFlags {
  readonly dryRun?: boolean
  readonly once?: boolean
  readonly json?: boolean
}

/** `skep cluster`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const cluster = newCommand('cluster', 'The cluster as a whole: how evenly it is used')
  cluster
    .command('rebalance')
    .argument('[on|off]', 'Keep the cluster even from now on, or no longer')
    .description(
      'Move tasks from full nodes to empty ones, slowly: each successor serves before its task stops',
    )
    .option('--dry-run', 'Say what would move and why, and change nothing')
    .option('--once', 'Even the cluster out now, and wait until it is')
    .option('--json', 'With --dry-run: one JSON document')
    .action(async (word: string | undefined, flags: RebalanceFlags) => {
      if (word !== undefined && word !== 'on' && word !== 'off') {
        throw usageError(`"${word}" is neither on nor off.`)
      }
      const wishes = [word, flags.dryRun, flags.once].filter((wish) => wish !== undefined)
      if (wishes.length !== 1) throw usageError('Say one of: on, off, --once, --dry-run.')
      const client = await openClient(context)
      if (word !== undefined) {
        await switchRebalance(client, word)
        io.stdout.write(
          word === 'on'
            ? `Rebalancing is on, but for services with the label ${rebalanceLabel}=off.\n`
            : `Rebalancing is off, but for services with the label ${rebalanceLabel}=on.\n`,
        )
        return
      }
      if (flags.dryRun) {
        const plan = await client.call<ApiPlan>('/skep/v1/rebalance', { query: { all: true } })
        io.stdout.write(flags.json ? `${JSON.stringify(plan, null, 2)}\n` : formatPlan(plan))
        return
      }
      let moved = 0
      for (;;) {
        io.signal.throwIfAborted()
        const { Moves, UnderWay } = await client.call<{
          Moves: readonly ApiMove[]
          UnderWay: number
        }>('/skep/v1/rebalance', { method: 'POST', signal: io.signal })
        for (const move of Moves) io.stdout.write(formatMove(move))
        moved += Moves.length
        if (UnderWay === 0) break
        await sleep(lookPauseMs, undefined, { signal: io.signal }).catch(() => {})
      }
      io.stdout.write(moved === 0 ? 'Nothing to move.\n' : `${movesWords(moved)} done.\n`)
    })
  return cluster
}

async function switchRebalance(client: Client, word: 'on' | 'off'): Promise<void> {
  const { Spec, Version } = await client.call<ApiSwarm>('/swarm')
  await client.call('/swarm/update', {
    method: 'POST',
    query: { version: Version.Index },
    body: { ...Spec, Labels: { ...labelsOf(Spec), [rebalanceLabel]: word } },
  })
}

function labelsOf(spec: unknown): object {
  return typeof spec === 'object' && spec !== null && 'Labels' in spec && spec.Labels
    ? Object(spec.Labels)
    : {}
}

function formatPlan({ Moves, Skipped }: ApiPlan): string {
  const skipped = Skipped.map(({ Service, Because }) => `${Service} stays: ${Because}.\n`)
  const end =
    Moves.length === 0
      ? 'Nothing to move.\n'
      : `${movesWords(Moves.length)}. Nothing was changed.\n`
  return [...Moves.map(formatMove), ...skipped, end].join('')
}

function formatMove({ Name, From, To, Because }: ApiMove): string {
  return `${Name}: ${From} -> ${To}, ${Because}\n`
}

function movesWords(count: number): string {
  return `${count} move${count === 1 ? '' : 's'}`
}
