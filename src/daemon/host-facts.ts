import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { messageOf, UserError } from '../base/index.ts'

export interface HostAddress {
  readonly interface: string
  readonly address: string
  /** `192.168.1.5/24` */
  readonly cidr: string
}

/** Interfaces that engines and Skep make for containers: no address of the host's own. */
const madeForContainers = /^(docker|br-|sk-|veth|virbr|cni|flannel)/

/** IPv4 addresses of the host itself, loopback and container bridges left out. */
export function hostAddresses(): readonly HostAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    madeForContainers.test(name)
      ? []
      : (addresses ?? []).flatMap(({ family, internal, address, cidr }) =>
          family === 'IPv4' && !internal && cidr !== null
            ? [{ interface: name, address, cidr }]
            : [],
        ),
  )
}

/** Whether an address is one of this host's, whatever its interface. */
export function isOwnAddress(address: string): boolean {
  return Object.values(networkInterfaces()).some((on) => on?.some((one) => one.address === address))
}

/** Every network this host is on (CIDR, of both families), but for the cluster's own bridges: what cluster subnets must keep clear of. */
export function hostSubnets(isOwnBridge: (name: string) => boolean): readonly string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    isOwnBridge(name)
      ? []
      : (addresses ?? []).flatMap(({ internal, cidr }) =>
          !internal && cidr !== null && !cidr.startsWith('fe80:') ? [cidr] : [],
        ),
  )
}

/** For systemd to say whether the host goes down, in ms. A host that does is busy with it. */
const systemdMs = 5_000

/** Whether the whole host is being shut down or restarted, as systemd says; no where there is none. */
export function isHostStopping(program = 'systemctl'): Promise<boolean> {
  return new Promise((resolve) => {
    // It exits with another code than 0 for every state but `running`.
    execFile(program, ['is-system-running'], { timeout: systemdMs }, (_error, stdout) =>
      resolve(stdout.trim() === 'stopping'),
    )
  })
}

/** Name of the interface that the default route goes by, as `/proc/net/route` says. */
function defaultRouteInterface(): string | undefined {
  const lines = readFileSync('/proc/net/route', 'utf8').trim().split('\n').slice(1)
  return lines
    .map((line) => line.split('\t'))
    .find(([, destination]) => destination === '00000000')?.[0]
}

/** The address that `--data-path-addr` names: `<ip>` or `<interface>`. Throws `invalidInput` where it names none. */
export function chooseDataPathAddress(
  wanted: string,
  addresses: readonly HostAddress[] = hostAddresses(),
): string {
  if (wanted === '0.0.0.0' || wanted.includes(':')) {
    throw new UserError('invalidInput', `"${wanted}" is no address that packets can be sent to`, {
      next: 'Name one IPv4 address or interface of this host with --data-path-addr, without a port.',
    })
  }
  return chooseAdvertiseAddress(wanted, 0, addresses).host
}

/**
 * The address other nodes reach this one by. `wanted` is `<ip>`, `<ip>:<port>`, `<interface>` or empty.
 * Throws `invalidInput` when there is no such address or too many to choose from.
 */
export function chooseAdvertiseAddress(
  wanted: string,
  portDefault: number,
  addresses: readonly HostAddress[] = hostAddresses(),
  routeInterface: () => string | undefined = defaultRouteInterface,
): { readonly host: string; readonly port: number } {
  refuseIpv6(wanted)
  const match = /^(.*?)(?::(\d{1,5}))?$/.exec(wanted)
  const host = match?.[1] ?? ''
  const port = match?.[2] === undefined ? portDefault : Number(match[2])
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host) && host !== '0.0.0.0') return { host, port }
  if (host !== '' && host !== '0.0.0.0') {
    const own = addresses.filter((candidate) => candidate.interface === host)
    if (own.length === 1 && own[0]) return { host: own[0].address, port }
    throw new UserError(
      'invalidInput',
      own.length === 0
        ? `no address or interface of this host is called "${host}"`
        : `interface ${host} has more than one IPv4 address (${own.map(({ address }) => address).join(' and ')})`,
      { next: 'Name one address with --advertise-addr.' },
    )
  }
  const [first, ...others] = addresses
  if (first && others.length === 0) return { host: first.address, port }
  const name = routeInterface()
  const routed = addresses.filter((candidate) => candidate.interface === name)
  if (routed.length === 1 && routed[0]) return { host: routed[0].address, port }
  if (!first) return { host: '127.0.0.1', port }
  throw new UserError(
    'invalidInput',
    `could not choose an IP address to advertise since this system has multiple addresses on different interfaces (${addresses
      .map((candidate) => `${candidate.address} on ${candidate.interface}`)
      .join(' and ')}) - specify one with --advertise-addr`,
  )
}

/** An address of IPv6, with or without a port, has two colons at least. */
function refuseIpv6(wanted: string): void {
  if (!/:.*:/.test(wanted)) return
  throw new UserError(
    'invalidInput',
    `${wanted} is an address of IPv6: nodes speak IPv4 among each other`,
    {
      next: 'Name an IPv4 address of this host, or an interface that has one. Networks may have IPv6 inside all the same.',
    },
  )
}

const clusterPortDefault = 2377

/**
 * Where the cluster port listens. `wanted` is `<ip>`, `<ip>:<port>`, `<interface>` or `<interface>:<port>`.
 * Throws `invalidInput` when this host has no such address.
 */
export function chooseListenAddress(
  wanted: string,
  addresses: readonly HostAddress[] = hostAddresses(),
): { readonly host: string; readonly port: number } {
  refuseIpv6(wanted)
  const match = /^(.*?)(?::(\d{1,5}))?$/.exec(wanted)
  const host = match?.[1] || '0.0.0.0'
  const port = match?.[2] === undefined ? clusterPortDefault : Number(match[2])
  if (host === '0.0.0.0') return { host, port }
  return { host: chooseAdvertiseAddress(host, port, addresses).host, port }
}

/** The address with its port, free to listen on now; port 0 becomes a free one. Rejects with `failedPrecondition`. */
export async function findPort({
  host,
  port,
}: {
  readonly host: string
  readonly port: number
}): Promise<{ readonly host: string; readonly port: number }> {
  const server = createServer()
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host, resolve)
    })
    const bound = server.address()
    return { host, port: typeof bound === 'object' && bound ? bound.port : port }
  } catch (cause) {
    throw new UserError(
      'failedPrecondition',
      `the cluster port can't be opened on ${host}:${port}: ${messageOf(cause)}`,
      { next: 'End what listens there, or choose another address with --listen-addr.', cause },
    )
  } finally {
    server.close()
  }
}
