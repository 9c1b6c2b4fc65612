import { UserError } from '../base/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { BridgeParts } from './bridge-parts.ts'
import { parseList, textOf } from './overlay-state.ts'

/** Marks our routes among those of others. Any number that nobody else on a host uses will do. */
const protocol = '179'

/** Prints what `parseVipRoutes` reads. */
export const vipRoutesCommand: readonly string[] = [
  ...['ip', '-j', '-4', 'route', 'show', 'table', 'local', 'proto', protocol],
]

/**
 * Routes by which a node answers for VIPs: who asks on a network's bridge for the link-layer address of a VIP is told the
 * bridge's own, so that the packet comes to where it is sent on. Each node answers its own containers.
 */
export function openVipRoutes(): BridgeParts {
  return new BridgeParts({
    listCommand: vipRoutesCommand,
    options: [],
    // Another data plane of this host has bridges of its own.
    read: (json, bridges) =>
      new Set(
        parseVipRoutes(json).filter((route) =>
          bridges.has(route.slice(route.lastIndexOf(' ') + 1)),
        ),
      ),
    change: changeRoutes,
    harmless: /^Command failed|No such process|Cannot find device/,
    refused: (line) =>
      new UserError('internal', `the kernel did not take the routes of VIPs: ${line}`, {
        next: 'Check that the daemon runs as root.',
      }),
    drift: (count) =>
      `${count} routes by which this node answers for VIPs were not as they should be`,
  })
}

/** The routes that these endpoints need on these networks. */
export function planVipRoutes(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
): ReadonlySet<string> {
  const ready = new Set(networks.map(({ id }) => id))
  const routes = new Set<string>()
  for (const { networks: places } of endpoints) {
    for (const place of places) {
      const route = ready.has(place.networkId) ? routeOf(place) : undefined
      if (route !== undefined) routes.add(route)
    }
  }
  return routes
}

type EndpointPlace = EndpointAssignment['networks'][number]

/** An endpoint is never changed, so its routes are worded once; one that nobody has any more is forgotten. */
const knownRoutes = new WeakMap<EndpointPlace, string>()

function routeOf(place: EndpointPlace): string | undefined {
  const { networkId, vip } = place
  if (vip === undefined) return undefined
  const known = knownRoutes.get(place)
  if (known !== undefined) return known
  const route = `${vip} dev ${bridgeName(networkId)}`
  knownRoutes.set(place, route)
  return route
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
