import tab from '@bomb.sh/tab/commander'
import type { Command } from 'commander'
import { stackLabel } from '../compose/index.ts'
import type { ApiNetwork, ApiNode, ApiSecret, ApiService } from './api.ts'
import { openClient } from './client.ts'
import type { CliContext } from './command.ts'

export const shells: readonly string[] = ['bash', 'zsh', 'fish']
/** Longest a TAB key waits for the daemon, ms. */
const lookUpMs = 1000

type Kind = 'service' | 'node' | 'secret' | 'config' | 'network' | 'stack'

/** Arguments that are names of things, by command. */
const namedArguments: readonly (readonly [string, Kind])[] = [
  ...['ps', 'inspect', 'update', 'rollback', 'revisions', 'rm', 'logs', 'scale'].map(
    (verb) => [`service ${verb}`, 'service'] as const,
  ),
  ...['ps', 'inspect', 'update', 'rm'].map((verb) => [`node ${verb}`, 'node'] as const),
  ...['inspect', 'rm'].map((verb) => [`secret ${verb}`, 'secret'] as const),
  ...['inspect', 'rm'].map((verb) => [`config ${verb}`, 'config'] as const),
  ...['inspect', 'rm'].map((verb) => [`network ${verb}`, 'network'] as const),
  ...['deploy', 'services', 'ps', 'rm'].map((verb) => [`stack ${verb}`, 'stack'] as const),
  ['explain', 'service'],
  ['exec', 'service'],
  ['port-forward', 'service'],
]

/**
 * Makes the program answer `complete -- …`, as the shells' scripts ask, and `complete bash|zsh|fish`, which prints such a script.
 * `words` are what is typed so far: they say which names to ask the daemon for.
 */
export async function addCompletion(
  program: Command,
  context: CliContext,
  words: readonly string[],
): Promise<void> {
  const root = tab(program)
  const wanted = namedArguments.find(([command]) => {
    const parts = command.split(' ')
    const typed = words.filter((word) => !word.startsWith('-'))
    return parts.every((part, index) => typed[index] === part) && typed.length > parts.length - 1
  })
  if (wanted === undefined) return
  const [command, kind] = wanted
  const names = await namesOf(context, kind)
  const suffix = command === 'service scale' ? '=' : ''
  const completed = root.commands.get(command)
  const argument = [...(completed?.arguments.values() ?? [])][0]
  if (completed === undefined || argument === undefined) return
  completed.argument(
    argument.name,
    (complete) => {
      for (const name of names) complete(`${name}${suffix}`, kind)
    },
    argument.variadic,
  )
}

/** Nothing where the daemon does not answer: a TAB key is no place for errors. */
async function namesOf(context: CliContext, kind: Kind): Promise<readonly string[]> {
  try {
    const client = await openClient(context)
    const signal = AbortSignal.timeout(lookUpMs)
    switch (kind) {
      case 'service':
        return (await client.call<ApiService[]>('/services', { signal })).map(
          ({ Spec }) => Spec.Name,
        )
      case 'stack': {
        const services = await client.call<ApiService[]>('/services', { signal })
        const names = services.map(({ Spec }) => Spec.Labels[stackLabel] ?? '')
        return [...new Set(names)].filter((name) => name !== '')
      }
      case 'node':
        return (await client.call<ApiNode[]>('/nodes', { signal })).map(
          ({ Description }) => Description.Hostname,
        )
      case 'network':
        return (await client.call<ApiNetwork[]>('/networks', { signal })).map(({ Name }) => Name)
      case 'secret':
      case 'config':
        return (await client.call<ApiSecret[]>(`/${kind}s`, { signal })).map(
          ({ Spec }) => Spec.Name,
        )
    }
  } catch {
    return []
  }
}
