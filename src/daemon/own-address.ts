import { UserError } from '../base/index.ts'
import { chooseAdvertiseAddress, type HostAddress, hostAddresses } from './host-facts.ts'
import type { Identity } from './identity.ts'

/** What others reach a node by, as far as the node itself can tell. */
export interface OwnAddress {
  /** The same object where nothing is different. */
  readonly identity: Identity
  /** The address has gone, and nothing here says which one came in its place. It stays what it was. */
  readonly doubt?: UserError
}

/**
 * Decides what others are to reach this node by from now on. `wanted` is what the daemon was started with
 * (`--advertise-addr`; empty: nothing). Without it a node follows the one address of the interface that its address was on;
 * an address that was on none is translated on the way, and stays. Throws `invalidInput` where `wanted` names none. Pure.
 */
export function decideOwnAddress(
  identity: Identity,
  wanted: string,
  addresses: readonly HostAddress[] = hostAddresses(),
): OwnAddress {
  const { host, port } = splitAddress(identity.address)
  if (wanted !== '') {
    const chosen = chooseAdvertiseAddress(wanted, port, addresses)
    return { identity: withAddress(identity, chosen, addresses) }
  }
  const isHere = addresses.some(({ address }) => address === host)
  if (isHere || identity.interface === undefined)
    return { identity: withAddress(identity, { host, port }, addresses) }
  const [now, ...others] = addresses.filter((one) => one.interface === identity.interface)
  if (now && others.length === 0)
    return { identity: withAddress(identity, { host: now.address, port }, addresses) }
  return { identity, doubt: doubtOf(identity.interface, host, now ? [now, ...others] : []) }
}

function doubtOf(name: string, host: string, now: readonly HostAddress[]): UserError {
  const list = now.map(({ address }) => address).join(' and ')
  const has = now.length === 0 ? 'has no IPv4 address now' : `has several now (${list})`
  return new UserError(
    'failedPrecondition',
    `the address of this node, ${host}, is no longer on this host: ${name} ${has}`,
    { next: 'Start the daemon with --advertise-addr and what other nodes reach this host by.' },
  )
}

function withAddress(
  identity: Identity,
  { host, port }: { readonly host: string; readonly port: number },
  addresses: readonly HostAddress[],
): Identity {
  const before = splitAddress(identity.address).host
  const address = `${host}:${port}`
  const on = addresses.find((one) => one.address === host)?.interface
  const isSame = address === identity.address && (on === undefined || on === identity.interface)
  if (isSame) return identity
  const { interface: _, ...rest } = identity
  const listen = splitAddress(identity.listenAddress)
  return {
    ...rest,
    address,
    // What was bound to the address that has gone can only be bound to the one that came.
    ...(listen.host === before ? { listenAddress: `${host}:${listen.port}` } : {}),
    ...(identity.dataPathAddress === before ? { dataPathAddress: host } : {}),
    ...(on === undefined ? {} : { interface: on }),
  }
}

/** An address without its port. */
export function hostOf(address: string): string {
  return splitAddress(address).host
}

/** An address with its port. */
function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const at = address.lastIndexOf(':')
  return { host: address.slice(0, at), port: Number(address.slice(at + 1)) }
}
