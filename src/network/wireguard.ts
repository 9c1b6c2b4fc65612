import { createHash, createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, UserError } from '../base/index.ts'
import { hostNamespace } from './namespace.ts'

/** How this host can encrypt what goes between nodes, or in words why not. */
export type Encryption =
  | {
      readonly how: 'kernel' | 'userspace'
      /** base64 */
      readonly privateKey: string
      /** base64 */
      readonly publicKey: string
    }
  | { readonly how: 'none'; readonly why: string }

/** Another node at the end of a tunnel. */
export interface TunnelPeer {
  readonly publicKey: string
  /** Where it takes encrypted packets: an address of the host. */
  readonly endpoint: string
  /** Its address within the tunnel. */
  readonly address: string
}

export interface TunnelPlan {
  readonly device: string
  readonly address: string
  readonly listenPort: number
  readonly mtu: number
  readonly peers: readonly TunnelPeer[]
  /** VXLAN identifiers of encrypted networks, whose packets go through the tunnel alone, and their port. */
  readonly vnis: readonly number[]
  readonly dataPort: number
}

/** What WireGuard adds to a packet over IPv4, in bytes. Source: the WireGuard paper, section 5.4.6. */
export const tunnelOverheadBytes = 60
/** What VXLAN adds to a packet over IPv6, in bytes. */
export const innerOverheadBytes = 70

/** The tunnel's port is the one after that of cluster networks. */
export function tunnelPort(dataPort: number): number {
  return dataPort + 1
}

/** A device's name has at most 15 characters. */
export function tunnelDevice(nodeId: string): string {
  return `sw-${nodeId.slice(0, 10)}`
}

/**
 * A node's address within tunnels, which follows from its id: nobody has to give it out. Of the block for local use
 * (RFC 4193); every group has four digits, so there is one way to write it.
 */
export function tunnelAddress(nodeId: string): string {
  const bytes = createHash('sha256').update(nodeId).digest()
  const groups = [0, 2, 4, 6, 8].map((at) => (bytes.readUInt16BE(at) | 0x8000).toString(16))
  return ['fd73', '6b65', '7001', ...groups].join(':')
}

/** Finds out how this host can encrypt, and gives it a key: made here, and kept where only root reads it. */
export async function openEncryption(stateDir: string): Promise<Encryption> {
  try {
    const why = await whyNone()
    if (why !== undefined) return { how: 'none', why }
    const how = (await hasKernelModule()) ? 'kernel' : 'userspace'
    return { how, ...(await readOrMakeKey(join(stateDir, 'wireguard.key'), stateDir)) }
  } catch (error) {
    return { how: 'none', why: messageOf(error) }
  }
}

async function whyNone(): Promise<string | undefined> {
  if (!(await runs('wg', ['--version']))) return 'wg (package wireguard-tools) is not installed'
  const ipv6 = await readFile('/proc/sys/net/ipv6/conf/all/disable_ipv6', 'utf8').catch(() => '1')
  if (ipv6.trim() !== '0') return 'the host has IPv6 switched off, which tunnels use inside'
  if (await hasKernelModule()) return undefined
  if (await runs('wireguard-go', ['--version'])) return undefined
  return 'its kernel has no WireGuard, and wireguard-go is not installed'
}

async function runs(program: string, args: readonly string[]): Promise<boolean> {
  try {
    return (await hostNamespace.run(program, args))?.code === 0
  } catch (error) {
    if (error instanceof UserError && error.code === 'unsupported') return false
    throw error
  }
}

const probeDevice = 'sw-probe'

async function hasKernelModule(): Promise<boolean> {
  if (!(await runs('ip', ['link', 'add', probeDevice, 'type', 'wireguard']))) return false
  await runs('ip', ['link', 'del', probeDevice])
  return true
}

async function readOrMakeKey(path: string, folder: string) {
  const known = await readFile(path, 'utf8').catch(() => undefined)
  if (known !== undefined) return keysOf(Buffer.from(known.trim(), 'base64'))
  const { privateKey } = generateKeyPairSync('x25519')
  const bytes = Buffer.from(String(privateKey.export({ format: 'jwk' }).d), 'base64url')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await writeFile(path, `${bytes.toString('base64')}\n`, { mode: 0o600 })
  return keysOf(bytes)
}

/** What PKCS #8 puts before the 32 bytes of an X25519 key. Source: RFC 8410, section 7. */
const pkcs8Head = Buffer.from('302e020100300506032b656e04220420', 'hex')

function keysOf(privateBytes: Buffer): { readonly privateKey: string; readonly publicKey: string } {
  const key = createPrivateKey({
    key: Buffer.concat([pkcs8Head, privateBytes]),
    format: 'der',
    type: 'pkcs8',
  })
  const publicBytes = Buffer.from(String(key.export({ format: 'jwk' }).x), 'base64url')
  return {
    privateKey: privateBytes.toString('base64'),
    publicKey: publicBytes.toString('base64'),
  }
}

/** The encrypted ways from this node to others: one WireGuard device, and rules that keep plain packets from passing. */
export class Tunnel {
  readonly #encryption: Encryption
  readonly #table: string
  #applied = ''
  #plan: TunnelPlan | undefined
  /** As nft lists the rules. */
  #listing = ''

  constructor(encryption: Encryption, owner: string) {
    this.#encryption = encryption
    this.#table = `${owner}-plain`
  }

  /** As `apply`, before packets are sent as planned: what still may be sent as before is kept back, too. */
  async open(plan: TunnelPlan | undefined): Promise<void> {
    const before = this.#plan
    if (!before) await this.apply(plan)
    else if (plan) await this.apply({ ...plan, vnis: union(before.vnis, plan.vnis) })
  }

  /** Makes the tunnel be as planned; without a plan there is none. What was told last is not told again. */
  async apply(plan: TunnelPlan | undefined): Promise<void> {
    const text = JSON.stringify(plan ?? null)
    if (text === this.#applied || (!plan && this.#applied === '')) return
    this.#applied = ''
    await this.#make(plan)
    this.#applied = text
  }

  /** Looks at what is there, and puts it right. Resolves with what was not. */
  async repair(): Promise<readonly string[]> {
    const plan = this.#plan
    if (!plan) return []
    const found: string[] = []
    const listed = await hostNamespace.run('nft', ['list', 'table', 'inet', this.#table])
    if (listed?.code !== 0 || listed.stdout !== this.#listing) {
      found.push('the rules that keep plain packets of encrypted networks back had been changed')
    }
    const shown = await hostNamespace.run('wg', ['show', plan.device, 'peers'])
    const present = new Set((shown?.stdout ?? '').split('\n').filter((line) => line !== ''))
    const device = await hostNamespace.run('ip', ['-6', 'address', 'show', 'dev', plan.device])
    const isWhole =
      shown?.code === 0 &&
      plan.peers.every(({ publicKey }) => present.has(publicKey)) &&
      present.size === plan.peers.length &&
      (device?.stdout ?? '').includes(plan.address) &&
      /[<,]UP[,>]/.test(
        (await hostNamespace.run('ip', ['link', 'show', plan.device]))?.stdout ?? '',
      )
    if (!isWhole) found.push(`the tunnel ${plan.device} of encrypted networks was broken`)
    if (found.length > 0) await this.#make(plan)
    return found
  }

  async #make(plan: TunnelPlan | undefined): Promise<void> {
    const before = this.#plan
    if (!plan) {
      if (before) await hostNamespace.run('ip', ['link', 'del', before.device])
      await tell(
        'nft',
        ['-f', '-'],
        `table inet ${this.#table}\ndelete table inet ${this.#table}\n`,
      )
      this.#plan = undefined
      return
    }
    if (this.#encryption.how === 'none') {
      throw new UserError(
        'unsupported',
        `this node can't encrypt what it sends to others: ${this.#encryption.why}`,
        { next: 'Install wireguard-tools, and wireguard-go where the kernel has no WireGuard.' },
      )
    }
    // Before anything can be sent.
    await tell('nft', ['-f', '-'], renderPlainRules(this.#table, plan))
    const listed = await hostNamespace.run('nft', ['list', 'table', 'inet', this.#table])
    this.#listing = listed?.stdout ?? ''
    this.#plan = plan
    const { device, address, mtu } = plan
    const shown = await hostNamespace.run('ip', ['link', 'show', 'dev', device])
    if (shown?.code !== 0) {
      if (this.#encryption.how === 'kernel') {
        await tell('ip', ['link', 'add', device, 'type', 'wireguard'])
      } else {
        // It goes to the background by itself, and must not keep our pipes.
        await tell('sh', ['-c', 'exec wireguard-go "$0" >/dev/null 2>&1 </dev/null', device])
      }
    }
    // It opens its input by name, which does not go with the socket that Node.js gives a child.
    await tell(
      'sh',
      ['-c', 'cat | wg syncconf "$0" /dev/stdin', device],
      renderTunnel(plan, this.#encryption.privateKey),
    )
    await tell('ip', ['link', 'set', 'dev', device, 'mtu', `${mtu}`, 'addrgenmode', 'none'])
    await tell('ip', ['-6', 'address', 'replace', `${address}/128`, 'dev', device])
    await tell('ip', ['link', 'set', 'dev', device, 'up'])
    const routes = plan.peers.map((peer) => `route replace ${peer.address}/128 dev ${device}`)
    if (routes.length > 0) await tell('ip', ['-6', '-batch', '-'], `${routes.join('\n')}\n`)
  }
}

function union(one: readonly number[], other: readonly number[]): readonly number[] {
  return [...new Set([...one, ...other])].sort((a, b) => a - b)
}

/** What `wg syncconf` reads. By stdin: other users see arguments. */
export function renderTunnel({ listenPort, peers }: TunnelPlan, privateKey: string): string {
  return [
    '[Interface]',
    `PrivateKey = ${privateKey}`,
    `ListenPort = ${listenPort}`,
    ...peers.flatMap(({ publicKey, endpoint, address }) => [
      '[Peer]',
      `PublicKey = ${publicKey}`,
      `AllowedIPs = ${address}/128`,
      `Endpoint = ${endpoint}:${listenPort}`,
      // A node whose tunnel was made anew greets the others, who would send by the old one for 15 s.
      'PersistentKeepalive = 25',
    ]),
    '',
  ].join('\n')
}

/** Packets of encrypted networks neither leave nor come in by another way than the tunnel, whatever becomes of routes. */
export function renderPlainRules(table: string, { device, vnis, dataPort }: TunnelPlan): string {
  const vni = `udp dport ${dataPort} @th,96,24 { ${vnis.join(', ')} }`
  return [
    `table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    '  chain in {',
    '    type filter hook prerouting priority -320; policy accept;',
    `    iifname != "${device}" ${vni} drop`,
    '  }',
    '  chain out {',
    '    type filter hook postrouting priority 320; policy accept;',
    `    oifname != "${device}" ${vni} drop`,
    '  }',
    '}',
    '',
  ].join('\n')
}

async function tell(program: string, args: readonly string[], stdin?: string): Promise<void> {
  const result = await hostNamespace.run(program, args, stdin)
  if (result && result.code !== 0) {
    throw new UserError(
      'internal',
      `the tunnel of encrypted networks could not be made (${program}): ${result.stderr}`,
      { next: 'Nothing of encrypted networks is sent until it is.' },
    )
  }
}
