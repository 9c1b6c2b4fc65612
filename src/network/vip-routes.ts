import { UserError } from '../base/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import type { CommandResult } from './command.ts'
import { hostNamespace } from './namespace.ts'
import { parseList, textOf } from './overlay-state.ts'

/** Marks our routes among those of others. Any number that nobody else on a host uses will do. */
const protocol = '179'

/** Routes told to one process: each waits for a lock of the kernel, which others may hold. */
const linesAtOnce = 200

/** Prints what `parseVipRoutes` reads. */
export const vipRoutesCommand: readonly string[] = [
  ...['ip', '-j', '-4', 'route', 'show', 'table', 'local', 'proto', protocol],
]

/**
 * Routes by which a node answers for VIPs: who asks on a network's bridge for the link-layer address of a VIP is told the
 * bridge's own, so that the packet comes to where it is sent on. Each node answers its own containers.
 */
export class VipRoutes {
  /** As last told: `10.0.1.9 dev sk-…`. Undefined: it has to be looked at. */
  #applied: ReadonlySet<string> | undefined

  /** Makes the routes be those. What was told last is not told again. */
  async apply(wanted: ReadonlySet<string>, bridges: ReadonlySet<string>): Promise<void> {
    if (!this.#applied) {
      await this.repair(wanted, bridges)
      return
    }
    await this.#tell(changeRoutes(this.#applied, wanted), wanted)
  }

  /** Looks at what is there on these bridges, and puts it right. Resolves with what was not, in words. */
  async repair(
    wanted: ReadonlySet<string>,
    bridges: ReadonlySet<string>,
    listing?: CommandResult,
  ): Promise<readonly string[]> {
    const [program = '', ...args] = vipRoutesCommand
    const seen = listing ?? (await hostNamespace.run(program, args))
    const present = new Set(
      // Another data plane of this host has bridges of its own.
      parseVipRoutes(seen?.stdout ?? '').filter((route) =>
        bridges.has(route.slice(route.lastIndexOf(' ') + 1)),
      ),
    )
    const change = changeRoutes(present, wanted)
    await this.#tell(change, wanted)
    return change.length === 0
      ? []
      : [`${change.length} routes by which this node answers for VIPs were not as they should be`]
  }

  /** They go with their bridges. */
  forget(): void {
    this.#applied = undefined
  }

  async #tell(change: readonly string[], wanted: ReadonlySet<string>): Promise<void> {
    if (change.length > 0) this.#applied = undefined
    for (let start = 0; start < change.length; start += linesAtOnce) {
      const lines = change.slice(start, start + linesAtOnce)
      const result = await hostNamespace.run(
        'ip',
        ['-force', '-batch', '-'],
        `${lines.join('\n')}\n`,
      )
      const [first] = (result?.stderr ?? '')
        .split('\n')
        .filter((line) => line !== '' && !isHarmless(line))
      if (first !== undefined) {
        throw new UserError('internal', `the kernel did not take the routes of VIPs: ${first}`, {
          next: 'Check that the daemon runs as root.',
        })
      }
    }
    this.#applied = wanted
  }
}

/** A route that is gone, perhaps with its bridge, need not be taken away. */
function isHarmless(line: string): boolean {
  return /^Command failed|No such process|Cannot find device/.test(line)
}

/** The routes that these endpoints need on these networks. */
export function planVipRoutes(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
): ReadonlySet<string> {
  const bridgeByNetwork = new Map(networks.map(({ id }) => [id, bridgeName(id)]))
  const routes = new Set<string>()
  for (const { networks: places } of endpoints) {
    for (const { networkId, vip } of places) {
      const bridge = bridgeByNetwork.get(networkId)
      if (vip !== undefined && bridge !== undefined) routes.add(`${vip} dev ${bridge}`)
    }
  }
  return routes
}

/** Lines for `ip -batch`. */
export function changeRoutes(
  present: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): readonly string[] {
  const line = (verb: string, route: string) =>
    `route ${verb} local ${route} table local proto ${protocol}`
  return [
    ...[...present].filter((route) => !wanted.has(route)).map((route) => line('delete', route)),
    ...[...wanted].filter((route) => !present.has(route)).map((route) => line('replace', route)),
  ]
}

/** As `10.0.1.9 dev sk-…`. */
export function parseVipRoutes(json: string): readonly string[] {
  return parseList(json).flatMap((item) => {
    const address = textOf(item, 'dst')
    const device = textOf(item, 'dev')
    return address === '' || device === '' ? [] : [`${address} dev ${device}`]
  })
}
