import { type HostDevice, type OverlayState, shapeOf } from './overlay-plan.ts'

/** What `parseOverlay` reads, in this order. */
export const overlayCommands: readonly (readonly string[])[] = [
  ['ip', '-j', '-d', 'link', 'show', 'type', 'vxlan'],
  ['ip', '-j', 'neigh', 'show', 'nud', 'permanent'],
  ['bridge', '-j', 'fdb', 'show'],
]

/** A VXLAN device of this host, whoever made it. */
export interface SeenOverlay extends OverlayState {
  readonly device: string
  readonly owner: string
}

/** By device. `outputs` are what `overlayCommands` printed; nothing printed is nothing there. */
export function parseOverlay(outputs: readonly string[]): ReadonlyMap<string, SeenOverlay> {
  const [links, neighbours, forwarding] = outputs.map(parseList)
  const byBridge = new Map<string, Map<string, string>>()
  for (const entry of neighbours ?? []) {
    const bridge = textOf(entry, 'dev')
    const ofBridge = byBridge.get(bridge) ?? new Map<string, string>()
    byBridge.set(bridge, ofBridge.set(textOf(entry, 'dst'), textOf(entry, 'lladdr')))
  }
  const destinations = new Map<string, Map<string, string>>()
  const forwarded = new Map<string, Set<string>>()
  for (const entry of forwarding ?? []) {
    const device = textOf(entry, 'ifname')
    const mac = textOf(entry, 'mac')
    const node = textOf(entry, 'dst')
    if (node !== '') {
      const ofDevice = destinations.get(device) ?? new Map<string, string>()
      destinations.set(device, ofDevice.set(mac, node))
    } else if (textOf(entry, 'master') !== '' && textOf(entry, 'state') === 'static') {
      const ofDevice = forwarded.get(device) ?? new Set<string>()
      forwarded.set(device, ofDevice.add(mac))
    }
  }
  return new Map(
    (links ?? []).map((link): [string, SeenOverlay] => {
      const device = textOf(link, 'ifname')
      const data = fieldOf(fieldOf(link, 'linkinfo'), 'info_data')
      const bridge = textOf(link, 'master')
      const shape = shapeOf({
        vni: Number(fieldOf(data, 'id')),
        port: Number(fieldOf(data, 'port')),
        local: textOf(data, 'local') || textOf(data, 'local6'),
        bridge,
      })
      const flags = fieldOf(link, 'flags')
      return [
        device,
        {
          device,
          owner: textOf(link, 'ifalias'),
          shape,
          mtu: Number(fieldOf(link, 'mtu')),
          isUp: Array.isArray(flags) && flags.includes('UP'),
          neighbours: byBridge.get(bridge) ?? new Map(),
          destinations: destinations.get(device) ?? new Map(),
          forwarded: forwarded.get(device) ?? new Set(),
        },
      ]
    }),
  )
}

/** Devices of the host that are up, with their IPv4 addresses: what `ip -j address show up` printed. */
export function parseDevices(json: string): readonly HostDevice[] {
  return parseList(json).flatMap((item) => {
    const name = textOf(item, 'ifname')
    // An empty object stands for each device that is down.
    if (name === '') return []
    const infos = fieldOf(item, 'addr_info')
    const addresses = (Array.isArray(infos) ? infos : [])
      .filter((info: unknown) => textOf(info, 'family') === 'inet')
      .map((info: unknown) => textOf(info, 'local'))
    return { name, mtu: Number(fieldOf(item, 'mtu')), mac: textOf(item, 'address'), addresses }
  })
}

/** Reads what `ip -j` printed: a list of objects. */
export function parseList(json: string): readonly unknown[] {
  try {
    const parsed: unknown = JSON.parse(json)
    return Array.isArray(parsed) ? parsed : []
  } catch {
    return [] // Nothing is printed where there is nothing.
  }
}

export function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

/** A text, or an empty one where there is none. */
export function textOf(value: unknown, name: string): string {
  const field = fieldOf(value, name)
  return typeof field === 'string' ? field : ''
}
